//! The rows of targets: they are inserted where they are missing, locked in one order, and read.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::FixedState;
use futures_util::future::try_join;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::command::{Command, Hash};
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::fast_map::Map;
use crate::store::postgres::deliveries::feedback::DecidedTarget;
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{Param, Transaction};

/// In the order of their hashes, as every transaction inserts them: none waits for another one that waits for it.
const INSERT: &str = "
    INSERT INTO targets (hash, key)
    SELECT n.hash, n.key FROM unnest($1::bytea[], $2::text[]) AS n (hash, key)
    WHERE NOT EXISTS (SELECT 1 FROM targets t WHERE t.hash = n.hash)
    ORDER BY n.hash ON CONFLICT (hash) DO NOTHING";
/// In the order of their ids, as every transaction locks them. Each is read as it is when its lock is granted. In this form
/// each is found by an index, whatever the planner knows about the tables.
const LOCK: &str = "
    SELECT t.id, t.hash, t.key, t.last_at, t.due, t.recheck, t.generation, t.waits IS NOT NULL, t.tally, t.state
    FROM targets t WHERE t.id = ANY (ARRAY (
        SELECT found.id FROM unnest($1::bytea[]) AS n (hash)
        CROSS JOIN LATERAL (SELECT o.id FROM targets o WHERE o.hash = n.hash LIMIT 1) AS found
        UNION
        SELECT found.target FROM unnest($2::bytea[]) AS n (alert)
        CROSS JOIN LATERAL (SELECT a.target FROM target_alerts a WHERE a.alert = n.alert OFFSET 0) AS found
    ))
    ORDER BY t.id FOR NO KEY UPDATE";

/// A target whose row is locked.
#[derive(Debug)]
pub(super) struct LockedTarget {
    pub id: i64,
    pub key: TargetKey,
    pub last_at: Time,
    pub due: Option<Time>,
    /// A delivery for which it waits has changed.
    pub recheck: bool,
    /// Of the controls of its last decision.
    pub generation: u64,
    pub has_waits: bool,
    /// What it adds to the counts.
    pub tally: Option<String>,
    /// `None` if nothing is known.
    pub state: Option<Arc<TargetState>>,
}

/// A row that cannot be read.
#[derive(Debug)]
pub(super) struct DamagedRow {
    pub key: TargetKey,
    pub error: String,
}

/// The locked rows.
#[derive(Debug, Default)]
pub(super) struct LockedRows {
    pub targets: Map<i64, LockedTarget>,
    pub damaged: Map<i64, DamagedRow>,
    pub by_hash: HashMap<Hash, i64, FixedState>,
}

/// Locks the targets of commands, and reads their rows. One round trip.
pub(super) async fn lock(transaction: &Transaction, commands: &[Command]) -> Result<Vec<Row>, DbError> {
    let mut wanted: Vec<(&Hash, &TargetKey)> = commands.iter().flat_map(Command::wanted).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let hashes: Vec<&[u8]> = wanted.iter().map(|(hash, _)| hash.as_slice()).collect();
    let keys: Vec<&str> = wanted.iter().map(|(_, key)| key.as_str()).collect();
    let alerts: Vec<&[u8]> =
        commands.iter().flat_map(|command| &command.alerts).map(Hash::as_slice).collect();
    let new: [Param<'_>; 2] = [(&hashes, Type::BYTEA_ARRAY), (&keys, Type::TEXT_ARRAY)];
    let all: [Param<'_>; 2] = [(&hashes, Type::BYTEA_ARRAY), (&alerts, Type::BYTEA_ARRAY)];
    let insert = async {
        match hashes.is_empty() {
            true => Ok(0),
            false => transaction.execute(INSERT, &new).await,
        }
    };
    let locked = async {
        match hashes.is_empty() && alerts.is_empty() {
            true => Ok(Vec::new()),
            false => transaction.query(LOCK, &all).await,
        }
    };
    Ok(try_join(insert, locked).await?.1)
}

impl LockedRows {
    /// Reads the rows.
    pub(super) fn read(rows: &[Row]) -> Result<Self, DbError> {
        let mut locked = Self::default();
        for row in rows {
            let id: i64 = row.get(0);
            let hash = Hash::try_from(row.get::<_, &[u8]>(1))
                .map_err(|_| DbError::Damaged(format!("the hash of target {id} does not have 16 bytes")))?;
            locked.by_hash.insert(hash, id);
            let key = TargetKey::from_stored(row.get(2));
            let state = match read_state(row.get(9)) {
                Ok(state) => state,
                Err(error) => {
                    locked.damaged.insert(id, DamagedRow { key, error });
                    continue;
                }
            };
            let target = LockedTarget {
                id,
                key,
                last_at: Time::from_nanos(row.get(3)),
                due: row.get::<_, Option<i64>>(4).map(Time::from_nanos),
                recheck: row.get(5),
                generation: row.get::<_, i64>(6).cast_unsigned(),
                has_waits: row.get(7),
                tally: row.get(8),
                state,
            };
            locked.targets.insert(id, target);
        }
        Ok(locked)
    }

    /// The targets that have a state.
    pub(super) fn states(&self) -> impl Iterator<Item = DecidedTarget<'_>> {
        self.targets.values().filter_map(|target| {
            let LockedTarget { id, key, .. } = target;
            Some(DecidedTarget { id: *id, key, state: target.state.as_deref()? })
        })
    }
}

/// Reads the column of a state.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn read_state(text: Option<&str>) -> Result<Option<Arc<TargetState>>, String> {
    let state = text.map(serde_json::from_str::<TargetState>).transpose();
    state.map(|state| state.map(Arc::new)).map_err(|error| format!("the state cannot be read: {error}"))
}
