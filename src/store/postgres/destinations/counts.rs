//! The statistics of a destination, and how a commit changes them.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::Snapshot;
use crate::domain::time::Time;
use crate::store::{Backlog, DestinationStats};

/// The maximum number of unsettled events of which the emission time is known. Of more, the oldest ones are known.
pub(super) const MAX_KNOWN_EVENTS: usize = 256;

/// What counts about the state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::postgres) enum Class {
    /// Not settled.
    Unsettled {
        /// Whether a call has failed.
        has_failed: bool,
    },
    /// A dead letter.
    Dead,
    /// Otherwise settled, or not inserted yet.
    Other,
}

/// The statistics of a destination: as they were counted last, with the changes of commits that were not seen then.
#[derive(Debug, Default)]
pub(in crate::store::postgres) struct Counts {
    backlog: Backlog,
    /// The oldest unsettled events: number, and time of emission.
    oldest: BTreeMap<i64, i64>,
    /// Whether there may be more of them.
    is_cut: bool,
    /// The answer while none of them is known.
    last_oldest: Option<i64>,
    /// What was seen when they were counted.
    snapshot: Snapshot,
    /// The changes of transactions since then, by their ids.
    since: Vec<(i64, CountChange)>,
}

/// The statistics of a destination in the database.
#[derive(Debug, Clone, Default)]
pub(in crate::store::postgres) struct Counted {
    pub backlog: Backlog,
    /// The oldest unsettled events, at most [`MAX_KNOWN_EVENTS`].
    pub oldest: BTreeMap<i64, i64>,
    pub snapshot: Snapshot,
}

/// What a commit changes about the statistics of a destination.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::store::postgres) struct CountChange {
    pending: i64,
    retrying: i64,
    dead: i64,
    /// Events that are unsettled now: number, and time of emission.
    opened: Vec<(i64, i64)>,
    /// Events that are settled now.
    closed: Vec<i64>,
}

impl CountChange {
    /// A delivery of an event, which was emitted at this time, has changed.
    pub(in crate::store::postgres) fn add(&mut self, seq: i64, emitted_at: i64, before: Class, after: Class) {
        for (class, step) in [(before, -1), (after, 1)] {
            match class {
                Class::Unsettled { has_failed: false } => self.pending += step,
                Class::Unsettled { has_failed: true } => self.retrying += step,
                Class::Dead => self.dead += step,
                Class::Other => {}
            }
        }
        let is_unsettled = |class| matches!(class, Class::Unsettled { .. });
        match (is_unsettled(before), is_unsettled(after)) {
            (false, true) => self.opened.push((seq, emitted_at)),
            (true, false) => {
                self.opened.retain(|(opened, _)| *opened != seq);
                self.closed.push(seq);
            }
            _ => {}
        }
    }

    /// Adds a later change of the same transaction.
    pub(in crate::store::postgres) fn extend(&mut self, later: Self) {
        self.pending += later.pending;
        self.retrying += later.retrying;
        self.dead += later.dead;
        if !later.closed.is_empty() {
            let closed: BTreeSet<i64> = later.closed.iter().copied().collect();
            self.opened.retain(|(seq, _)| !closed.contains(seq));
        }
        self.opened.extend(later.opened);
        self.closed.extend(later.closed);
    }
}

impl Counts {
    /// The deliveries were counted.
    pub(in crate::store::postgres) fn replace(&mut self, counted: Counted) {
        let Counted { backlog, oldest, snapshot } = counted;
        let is_cut = backlog.pending + backlog.retrying > oldest.len() as u64;
        let last_oldest = oldest.values().min().copied();
        let mut since = std::mem::take(&mut self.since);
        since.retain(|(transaction, _)| !snapshot.has_seen(*transaction));
        *self = Self { backlog, oldest, is_cut, last_oldest, snapshot, since: Vec::new() };
        since.iter().for_each(|(_, change)| self.add(change));
        self.since = since;
    }

    /// A transaction with this id has committed these changes.
    pub(in crate::store::postgres) fn apply(&mut self, transaction: i64, change: &CountChange) {
        if !self.snapshot.has_seen(transaction) && *change != CountChange::default() {
            self.add(change);
            self.since.push((transaction, change.clone()));
        }
    }

    fn add(&mut self, change: &CountChange) {
        let add = |count: &mut u64, by: i64| *count = count.saturating_add_signed(by);
        add(&mut self.backlog.pending, change.pending);
        add(&mut self.backlog.retrying, change.retrying);
        add(&mut self.backlog.dead, change.dead);
        for seq in &change.closed {
            self.oldest.remove(seq);
        }
        for &(seq, at) in &change.opened {
            let is_among_oldest =
                !self.is_cut || self.oldest.last_key_value().is_some_and(|(last, _)| seq < *last);
            if is_among_oldest {
                self.oldest.insert(seq, at);
            }
            if self.oldest.len() > MAX_KNOWN_EVENTS {
                self.oldest.pop_last();
                self.is_cut = true;
            }
        }
        if self.undelivered() == 0 {
            (self.is_cut, self.last_oldest) = (false, None);
            self.oldest.clear();
        }
        if let Some(oldest) = self.oldest.values().min() {
            self.last_oldest = Some(*oldest);
        }
    }

    fn undelivered(&self) -> u64 {
        self.backlog.pending + self.backlog.retrying
    }

    pub(in crate::store::postgres) fn stats(&self) -> DestinationStats {
        let oldest_unsettled = self.last_oldest.map(Time::from_nanos);
        DestinationStats { backlog: self.backlog, undelivered: self.undelivered(), oldest_unsettled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PENDING: Class = Class::Unsettled { has_failed: false };
    const RETRYING: Class = Class::Unsettled { has_failed: true };

    fn apply(counts: &mut Counts, changes: &[(i64, Class, Class)]) {
        let mut change = CountChange::default();
        changes.iter().for_each(|&(seq, before, after)| change.add(seq, seq * 10, before, after));
        counts.apply(1, &change);
    }

    fn shown(counts: &Counts) -> (u64, u64, u64, Option<i64>) {
        let DestinationStats { backlog, oldest_unsettled, .. } = counts.stats();
        (backlog.pending, backlog.retrying, backlog.dead, oldest_unsettled.map(Time::as_nanos))
    }

    #[test]
    fn each_delivery_is_counted_in_its_state_and_the_oldest_unsettled_event_is_known() {
        let mut counts = Counts::default();
        apply(
            &mut counts,
            &[(1, Class::Other, PENDING), (2, Class::Other, PENDING), (3, Class::Other, Class::Dead)],
        );
        assert_eq!(shown(&counts), (2, 0, 1, Some(10)));
        apply(&mut counts, &[(2, PENDING, RETRYING), (1, PENDING, Class::Other)]);
        assert_eq!(shown(&counts), (0, 1, 1, Some(20)));
        apply(&mut counts, &[(2, RETRYING, Class::Dead)]);
        assert_eq!(shown(&counts), (0, 0, 2, None));
        apply(&mut counts, &[(3, Class::Dead, PENDING), (2, Class::Dead, RETRYING)]);
        assert_eq!(shown(&counts), (1, 1, 0, Some(20)));
    }

    #[test]
    fn a_commit_counts_once_whether_the_count_has_seen_it_or_not() {
        let opened = |seq| {
            let mut change = CountChange::default();
            change.add(seq, seq * 10, Class::Other, PENDING);
            change
        };
        let counted = |snapshot: &str, seqs: &[i64]| Counted {
            backlog: Backlog { pending: seqs.len() as u64, ..Backlog::default() },
            oldest: seqs.iter().map(|seq| (*seq, seq * 10)).collect(),
            snapshot: snapshot.parse().unwrap(),
        };
        let mut counts = Counts::default();
        counts.apply(5, &opened(1));
        counts.apply(7, &opened(3));
        counts.replace(counted("6:8:6,7", &[1]));
        assert_eq!(shown(&counts), (2, 0, 0, Some(10)), "7 was not seen");
        counts.apply(6, &opened(2));
        counts.apply(5, &opened(1));
        assert_eq!(shown(&counts), (3, 0, 0, Some(10)), "5 was seen before it was applied");
        counts.replace(counted("9:9:", &[2, 3]));
        assert_eq!(shown(&counts), (2, 0, 0, Some(20)), "another replica has settled 1");
    }

    #[test]
    fn of_many_unsettled_events_the_oldest_ones_are_known() {
        let mut counts = Counts::default();
        let many: Vec<_> = (1..=1000).map(|seq| (seq, Class::Other, PENDING)).collect();
        apply(&mut counts, &many);
        assert_eq!(counts.oldest.len(), MAX_KNOWN_EVENTS);
        for seq in 1..=1000 {
            apply(&mut counts, &[(seq, PENDING, Class::Other)]);
            let (_, _, _, oldest) = shown(&counts);
            let known = MAX_KNOWN_EVENTS as i64;
            let expected = match seq {
                1000 => None,
                seq if seq < known => Some((seq + 1) * 10),
                _ => Some(known * 10),
            };
            assert_eq!(oldest, expected, "after {seq}");
        }
    }
}
