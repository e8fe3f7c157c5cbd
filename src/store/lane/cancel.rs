//! Cancellation of deliveries, and which claimed deliveries must not be called.

use super::{BeyondWindow, Lane};
use crate::store::{EventSeq, Lease, RefusalReason};

impl Lane {
    /// Cancels a delivery: it is not sent, and the next one of its target can be claimed. A claimed delivery may
    /// still arrive, but is not retried; it blocks its target until it is settled. Must be called after the commit
    /// that records the cancellation.
    pub(crate) fn cancel(&mut self, seq: EventSeq) {
        self.never_delivered += 1;
        if seq.0 > self.high_watermark {
            self.undelivered = self.undelivered.saturating_sub(1);
            self.beyond_window.insert(seq.0, BeyondWindow::Settled);
            return;
        }
        if self.is_claimed(seq.0) {
            self.move_to_retries(seq.0);
            if let Some(retry) = self.retries.get_mut(&seq.0) {
                retry.cancelled = true;
            }
            self.advance();
            return;
        }
        self.ready.remove(&seq.0);
        if let Some(due) = self.retries.get(&seq.0).and_then(|retry| retry.due) {
            self.retry_schedule.remove(&(due, seq.0));
        }
        self.finish(seq.0);
    }

    /// Whether the delivery was cancelled while it was claimed.
    pub(crate) fn is_cancelled(&self, seq: EventSeq) -> bool {
        self.retries.get(&seq.0).is_some_and(|retry| retry.cancelled)
    }

    /// Why the lease must not be used to send any more, if so.
    pub(crate) fn refusal_reason(&self, lease: Lease) -> Option<RefusalReason> {
        match lease.seq() {
            _ if !self.holds(lease) => Some(RefusalReason::LeaseEnded),
            seq if self.is_cancelled(seq) => Some(RefusalReason::Superseded),
            seq if self.is_suspended(seq) => Some(RefusalReason::Suspended),
            _ => None,
        }
    }

    /// Whether the delivery is claimed: it is the first of its target, not ready, and not backing off.
    pub(super) fn is_claimed(&self, seq: i64) -> bool {
        let first = self.group_of(seq).and_then(|group| self.groups.get(&group)?.front().copied());
        first == Some(seq)
            && self.is_unsettled(EventSeq(seq))
            && !self.ready.contains(&seq)
            && self.retries.get(&seq).is_none_or(|retry| retry.due.is_none())
    }
}
