//! Redrive and discard of dead letters.

use super::{BeyondWindow, Lane, PendingRetry, Retry};
use crate::domain::time::Time;
use crate::store::EventSeq;

impl Lane {
    /// Returns a dead letter to the queue. It is ordered among the unsettled events of its target, but after one
    /// that is claimed.
    pub(crate) fn redrive(&mut self, pending: PendingRetry) {
        let PendingRetry { seq, group, due, .. } = pending;
        if self.is_unsettled(seq) {
            return;
        }
        self.position.dead = self.position.dead.saturating_sub(1);
        self.undelivered += 1;
        if seq.0 > self.high_watermark {
            self.settled_beyond_window -= 1;
            self.beyond_window.insert(seq.0, BeyondWindow::retry(pending));
            return;
        }
        self.join_queue(group, seq.0);
        self.expiry.add_unexamined(seq.0);
        self.retry_schedule.insert((due, seq.0));
        self.retries.insert(seq.0, Retry::new(pending));
    }

    /// The age of a delivery that was renewed counts from its emission again.
    pub(crate) fn end_renewal(&mut self, seq: EventSeq, emission: Time) {
        if let Some(BeyondWindow::Retry { age_from, .. }) = self.beyond_window.get_mut(&seq.0) {
            *age_from = emission;
        } else if let Some(retry) = self.retries.get_mut(&seq.0) {
            retry.age_from = emission;
            self.expiry.reexamine(seq.0);
        }
    }

    /// Counts `count` discarded dead letters.
    pub(crate) fn mark_discarded(&mut self, count: u64) {
        self.position.dead = self.position.dead.saturating_sub(count);
        self.never_delivered += count;
    }
}
