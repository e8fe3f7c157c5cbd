//! Deliveries that are not to be sent any more, and how workers are kept from them meanwhile.

use super::{BeyondWindow, Group, Lane};
use crate::store::EventSeq;

impl Lane {
    /// Hands out nothing of this target until [`Lane::release`].
    pub(crate) fn withhold(&mut self, group: Group) {
        self.withheld.insert(group);
    }

    /// Ends all withholding.
    pub(crate) fn release(&mut self) {
        self.withheld.clear();
    }

    /// Whether the delivery is about a target that is withheld.
    pub(super) fn is_withheld(&self, seq: i64) -> bool {
        !self.withheld.is_empty() && self.group_of(seq).is_some_and(|group| self.withheld.contains(&group))
    }

    /// Cancels a delivery, wherever it is: it is not sent any more, and what waits behind it goes on.
    /// One that is on its way may still arrive, but is not tried again; until it is settled its target
    /// waits. Called when a row or the cursor tells it to whoever opens the store next.
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

    /// Whether the delivery was cancelled and is on its way.
    pub(crate) fn is_cancelled(&self, seq: EventSeq) -> bool {
        self.retries.get(&seq.0).is_some_and(|retry| retry.cancelled)
    }

    /// Whether the delivery is handed out. The first of a target is, unless it is ready or waits.
    pub(super) fn is_claimed(&self, seq: i64) -> bool {
        let first = self.group_of(seq).and_then(|group| self.groups.get(&group)?.front().copied());
        first == Some(seq)
            && self.is_unsettled(EventSeq(seq))
            && !self.ready.contains(&seq)
            && self.retries.get(&seq).is_none_or(|retry| retry.due.is_none())
    }
}
