//! Reading a body within limits: bytes in flight are reserved before the first one is read.

use std::io::Read;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;

use super::Limits;
use super::error::Rejection;

/// A refused body is read up to this many times `max_body_bytes`.
const MAX_DISCARDED_BODIES: usize = 4;
/// And for this long.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// A body and the bytes that are reserved for it, until it is dropped.
pub(super) struct ReceivedBody {
    /// Decoded.
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
/// 413 too large, 415 an encoding other than gzip, 400 broken gzip, 503 too much at the same time or
/// too slow.
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
    // How much it will be is known for a plain body with its length only.
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
        Ok(Err(error)) => return Err(Rejection::unavailable(format!("the body broke off: {error}"))),
        Err(_) => {
            // Its time is over: nobody waits for the rest of it.
            *body = Body::empty();
            return Err(Rejection::unavailable("the body took longer than server.body_timeout"));
        }
    };
    let bytes = match encoding {
        Encoding::Identity => bytes,
        Encoding::Gzip => {
            let decoded = tokio::task::spawn_blocking(move || gunzip(&bytes, max_bytes)).await;
            decoded.map_err(|_| Rejection::unavailable("decoding was interrupted"))??
        }
    };
    Ok(ReceivedBody { bytes, _reserved: reserved })
}

/// Reads what is left of a body that was refused and forgets it, within bounds: a sender that is cut off
/// while it sends sees a broken connection instead of the answer.
pub(super) async fn discard(limits: &Limits, body: &mut Body) {
    let mut left = limits.server.max_body_bytes.saturating_mul(MAX_DISCARDED_BODIES);
    let read = async {
        while let Some(Ok(frame)) = body.frame().await
            && left > 0
        {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        }
    };
    // What does not come in time is cut off after all.
    drop(tokio::time::timeout(limits.server.body_timeout.min(DISCARD_TIMEOUT), read).await);
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Rejection> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let value = match (encodings.next(), encodings.next()) {
        (None, _) => return Ok(Encoding::Identity),
        (Some(one), None) => one.to_str().unwrap_or("?").trim().to_ascii_lowercase(),
        (Some(_), Some(_)) => "several encodings".to_owned(),
    };
    match value.as_str() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        other => {
            let text = format!("content-encoding `{other}` is not understood; send gzip or none");
            Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

fn gunzip(bytes: &[u8], max_bytes: usize) -> Result<Bytes, Rejection> {
    let mut decoded = Vec::new();
    let mut decoder = flate2::read::MultiGzDecoder::new(bytes).take(max_bytes as u64 + 1);
    if let Err(error) = decoder.read_to_end(&mut decoded) {
        return Err(Rejection::new(StatusCode::BAD_REQUEST, format!("the body is not gzip: {error}")));
    }
    if decoded.len() > max_bytes {
        let text = format!("the body has more than {max_bytes} bytes when decoded (server.max_body_bytes)");
        return Err(Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, text));
    }
    Ok(decoded.into())
}
