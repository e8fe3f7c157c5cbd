//! Reads request bodies within limits: the bytes in flight are reserved before the first one is read.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;

use super::Limits;
use super::error::Rejection;

/// The rest of a rejected body is read up to this multiple of `max_body_bytes` ...
const MAX_DISCARDED_BODIES: usize = 4;
/// ... and for at most this time.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// A body; the bytes in flight that are reserved for it are released on drop.
pub(super) struct ReceivedBody {
    /// The decoded body.
    pub bytes: Bytes,
    _reserved: OwnedSemaphorePermit,
}

#[derive(PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

/// Reads and decodes a body.
///
/// # Errors
/// 413 if the body is too large, 415 for an encoding other than gzip, 400 for invalid gzip, 503 if too many bytes are in
/// flight or the body arrives too slowly.
pub(super) async fn receive(
    limits: &Limits,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<ReceivedBody, Rejection> {
    let encoding = encoding(headers)?;
    let max_bytes = limits.server.max_body_bytes;
    let too_large = || {
        let text = format!("the body has more than {max_bytes} bytes (server.max_body_bytes)");
        Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > max_bytes) {
        return Err(too_large());
    }
    // The decoded size is known in advance only for an unencoded body with a Content-Length.
    let reserve = length.filter(|_| encoding == Encoding::Identity).unwrap_or(max_bytes);
    let reserve = u32::try_from(reserve).unwrap_or(u32::MAX);
    let reserved = limits.bytes.clone().try_acquire_many_owned(reserve);
    let reserved = reserved
        .map_err(|_| Rejection::unavailable("too many bytes in flight (server.max_in_flight_bytes)"))?;
    let read =
        tokio::time::timeout(limits.server.body_timeout, Limited::new(&mut *body, max_bytes).collect());
    let bytes = match read.await {
        Ok(Ok(read)) => read.to_bytes(),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => return Err(too_large()),
        Ok(Err(error)) => return Err(Rejection::unavailable(format!("reading the body failed: {error}"))),
        Err(_) => {
            // Timed out: the rest is not read, not even to discard it.
            *body = Body::empty();
            return Err(Rejection::unavailable("the body took longer than server.body_timeout"));
        }
    };
    let bytes = match encoding {
        Encoding::Identity => bytes,
        Encoding::Gzip => {
            let decoded = tokio::task::spawn_blocking(move || gunzip(&bytes, max_bytes)).await;
            decoded.map_err(|_| Rejection::unavailable("decoding the body was interrupted"))??
        }
    };
    Ok(ReceivedBody { bytes, _reserved: reserved })
}

/// Reads and discards the rest of a rejected body, within bounds. Closing the connection while the sender is still
/// sending would make it see a connection error instead of the response.
pub(super) async fn discard(limits: &Limits, body: &mut Body) {
    let mut remaining_bytes = limits.server.max_body_bytes.saturating_mul(MAX_DISCARDED_BODIES);
    let read = async {
        while let Some(Ok(frame)) = body.frame().await
            && remaining_bytes > 0
        {
            remaining_bytes = remaining_bytes.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // After the timeout the connection is closed anyway.
    drop(tokio::time::timeout(limits.server.body_timeout.min(DISCARD_TIMEOUT), read).await);
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Rejection> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let value = match (encodings.next(), encodings.next()) {
        (None, _) => return Ok(Encoding::Identity),
        (Some(one), None) => one.to_str().unwrap_or("?").trim().to_ascii_lowercase(),
        (Some(_), Some(_)) => "multiple encodings".to_owned(),
    };
    match value.as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        other => {
            let text = format!("unsupported content-encoding `{other}`; use gzip or none");
            Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

fn gunzip(bytes: &[u8], max_bytes: usize) -> Result<Bytes, Rejection> {
    let mut decoded = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(bytes).take(max_bytes as u64 + 1);
    if let Err(error) = decoder.read_to_end(&mut decoded) {
        return Err(Rejection::new(StatusCode::BAD_REQUEST, format!("invalid gzip body: {error}")));
    }
    if decoded.len() > max_bytes {
        let text = format!("the body has more than {max_bytes} bytes when decoded (server.max_body_bytes)");
        return Err(Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(decoded.into())
}
