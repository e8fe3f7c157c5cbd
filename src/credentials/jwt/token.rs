//! A token as presented, before its signature is checked.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::claims::Claims;
use super::keys::{Keys, Signature, Signed};
use crate::credentials::header::MAX_TOKEN_BYTES;

/// A token that can be read.
pub(in crate::credentials) struct Token<'t> {
    algorithm: Algorithm,
    /// The id of the key that it names.
    key_id: Option<String>,
    pub(super) claims: Claims,
    /// What is signed.
    message: &'t str,
    signature: &'t str,
    /// The key sets that the signature was checked with: many sources have the same one.
    checked: Mutex<Vec<(Arc<Keys>, Signature)>>,
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
    /// Checks the signature, once with each key set.
    pub(super) fn signature_with(&self, keys: &Arc<Keys>) -> Signature {
        let mut checked = self.checked.lock();
        if let Some((_, signature)) = checked.iter().find(|(known, _)| Arc::ptr_eq(known, keys)) {
            return *signature;
        }
        let signature = keys.verify(&Signed {
            algorithm: self.algorithm,
            key_id: self.key_id.as_deref(),
            message: self.message,
            signature: self.signature,
        });
        checked.push((keys.clone(), signature));
        signature
    }

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
        Some(Self {
            algorithm: header.alg,
            key_id: header.kid,
            claims,
            message,
            signature,
            checked: Mutex::default(),
        })
    }
}
