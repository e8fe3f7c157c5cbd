//! Deliveries that stand aside: they are not settled, and block no later delivery of their target.

use super::Lane;
use crate::domain::time::Time;
use crate::store::EventSeq;

impl Lane {
    /// Releases a delivery that was not called; it cannot be claimed before `due`. It has a row now. A delivery that was
    /// cancelled while it was claimed is settled instead.
    pub(crate) fn postpone(&mut self, seq: EventSeq, due: Time, stands_aside: bool) {
        if self.is_cancelled(seq) {
            return self.finish(seq.0);
        }
        self.leases.remove(&seq.0);
        self.move_to_retries(seq.0);
        let Some(retry) = self.retries.get_mut(&seq.0) else { return };
        retry.due = Some(due);
        self.retry_schedule.insert((due, seq.0));
        if stands_aside {
            retry.is_aside = true;
            let group = retry.group;
            self.leave_queue(group, seq.0);
        }
        self.advance();
    }

    /// Returns a delivery that stands aside to its place in the queue of its target.
    pub(super) fn rejoin(&mut self, seq: i64) {
        let Some(retry) = self.retries.get_mut(&seq).filter(|retry| retry.is_aside) else { return };
        retry.is_aside = false;
        let group = retry.group;
        self.join_queue(group, seq);
    }

    /// Returns all of them.
    pub(super) fn rejoin_all(&mut self) {
        let mut aside: Vec<i64> =
            self.retries.iter().filter(|(_, retry)| retry.is_aside).map(|(seq, _)| *seq).collect();
        aside.sort_unstable();
        aside.into_iter().for_each(|seq| self.rejoin(seq));
    }
}
