//! Dead letters that are sent once more, or thrown away.

use super::{Ahead, Lane, Retry, Waiting};

impl Lane {
    /// Puts a dead letter back. It takes its place by the order of its target's events among those that
    /// are not settled; what was settled since it was given up stays before it. One that is on its way
    /// is not overtaken.
    pub fn redrive(&mut self, waiting: Waiting) {
        let Waiting { seq, group, emitted_at, undoes, attempts, due } = waiting;
        if self.is_open(seq) {
            return;
        }
        self.position.dead = self.position.dead.saturating_sub(1);
        self.left += 1;
        if seq.0 > self.read_to {
            self.settled_ahead -= 1;
            self.ahead.insert(seq.0, Ahead::Retry { emitted_at, attempts, due });
            return;
        }
        let first = self.groups.get(&group).and_then(|queue| queue.front().copied());
        let first_is_out = first.is_some_and(|first| self.is_out(first));
        let queue = self.groups.entry(group).or_default();
        let at = queue.partition_point(|&other| other < seq.0).max(usize::from(first_is_out));
        queue.insert(at, seq.0);
        if let Some(first) = first.filter(|_| at == 0) {
            self.ready.remove(&first);
        }
        self.waiting.insert((due, seq.0));
        self.retries
            .insert(seq.0, Retry { group, emitted_at, undoes, attempts, waits: Some(due), cancelled: false });
    }

    /// So many dead letters were thrown away.
    pub fn discarded(&mut self, count: u64) {
        self.position.dead = self.position.dead.saturating_sub(count);
        self.missed += count;
    }
}
