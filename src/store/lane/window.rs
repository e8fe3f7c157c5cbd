//! The window: what is restored when the store is opened, and how events enter it.

use super::{
    BeyondWindow, Lane, MAX_WINDOW_BYTES, MAX_WINDOW_EVENTS, NewDelivery, PendingRetry, Retry, Slot,
};
use crate::domain::time::Time;
use crate::store::EventSeq;

impl Lane {
    /// Restores an unsettled delivery with a row when the store is opened. Must be called in the order of the
    /// events.
    pub(crate) fn restore(&mut self, pending: PendingRetry) {
        if pending.seq.0 > self.high_watermark {
            // Earlier events of its target may have no row and are not read yet.
            self.beyond_window.insert(pending.seq.0, BeyondWindow::retry(pending));
        } else {
            self.undelivered += 1;
            self.push_retry(pending.seq.0, Retry::new(pending));
        }
    }

    /// Restores a cancelled delivery with a row above the cursor when the store is opened.
    pub(crate) fn restore_settled(&mut self, seq: EventSeq) {
        self.beyond_window.insert(seq.0, BeyondWindow::Settled);
        self.undelivered = self.undelivered.saturating_sub(1);
    }

    /// Restores a delivery above the cursor that has arrived when the store is opened.
    pub(crate) fn restore_arrived(&mut self, seq: EventSeq, at: Time) {
        self.arrivals.add(seq.0, at);
        self.restore_settled(seq);
    }

    /// Restores counts when the store is opened: `settled` deliveries above the cursor have rows that say so, and
    /// `never_delivered` deliveries in all were cancelled or discarded.
    pub(crate) fn restore_counts(&mut self, settled: u64, never_delivered: u64) {
        self.settled_beyond_window = i64::try_from(settled).unwrap_or(i64::MAX);
        self.undelivered = self.undelivered.saturating_sub(settled);
        self.never_delivered = never_delivered;
    }

    /// Appends a retry to the queue of its target, unless it is suspended.
    pub(super) fn push_retry(&mut self, seq: i64, mut retry: Retry) {
        if retry.marks.is_suspended {
            (retry.due, retry.is_aside) = (None, true);
            self.retries.insert(seq, retry);
            return;
        }
        self.groups.entry(retry.group).or_default().push_back(seq);
        self.retry_schedule.extend(retry.due.map(|due| (due, seq)));
        self.expiry.add_unexamined(seq);
        self.retries.insert(seq, retry);
    }

    /// Counts `count` committed deliveries; `settled` of them have rows that say so, and `dead` of these are dead
    /// letters.
    pub(crate) fn add_enqueued(&mut self, count: u64, settled: u64, dead: u64) {
        self.position.enqueued += count;
        self.position.dead += dead;
        self.undelivered += count.saturating_sub(settled);
        self.settled_beyond_window = self.settled_beyond_window.saturating_add_unsigned(settled);
    }

    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    pub(crate) fn has_room(&self) -> bool {
        self.window.len() < MAX_WINDOW_EVENTS && self.window_bytes < MAX_WINDOW_BYTES
    }

    /// Advances the high watermark to `seq`; there are no further deliveries up to it.
    pub(crate) fn skip_to(&mut self, seq: EventSeq) {
        self.high_watermark = self.high_watermark.max(seq.0);
        self.advance();
    }

    /// Adds an event to the window. Events must be added in order; those up to the high watermark are ignored.
    pub(crate) fn push(&mut self, delivery: NewDelivery) {
        let NewDelivery { seq, group, emitted_at, compensates, body } = delivery;
        if seq.0 <= self.high_watermark {
            return;
        }
        self.high_watermark = seq.0;
        if let Some(known) = self.beyond_window.remove(&seq.0) {
            return self.put_known(seq.0, Slot { group, emitted_at, compensates, body: None }, known);
        }
        self.window_bytes += body.len();
        self.window.insert(seq.0, Slot { group, emitted_at, compensates, body: Some(body) });
        let queue = self.groups.entry(group).or_default();
        queue.push_back(seq.0);
        if queue.len() == 1 {
            self.ready.insert(seq.0);
        }
    }

    /// Adds an event whose delivery has a row.
    pub(crate) fn push_known(&mut self, delivery: &NewDelivery) {
        let &NewDelivery { seq, group, emitted_at, compensates, .. } = delivery;
        if seq.0 <= self.high_watermark {
            return;
        }
        self.high_watermark = seq.0;
        let known = self.beyond_window.remove(&seq.0);
        // A delivery that is being redriven is inserted by `redrive` after the commit.
        self.settled_beyond_window -= i64::from(known.is_none());
        let known = known.unwrap_or(BeyondWindow::Settled);
        self.put_known(seq.0, Slot { group, emitted_at, compensates, body: None }, known);
    }

    pub(super) fn put_known(&mut self, seq: i64, slot: Slot, known: BeyondWindow) {
        let Slot { group, emitted_at, compensates, .. } = slot;
        self.window.insert(seq, slot);
        if let BeyondWindow::Retry { age_from, attempts, marks, due } = known {
            let seq = EventSeq(seq);
            let pending =
                PendingRetry { seq, group, emitted_at, age_from, compensates, attempts, marks, due };
            self.push_retry(seq.0, Retry::new(pending));
        }
        self.advance();
    }
}
