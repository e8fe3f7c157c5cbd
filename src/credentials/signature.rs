//! Signatures of bodies, as Grafana's webhook contact point makes them.
//!
//! The signature is the HMAC-SHA256 of the body, in hexadecimal. If the sender sends a time, it signs the time, a colon and
//! the body. What is signed is the body as it is sent: one in gzip is verified before it is decoded.
//!
//! The headers are checked before a body is read: a stranger who does not know a time within the tolerance, or does not send
//! a signature at all, costs no more than without signatures.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use axum::http::HeaderMap;
use bytes::Bytes;
use subtle::{Choice, ConstantTimeEq as _};

use super::AuthFailure;
use super::file::{FileError, MAX_AGE, SecretFile};
use super::header::single;
use crate::config::access::HmacTimestamp;

/// The bytes of an HMAC-SHA256.
const TAG_BYTES: usize = 32;

/// A larger body is verified on a thread for blocking calls.
const MAX_INLINE_BYTES: usize = 256 * 1024;

/// More digits are not a time in this millennium.
const MAX_TIME_DIGITS: usize = 12;

/// A key that senders sign with. Any text is one, and all of it counts but white space at both ends.
pub(super) struct VerifyingKey(Key);

impl VerifyingKey {
    #[expect(clippy::unnecessary_wraps, reason = "the parser of a secret file")]
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Ok(Self(Key::new(HMAC_SHA256, text.as_bytes())))
    }

    fn matches(&self, signed: &Signed, body: &[u8]) -> Choice {
        let mut context = Context::with_key(&self.0);
        if let Some(time) = &signed.time {
            context.update(time.as_bytes());
            context.update(b":");
        }
        context.update(body);
        context.sign().as_ref().ct_eq(&signed.tag)
    }
}

pub(super) type KeyFile = Arc<SecretFile<VerifyingKey>>;

/// How the bodies of a source are signed.
pub(super) struct Signatures {
    pub keys: Vec<KeyFile>,
    pub header: String,
    pub timestamp: Option<HmacTimestamp>,
}

/// What a request says about its signature.
struct Signed {
    tag: [u8; TAG_BYTES],
    /// The time as it was sent.
    time: Option<String>,
}

impl Signatures {
    /// Whether a request has a signature, valid or not.
    pub(super) fn is_presented(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(&self.header)
    }

    /// The signature in the headers of a request at `now`. Its body decides whether it is valid.
    pub(super) fn read(&self, headers: &HeaderMap, now: i64) -> Result<ClaimedSignature, AuthFailure> {
        let value = |name: &str, missing| {
            let value = single(headers, name).map_err(|_| AuthFailure::Malformed)?.ok_or(missing)?;
            value.to_str().map(str::trim).map_err(|_| AuthFailure::Malformed)
        };
        let tag = value(&self.header, AuthFailure::Missing)?;
        let tag = decode_hex(tag.as_bytes()).ok_or(AuthFailure::Malformed)?;
        let time = self.timestamp.as_ref().map(|timestamp| {
            let text = value(&timestamp.header, AuthFailure::MissingTimestamp)?;
            let time = parse_time(text).ok_or(AuthFailure::Malformed)?;
            let is_near = Duration::from_secs(now.abs_diff(time)) <= timestamp.tolerance;
            if is_near { Ok(text.to_owned()) } else { Err(AuthFailure::Expired) }
        });
        let signed = Signed { tag, time: time.transpose()? };
        Ok(ClaimedSignature { keys: self.keys.clone(), signed: Arc::new(signed) })
    }
}

/// A signature that has not been compared with the body of its request.
pub(super) struct ClaimedSignature {
    keys: Vec<KeyFile>,
    signed: Arc<Signed>,
}

impl ClaimedSignature {
    /// Whether one of the keys has signed this body. All keys are tried, whichever matches.
    ///
    /// # Errors
    /// A key that cannot be read: it might be the one.
    pub(super) async fn verify(&self, body: &Bytes) -> Result<bool, FileError> {
        let (keys, _) = self.keys(MAX_AGE).await;
        if self.is_by(&keys, body).await {
            return Ok(true);
        }
        // Before a request is denied, the files are looked at again.
        let (newer, error) = self.keys(Duration::ZERO).await;
        let is_known = |key: &Arc<VerifyingKey>| keys.iter().any(|known| Arc::ptr_eq(known, key));
        let newer: Vec<_> = newer.into_iter().filter(|key| !is_known(key)).collect();
        if !newer.is_empty() && self.is_by(&newer, body).await {
            return Ok(true);
        }
        error.map_or(Ok(false), Err)
    }

    /// The keys that can be read, whose files were looked at within `max_age`, and why another one cannot.
    async fn keys(&self, max_age: Duration) -> (Vec<Arc<VerifyingKey>>, Option<FileError>) {
        let (mut keys, mut error) = (Vec::with_capacity(self.keys.len()), None);
        for file in &self.keys {
            match file.current(max_age).await {
                Ok(key) => keys.push(key),
                Err(cause) => error = error.or(Some(cause)),
            }
        }
        (keys, error)
    }

    async fn is_by(&self, keys: &[Arc<VerifyingKey>], body: &Bytes) -> bool {
        let (keys, signed, body) = (keys.to_vec(), self.signed.clone(), body.clone());
        let is_large = body.len() > MAX_INLINE_BYTES;
        let compare = move || {
            let found = keys.iter().fold(Choice::from(0), |found, key| found | key.matches(&signed, &body));
            bool::from(found)
        };
        if is_large {
            // Only the end of the process interrupts it.
            return tokio::task::spawn_blocking(compare).await.unwrap_or(false);
        }
        compare()
    }
}

/// Hexadecimal digits of exactly one tag.
fn decode_hex(text: &[u8]) -> Option<[u8; TAG_BYTES]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut tag = [0; TAG_BYTES];
    if text.len() != 2 * TAG_BYTES {
        return None;
    }
    for (byte, pair) in tag.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(tag)
}

/// Seconds since 1970, in digits only: what is signed is the text, and another spelling would be another text.
fn parse_time(text: &str) -> Option<i64> {
    let is_time =
        (1..=MAX_TIME_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_time.then(|| text.parse().ok()).flatten()
}
