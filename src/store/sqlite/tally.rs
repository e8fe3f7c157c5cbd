//! Numbers of open episodes and deferred actions, updated with each written state, so that reading them scans
//! no states.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::verdict::Verdict;
use crate::store::Tally;

/// `tally.kind`: open episodes of a rule.
const KIND_OPEN_EPISODES: i64 = 1;
/// `tally.kind`: deferred actions by blocking verdict.
const KIND_DEFERRED: i64 = 2;
/// `tally.kind`: owed decreases of a rule.
const KIND_OWED: i64 = 3;

/// The changes of the counts in a batch.
#[derive(Debug, Default)]
pub(crate) struct Deltas {
    open: BTreeMap<Name, i64>,
    deferred: BTreeMap<Verdict, i64>,
    owed: BTreeMap<Name, i64>,
}

impl Deltas {
    /// Adds the difference between two states of a target.
    pub(crate) fn put(&mut self, before: &TargetState, after: &TargetState) {
        // Most writes change neither.
        if !before.open_episodes().eq(after.open_episodes()) {
            add(&mut self.open, before.open_episodes().cloned(), -1);
            add(&mut self.open, after.open_episodes().cloned(), 1);
        }
        if !before.deferred_verdicts().eq(after.deferred_verdicts()) {
            add(&mut self.deferred, before.deferred_verdicts(), -1);
            add(&mut self.deferred, after.deferred_verdicts(), 1);
        }
        if !before.owing_rules().eq(after.owing_rules()) {
            add(&mut self.owed, before.owing_rules().cloned(), -1);
            add(&mut self.owed, after.owing_rules().cloned(), 1);
        }
    }

    /// Adds later changes.
    pub(crate) fn absorb(&mut self, later: Self) {
        later.open.into_iter().for_each(|(rule, by)| *self.open.entry(rule).or_default() += by);
        later.deferred.into_iter().for_each(|(verdict, by)| *self.deferred.entry(verdict).or_default() += by);
        later.owed.into_iter().for_each(|(rule, by)| *self.owed.entry(rule).or_default() += by);
    }

    /// The counts, if all were 0 before.
    pub(crate) fn totals(&self) -> Tally {
        let mut totals = Tally::default();
        self.apply(&mut totals);
        totals
    }

    /// Writes the new values of the counts that change; a count of 0 has no row.
    pub(crate) fn write(&self, connection: &Connection, before: &Tally) -> rusqlite::Result<()> {
        let put = |kind: i64, name: &str, count: u64| {
            let mut put = connection.prepare_cached("INSERT OR REPLACE INTO tally VALUES (?1, ?2, ?3)")?;
            let mut delete = connection.prepare_cached("DELETE FROM tally WHERE kind = ?1 AND name = ?2")?;
            match i64::try_from(count).unwrap_or(i64::MAX) {
                0 => delete.execute(params![kind, name]).map(drop),
                count => put.execute(params![kind, name, count]).map(drop),
            }
        };
        changed(&before.open_episodes, &self.open)
            .try_for_each(|(rule, count)| put(KIND_OPEN_EPISODES, rule.as_str(), count))?;
        changed(&before.deferred, &self.deferred)
            .try_for_each(|(verdict, count)| put(KIND_DEFERRED, verdict.as_str(), count))?;
        changed(&before.owed, &self.owed).try_for_each(|(rule, count)| put(KIND_OWED, rule.as_str(), count))
    }

    /// Applies the changes to the counts in memory.
    pub(crate) fn apply(&self, tally: &mut Tally) {
        apply(&mut tally.open_episodes, &self.open);
        apply(&mut tally.deferred, &self.deferred);
        apply(&mut tally.owed, &self.owed);
    }
}

fn add<K: Ord>(deltas: &mut BTreeMap<K, i64>, keys: impl Iterator<Item = K>, by: i64) {
    keys.for_each(|key| *deltas.entry(key).or_default() += by);
}

fn changed<'a, K: Ord>(
    before: &'a BTreeMap<K, u64>,
    deltas: &'a BTreeMap<K, i64>,
) -> impl Iterator<Item = (&'a K, u64)> {
    deltas.iter().filter(|(_, delta)| **delta != 0).map(|(key, delta)| {
        let count = before.get(key).copied().unwrap_or_default();
        (key, count.saturating_add_signed(*delta))
    })
}

fn apply<K: Ord + Clone>(counts: &mut BTreeMap<K, u64>, deltas: &BTreeMap<K, i64>) {
    let after: Vec<(K, u64)> = changed(counts, deltas).map(|(key, count)| (key.clone(), count)).collect();
    for (key, count) in after {
        match count {
            0 => drop(counts.remove(&key)),
            count => drop(counts.insert(key, count)),
        }
    }
}

/// Deletes all counts.
pub(crate) fn clear(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM tally", []).map(drop)
}

/// Reads the stored counts.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Tally> {
    let mut tally = Tally::default();
    let mut counts = connection.prepare("SELECT kind, name, count FROM tally")?;
    let mut rows = counts.query([])?;
    while let Some(row) = rows.next()? {
        let (name, count) = (row.get_ref(1)?.as_str()?, row.get(2)?);
        match row.get(0)? {
            KIND_OWED => tally.owed.extend(Name::new(name).ok().map(|rule| (rule, count))),
            KIND_OPEN_EPISODES => tally.open_episodes.extend(Name::new(name).ok().map(|rule| (rule, count))),
            KIND_DEFERRED => {
                let verdict = Verdict::ALL.into_iter().find(|verdict| verdict.as_str() == name);
                tally.deferred.extend(verdict.map(|verdict| (verdict, count)));
            }
            _ => {}
        }
    }
    Ok(tally)
}
