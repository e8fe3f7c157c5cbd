//! What a pattern says about each part of a subject.

use percent_encoding::percent_decode_str;
use scalebridge::domain::target::TargetKey;
use scalebridge::domain::target_pattern::TargetPattern;

/// The number of parts: platform, kind, account, region, cluster, namespace, name.
const COUNT: usize = 7;
/// Patterns with more `*` are taken for patterns of everything, since there are too many ways to read them.
const MAX_STARS: usize = 8;

/// A pattern for each part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts([String; COUNT]);

impl Parts {
    /// All ways to read a pattern, in which a `*` may also stand for separators: together they match at least what the
    /// pattern does. None if it matches no subject.
    pub(super) fn of(pattern: &TargetPattern) -> Vec<Self> {
        let pattern = pattern.as_str();
        let Some(missing) = (COUNT - 1).checked_sub(pattern.matches('/').count()) else { return Vec::new() };
        let pieces: Vec<&str> = pattern.split('*').collect();
        if pieces.len() > MAX_STARS + 1 {
            return vec![Self(std::array::from_fn(|_| "*".to_owned()))];
        }
        let mut found = Vec::new();
        let (first, rest) = (pieces[0], &pieces[1..]);
        read(first.to_owned(), rest, missing, &mut found);
        found
    }

    pub(super) fn has_platform(&self, platform: &str) -> bool {
        is_match(&self.0[0], platform)
    }

    pub(super) fn has_kind(&self, kind: &str) -> bool {
        is_match(&self.0[1], kind)
    }

    /// `None` is a target without an account.
    pub(super) fn has_account(&self, account: Option<&str>) -> bool {
        is_match(&self.0[2], account.unwrap_or("-"))
    }

    pub(super) fn has_region(&self, region: &str) -> bool {
        is_match(&self.0[3], region)
    }

    pub(super) fn has_cluster(&self, cluster: &str) -> bool {
        is_match(&self.0[4], &TargetKey::encode_part(cluster))
    }

    pub(super) fn kind(&self) -> &str {
        &self.0[1]
    }

    /// `None`: no target with a region.
    pub(super) fn region(&self) -> Option<String> {
        present(&self.0[3])
    }

    pub(super) fn cluster(&self) -> Option<String> {
        present(&self.0[4])
    }

    pub(super) fn namespace(&self) -> Option<String> {
        present(&self.0[5])
    }

    pub(super) fn name(&self) -> Option<String> {
        present(&self.0[6])
    }
}

/// Continues the text with `*` and the next piece, where the `*` stands for any number of the missing separators.
fn read(text: String, pieces: &[&str], missing: usize, found: &mut Vec<Parts>) {
    let Some((piece, rest)) = pieces.split_first() else {
        let parts: Vec<String> = text.split('/').map(str::to_owned).collect();
        // Otherwise separators are missing.
        found.extend(<[String; COUNT]>::try_from(parts).ok().map(Parts));
        return;
    };
    for separators in 0..=missing {
        let star = format!("*{}", "/*".repeat(separators));
        read(format!("{text}{star}{piece}"), rest, missing - separators, found);
    }
}

/// As it is written outside of subjects, where `*` means the same.
fn present(part: &str) -> Option<String> {
    (part != "-").then(|| percent_decode_str(part).decode_utf8_lossy().into_owned())
}

fn is_match(part: &str, text: &str) -> bool {
    TargetPattern::new(part).is_some_and(|pattern| pattern.covers(&TargetKey::from_stored(text)))
}
