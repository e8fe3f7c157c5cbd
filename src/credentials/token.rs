//! Bearer tokens, compared by their hashes.

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::header::MAX_TOKEN_BYTES;

/// The SHA-256 of a bearer token. Hashes are compared, so that neither the length nor the content of a token has an
/// influence on the time.
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// The token in the text of a file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|character| character.is_whitespace() || character.is_control()) {
            return Err(
                "a token contains no white space and no control characters; write one token into the file"
                    .to_owned(),
            );
        }
        if text.len() > MAX_TOKEN_BYTES {
            return Err(format!("the token is longer than {} KiB", MAX_TOKEN_BYTES / 1024));
        }
        Ok(Self::of(text.as_bytes()))
    }

    /// Compares two tokens, in constant time.
    pub(super) fn matches(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}
