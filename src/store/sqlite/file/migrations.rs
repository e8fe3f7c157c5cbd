//! The steps of the schema. `user_version` is the number of applied ones; each leads to the next, and none is
//! changed once it was released. A new step is described in `docs/adding-a-schema-step.md`.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::event::EventDocument;
use crate::domain::state::TargetState;
use crate::domain::time::Time;
use crate::store::sqlite::codec::compression;
use crate::store::sqlite::codec::event_blocks::BodyReader;
use crate::store::sqlite::codec::firing_events::{self, FiringEventRef};
use crate::store::sqlite::codec::states::{self, EncodedState};
use crate::store::sqlite::tally::Deltas;
use crate::store::{EventSeq, Tally};

/// The migrations in order; `user_version` is the number of applied ones.
pub(crate) const MIGRATIONS: [&str; 10] = [
    INITIAL_SCHEMA,
    CONTROLS_AND_UNDELIVERED_DECREASES,
    OUTBOX,
    COMPRESSION,
    RENAMES,
    AUDIT,
    STATIC_DICTIONARIES,
    WALL_CLOCK,
    DELIVERY_FEEDBACK,
    KEPT_NOTIFICATIONS,
];

const INITIAL_SCHEMA: &str = "
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    created INTEGER NOT NULL,  -- all times are nanoseconds since 1970
    hash_key BLOB NOT NULL     -- keys the hashes of targets and alerts
);
CREATE TABLE targets (
    id INTEGER PRIMARY KEY,    -- increasing; the FIFO group of the target's events
    hash BLOB NOT NULL,        -- 16 bytes, of the key
    due INTEGER,               -- when it has to be processed again
    alerts BLOB NOT NULL,      -- 16 bytes for each of its alerts
    key TEXT NOT NULL,
    state TEXT NOT NULL        -- JSON; last, so that a scan of the other columns does not read it
);
CREATE TABLE former_targets (  -- ids of keys without a state
    hash BLOB NOT NULL,
    id INTEGER NOT NULL,
    gone INTEGER NOT NULL,
    PRIMARY KEY (hash, id)
) WITHOUT ROWID;
CREATE TABLE records (         -- the decisions of one transaction
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    targets BLOB NOT NULL,     -- 8 bytes for each, big-endian
    body TEXT NOT NULL         -- JSON
);
CREATE TABLE history (         -- the records of a target, by time
    target INTEGER NOT NULL,
    at INTEGER NOT NULL,
    record INTEGER NOT NULL,
    PRIMARY KEY (target, at, record)
) WITHOUT ROWID;
CREATE TABLE routes (          -- the sets of destinations of events
    id INTEGER PRIMARY KEY,
    destinations TEXT NOT NULL UNIQUE  -- a JSON list of names
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,    -- increasing in commit order
    target INTEGER NOT NULL,
    route INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL         -- as it is sent
);
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    cursor INTEGER NOT NULL,   -- events up to here are settled or have a row in deliveries
    given INTEGER NOT NULL,    -- deliveries ever enqueued
    passed INTEGER NOT NULL,   -- number of them that are settled, at or below the cursor
    dead INTEGER NOT NULL      -- number of dead letters
);
CREATE TABLE deliveries (      -- the exceptions
    destination INTEGER NOT NULL,
    event INTEGER NOT NULL,
    state INTEGER NOT NULL,    -- 1 waits for a retry, 2 dead letter
    attempts INTEGER NOT NULL,
    due INTEGER NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (destination, event)
) WITHOUT ROWID;
";

/// Does not change stored states. The targets that depend on the controls are in a table of their own, so
/// that writing other states costs nothing more.
const CONTROLS_AND_UNDELIVERED_DECREASES: &str = "
CREATE TABLE controls (        -- pauses, holds and heartbeats
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL,       -- when it was written
    body TEXT NOT NULL         -- JSON
);
CREATE TABLE watching (        -- targets with actions that depend on the controls
    target INTEGER PRIMARY KEY
);
CREATE TABLE tally (           -- open episodes and deferred actions of all targets; no row has 0
    kind INTEGER NOT NULL,     -- 1 open episodes by rule, 2 deferred actions by verdict
    name TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
ALTER TABLE events ADD COLUMN shrinks INTEGER NOT NULL DEFAULT 0;  -- 1 if it may decrease capacity
CREATE INDEX shrinking ON events (id) WHERE shrinks = 1;
-- deliveries.state 3: cancelled, and above the cursor
CREATE INDEX cancelled ON deliveries (destination, event) WHERE state = 3;
UPDATE events SET shrinks = 1
WHERE (id > (SELECT coalesce(min(cursor), 0) FROM destinations)
       OR id IN (SELECT event FROM deliveries WHERE state = 1))
  AND CASE WHEN json_valid(body) THEN json_extract(body, '$.data.action') = 'scale_in'
       OR json_extract(body, '$.data.adjustment.allow_decrease') ELSE 0 END;
";

/// More outcomes of deliveries, and compensation. The events of episodes that are open at the time of the
/// migration are unknown (`NULL`): their `on_resolved` events go to all destinations of the route, as before.
const OUTBOX: &str = "
ALTER TABLE targets ADD COLUMN fired BLOB;        -- see compensation.rs; NULL if unknown
ALTER TABLE events ADD COLUMN undoes BLOB;        -- the on_firing events that this one compensates
-- deliveries.state 4: arrived, `error` is the answer; 5: withdrawn, `error` is the reason; 6: a discarded dead
-- letter; 7: arrived after it was cancelled. due: the time; for 3 and 6 the event id up to which the row is
-- retained, 0 until that is known
ALTER TABLE deliveries ADD COLUMN expiry INTEGER; -- the event's expirytime, if redriven with another one
ALTER TABLE deliveries ADD COLUMN since INTEGER;  -- when it was redriven, if it was
UPDATE deliveries SET due = 0 WHERE state = 3;
DROP INDEX cancelled;
CREATE INDEX exceptions ON deliveries (state, destination, event) WHERE state IN (1, 2, 3, 6);
";

/// Does not change stored rows. From here on, `targets.state` and `records.body` may be compressed
/// (`codec/compression.rs`, `codec/states.rs`), and `events.body` is empty if the event is in an event block
/// (`codec/event_blocks.rs`).
const COMPRESSION: &str = "
CREATE TABLE texts (           -- bodies of events of one transaction
    first INTEGER PRIMARY KEY, -- the id of the first event
    last INTEGER NOT NULL,     -- the id of the last event; all between are in the block
    packed BLOB NOT NULL       -- each body after its length; deleted with the last event
);
CREATE TABLE samples (         -- compression dictionaries; never changed or deleted
    id INTEGER PRIMARY KEY,
    rule TEXT NOT NULL,
    text TEXT NOT NULL
);
ALTER TABLE targets ADD COLUMN sample INTEGER;    -- the dictionary of the compressed state
";

/// Tables and columns get the names of the code. `ALTER TABLE … RENAME` changes the schema only, so this step
/// takes the same time for every store. The index `shrinking` stays: creating it anew would read all events.
const RENAMES: &str = "
ALTER TABLE texts RENAME TO event_blocks;
ALTER TABLE event_blocks RENAME COLUMN packed TO compressed;
ALTER TABLE samples RENAME TO dictionaries;
ALTER TABLE watching RENAME TO recheck_queue;
ALTER TABLE former_targets RENAME TO retired_targets;
ALTER TABLE retired_targets RENAME COLUMN gone TO retired_at;
ALTER TABLE targets RENAME COLUMN fired TO firing_events;
ALTER TABLE targets RENAME COLUMN sample TO dictionary;
ALTER TABLE events RENAME COLUMN shrinks TO decreases;
ALTER TABLE events RENAME COLUMN undoes TO compensates;
ALTER TABLE destinations RENAME COLUMN given TO enqueued;
ALTER TABLE destinations RENAME COLUMN passed TO settled_below_cursor;
";

/// Does not change stored rows.
const AUDIT: &str = "
CREATE TABLE audit (           -- acts of operators
    id INTEGER PRIMARY KEY,    -- increasing
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act TEXT NOT NULL,
    body TEXT NOT NULL         -- JSON
);
";

/// From here on, `targets.dictionary` is the id of a dictionary of the program (`codec/states.rs`). The states that
/// were compressed with a dictionary of the table are encoded anew before it is dropped; see [`migrate`].
const STATIC_DICTIONARIES: &str = "
DROP TABLE dictionaries;
";

/// Does not change stored rows. From here on, `at` of records, of their entries in `history` and of audit entries is the
/// wall clock, and so is `due` of deliveries that have ended. All other times are by the store's clock.
const WALL_CLOCK: &str = "
ALTER TABLE records ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;  -- the store's clock minus `at`, in nanoseconds
ALTER TABLE audit ADD COLUMN ahead INTEGER NOT NULL DEFAULT 0;    -- the same
CREATE TABLE wall_clock_steps (
    record INTEGER PRIMARY KEY -- a record with an earlier `at` than the one before it
);
";

/// Changes dead letters and, because decisions depend on more than before, when targets are processed: reads all states,
/// see [`schedule_anew`]. The events of states that were written before are in
/// `targets.firing_events`, see also [`list_undelivered_decreases`]; `tracked` replaces it when the state is written again.
const DELIVERY_FEEDBACK: &str = "
ALTER TABLE targets ADD COLUMN tracked BLOB;      -- see tracked_events.rs; NULL: see firing_events
ALTER TABLE targets ADD COLUMN awaits INTEGER;    -- 1 tracks events, 2 awaits a delivery, 4 a destination; NULL: nothing
ALTER TABLE deliveries ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;  -- see delivery_state.rs
CREATE TABLE receipts (        -- deliveries that have arrived
    destination INTEGER NOT NULL,
    first INTEGER NOT NULL,    -- the first and the last event of the block
    last INTEGER NOT NULL,
    block BLOB NOT NULL,       -- see receipts.rs; deleted with the last of its events
    PRIMARY KEY (destination, first)
) WITHOUT ROWID;
CREATE TABLE delivery_rechecks (  -- targets to process, since an event that they track has ended without arriving
    target INTEGER PRIMARY KEY
);
UPDATE deliveries SET flags = 8 WHERE state = 2 AND state IN (1, 2, 3, 6) AND error LIKE 'expired:%';
";

const KEPT_NOTIFICATIONS: &str = "
CREATE TABLE notifications (   -- bodies of notifications as they came
    at INTEGER PRIMARY KEY,    -- when it was decided, by the store's clock; later where another one has that time
    ahead INTEGER NOT NULL,    -- the store's clock minus the wall clock, in nanoseconds
    start INTEGER NOT NULL,    -- the number of bytes of all bodies before this one; increasing
    source TEXT NOT NULL,
    body BLOB NOT NULL         -- compressed, see src/store/notifications.rs
);
";

pub(crate) fn migrate(
    writer: &mut Connection,
    version: usize,
    now: Time,
) -> rusqlite::Result<(Time, [u8; 16])> {
    let transaction = writer.transaction()?;
    for step in &MIGRATIONS[version..] {
        if *step == STATIC_DICTIONARIES {
            encode_states_anew(&transaction)?;
        }
        transaction.execute_batch(step)?;
        if *step == DELIVERY_FEEDBACK {
            schedule_anew(&transaction)?;
            list_undelivered_decreases(&transaction)?;
            // Nothing else uses it.
            transaction.execute_batch("DROP INDEX shrinking")?;
        }
    }
    if version == 1 {
        count_states(&transaction)?;
    }
    transaction.pragma_update(None, "user_version", MIGRATIONS.len())?;
    if version == 0 {
        transaction.execute("INSERT INTO store VALUES (1, ?1, randomblob(16))", [now.as_nanos()])?;
    }
    let found = transaction.query_row("SELECT created, hash_key FROM store", [], |row| {
        Ok((Time::from_nanos(row.get(0)?), row.get(1)?))
    })?;
    transaction.commit()?;
    Ok(found)
}

/// Fills the tally of a store of schema 1, which had none.
fn count_states(transaction: &Connection) -> rusqlite::Result<()> {
    let mut deltas = Deltas::default();
    let mut targets = transaction.prepare("SELECT id, state FROM targets")?;
    let mut rows = targets.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let state: TargetState = match serde_json::from_str(row.get_ref(1)?.as_str()?) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, target = id, "target state unreadable, not counted");
                continue;
            }
        };
        deltas.put(&TargetState::default(), &state);
    }
    deltas.write(transaction, &Tally::default())
}

/// Sets the due time of each target, and fills the recheck queue. Both are derived from the state, and what is stored
/// must be what this program derives: a change of the state replaces what it derives from the one before.
fn schedule_anew(transaction: &Connection) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM recheck_queue", [])?;
    let mut targets = transaction.prepare("SELECT id, state, dictionary, due FROM targets")?;
    let mut set_due = transaction.prepare("UPDATE targets SET due = ?2 WHERE id = ?1")?;
    let mut add = transaction.prepare("INSERT INTO recheck_queue VALUES (?1)")?;
    let mut rows = targets.query([])?;
    let mut scheduled: Vec<(i64, Option<i64>)> = Vec::new();
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let state = match read_state(row) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, target = id, "target state unreadable, not scheduled anew");
                continue;
            }
        };
        if state.depends_on_controls() {
            add.execute([id])?;
        }
        let due = state.due().map(Time::as_nanos);
        if row.get(3) != Ok(due) {
            scheduled.push((id, due));
        }
    }
    scheduled.into_iter().try_for_each(|(id, due)| set_due.execute(params![id, due]).map(drop))
}

/// Decreases that have not arrived at some destination of their route.
const UNDELIVERED_DECREASES: &str = "
    SELECT e.id, e.target, e.route, e.compensates, e.body
    FROM events e INDEXED BY shrinking JOIN routes r ON r.id = e.route
    WHERE e.decreases = 1
    AND (e.id > (SELECT coalesce(min(cursor), 0) FROM destinations)
         OR e.id IN (SELECT event FROM deliveries WHERE state = 1 AND state IN (1, 2, 3, 6)))
    AND EXISTS (
        SELECT 1 FROM destinations d JOIN json_each(r.destinations) names ON names.value = d.name
        LEFT JOIN deliveries row ON row.destination = d.id AND row.event = e.id
        WHERE row.state = 1 OR row.state IS NULL AND e.id > d.cursor)
    ORDER BY e.id";

/// Adds decreases of earlier versions that are not delivered, and what they compensate, to the events of their targets,
/// which are processed before anything is delivered. A target that has no state any more is left alone: its last alert
/// has resolved longer ago than a decrease is tried.
fn list_undelivered_decreases(transaction: &Connection) -> rusqlite::Result<()> {
    let mut undelivered = transaction.prepare(UNDELIVERED_DECREASES)?;
    let mut listed = transaction.prepare("SELECT firing_events FROM targets WHERE id = ?1")?;
    let mut list = transaction.prepare("UPDATE targets SET firing_events = ?2 WHERE id = ?1")?;
    let mut process = transaction.prepare("INSERT OR IGNORE INTO delivery_rechecks VALUES (?1)")?;
    let mut bodies = BodyReader::new(transaction);
    let mut rows = undelivered.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, target): (i64, i64) = (row.get(0)?, row.get(1)?);
        let document = EventDocument::read(bodies.read(seq, row.get_ref(4)?)?).unwrap_or_default();
        let Some(episode) = document.episode().map(firing_events::hash) else { continue };
        let known: Option<Option<Vec<u8>>> = listed.query_row([target], |row| row.get(0)).optional()?;
        // The events of episodes from before schema 3 are unknown.
        let Some(known) = known.flatten() else { continue };
        let compensated = row.get_ref(3)?.as_blob_or_null()?.unwrap_or_default();
        let mut all = firing_events::decode(&known);
        all.extend(firing_events::decode(compensated));
        all.push(FiringEventRef { episode, seq: EventSeq(seq), route: row.get(2)? });
        all.sort_by_key(|event| event.seq);
        all.dedup_by_key(|event| event.seq);
        list.execute(params![target, firing_events::encode(&all)])?;
        process.execute([target])?;
    }
    Ok(())
}

/// Reads a state from the second column and the dictionary from the third.
fn read_state(row: &Row<'_>) -> anyhow::Result<TargetState> {
    let text = states::decode(row.get_ref(1)?, row.get(2)?)?;
    Ok(serde_json::from_str(&text)?)
}

/// Encodes the states that were compressed with a dictionary of the table `dictionaries`.
fn encode_states_anew(transaction: &Connection) -> rusqlite::Result<()> {
    let mut targets = transaction.prepare(
        "SELECT t.id, t.state, d.text FROM targets t LEFT JOIN dictionaries d ON d.id = t.dictionary
         WHERE t.dictionary IS NOT NULL",
    )?;
    let mut update = transaction.prepare("UPDATE targets SET state = ?2, dictionary = ?3 WHERE id = ?1")?;
    let mut leave = transaction.prepare("UPDATE targets SET dictionary = 0 WHERE id = ?1")?;
    let mut rows = targets.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        match compression::decode_with_dictionary(row.get_ref(1)?, row.get_ref(2)?.as_str_or_null()?) {
            Ok(text) => {
                let EncodedState { text, dictionary } = states::encode(text.into_owned());
                update.execute(params![id, text, dictionary])?;
            }
            Err(error) => {
                // There is no dictionary 0, so the row stays unreadable and concerns its own target only.
                tracing::warn!(%error, target = id, "target state unreadable, not migrated");
                leave.execute([id])?;
            }
        }
    }
    Ok(())
}
