//! Keys of targets without a state: the store has only their hashes, and records and events have the keys.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Deserialize;

use crate::domain::target::TargetKey;
use crate::store::fast_map::Map;
use crate::store::sqlite::committed::index::Fingerprints;

/// What is read of a decision record.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RecordedTargets {
    decisions: Vec<RecordedTarget>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RecordedTarget {
    target: Option<String>,
}

/// By the id of a key: the id that it has after the copy.
pub(super) type Aliases = Map<i64, i64>;

/// A key without a state.
pub(super) struct Retired {
    pub id: i64,
    pub key: Option<TargetKey>,
}

/// A key that may be that of a target without a state.
pub(super) fn note(retired: &mut BTreeMap<[u8; 16], Retired>, hashes: Fingerprints, key: &TargetKey) {
    if !retired.is_empty()
        && let Some(found) = retired.get_mut(&hashes.target(key).0)
    {
        found.key.get_or_insert_with(|| key.clone());
    }
}

/// The ids of keys without a state: one for each key, and the others as aliases of it or of the target with a state.
pub(super) fn read(connection: &Connection) -> rusqlite::Result<(Aliases, BTreeMap<[u8; 16], Retired>)> {
    let mut known: Map<[u8; 16], i64> = Map::default();
    if connection.query_row("SELECT EXISTS (SELECT 1 FROM retired_targets)", [], |row| row.get(0))? {
        let mut live = connection.prepare("SELECT hash, id FROM targets")?;
        let mut rows = live.query([])?;
        while let Some(row) = rows.next()? {
            known.insert(row.get(0)?, row.get(1)?);
        }
    }
    let (mut aliases, mut retired) = (Map::default(), BTreeMap::new());
    let mut ids = connection.prepare("SELECT hash, id FROM retired_targets ORDER BY id DESC")?;
    let mut rows = ids.query([])?;
    while let Some(row) = rows.next()? {
        let (hash, id): ([u8; 16], i64) = (row.get(0)?, row.get(1)?);
        match known.get(&hash) {
            Some(&other) => drop(aliases.insert(id, other)),
            None => {
                known.insert(hash, id);
                retired.insert(hash, Retired { id, key: None });
            }
        }
    }
    Ok((aliases, retired))
}

/// Notes the keys of the targets of a decision record.
pub(super) fn note_record(retired: &mut BTreeMap<[u8; 16], Retired>, hashes: Fingerprints, body: &str) {
    let record: RecordedTargets = serde_json::from_str(body).unwrap_or_default();
    for key in record.decisions.iter().filter_map(|decision| decision.target.as_deref()) {
        note(retired, hashes, &TargetKey::from_stored(key));
    }
}
