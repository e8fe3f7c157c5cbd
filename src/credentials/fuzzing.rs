//! Reads any bytes as the headers that carry credentials: for the fuzzer.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};

use super::header::{self, Authorization, MAX_TOKEN_BYTES};
use super::jwt::Token;

/// `bytes` is the value of `Authorization`; after a line break, that of a second one.
pub(crate) fn read_headers(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in bytes.splitn(2, |byte| *byte == b'\n') {
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(AUTHORIZATION, value);
        }
    }
    let read = header::authorization(&headers);
    assert!(headers.len() < 2 || read.is_err(), "which of two values counts must not be a matter of luck");
    match read {
        Ok(Authorization::Bearer(token)) => {
            let is_read = Token::read(token).is_some();
            assert!(!is_read || Token::is_jwt(token) && token.len() <= MAX_TOKEN_BYTES);
        }
        Ok(Authorization::Basic { user, .. }) => assert!(!user.contains(':')),
        Ok(Authorization::Missing | Authorization::Unknown) | Err(_) => {}
    }
}
