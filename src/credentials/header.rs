//! The headers that carry credentials.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// The maximum length of a token, and of the user and password of basic authentication in base64.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Standard base64, with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What `Authorization` contains.
pub(super) enum Authorization<'r> {
    Missing,
    Bearer(&'r [u8]),
    Basic {
        user: String,
        password: Vec<u8>,
    },
    /// Another scheme, or not what its scheme prescribes.
    Unknown,
}

/// Two headers where one is allowed, or one that is too long. Which of two counts would be a matter of luck.
pub(super) struct Malformed;

/// The one value of the header `name`.
pub(super) fn single<'r>(headers: &'r HeaderMap, name: &str) -> Result<Option<&'r HeaderValue>, Malformed> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Malformed),
        (value, None) => Ok(value),
    }
}

/// Reads `Authorization`.
pub(super) fn authorization(headers: &HeaderMap) -> Result<Authorization<'_>, Malformed> {
    let Some(value) = single(headers, AUTHORIZATION.as_str())? else {
        return Ok(Authorization::Missing);
    };
    let value = value.as_bytes();
    let (scheme, rest) = value.split_at(value.iter().position(|byte| *byte == b' ').unwrap_or(value.len()));
    let rest = rest.trim_ascii();
    if rest.len() > MAX_TOKEN_BYTES {
        return Err(Malformed);
    }
    Ok(if rest.is_empty() {
        Authorization::Unknown
    } else if scheme.eq_ignore_ascii_case(b"bearer") {
        Authorization::Bearer(rest)
    } else if scheme.eq_ignore_ascii_case(b"basic") {
        basic(rest).unwrap_or(Authorization::Unknown)
    } else {
        Authorization::Unknown
    })
}

fn basic<'r>(encoded: &[u8]) -> Option<Authorization<'r>> {
    let decoded = BASE64.decode(encoded).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let user = String::from_utf8(decoded.get(..colon)?.to_vec()).ok()?;
    Some(Authorization::Basic { user, password: decoded.get(colon + 1..)?.to_vec() })
}

/// The value of `Authorization` for basic authentication.
pub(super) fn encode_basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
}
