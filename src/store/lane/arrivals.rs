//! What a lane knows about a delivery, and when the latest ones arrived.

use std::collections::VecDeque;

use super::{BeyondWindow, Lane};
use crate::domain::time::Time;
use crate::store::EventSeq;
use crate::store::fast_map::Map;

/// The maximum number of arrivals whose time is in memory. The times of earlier ones are read.
const MAX_ARRIVALS: usize = if cfg!(test) { 8 } else { 8192 };

/// The times of the latest arrivals.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    times: Map<i64, Time>,
    order: VecDeque<i64>,
}

impl Arrivals {
    pub(super) fn add(&mut self, seq: i64, at: Time) {
        if self.times.insert(seq, at).is_some() {
            return;
        }
        self.order.push_back(seq);
        if self.order.len() > MAX_ARRIVALS
            && let Some(oldest) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
    }
}

/// What is known about a delivery without its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Not settled.
    Unsettled { is_uncertain: bool },
    /// Arrived.
    Arrived(Time),
    /// Settled: it has arrived, unless a row says otherwise.
    Settled,
    /// Not read yet: it is not settled, unless a row says otherwise.
    Unread,
}

impl Lane {
    /// What is known about a delivery of this destination.
    pub(crate) fn look_up(&self, seq: EventSeq) -> Lookup {
        if let Some(retry) = self.retries.get(&seq.0) {
            // The outcome of a call that goes on is not known either.
            return Lookup::Unsettled { is_uncertain: retry.marks.is_uncertain || retry.is_called };
        }
        if let Some(at) = self.arrivals.times.get(&seq.0) {
            return Lookup::Arrived(*at);
        }
        if self.is_unsettled(seq) {
            return Lookup::Unsettled { is_uncertain: false };
        }
        if seq.0 <= self.high_watermark {
            return Lookup::Settled;
        }
        match self.beyond_window.get(&seq.0) {
            Some(BeyondWindow::Retry { marks, .. }) => Lookup::Unsettled { is_uncertain: marks.is_uncertain },
            Some(BeyondWindow::Settled) => Lookup::Settled,
            None => Lookup::Unread,
        }
    }

    /// The unsettled delivery that this one waits for: the first of its target.
    pub(crate) fn blocked_by(&self, seq: EventSeq) -> Option<EventSeq> {
        let is_aside = self.retries.get(&seq.0).is_some_and(|retry| retry.is_aside);
        let group = self.group_of(seq.0).filter(|_| !is_aside && self.is_unsettled(seq))?;
        let first = *self.groups.get(&group)?.front()?;
        (first != seq.0).then_some(EventSeq(first))
    }
}
