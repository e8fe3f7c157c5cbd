//! The body of a request: ends with an error if it arrives too slowly.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::exchange::Exchange;
use super::pace::Pace;

/// After this time a body must arrive at the lowest rate.
const START_WINDOW: Duration = Duration::from_secs(5);

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The sender is too slow.
    #[error("the body took longer than server.body_timeout, or arrived with less than 1 KiB per second")]
    TooSlow,
    /// The chunks are not framed correctly.
    #[error("the body is not framed correctly: {0}")]
    Malformed(String),
    /// The connection has ended.
    #[error("reading the body failed: {0}")]
    Interrupted(String),
}

/// A body that is waited for no longer than [`Pace`] allows.
pub(super) struct RequestBody {
    inner: Incoming,
    exchange: Arc<Exchange>,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    failed: bool,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, exchange: Arc<Exchange>, timeout: Duration) -> Self {
        Self { inner, exchange, pace: Pace::new(START_WINDOW, Some(timeout)), timer: None, failed: false }
    }

    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let deadline = self.pace.wait(Instant::now());
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(BodyError::TooSlow)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let read = match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(read) => read,
            Poll::Pending => {
                this.exchange.set_awaits_body(true);
                let error = ready!(this.poll_too_slow(cx));
                this.failed = true;
                return Poll::Ready(Some(Err(error)));
            }
        };
        this.exchange.set_awaits_body(false);
        match read {
            Some(Ok(frame)) => {
                this.pace.moved(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.failed = true;
                Poll::Ready(Some(Err(classify(&error))))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    /// Takes what has arrived already: a small body that the service does not need leaves the connection usable.
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut is_complete = self.inner.is_end_stream();
        while !is_complete && !self.failed {
            match Pin::new(&mut self.inner).poll_frame(&mut cx) {
                Poll::Ready(Some(Ok(_))) => is_complete = self.inner.is_end_stream(),
                Poll::Ready(None) => is_complete = true,
                Poll::Ready(Some(Err(_))) | Poll::Pending => break,
            }
        }
        self.exchange.end_body(is_complete);
    }
}

/// hyper reports chunks that it cannot decode as invalid input or data.
fn classify(error: &hyper::Error) -> BodyError {
    let causes = std::iter::successors(error.source(), |cause| <dyn std::error::Error>::source(*cause));
    let kind = causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind).next();
    let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    match kind {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => BodyError::Malformed(text),
        _ => BodyError::Interrupted(text),
    }
}
