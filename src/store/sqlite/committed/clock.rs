//! The store's clock and the id of the last committed event: set by the writer, read by all threads.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::domain::time::Time;
use crate::store::WallClock;
use crate::store::clock::Clock;

pub(crate) struct SharedClock {
    wall: WallClock,
    started: Instant,
    clock: Mutex<Clock>,
    pub(crate) last_event: AtomicI64,
}

impl SharedClock {
    pub(crate) fn start(wall: WallClock, last_stored: Option<Time>) -> Self {
        let clock = Clock::start(wall(), last_stored, Duration::ZERO);
        Self { wall, started: Instant::now(), clock: Mutex::new(clock), last_event: AtomicI64::new(0) }
    }

    pub(crate) fn now(&self) -> Time {
        let mut clock = self.clock.lock();
        clock.read((self.wall)(), self.started.elapsed())
    }

    pub(crate) fn last_event(&self) -> i64 {
        self.last_event.load(Ordering::Acquire)
    }
}
