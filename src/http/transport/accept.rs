//! What the accept loop does when connections cannot be accepted, or are too many.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

/// Accepting works again if there was no error for so long after a pause. A file that is closed now and then lets in one
/// connection, and the next one fails.
const CALM: Duration = Duration::from_secs(1);

/// The first pause after an error, and the longest: a connection that waits is accepted soon after a file is closed.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// A change that is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Connections cannot be accepted.
    Failing(String),
    /// They can be accepted again.
    Accepting,
    /// There are as many as may be; new ones are closed.
    Full(usize),
    /// There are fewer again; so many were closed.
    NotFull(u64),
}

/// The state of an accept loop.
#[derive(Debug)]
pub(super) struct Accepting {
    max_connections: usize,
    /// The end of the pause after the last error, and its length, while accepting fails.
    failing: Option<(Instant, Duration)>,
    /// The connections that were closed, while there are too many.
    closed: Option<u64>,
}

impl Accepting {
    pub(super) fn new(max_connections: usize) -> Self {
        Self { max_connections, failing: None, closed: None }
    }

    /// Whether most of the connections that are allowed are open.
    pub(super) fn is_crowded(&self, open: usize) -> bool {
        open >= self.max_connections - self.max_connections / 8
    }

    /// A connection was accepted while so many were open. Returns whether it is served, and what has changed.
    pub(super) fn accepted(&mut self, open: usize, now: Instant) -> (bool, Option<Change>) {
        let recovered = self.failing.take_if(|(end, _)| now >= *end + CALM).map(|_| Change::Accepting);
        if open < self.max_connections {
            return (true, recovered);
        }
        let change = self.closed.is_none().then_some(Change::Full(self.max_connections));
        *self.closed.get_or_insert(0) += 1;
        (false, change.or(recovered))
    }

    /// Connections have ended, and so many are open.
    pub(super) fn ended(&mut self, open: usize) -> Option<Change> {
        if self.is_crowded(open) {
            return None;
        }
        self.closed.take().map(Change::NotFull)
    }

    /// Accepting has failed. Returns how long to wait, and what has changed.
    pub(super) fn failed(&mut self, error: &io::Error, now: Instant) -> (Option<Duration>, Option<Change>) {
        // The client has gone while its connection waited.
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            return (None, None);
        }
        let change = self.failing.is_none().then(|| Change::Failing(error.to_string()));
        let pause = self.failing.map_or(MIN_PAUSE, |(_, last)| (last * 2).min(MAX_PAUSE));
        self.failing = Some((now + pause, pause));
        (Some(pause), change)
    }
}

impl Change {
    /// Logs the change.
    pub(super) fn log(&self, listener: &str) {
        match self {
            Self::Failing(error) => {
                tracing::error!(listener, error, "connections cannot be accepted, retrying");
            }
            Self::Accepting => tracing::info!(listener, "connections are accepted again"),
            Self::Full(max_connections) => {
                tracing::warn!(
                    listener,
                    max_connections,
                    "too many connections (server.max_connections), new ones are closed"
                );
            }
            Self::NotFull(closed) => {
                tracing::info!(listener, closed, "new connections are accepted again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_logged_once_and_the_pauses_grow() {
        let mut accepting = Accepting::new(10);
        let start = Instant::now();
        let no_files = || io::Error::from_raw_os_error(24);
        let (first, change) = accepting.failed(&no_files(), start);
        assert_eq!((first, change), (Some(MIN_PAUSE), Some(Change::Failing(no_files().to_string()))));
        for _ in 0..100 {
            let (pause, change) = accepting.failed(&no_files(), start);
            assert!(pause > first && pause <= Some(MAX_PAUSE) && change.is_none());
            assert_eq!(accepting.accepted(0, start + MAX_PAUSE), (true, None), "it may fail again");
        }
        let calm = start + MAX_PAUSE + CALM;
        assert_eq!(accepting.accepted(0, calm), (true, Some(Change::Accepting)));
        assert_eq!(accepting.accepted(1, calm), (true, None));
        let gone = io::ErrorKind::ConnectionAborted.into();
        assert_eq!(accepting.failed(&gone, calm), (None, None));
        assert_eq!(accepting.failed(&no_files(), calm).0, first, "the pauses start again");
    }

    #[test]
    fn too_many_connections_are_logged_once_until_there_are_clearly_fewer() {
        let (mut accepting, now) = (Accepting::new(16), Instant::now());
        assert_eq!(accepting.accepted(15, now), (true, None));
        assert_eq!(accepting.accepted(16, now), (false, Some(Change::Full(16))));
        assert_eq!(accepting.ended(15), None);
        assert_eq!(accepting.accepted(15, now), (true, None));
        assert_eq!(accepting.accepted(16, now), (false, None));
        assert_eq!(accepting.ended(13), Some(Change::NotFull(2)));
        assert_eq!(accepting.accepted(16, now), (false, Some(Change::Full(16))));
        let mut one = Accepting::new(1);
        assert_eq!((one.accepted(0, now).0, one.accepted(1, now).0), (true, false));
        assert_eq!(one.ended(0), Some(Change::NotFull(1)));
    }
}
