//! Deliveries that stand aside: they are not settled, and block no later delivery of their target.

use super::{BeyondWindow, Lane, PendingRetry};
use crate::domain::time::Time;
use crate::store::EventSeq;

impl Lane {
    /// Releases a delivery that was not called; it cannot be claimed before `due`. It has a row now. A delivery that was
    /// cancelled while it was claimed is settled instead, and a suspended one stands aside until it is resumed.
    pub(crate) fn postpone(&mut self, seq: EventSeq, due: Time, stands_aside: bool) {
        if self.is_cancelled(seq) {
            return self.finish(seq.0);
        }
        self.leases.remove(&seq.0);
        self.move_to_retries(seq.0);
        let Some(retry) = self.retries.get_mut(&seq.0) else { return };
        retry.is_called = false;
        let is_suspended = retry.marks.is_suspended;
        if !is_suspended {
            retry.due = Some(due);
            self.retry_schedule.insert((due, seq.0));
        }
        if is_suspended || stands_aside {
            self.stand_aside(seq.0);
        }
        self.advance();
    }

    /// Suspends a delivery, which has a row now: it is not claimed, and the next one of its target can be. A claimed one
    /// stands aside when its call has failed. `pending` is used if the window has not reached the delivery.
    pub(crate) fn suspend(&mut self, pending: PendingRetry) {
        let seq = pending.seq.0;
        if seq > self.high_watermark {
            let known = self.beyond_window.entry(seq).or_insert_with(|| BeyondWindow::retry(pending));
            if let BeyondWindow::Retry { marks, .. } = known {
                marks.is_suspended = true;
            }
            return;
        }
        let is_claimed = self.is_claimed(seq);
        self.ready.remove(&seq);
        self.move_to_retries(seq);
        let Some(retry) = self.retries.get_mut(&seq) else { return };
        retry.marks.is_suspended = true;
        if let Some(due) = retry.due.take() {
            self.retry_schedule.remove(&(due, seq));
        }
        if !is_claimed {
            self.stand_aside(seq);
        }
        self.advance();
    }

    /// Resumes a suspended delivery: it can be claimed, and its age counts from `now`.
    pub(crate) fn resume(&mut self, seq: EventSeq, now: Time) {
        if let Some(BeyondWindow::Retry { age_from, marks, due, .. }) = self.beyond_window.get_mut(&seq.0) {
            (*age_from, *due, marks.is_suspended) = (now, Time::from_nanos(0), false);
            return;
        }
        let Some(retry) = self.retries.get_mut(&seq.0).filter(|retry| retry.marks.is_suspended) else {
            return;
        };
        (retry.age_from, retry.marks.is_suspended) = (now, false);
        self.expiry.reexamine(seq.0);
        if retry.is_aside {
            self.rejoin(seq.0);
            self.mark_ready_if_first(seq.0);
        }
    }

    /// A call of a delivery is about to begin. It has a row now.
    pub(crate) fn mark_called(&mut self, seq: EventSeq) {
        self.move_to_retries(seq.0);
        if let Some(retry) = self.retries.get_mut(&seq.0) {
            retry.is_called = true;
        }
        self.advance();
    }

    /// Whether the row of a delivery that is released without a call says the same as before, but for when it is due:
    /// that is not needed after a restart.
    pub(crate) fn has_unchanged_row(&self, seq: EventSeq) -> bool {
        self.retries.get(&seq.0).is_some_and(|retry| !retry.is_called && !retry.cancelled)
    }

    pub(crate) fn is_suspended(&self, seq: EventSeq) -> bool {
        self.retries.get(&seq.0).is_some_and(|retry| retry.marks.is_suspended)
    }

    /// Whether an earlier call may have arrived.
    pub(crate) fn is_uncertain(&self, seq: EventSeq) -> bool {
        self.retries.get(&seq.0).is_some_and(|retry| retry.marks.is_uncertain)
    }

    /// Takes a delivery with a row out of the queue of its target.
    pub(super) fn stand_aside(&mut self, seq: i64) {
        let Some(retry) = self.retries.get_mut(&seq).filter(|retry| !retry.is_aside) else { return };
        retry.is_aside = true;
        let group = retry.group;
        self.leave_queue(group, seq);
    }

    /// Returns a delivery that stands aside to its place in the queue of its target.
    pub(super) fn rejoin(&mut self, seq: i64) {
        let Some(retry) = self.retries.get_mut(&seq).filter(|retry| retry.is_aside) else { return };
        retry.is_aside = false;
        let group = retry.group;
        self.join_queue(group, seq);
    }

    /// Ends all backoffs, but not of what is suspended.
    pub(crate) fn retry_at_once(&mut self) {
        for (_, seq) in std::mem::take(&mut self.retry_schedule) {
            if let Some(retry) = self.retries.get_mut(&seq) {
                retry.due = None;
            }
            self.rejoin(seq);
            self.mark_ready_if_first(seq);
        }
    }

    /// Returns all of them, also suspended ones.
    pub(super) fn rejoin_all(&mut self) {
        let mut aside: Vec<i64> = Vec::new();
        for (seq, retry) in &mut self.retries {
            retry.marks.is_suspended = false;
            aside.extend(Some(*seq).filter(|_| retry.is_aside));
        }
        aside.sort_unstable();
        aside.into_iter().for_each(|seq| self.rejoin(seq));
    }
}
