//! What the parts of one connection know of each other: the stream below hyper, the service above it, and the task that
//! runs both.

use parking_lot::Mutex;

use super::head::{Broken, Inspector};

/// The state of one connection. All of it is used by the task of the connection, so the lock is always free.
#[derive(Debug, Default)]
pub(super) struct Exchange(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    inspector: Inspector,
    /// Bytes read and written.
    moved: u64,
    /// Requests that hyper has handed to the service.
    requests: u64,
    /// The service has not answered the last one.
    is_handled: bool,
    awaits_body: bool,
    awaits_reader: bool,
    /// The service has answered, and the body has not arrived completely.
    has_unread_body: bool,
    stops: bool,
}

/// Whether the client is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// Bytes read and written.
    pub(super) moved: u64,
    /// The client must send the rest of a head or body.
    pub(super) awaits_request: bool,
    /// The client must read the response.
    pub(super) awaits_reader: bool,
}

impl Exchange {
    /// These bytes were received.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        state.moved = state.moved.wrapping_add(bytes.len() as u64);
        state.inspector.inspect(bytes);
    }

    /// As many bytes were sent.
    pub(super) fn sent(&self, bytes: usize) {
        let mut state = self.0.lock();
        state.moved = state.moved.wrapping_add(bytes as u64);
        state.awaits_reader = false;
    }

    /// The client does not read.
    pub(super) fn await_reader(&self) {
        self.0.lock().awaits_reader = true;
    }

    pub(super) fn set_awaits_body(&self, awaits: bool) {
        self.0.lock().awaits_body = awaits;
    }

    /// The service does not read the body any more.
    pub(super) fn end_body(&self, is_complete: bool) {
        let mut state = self.0.lock();
        state.awaits_body = false;
        state.has_unread_body = !is_complete;
    }

    /// The service has a request. Returns why it is not framed correctly.
    pub(super) fn begin(&self) -> Option<Broken> {
        let mut state = self.0.lock();
        state.requests += 1;
        state.is_handled = true;
        state.has_unread_body = false;
        state.inspector.broken(state.requests)
    }

    /// The service has answered. Returns whether the connection must end with the response.
    pub(super) fn answer(&self) -> bool {
        let mut state = self.0.lock();
        state.is_handled = false;
        state.has_unread_body || state.inspector.broken(state.requests).is_some()
    }

    /// The bridge stops.
    pub(super) fn stop(&self) {
        self.0.lock().stops = true;
    }

    /// Whether the client may still be sending when the connection ends: closing at once would discard the response.
    pub(super) fn must_linger(&self) -> bool {
        let state = self.0.lock();
        let is_complete = state.inspector.is_between_requests() && state.inspector.heads() == state.requests;
        !state.stops && !is_complete
    }

    pub(super) fn progress(&self) -> Progress {
        let state = self.0.lock();
        let within_head = !state.is_handled && state.inspector.is_within_head();
        Progress {
            moved: state.moved,
            awaits_request: state.awaits_body || (within_head && !state.awaits_reader),
            awaits_reader: state.awaits_reader,
        }
    }
}
