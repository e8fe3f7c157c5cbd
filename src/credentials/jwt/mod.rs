//! JSON Web Tokens: signed with a key of a configured key set, of the configured issuer and audience, and not expired.
//!
//! Only asymmetric algorithms count, and a key has its own: a token chooses neither `none` nor HMAC with a public key as
//! its secret.

mod claims;
mod key_set;
mod keys;
mod remote;
mod token;

use std::sync::Arc;

pub(super) use claims::Claims;
pub(super) use key_set::KeySet;
use keys::Signature;
#[cfg(test)]
pub(super) use keys::VERIFICATIONS;
pub(super) use token::Token;

use super::AuthFailure;
use crate::config::access::JwtAuth;

/// What a token is checked against.
pub(super) struct Verifier {
    pub settings: JwtAuth,
    pub keys: Arc<KeySet>,
}

/// Why a token does not count.
#[derive(Debug)]
pub(super) enum Rejection {
    Invalid(AuthFailure),
    /// A valid token of a subject that is not accepted here.
    SubjectMismatch,
    /// The keys are not known. The text names the file or URL and the cause.
    Unavailable(Arc<str>),
    /// The key is unknown, and new keys cannot be fetched now.
    Busy,
}

impl Verifier {
    /// Checks a token at the time `now`, in seconds since 1970. Keys that are missing are fetched.
    pub(super) async fn verify<'t>(&self, token: &'t Token<'_>, now: i64) -> Result<&'t Claims, Rejection> {
        // First what costs nothing: the signature is only checked, and keys only fetched, for a token that counts.
        token.claims.check(&self.settings, now).map_err(Rejection::Invalid)?;
        let keys = self.keys.current().await?;
        let mut signature = token.signature_with(&keys);
        if matches!(signature, Signature::UnknownKey)
            && let Some(newer) = self.keys.newer_than(&keys).await?
        {
            signature = token.signature_with(&newer);
        }
        self.result(token, signature)
    }

    /// Like [`Self::verify`], with the keys that are there.
    pub(super) fn verify_cached<'t>(&self, token: &'t Token<'_>, now: i64) -> Option<&'t Claims> {
        token.claims.check(&self.settings, now).ok()?;
        self.result(token, token.signature_with(&self.keys.cached()?)).ok()
    }

    fn result<'t>(&self, token: &'t Token<'_>, signature: Signature) -> Result<&'t Claims, Rejection> {
        if !matches!(signature, Signature::Valid) {
            return Err(Rejection::Invalid(AuthFailure::InvalidToken));
        }
        if token.claims.has_subject(&self.settings.subjects) {
            Ok(&token.claims)
        } else {
            Err(Rejection::SubjectMismatch)
        }
    }
}
