//! The lane's cursor: how it advances, and what holds it back.

use super::{BeyondWindow, Lane, Position, Slot};
use crate::domain::time::Time;
use crate::store::Backlog;
use crate::store::fast_map::Set;

impl Lane {
    /// Advances the cursor over deliveries that are settled or have a row.
    pub(super) fn advance(&mut self) {
        while let Some(entry) = self.window.first_entry()
            && entry.get().body.is_none()
        {
            self.position.cursor = *entry.key();
            self.position.settled_below_cursor += 1;
            entry.remove();
        }
        if self.window.is_empty() {
            self.position.cursor = self.high_watermark;
        }
    }

    #[cfg(test)]
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The position after `settled` have been settled or got a row, the number of dead letters has changed by
    /// `dead`, and `enqueued` further deliveries have been committed. It is written in the same transaction.
    pub(crate) fn position_after(&self, settled: &Set<i64>, dead: i64, enqueued: u64) -> Position {
        let mut after = self.position;
        after.dead = after.dead.saturating_add_signed(dead);
        after.enqueued += enqueued;
        for (seq, slot) in &self.window {
            if slot.body.is_some() && !settled.contains(seq) {
                return after;
            }
            after.cursor = *seq;
            after.settled_below_cursor += 1;
        }
        after.cursor = after.cursor.max(self.high_watermark);
        after
    }

    /// Deliveries that hold back the cursor and cannot be claimed, since an earlier delivery of their target is
    /// being retried; `settled` are about to be settled. They need rows: otherwise one failing target could fill the
    /// window, and after a restart deliveries settled behind them would be sent again.
    pub(crate) fn blocked_by_retry(&self, settled: &Set<i64>) -> Vec<i64> {
        let mut found = Vec::new();
        for (seq, slot) in &self.window {
            if slot.body.is_none() || settled.contains(seq) {
                continue;
            }
            let first = self.groups.get(&slot.group).and_then(|queue| queue.front());
            if !first.is_some_and(|first| first != seq && self.retries.contains_key(first)) {
                break;
            }
            found.push(*seq);
        }
        let delivered = |(seq, slot): (&i64, &Slot)| {
            settled.contains(seq) || slot.body.is_none() && !self.retries.contains_key(seq)
        };
        if !found.is_empty() && self.has_room() && !self.window.iter().any(delivered) {
            found.clear();
        }
        found
    }

    /// Unsettled deliveries before the last settled one of the window: they hold back the cursor.
    pub(crate) fn unsettled(&self) -> Set<i64> {
        let settled = self.window.iter().rfind(|(_, slot)| slot.body.is_none());
        let Some((&last, _)) = settled else { return Set::default() };
        let before = self.window.range(..last).filter(|(_, slot)| slot.body.is_some());
        before.map(|(seq, _)| *seq).collect()
    }

    /// The emission time of the oldest unsettled event, also if it was redriven or renewed since.
    pub(crate) fn oldest_unsettled(&self) -> Option<Time> {
        let unsettled = self.window.values().find(|slot| slot.body.is_some());
        let retried = self.retries.values().map(|retry| retry.emitted_at).min();
        unsettled.map(|slot| slot.emitted_at).into_iter().chain(retried).min()
    }

    /// The number of unsettled deliveries, in constant time.
    pub(crate) fn undelivered(&self) -> u64 {
        self.undelivered
    }

    /// Whether some deliveries of this destination may never have arrived.
    pub(crate) fn has_never_delivered(&self) -> bool {
        self.position.dead + self.never_delivered > 0
    }

    /// Subtracts `count` pruned rows of cancelled or discarded deliveries.
    pub(crate) fn forget_never_delivered(&mut self, count: u64) {
        self.never_delivered = self.never_delivered.saturating_sub(count);
    }

    /// The deliveries counted by state.
    pub(crate) fn backlog(&self) -> Backlog {
        let settled_above = self.window.values().filter(|slot| slot.body.is_none()).count() as u64;
        let beyond_window = self.beyond_window.values().filter_map(|known| match known {
            BeyondWindow::Settled => None,
            BeyondWindow::Retry { attempts, .. } => Some(*attempts),
        });
        let (parked, retrying): (Vec<u32>, Vec<u32>) = self
            .retries
            .values()
            .map(|retry| retry.attempts)
            .chain(beyond_window)
            .partition(|attempts| *attempts == 0);
        let accounted = self.position.settled_below_cursor + settled_above + self.beyond_window.len() as u64;
        let accounted = accounted.saturating_add_signed(self.settled_beyond_window);
        Backlog {
            pending: self.position.enqueued.saturating_sub(accounted) + parked.len() as u64,
            retrying: retrying.len() as u64,
            dead: self.position.dead,
        }
    }
}
