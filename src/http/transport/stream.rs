//! The stream below hyper: inspects what arrives, ends a response that the client does not read, and closes so that a client which is
//! still sending sees the response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::exchange::Exchange;
use super::pace::Pace;

/// What is read of a client that is still sending after the last response, before the connection is closed ...
const MAX_DISCARDED_BYTES: usize = 64 << 20;
/// ... and for how long.
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Stream<S> {
    inner: S,
    exchange: Arc<Exchange>,
    /// Of writing.
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
    closing: CloseState,
}

enum CloseState {
    Open,
    /// The sending half is closed; so many bytes are still discarded.
    Lingers {
        remaining: usize,
    },
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream<S> {
    pub(super) fn new(inner: S, exchange: Arc<Exchange>, write_timeout: Duration) -> Self {
        let pace = Pace::new(write_timeout, None);
        Self { inner, exchange, pace, timer: None, closing: CloseState::Open }
    }

    fn written(&mut self, written: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(bytes) = written {
            self.exchange.sent(bytes);
            self.pace.moved(bytes);
        }
        Poll::Ready(written)
    }

    /// The client does not read: an error once it has used up its time.
    fn wait_for_reader<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        self.exchange.await_reader();
        let deadline = self.pace.wait(Instant::now());
        ready!(self.poll_timer(deadline, cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read the response")))
    }

    fn poll_timer(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }

    fn poll_discard(&mut self, mut remaining: usize, cx: &mut Context<'_>) -> Poll<()> {
        let mut buffer = [0; 16 * 1024];
        while remaining > 0 && self.exchange.must_linger() {
            let mut read = ReadBuf::new(&mut buffer);
            match Pin::new(&mut self.inner).poll_read(cx, &mut read) {
                Poll::Ready(Ok(())) if !read.filled().is_empty() => {
                    remaining = remaining.saturating_sub(read.filled().len());
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    self.closing = CloseState::Lingers { remaining };
                    let timer = self.timer.as_mut().map(|timer| timer.as_mut().poll(cx));
                    return timer.unwrap_or(Poll::Ready(()));
                }
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        this.exchange.received(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_write(cx, bytes) {
            Poll::Ready(written) => this.written(written),
            Poll::Pending => this.wait_for_reader(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_write_vectored(cx, bytes) {
            Poll::Ready(written) => this.written(written),
            Poll::Pending => this.wait_for_reader(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.inner).poll_flush(cx) {
            Poll::Ready(flushed) => {
                if this.pace.reset() {
                    this.exchange.sent(0);
                }
                Poll::Ready(flushed)
            }
            Poll::Pending => this.wait_for_reader(cx),
        }
    }

    /// Closes the sending half. Closing the whole connection while the client is still sending would discard what it
    /// has not read of the response, so the rest is read, within bounds.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let CloseState::Open = this.closing {
            match Pin::new(&mut this.inner).poll_shutdown(cx) {
                Poll::Ready(closed) => closed?,
                Poll::Pending => return this.wait_for_reader(cx),
            }
            this.closing = CloseState::Lingers { remaining: MAX_DISCARDED_BYTES };
            let end = Instant::now() + LINGER_TIMEOUT;
            this.timer = this.exchange.must_linger().then(|| Box::pin(tokio::time::sleep_until(end)));
        }
        if let CloseState::Lingers { remaining } = this.closing
            && this.timer.is_some()
        {
            ready!(this.poll_discard(remaining, cx));
        }
        Poll::Ready(Ok(()))
    }
}
