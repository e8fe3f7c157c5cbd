//! Reads request bodies within limits. Bytes are taken from a budget as they arrive and are decoded, so that a sender
//! which announces a large body, and sends none of it, takes nothing from the others.

use std::fmt;
use std::io::Write;

use axum::body::{Body, HttpBody as _};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;
use flate2::write::GzDecoder;
use http_body_util::BodyExt as _;

use super::Limits;
use super::auth::RefusedSender;
use super::error::Rejection;
use super::transport::{BodyError, HeldBytes};

/// A larger piece of a gzip body is decoded on a blocking thread.
const MAX_INLINE_DECODE_BYTES: usize = 4 * 1024;

/// The most members of a gzip body. Senders write one; each costs time, even if it is empty.
const MAX_GZIP_MEMBERS: usize = 64;

/// A body; the bytes in flight that it takes are released on drop.
pub(super) struct ReceivedBody {
    /// The decoded body.
    pub bytes: Bytes,
    _taken: HeldBytes,
}

/// Why a body cannot be read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// More than so many bytes.
    TooLarge(usize),
    /// More than so many bytes when decoded.
    DecodesTooLarge(usize),
    /// Too many bytes of all requests are in flight.
    NoBudget,
    /// Not gzip.
    Gzip(String),
    /// The sender, or the connection.
    Transport(BodyError),
    /// The process ends.
    Stopping,
}

impl ReadError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge(_) | Self::DecodesTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Gzip(_) | Self::Transport(BodyError::Malformed(_)) => StatusCode::BAD_REQUEST,
            Self::NoBudget | Self::Transport(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(max) => write!(f, "the body has more than {max} bytes"),
            Self::DecodesTooLarge(max) => write!(f, "the body has more than {max} bytes when decoded"),
            Self::NoBudget => f.write_str("too many bytes in flight (server.max_in_flight_bytes)"),
            Self::Gzip(error) => write!(f, "invalid gzip body: {error}"),
            Self::Transport(error) => error.fmt(f),
            Self::Stopping => f.write_str("decoding the body was interrupted"),
        }
    }
}

/// A body as it was sent, of a sender that is not known yet.
pub(super) struct SentBody {
    /// The body, encoded.
    pub bytes: Bytes,
    encoding: Encoding,
    taken: HeldBytes,
}

#[derive(PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

/// Reads and decodes the body of a notification.
///
/// # Errors
/// 413 if the body is too large, 415 for an encoding other than gzip, 400 for invalid gzip, 503 if too many bytes are in
/// flight or the body arrives too slowly.
pub(super) async fn receive(
    limits: &Limits,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<ReceivedBody, Rejection> {
    let max_bytes = limits.server.max_body_bytes;
    let taken = limits.bytes.take_nothing();
    let read = match encoding(headers)? {
        Encoding::Identity => read(body, max_bytes, taken).await,
        Encoding::Gzip => read_gzip(body, max_bytes, taken).await,
    };
    read.map_err(rejection)
}

/// Reads the body of a notification whose sender is known by a signature of it. Its bytes are a part of the budget, so that
/// strangers take nothing from senders that are known by their headers.
///
/// # Errors
/// As for [`receive`], but for what is found by decoding. If no bytes are left, it may be a notification that the bridge
/// could not accept, whoever has taken them.
pub(super) async fn receive_unverified(
    limits: &Limits,
    headers: &HeaderMap,
    body: &mut Body,
) -> Result<SentBody, RefusedSender> {
    let encoding = encoding(headers).map_err(|rejection| RefusedSender { rejection, leaves_gap: false })?;
    let read = read(body, limits.server.max_body_bytes, limits.unverified_bytes.take_nothing()).await;
    let refused = |error: ReadError| {
        let leaves_gap = matches!(error, ReadError::NoBudget);
        RefusedSender { rejection: rejection(error), leaves_gap }
    };
    let ReceivedBody { bytes, _taken: taken } = read.map_err(refused)?;
    Ok(SentBody { bytes, encoding, taken })
}

impl SentBody {
    /// Decodes the body, once its sender is known.
    ///
    /// # Errors
    /// As for [`receive`].
    pub(super) async fn decode(self, limits: &Limits) -> Result<ReceivedBody, Rejection> {
        let taken = self.taken.of_whole();
        if self.encoding == Encoding::Identity {
            return Ok(ReceivedBody { bytes: self.bytes, _taken: taken });
        }
        let mut body = Body::from(self.bytes);
        let decoded = limits.bytes.take_nothing();
        let read = read_gzip(&mut body, limits.server.max_body_bytes, decoded).await;
        drop(taken);
        read.map_err(rejection)
    }
}

fn rejection(error: ReadError) -> Rejection {
    let key = if error.status() == StatusCode::PAYLOAD_TOO_LARGE { " (server.max_body_bytes)" } else { "" };
    Rejection::new(error.status(), format!("{error}{key}"))
}

/// Reads a body that is not encoded, with bytes from the budget of `taken`.
///
/// # Errors
/// The body is too large, cannot be read, or no bytes are left.
pub(super) async fn read(
    body: &mut Body,
    max_bytes: usize,
    mut taken: HeldBytes,
) -> Result<ReceivedBody, ReadError> {
    check_length(body, max_bytes)?;
    // Nearly every body is one piece, which is not copied.
    let (mut first, mut all) = (Bytes::new(), Vec::new());
    let mut length = 0;
    while let Some(piece) = next_piece(body).await? {
        length += piece.len();
        if length > max_bytes {
            return Err(ReadError::TooLarge(max_bytes));
        }
        if !taken.take_more(piece.len()) {
            return Err(ReadError::NoBudget);
        }
        if length == piece.len() {
            first = piece;
        } else {
            if all.is_empty() {
                all.extend_from_slice(&std::mem::take(&mut first));
            }
            all.extend_from_slice(&piece);
        }
    }
    let bytes = if all.is_empty() { first } else { all.into() };
    Ok(ReceivedBody { bytes, _taken: taken })
}

async fn read_gzip(body: &mut Body, max_bytes: usize, taken: HeldBytes) -> Result<ReceivedBody, ReadError> {
    check_length(body, max_bytes)?;
    let decoded = Decoded { bytes: Vec::new(), max_bytes, taken, refused: None };
    let mut decoder = MemberDecoder { decoder: GzDecoder::new(decoded), members: 1 };
    let mut length = 0;
    while let Some(piece) = next_piece(body).await? {
        length += piece.len();
        if length > max_bytes {
            return Err(ReadError::TooLarge(max_bytes));
        }
        decoder = if piece.len() <= MAX_INLINE_DECODE_BYTES {
            decode(decoder, &piece)?
        } else {
            let decoding = tokio::task::spawn_blocking(move || decode(decoder, &piece));
            decoding.await.map_err(|_| ReadError::Stopping)??
        };
    }
    let decoded = decoder.finish()?;
    Ok(ReceivedBody { bytes: decoded.bytes.into(), _taken: decoded.taken })
}

fn check_length(body: &Body, max_bytes: usize) -> Result<(), ReadError> {
    // Without a Content-Length, the lower bound is 0.
    let length = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if length > max_bytes { Err(ReadError::TooLarge(max_bytes)) } else { Ok(()) }
}

/// The next bytes of the body that are not empty.
async fn next_piece(body: &mut Body) -> Result<Option<Bytes>, ReadError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let error = error.into_inner().downcast::<BodyError>();
            ReadError::Transport(
                error.map_or_else(|error| BodyError::Interrupted(error.to_string()), |error| *error),
            )
        })?;
        // Trailers are ignored.
        if let Ok(piece) = frame.into_data()
            && !piece.is_empty()
        {
            return Ok(Some(piece));
        }
    }
    Ok(None)
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

/// What is decoded, within the limit and the budget.
struct Decoded {
    bytes: Vec<u8>,
    max_bytes: usize,
    taken: HeldBytes,
    refused: Option<ReadError>,
}

impl Write for Decoded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let refused = if self.bytes.len() + bytes.len() > self.max_bytes {
            ReadError::DecodesTooLarge(self.max_bytes)
        } else if !self.taken.take_more(bytes.len()) {
            ReadError::NoBudget
        } else {
            self.bytes.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        self.refused = Some(refused);
        Err(std::io::ErrorKind::QuotaExceeded.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Decodes the members of a gzip body, which follow each other.
struct MemberDecoder {
    decoder: GzDecoder<Decoded>,
    members: usize,
}

impl MemberDecoder {
    fn write(&mut self, piece: &[u8]) -> Result<usize, ReadError> {
        let written = self.decoder.write(piece);
        self.check(written)
    }

    /// The end of a member.
    fn finish(mut self) -> Result<Decoded, ReadError> {
        // Writes what is decoded and not written yet.
        let finished = self.decoder.try_finish();
        self.check(finished)?;
        self.decoder.finish().map_err(|error| ReadError::Gzip(error.to_string()))
    }

    /// An error of the decoder is one of gzip, unless what it has decoded was refused.
    fn check<T>(&mut self, result: std::io::Result<T>) -> Result<T, ReadError> {
        result.map_err(|error| {
            let refused = self.decoder.get_mut().refused.take();
            refused.unwrap_or_else(|| ReadError::Gzip(error.to_string()))
        })
    }
}

fn decode(mut decoder: MemberDecoder, mut piece: &[u8]) -> Result<MemberDecoder, ReadError> {
    while !piece.is_empty() {
        let written = decoder.write(piece)?;
        piece = piece.get(written..).unwrap_or_default();
        // The decoder takes nothing more once its member is complete.
        if written == 0 {
            let members = decoder.members + 1;
            if members > MAX_GZIP_MEMBERS {
                return Err(ReadError::Gzip(format!("more than {MAX_GZIP_MEMBERS} members")));
            }
            decoder = MemberDecoder { decoder: GzDecoder::new(decoder.finish()?), members };
        }
    }
    Ok(decoder)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use hyper::body::Frame;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A body that arrives in these pieces.
    fn body(pieces: impl IntoIterator<Item = Vec<u8>, IntoIter: Send + 'static>) -> Body {
        struct Pieces<I>(I);
        impl<I: Iterator<Item = Vec<u8>> + Unpin> hyper::body::Body for Pieces<I> {
            type Data = Bytes;
            type Error = BodyError;
            fn poll_frame(
                self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<Frame<Bytes>, BodyError>>> {
                let next = self.get_mut().0.next();
                std::task::Poll::Ready(next.map(|piece| Ok(Frame::data(piece.into()))))
            }
        }
        Body::new(Pieces(pieces.into_iter().collect::<Vec<_>>().into_iter()))
    }

    fn limits(max_body_bytes: usize, max_in_flight_bytes: usize) -> Limits {
        let loaded = crate::kinds::load(
            &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/scalebridge.yaml"),
            [],
        );
        let server = loaded.unwrap().settings.server;
        Limits::new(&crate::config::Server { max_body_bytes, max_in_flight_bytes, ..server })
    }

    async fn received(limits: &Limits, mut body: Body, is_gzip: bool) -> Result<ReceivedBody, (u16, String)> {
        let mut headers = HeaderMap::new();
        if is_gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let received = receive(limits, &headers, &mut body).await;
        received.map_err(|rejection| (rejection.status().as_u16(), rejection.message().to_owned()))
    }

    /// Compressed or not, in one piece or many.
    fn forms(text: &[u8]) -> Vec<(Body, bool)> {
        let bytewise = |bytes: Vec<u8>| body(bytes.into_iter().map(|byte| vec![byte]).collect::<Vec<_>>());
        vec![
            (body([text.to_vec()]), false),
            (bytewise(text.to_vec()), false),
            (body([gzip(text)]), true),
            (bytewise(gzip(text)), true),
            (body([[gzip(&text[..1]), gzip(&text[1..])].concat()]), true),
        ]
    }

    #[tokio::test]
    async fn a_body_takes_its_decoded_bytes_until_it_is_dropped() {
        let text = &b"twelve bytes".repeat(100)[..];
        let limits = limits(text.len(), text.len());
        for (at, (body, is_gzip)) in forms(text).into_iter().enumerate() {
            let read = received(&limits, body, is_gzip).await.unwrap();
            assert_eq!(read.bytes, text, "{at}");
            for (body, is_gzip) in forms(text) {
                let (status, error) = received(&limits, body, is_gzip).await.err().unwrap();
                assert!(
                    status == 503 && error.contains("server.max_in_flight_bytes"),
                    "{at}: {status} {error}"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_whatever_its_length_says() {
        let text = vec![b' '; 100_000];
        for (body, is_gzip) in forms(&text) {
            let (status, error) =
                received(&limits(text.len() - 1, text.len()), body, is_gzip).await.err().unwrap();
            assert!(status == 413 && error.contains("server.max_body_bytes"), "{status} {error}");
        }
        let mut announced = Body::from(text.clone());
        let refused = receive(&limits(10, 10), &HeaderMap::new(), &mut announced).await;
        assert_eq!(refused.err().unwrap().status().as_u16(), 413);
        assert_eq!(announced.size_hint().exact(), Some(text.len() as u64), "nothing of it was read");
    }

    #[tokio::test]
    async fn the_members_of_a_gzip_body_are_limited() {
        let limits = limits(100_000, 100_000);
        let members = |count| body([gzip(b"").repeat(count - 1), gzip(b"a body")]);
        assert_eq!(received(&limits, members(MAX_GZIP_MEMBERS), true).await.unwrap().bytes, "a body");
        let (status, error) = received(&limits, members(MAX_GZIP_MEMBERS + 1), true).await.err().unwrap();
        assert!(status == 400 && error.contains("64 members"), "{status} {error}");
    }

    #[tokio::test]
    async fn invalid_gzip_is_refused() {
        let whole = gzip(b"a body");
        let mut damaged = whole.clone();
        let last = damaged.len() - 6;
        damaged[last] ^= 1;
        for bytes in [b"plain".to_vec(), whole[..whole.len() - 1].to_vec(), damaged, vec![]] {
            let refused = received(&limits(1000, 1000), body([bytes.clone()]), true).await;
            assert_eq!(refused.err().unwrap().0, 400, "{bytes:?}");
        }
    }
}
