//! A token as presented, before its signature is checked.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claims::Claims;
use crate::credentials::header::MAX_TOKEN_BYTES;

/// A token that can be read.
#[derive(Debug)]
pub(in crate::credentials) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    /// The id of the key that it names.
    pub(super) key_id: Option<String>,
    pub(super) claims: Claims,
    /// What is signed.
    pub(super) message: &'t str,
    pub(super) signature: &'t str,
}

/// The parameters that matter. Keys that a token brings with it (`jwk`, `jku`, `x5c`, `x5u`) are ignored.
#[derive(Deserialize)]
struct TokenHeader {
    /// An unknown algorithm, `none` among them, is an error.
    alg: Algorithm,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<IgnoredAny>,
    b64: Option<IgnoredAny>,
}

impl<'t> Token<'t> {
    /// Whether a bearer token has the three parts of a JSON Web Token.
    pub(in crate::credentials) fn is_jwt(token: &[u8]) -> bool {
        token.iter().filter(|byte| **byte == b'.').count() == 2
    }

    /// Reads a token; `None` if it is too long or not a signed JSON Web Token.
    pub(in crate::credentials) fn read(token: &'t [u8]) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let token = std::str::from_utf8(token).ok()?;
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let part = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: TokenHeader = serde_json::from_slice(&part(header)?).ok()?;
        if header.crit.is_some() || header.b64.is_some() {
            return None;
        }
        let claims = Claims::new(serde_json::from_slice(&part(claims)?).ok()?);
        Some(Self { algorithm: header.alg, key_id: header.kid, claims, message, signature })
    }
}
