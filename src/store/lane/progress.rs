//! How far a lane is, and what keeps its cursor back.

use super::{Ahead, Lane, Position, Slot};
use crate::domain::time::Time;
use crate::store::Backlog;
use crate::store::numbers::Set;

impl Lane {
    /// Moves the cursor over everything that is settled or has a row.
    pub(super) fn advance(&mut self) {
        while let Some(entry) = self.window.first_entry()
            && entry.get().body.is_none()
        {
            self.position.cursor = *entry.key();
            self.position.passed += 1;
            entry.remove();
        }
        if self.window.is_empty() {
            self.position.cursor = self.read_to;
        }
    }

    /// Where the lane stands, for tests.
    #[cfg(test)]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Where the lane will stand when `settled` have been settled or got a row, `dead` of them given
    /// up, and `given` more deliveries have been committed: what is written in the same transaction.
    pub fn position_after(&self, settled: &Set<i64>, dead: i64, given: u64) -> Position {
        let mut after = self.position;
        after.dead = after.dead.saturating_add_signed(dead);
        after.given += given;
        for (seq, slot) in &self.window {
            if slot.body.is_some() && !settled.contains(seq) {
                return after;
            }
            after.cursor = *seq;
            after.passed += 1;
        }
        after.cursor = after.cursor.max(self.read_to);
        after
    }

    /// Deliveries that hold the cursor back and cannot be sent, since an earlier one of their target is
    /// tried again; `settled` are about to be settled. They want rows, or one target that fails would
    /// fill the window for all, and after a restart what was delivered behind them would be sent again.
    pub fn to_park(&self, settled: &Set<i64>) -> Vec<i64> {
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

    /// What holds the cursor back although something behind it is settled.
    pub fn to_leave(&self) -> Set<i64> {
        let settled = self.window.iter().rfind(|(_, slot)| slot.body.is_none());
        let Some((&last, _)) = settled else { return Set::default() };
        let before = self.window.range(..last).filter(|(_, slot)| slot.body.is_some());
        before.map(|(seq, _)| *seq).collect()
    }

    /// When the oldest event was emitted that is not settled.
    pub fn oldest(&self) -> Option<Time> {
        let unsettled = self.window.values().find(|slot| slot.body.is_some());
        let retried = self.retries.values().map(|retry| retry.emitted_at).min();
        unsettled.map(|slot| slot.emitted_at).into_iter().chain(retried).min()
    }

    /// Deliveries that are neither settled nor given up, without counting them.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Whether some of what this destination was given may never have arrived.
    pub fn has_missed(&self) -> bool {
        self.position.dead + self.missed > 0
    }

    /// So many rows of what was cancelled or discarded are no more.
    pub fn forgot(&mut self, count: u64) {
        self.missed = self.missed.saturating_sub(count);
    }

    /// Counts by state.
    pub fn backlog(&self) -> Backlog {
        let settled_above = self.window.values().filter(|slot| slot.body.is_none()).count() as u64;
        let ahead = self.ahead.values().filter_map(|known| match known {
            Ahead::Settled => None,
            Ahead::Retry { attempts, .. } => Some(*attempts),
        });
        let (parked, retrying): (Vec<u32>, Vec<u32>) = self
            .retries
            .values()
            .map(|retry| retry.attempts)
            .chain(ahead)
            .partition(|attempts| *attempts == 0);
        let told = self.position.passed + settled_above + self.ahead.len() as u64;
        let told = told.saturating_add_signed(self.settled_ahead);
        Backlog {
            pending: self.position.given.saturating_sub(told) + parked.len() as u64,
            retrying: retrying.len() as u64,
            dead: self.position.dead,
        }
    }
}
