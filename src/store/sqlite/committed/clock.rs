//! The store's clock and the id of the last committed event: set by the writer, read by all threads.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use crate::domain::time::{ClockReading, Time};
use crate::store::WallClock;
use crate::store::clock::{Clock, since_boot};

pub(crate) struct SharedClock {
    wall: WallClock,
    clock: Mutex<Clock>,
    pub(crate) last_event: AtomicI64,
    /// Whether it is the wall clock, and nothing else.
    #[cfg(test)]
    pub(crate) is_wall_clock: std::sync::atomic::AtomicBool,
}

impl SharedClock {
    pub(crate) fn start(wall: WallClock, last_stored: Option<Time>) -> Self {
        let clock = Clock::start(wall(), last_stored, since_boot());
        Self {
            wall,
            clock: Mutex::new(clock),
            last_event: AtomicI64::new(0),
            #[cfg(test)]
            is_wall_clock: false.into(),
        }
    }

    pub(crate) fn read(&self) -> ClockReading {
        #[cfg(test)]
        if self.is_wall_clock.load(Ordering::Relaxed) {
            return ClockReading::equal((self.wall)());
        }
        let mut clock = self.clock.lock();
        clock.read((self.wall)(), since_boot())
    }

    pub(crate) fn now(&self) -> Time {
        self.read().now
    }

    pub(crate) fn last_event(&self) -> i64 {
        self.last_event.load(Ordering::Acquire)
    }
}
