//! The server's clock, as this process knows it between two questions.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use crate::domain::time::{ClockReading, Time};
use crate::store::clock::since_boot;

/// An estimate of the server's clock that never goes back. Decisions do not use it: they read the clock in their
/// transaction.
pub(super) struct ServerClock(Mutex<State>);

struct State {
    /// The server's clock at `boottime`.
    server: Time,
    boottime: Duration,
    /// The last time that was returned.
    last: Time,
}

impl ServerClock {
    /// The server's clock shows `server` now.
    pub(super) fn new(server: Time) -> Self {
        Self(Mutex::new(State { server, boottime: since_boot(), last: server }))
    }

    /// The server's clock shows `server` now.
    pub(super) fn set(&self, server: Time) {
        let mut state = self.0.lock();
        (state.server, state.boottime) = (server, since_boot());
    }

    /// The server's clock when it was last read.
    pub(super) fn last_set(&self) -> Time {
        self.0.lock().server
    }

    /// The server's clock has shown `server` at least.
    pub(super) fn advance(&self, server: Time) {
        let mut state = self.0.lock();
        let boottime = since_boot();
        if server > state.server.after(boottime.saturating_sub(state.boottime)) {
            (state.server, state.boottime) = (server, boottime);
        }
    }

    /// The current moment. Both clocks are the server's; `now` does not go back if it does.
    pub(super) fn read(&self) -> ClockReading {
        let mut state = self.0.lock();
        let wall = state.server.after(since_boot().saturating_sub(state.boottime));
        state.last = state.last.max(wall);
        ClockReading { now: state.last, wall }
    }
}

/// The wall clock of this machine. Nothing is decided by it: it is compared with the server's.
pub(super) fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
