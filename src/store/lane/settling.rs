//! The outcomes of claimed deliveries.

use super::{Lane, Marks, Retry, Slot};
use crate::domain::time::Time;
use crate::store::EventSeq;

/// The outcome of a claimed delivery: a [`Settlement`](crate::store::Settlement) without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Accepted by the destination.
    Delivered,
    /// Not sent.
    Withdrawn,
    /// To be retried.
    Retry { is_uncertain: bool },
    /// Released without a call.
    NotCalled { stands_aside: bool },
    /// Given up, with or without a last call.
    Dead { was_called: bool },
}

impl Outcome {
    /// Whether the delivery is settled by it.
    pub(crate) const fn is_final(self) -> bool {
        !matches!(self, Self::Retry { .. } | Self::NotCalled { .. })
    }
}

/// The change of a delivery's row when it is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowChange {
    /// No change: the cursor passes the delivery, or its row already says that it was cancelled.
    None,
    /// The row is not needed any more.
    Delete,
    /// A row with the outcome and this number of attempts.
    Put { attempts: u32 },
}

impl Lane {
    /// The row change for this outcome. Does not change the lane: [`Lane::mark_arrived`], [`Lane::mark_dead`] or
    /// [`Lane::schedule_retry`] must be called after the commit.
    pub(crate) fn row_change(&self, seq: EventSeq, outcome: Outcome) -> RowChange {
        let known = self.retries.get(&seq.0);
        let before = known.map_or(0, |retry| retry.attempts);
        let after = before.saturating_add(1);
        match outcome {
            Outcome::Dead { was_called } => {
                RowChange::Put { attempts: if was_called { after } else { before } }
            }
            Outcome::Delivered if known.is_some() => RowChange::Delete,
            Outcome::Delivered => RowChange::None,
            // The row that says so is not changed.
            _ if self.is_cancelled(seq) => RowChange::None,
            Outcome::Retry { .. } => RowChange::Put { attempts: after },
            Outcome::Withdrawn | Outcome::NotCalled { .. } => RowChange::Put { attempts: before },
        }
    }

    /// The number of failed calls of an unsettled delivery.
    pub(crate) fn attempts(&self, seq: EventSeq) -> u32 {
        self.retries.get(&seq.0).map_or(0, |retry| retry.attempts)
    }

    /// Settles a delivery that arrived.
    pub(crate) fn mark_arrived(&mut self, seq: EventSeq, at: Time) {
        if self.is_cancelled(seq) {
            self.never_delivered = self.never_delivered.saturating_sub(1);
        }
        self.arrivals.add(seq.0, at);
        self.finish(seq.0);
    }

    /// Settles a delivery that was withdrawn.
    pub(crate) fn mark_withdrawn(&mut self, seq: EventSeq) {
        self.finish(seq.0);
    }

    /// Settles a delivery that is a dead letter.
    pub(crate) fn mark_dead(&mut self, seq: EventSeq) {
        self.position.dead += u64::from(self.is_unsettled(seq));
        if self.is_cancelled(seq) {
            self.never_delivered = self.never_delivered.saturating_sub(1);
        }
        self.finish(seq.0);
    }

    /// Schedules a retry at `due`. The delivery has a row now and does not hold back the cursor any more. A delivery
    /// that was cancelled while it was claimed is settled instead, and a suspended one stands aside.
    pub(crate) fn schedule_retry(&mut self, seq: EventSeq, due: Time, is_uncertain: bool) {
        if self.is_cancelled(seq) {
            return self.finish(seq.0);
        }
        self.leases.remove(&seq.0);
        self.move_to_retries(seq.0);
        let Some(retry) = self.retries.get_mut(&seq.0) else { return };
        retry.attempts = retry.attempts.saturating_add(1);
        retry.is_called = false;
        retry.marks.is_uncertain |= is_uncertain;
        if retry.marks.is_suspended {
            self.stand_aside(seq.0);
        } else {
            retry.due = Some(due);
            self.retry_schedule.insert((due, seq.0));
        }
        self.advance();
    }

    /// Marks a delivery behind a retry of its target as parked: it has a row now, without attempts.
    pub(crate) fn mark_parked(&mut self, seq: EventSeq) {
        self.move_to_retries(seq.0);
        self.advance();
    }

    /// Moves an unsettled delivery without a row from the window to `retries`.
    pub(super) fn move_to_retries(&mut self, seq: i64) {
        if let Some(slot) = self.window.get_mut(&seq)
            && let Some(body) = slot.body.take()
        {
            self.window_bytes -= body.len();
            let Slot { group, emitted_at, compensates, .. } = *slot;
            let (attempts, marks) = (0, Marks::default());
            let retry = Retry {
                group,
                emitted_at,
                age_from: emitted_at,
                compensates,
                attempts,
                marks,
                due: None,
                is_called: false,
                cancelled: false,
                is_aside: false,
            };
            self.retries.insert(seq, retry);
            self.expiry.leave_window(seq);
        }
    }

    pub(super) fn finish(&mut self, seq: i64) {
        // Settling a delivery twice must not make the next one of its target claimable twice.
        let Some(group) = self.group_of(seq).filter(|_| self.is_unsettled(EventSeq(seq))) else { return };
        self.undelivered = self.undelivered.saturating_sub(1);
        self.leases.remove(&seq);
        self.retries.remove(&seq);
        self.expiry.remove(seq);
        if let Some(slot) = self.window.get_mut(&seq) {
            self.window_bytes -= slot.body.take().map_or(0, |body| body.len());
        }
        self.leave_queue(group, seq);
        self.advance();
    }
}
