//! What each target adds to the counts of open episodes, deferred actions and owed decreases.
//!
//! It is stored as a text with few distinct values, so that the counts of all targets come from an index.

use std::collections::BTreeMap;

use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::verdict::Verdict;
use crate::store::Tally;

/// What a target adds: `o RULE` for an open episode, `d VERDICT` for a deferred action, `w RULE` for what a rule owes,
/// separated by `;`, in this order. `None` if nothing.
pub(in crate::store::postgres) fn encode(state: &TargetState) -> Option<String> {
    let open = state.open_episodes().map(|rule| format!("o {rule}"));
    let deferred = state.deferred_verdicts().map(|verdict| format!("d {}", verdict.as_str()));
    let owed = state.owing_rules().map(|rule| format!("w {rule}"));
    let parts: Vec<String> = open.chain(deferred).chain(owed).collect();
    (!parts.is_empty()).then(|| parts.join(";"))
}

/// Adds what `targets` targets with this text add. What an older or newer version has written otherwise is left out.
pub(super) fn add(tally: &mut Tally, text: &str, targets: i64) {
    for part in text.split(';') {
        let Some((kind, name)) = part.split_once(' ') else { continue };
        match kind {
            "o" => add_to(&mut tally.open_episodes, Name::new(name).ok(), targets),
            "d" => add_to(&mut tally.deferred, Verdict::parse(name), targets),
            "w" => add_to(&mut tally.owed, Name::new(name).ok(), targets),
            _ => {}
        }
    }
}

fn add_to<K: Ord>(counts: &mut BTreeMap<K, u64>, key: Option<K>, change: i64) {
    let Some(key) = key else { return };
    match counts.entry(key) {
        std::collections::btree_map::Entry::Vacant(new) if change > 0 => {
            new.insert(change.unsigned_abs());
        }
        std::collections::btree_map::Entry::Vacant(_) => {}
        std::collections::btree_map::Entry::Occupied(mut known) => {
            let count = known.get().saturating_add_signed(change);
            if count == 0 {
                known.remove();
            } else {
                known.insert(count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_targets_add_is_counted_and_taken_back() {
        let mut tally = Tally::default();
        add(&mut tally, "o nodes;d paused;w nodes", 3);
        add(&mut tally, "o nodes", 2);
        add(&mut tally, "w nodes;later things", -3);
        let name = Name::new("nodes").unwrap();
        let expected = Tally {
            open_episodes: [(name, 5)].into(),
            deferred: [(Verdict::Paused, 3)].into(),
            owed: BTreeMap::new(),
        };
        assert_eq!(tally, expected);
    }
}
