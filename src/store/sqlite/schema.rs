//! The schema with its migrations, and opening a database file.
//!
//! The layout is the fastest one in `benches/store_layout.rs`: at most three narrow rows per event (the
//! target's state, the event, one entry of the target's history), increasing integers as keys instead of
//! hashes, so that new rows are appended at the end of each B-tree, and no unique index on the hot path. The
//! schema's version is `user_version`; each step of [`MIGRATIONS`] leads to the next.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::tally::Deltas;
use crate::domain::state::TargetState;
use crate::domain::time::Time;
use crate::store::{Error, Tally};

/// Page size. Larger pages cost less CPU under load, and more bytes for a commit of a single event.
pub(super) const PAGE_BYTES: i64 = 8192;
/// The first version with `wal_checkpoint(NOOP)`; older ones silently run another checkpoint mode.
const MIN_SQLITE_VERSION: i32 = 3_051_000;
/// How long a start waits for the lock of a process that is ending, and the interval of its attempts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(20);
/// How long a statement waits for a lock of another process, such as a backup or a `sqlite3` shell.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// The WAL file is truncated to this size when it restarts.
const JOURNAL_SIZE_LIMIT_BYTES: i64 = 16 << 20;
/// The value of `PRAGMA synchronous` for `FULL`.
const SYNCHRONOUS_FULL: i64 = 2;
/// Page cache of a connection, in KiB: enough for the interior pages of the B-trees and the pages that grow.
const CACHE_KIB: i64 = 4 * 1024;

/// The migrations in order; `user_version` is the number of applied ones.
const MIGRATIONS: [&str; 6] =
    [INITIAL_SCHEMA, CONTROLS_AND_UNDELIVERED_DECREASES, OUTBOX, COMPRESSION, RENAMES, AUDIT];

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
/// (`compression.rs`, `dictionaries.rs`), and `events.body` is empty if the event is in an event block
/// (`event_blocks.rs`).
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

/// `deliveries.state`: waits for a retry.
pub(super) const RETRY: i64 = 1;
/// `deliveries.state`: a dead letter.
pub(super) const DEAD: i64 = 2;
/// `deliveries.state`: cancelled. The row shows that it never arrived.
pub(super) const CANCELLED: i64 = 3;
/// `deliveries.state`: arrived, with an answer.
pub(super) const ANSWERED: i64 = 4;
/// `deliveries.state`: not sent, because there was nothing to compensate.
pub(super) const WITHDRAWN: i64 = 5;
/// `deliveries.state`: a discarded dead letter. The row shows that it never arrived.
pub(super) const DISCARDED: i64 = 6;
/// `deliveries.state`: arrived after it was cancelled.
pub(super) const ARRIVED: i64 = 7;

/// An open database: the writer's connection, and the lock against other processes.
pub(super) struct Database {
    pub writer: Connection,
    pub created: Time,
    pub hash_key: [u8; 16],
    /// For syncing. Closing any handle of the file drops the POSIX locks of all connections of this process,
    /// so it is opened before the first connection and closed after the last.
    pub file: Arc<File>,
    /// Locked for as long as it is open.
    pub lock: File,
}

/// Opens a database, creates it if it does not exist, and migrates its schema.
pub(super) fn open(path: &Path, now: Time) -> Result<Database, Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::Unusable(format!("cannot create the directory {} of the store: {error}", folder.display()))
        })?;
    }
    let lock = lock(path)?;
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let file =
        file.map_err(|error| Error::Unusable(format!("cannot open the store {}: {error}", path.display())))?;
    if rusqlite::version_number() < MIN_SQLITE_VERSION {
        return Err(Error::Unusable(format!(
            "SQLite {} is too old; version 3.51 or later is required",
            rusqlite::version()
        )));
    }
    let mut writer = connect(path).map_err(|error| unusable(path, &error))?;
    let version = prepare(&writer).map_err(|error| unusable(path, &error))?;
    if version > 0 {
        check_integrity(&writer)
            .map_err(|error| unusable(path, &error))?
            .map_or(Ok(()), |found| Err(damaged(path, &found)))?;
    }
    if version > MIGRATIONS.len() {
        return Err(Error::Unusable(format!(
            "the store {} was written by a newer scalebridge (schema {version}, this version supports {}); start \
             that version, or set `store.sqlite.path` to another file",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    let (created, hash_key) = migrate(&mut writer, version, now).map_err(|error| unusable(path, &error))?;
    // Read back, because SQLite ignores unknown pragmas and values.
    let level = writer.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0));
    if level.map_err(|error| unusable(path, &error))? != SYNCHRONOUS_FULL {
        return Err(Error::Unusable("this SQLite does not commit with synchronous=FULL".to_owned()));
    }
    tracing::info!(store = %path.display(), "store opened with synchronous=FULL");
    Ok(Database { writer, created, hash_key, file: Arc::new(file), lock })
}

/// Locks the store against a second process, which would not see the cached state of this one.
fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = File::options().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(|error| {
        Error::Unusable(format!(
            "cannot open {}: {error}; the directory of the store has to be writable",
            name.display()
        ))
    })?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // The holder may be ending, or be a forked child that has not called exec yet.
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY_DELAY),
            Err(error) => {
                return Err(Error::Unusable(format!(
                    "another scalebridge uses the store {} ({error}); stop it, or set `store.sqlite.path` to another file",
                    path.display()
                )));
            }
        }
    }
}

/// Opens a connection to a database file.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_PRIVATE_CACHE;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // The checkpoint thread and the writer run checkpoints explicitly.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES, |_| Ok(()))?;
    Ok(connection)
}

fn prepare(writer: &Connection) -> rusqlite::Result<usize> {
    let is_new = writer.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0;
    if is_new {
        // Both are fixed once the file has a page. The second allows the file to shrink after a storm.
        writer.pragma_update(None, "page_size", PAGE_BYTES)?;
        writer.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    writer.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    writer.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(writer: &mut Connection, version: usize, now: Time) -> rusqlite::Result<(Time, [u8; 16])> {
    let transaction = writer.transaction()?;
    for step in &MIGRATIONS[version..] {
        transaction.execute_batch(step)?;
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

/// Fills the tally and the recheck queue of a store of schema 1, which had neither.
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
        if state.depends_on_controls() {
            transaction.execute("INSERT INTO recheck_queue VALUES (?1)", [id])?;
        }
    }
    deltas.write(transaction, &Tally::default())
}

/// Finds damage without reading the whole file: small tables are checked completely, large ones along the
/// path to their first and last row; everything else that a start needs is read right after this. Runs before
/// the migrations, so a table may be missing or have its earlier name.
fn check_integrity(writer: &Connection) -> rusqlite::Result<Option<String>> {
    let small = ["store", "routes", "destinations", "controls", "tally", "recheck_queue", "dictionaries"];
    for table in small.into_iter().chain(["watching", "samples"]) {
        if !writer.table_exists(None, table)? {
            continue;
        }
        let check = format!("PRAGMA quick_check('{table}')");
        let found: String = writer.query_row(&check, [], |row| row.get(0))?;
        if found != "ok" {
            return Ok(Some(format!("{table}: {}", found.lines().last().unwrap_or_default())));
        }
    }
    for (table, key) in [
        ("targets", "id"),
        ("records", "id"),
        ("audit", "id"),
        ("events", "id"),
        ("event_blocks", "first"),
        ("texts", "first"),
        ("history", "target, at, record"),
        ("deliveries", "destination, event"),
        ("retired_targets", "hash, id"),
        ("former_targets", "hash, id"),
    ] {
        if !writer.table_exists(None, table)? {
            continue;
        }
        for order in [key.to_owned(), key.replace(',', " DESC,") + " DESC"] {
            let query = format!("SELECT {key} FROM {table} ORDER BY {order} LIMIT 1");
            writer.query_row(&query, [], |_| Ok(())).optional()?;
        }
    }
    Ok(None)
}

fn damaged(path: &Path, found: &str) -> Error {
    let path = path.display();
    Error::Unusable(format!(
        "the store {path} is damaged ({found}); keep a copy, try `sqlite3 {path} .recover`, or move it away: \
         with a new store, alerts that still fire increase capacity again and never decrease it"
    ))
}

/// Converts an error at start, with the fix.
pub(super) fn unusable(path: &Path, error: &rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) {
        return damaged(path, &error.to_string());
    }
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::Unusable(format!(
            "{path} is not a SQLite database; set `store.sqlite.path` to another file. If it was a scalebridge store, \
             its header is damaged: keep a copy, and restore a backup or move it away: with a new store, alerts \
             that still fire increase capacity again and never decrease it"
        )),
        _ => Error::Unusable(format!("cannot open the store {path}: {error}")),
    }
}

/// Converts an error at run time: nothing was written, and a retry may succeed.
pub(super) fn unavailable(error: &rusqlite::Error) -> Error {
    Error::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_of_each_earlier_schema_is_migrated() {
        for version in 1..MIGRATIONS.len() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("bridge.db");
            let mut earlier = connect(&path).unwrap();
            prepare(&earlier).unwrap();
            let transaction = earlier.transaction().unwrap();
            MIGRATIONS[..version].iter().for_each(|step| transaction.execute_batch(step).unwrap());
            transaction.execute("INSERT INTO store VALUES (1, 7, randomblob(16))", []).unwrap();
            transaction.pragma_update(None, "user_version", version).unwrap();
            transaction.commit().unwrap();
            drop(earlier);
            let opened = open(&path, Time::from_nanos(9)).unwrap();
            assert_eq!(opened.created, Time::from_nanos(7), "of schema {version}");
            let found = opened.writer.pragma_query_value(None, "user_version", |row| row.get::<_, usize>(0));
            assert_eq!(found.unwrap(), MIGRATIONS.len());
            opened.writer.execute("INSERT INTO audit VALUES (1, 9, 'ann', 'pause', '{}')", []).unwrap();
        }
    }
}
