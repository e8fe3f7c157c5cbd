//! The claims of a token.

use serde_json::{Map, Value};

use crate::config::access::JwtAuth;
use crate::credentials::AuthFailure;

/// How far the clocks of the issuer and of this machine may differ: as Kubernetes and most libraries allow, and short
/// beside the ten minutes that the shortest projected token lives.
const LEEWAY_SECONDS: i64 = 60;

/// The maximum length of a name that becomes an actor.
const MAX_NAME_BYTES: usize = 256;

/// The claims of a token, whose signature may not have been checked.
#[derive(Debug)]
pub(in crate::credentials) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// Checks issuer, audience and times.
    pub(super) fn check(&self, settings: &JwtAuth, now: i64) -> Result<(), AuthFailure> {
        let is_of_issuer = self.text("iss") == Some(&settings.issuer);
        let has_audience =
            self.texts("aud").any(|audience| settings.audience.iter().any(|own| own == audience));
        if !is_of_issuer || !has_audience {
            return Err(AuthFailure::InvalidToken);
        }
        let expires_at = self.seconds("exp")?.ok_or(AuthFailure::InvalidToken)?;
        let not_before = self.seconds("nbf")?.unwrap_or(i64::MIN);
        if now >= expires_at.saturating_add(LEEWAY_SECONDS) || now.saturating_add(LEEWAY_SECONDS) < not_before
        {
            return Err(AuthFailure::Expired);
        }
        Ok(())
    }

    /// Whether `sub` matches one of the patterns, or there are none.
    pub(super) fn has_subject(&self, patterns: &[String]) -> bool {
        patterns.is_empty()
            || self
                .text("sub")
                .is_some_and(|subject| patterns.iter().any(|pattern| matches(pattern, subject)))
    }

    /// Whether the claim `groups` contains one of these, or there are none.
    pub(in crate::credentials) fn has_group(&self, groups: &[String]) -> bool {
        groups.is_empty() || self.texts("groups").any(|group| groups.iter().any(|accepted| accepted == group))
    }

    /// The claim as the name of an actor.
    pub(in crate::credentials) fn name(&self, claim: &str) -> Option<&str> {
        let name = self.text(claim)?;
        let is_name =
            !name.trim().is_empty() && name.len() <= MAX_NAME_BYTES && !name.chars().any(char::is_control);
        is_name.then_some(name)
    }

    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.0.get(claim)?.as_str()
    }

    /// The texts of a claim that is a text or a list of texts.
    fn texts(&self, claim: &str) -> impl Iterator<Item = &str> {
        let value = self.0.get(claim);
        let list = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        value.and_then(Value::as_str).into_iter().chain(list.iter().filter_map(Value::as_str))
    }

    /// A time, rounded down; an error if it is not a number.
    fn seconds(&self, claim: &str) -> Result<Option<i64>, AuthFailure> {
        let Some(value) = self.0.get(claim) else { return Ok(None) };
        let number = value.as_f64().filter(|number| number.is_finite()).ok_or(AuthFailure::InvalidToken)?;
        // The conversion saturates.
        Ok(Some(value.as_i64().unwrap_or(number.floor() as i64)))
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text.strip_prefix(start).and_then(|text| text.strip_suffix(end));
    let Some(mut left) = inner else { return false };
    middle.split('*').all(|part| match left.find(part) {
        Some(at) => {
            left = left.get(at + part.len()..).unwrap_or_default();
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_star_in_a_subject_stands_for_any_characters() {
        let subject = "system:serviceaccount:monitoring:alertmanager";
        for pattern in
            ["*", "system:*", "*:alertmanager", "system:*:monitoring:*", subject, "*mon*man*", "**"]
        {
            assert!(super::matches(pattern, subject), "{pattern}");
        }
        for pattern in ["", "system", "*:alert", "system:*:other:*", "system:*:*:*:*", "alert*system"] {
            assert!(!super::matches(pattern, subject), "{pattern}");
        }
        assert!(!super::matches("ab*ba", "aba"), "parts do not overlap");
    }
}
