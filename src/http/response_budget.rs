//! The bytes of responses that wait for their readers, of all requests of the admin listener together.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};

use super::HttpState;
use super::problem;
use super::transport::HeldBytes;

/// A smaller response is always sent: those of `status`, `/-/ready` and most errors.
const MAX_FREE_BYTES: u64 = 16 * 1024;

/// Refuses a large response while too many others are not read by their clients.
pub(super) async fn limit(State(shared): State<HttpState>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    // A stream has no length, and is sent as it arises.
    let length = response.body().size_hint().exact().unwrap_or(0);
    if length <= MAX_FREE_BYTES {
        return response;
    }
    match shared.admin_limits.responses.take(usize::try_from(length).unwrap_or(usize::MAX)) {
        Some(taken) => response.map(|body| Body::new(HeldBody { body, taken: Some(taken) })),
        None => {
            let text = "too many bytes of responses that are not read (server.max_in_flight_bytes)";
            problem::unavailable(text).into_response()
        }
    }
}

/// A body of one piece, whose bytes are taken from the budget until it is sent.
struct HeldBody {
    body: Body,
    taken: Option<HeldBytes>,
}

/// hyper drops a body with its last piece, and the piece when it is written.
struct HeldPiece {
    bytes: Bytes,
    _taken: Option<HeldBytes>,
}

impl AsRef<[u8]> for HeldPiece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let hold = |bytes| Bytes::from_owner(HeldPiece { bytes, _taken: this.taken.take() });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(hold))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
