//! Signatures of what is sent, by the symmetric scheme of Standard Webhooks 1.0.
//!
//! What is signed is `ID.TIME.BODY`, with the HMAC-SHA256 of each key, so that a receiver can change to another key at any
//! time. Keys are written as `whsec_` and base64, and are read for each request.

use std::path::{Path, PathBuf};

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::{OutgoingError, blocking};
use crate::credentials::file::{MAX_SECRET_BYTES, read_text};
use crate::credentials::unix_now;

const PREFIX: &str = "whsec_";

/// The bytes of a key, as Standard Webhooks prescribes.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Signs with the keys of some files, all of them.
#[derive(Debug, Clone)]
pub(crate) struct Signer {
    key_files: Vec<PathBuf>,
}

impl Signer {
    pub(crate) fn new(key_files: &[PathBuf]) -> Self {
        Self { key_files: key_files.to_vec() }
    }

    /// Adds the headers of Standard Webhooks for a body that is sent now: `id` and time always, signatures if there are keys.
    ///
    /// # Errors
    /// A key cannot be read: nothing is sent with fewer signatures than the receiver expects.
    pub(crate) async fn add_headers(
        &self,
        headers: &mut HeaderMap,
        id: &str,
        body: &Bytes,
    ) -> Result<(), OutgoingError> {
        let time = unix_now().to_string();
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .map_err(|_| OutgoingError::Settings(format!("`{text}` cannot be the value of a header")))
        };
        headers.insert(ID, value(id)?);
        headers.insert(TIMESTAMP, value(&time)?);
        if !self.key_files.is_empty() {
            let (files, prefix, body) = (self.key_files.clone(), format!("{id}.{time}."), body.clone());
            let sign = move || {
                let signatures =
                    files.iter().map(|file| key(file).map(|key| signature(&key, &prefix, &body)));
                signatures.collect::<Result<Vec<String>, OutgoingError>>()
            };
            headers.insert(SIGNATURE, value(&blocking(sign).await?.join(" "))?);
        }
        Ok(())
    }
}

fn signature(key: &Key, prefix: &str, body: &[u8]) -> String {
    let mut context = Context::with_key(key);
    context.update(prefix.as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

fn key(file: &Path) -> Result<Key, OutgoingError> {
    let error = |cause| OutgoingError::File { file: file.display().to_string(), cause };
    let text = read_text(file, MAX_SECRET_BYTES).map_err(error)?;
    match key_bytes(&text) {
        Ok(bytes) => Ok(Key::new(HMAC_SHA256, &bytes)),
        Err(problem) => Err(error(problem.to_owned())),
    }
}

/// The key in a text.
///
/// # Errors
/// What is wrong with it, without any of it.
fn key_bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    let encoded = text.trim().strip_prefix(PREFIX).ok_or(
        "a key of Standard Webhooks begins with `whsec_`; make one by `echo \"whsec_$(openssl rand -base64 32)\"`",
    )?;
    let bytes = STANDARD.decode(encoded).map_err(|_| "what follows `whsec_` is not base64")?;
    if KEY_BYTES.contains(&bytes.len()) {
        Ok(bytes)
    } else {
        Err("a key of Standard Webhooks has 24 to 64 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference implementations.
    #[test]
    fn the_signature_is_that_of_the_reference_implementations() {
        let key = key_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed =
            signature(&Key::new(HMAC_SHA256, &key), "msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.", body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn another_text_is_not_a_key() {
        let with = |bytes: usize| key_bytes(&format!("whsec_{}", STANDARD.encode(vec![7; bytes]))).is_ok();
        assert_eq!([23, 24, 64, 65].map(with), [false, true, true, false]);
        for text in
            ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_a b"]
        {
            let problem = key_bytes(text).unwrap_err();
            assert!(text.is_empty() || !problem.contains(text), "{problem}");
        }
    }
}
