//! The tables, and how a database file is opened.
//!
//! The layout is the winner of `benches/store_layout.rs`: at most three narrow rows an event (the
//! target's state, the event, one entry of the target's history), numbers that rise instead of hashes
//! as keys, so that what is new lands at the end of each tree, and no index that the hot path has to
//! keep unique. The schema's version is `user_version`; each step of [`MIGRATIONS`] leads to the next.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::tally::Deltas;
use crate::domain::state::TargetState;
use crate::domain::time::Time;
use crate::store::{Error, Tally};

/// A page of the file. Larger ones cost less CPU under load and more bytes for a lone commit.
pub(super) const PAGE_BYTES: i64 = 8192;
/// `wal_checkpoint(NOOP)` is known from this version on; older ones would quietly do another.
const MIN_SQLITE_VERSION: i32 = 3_051_000;
/// How long a bridge waits for one that is ending, and how often it looks.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_RETRY_DELAY: Duration = Duration::from_millis(20);
/// How long a statement waits for another connection: nobody but a backup or a person should have one.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// The log's file is cut to this when it starts over.
const JOURNAL_SIZE_LIMIT_BYTES: i64 = 16 << 20;
/// What SQLite calls `FULL`.
const SYNCHRONOUS_FULL: i64 = 2;
/// Cache of a connection, in KiB: what is read twice is the way down the trees, and the pages that grow.
const CACHE_KIB: i64 = 4 * 1024;

/// What leads from one version of the schema to the next; `user_version` counts those done.
const MIGRATIONS: [&str; 5] =
    [INITIAL_SCHEMA, CONTROLS_AND_UNDELIVERED_DECREASES, OUTBOX, COMPRESSION, RENAMES];

const INITIAL_SCHEMA: &str = "
CREATE TABLE store (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    created INTEGER NOT NULL,  -- all times are nanoseconds since 1970
    hash_key BLOB NOT NULL     -- keys the hashes of targets and alerts
);
CREATE TABLE targets (
    id INTEGER PRIMARY KEY,    -- rises; the FIFO group of the target's events
    hash BLOB NOT NULL,        -- 16 bytes, of the key
    due INTEGER,               -- when it has to be looked at again
    alerts BLOB NOT NULL,      -- 16 bytes for each alert that it knows
    key TEXT NOT NULL,
    state TEXT NOT NULL        -- JSON, last: a scan of the rest never reads it
);
CREATE TABLE former_targets (  -- numbers that a key had before it was forgotten
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
CREATE TABLE history (         -- what was decided about a target, by time
    target INTEGER NOT NULL,
    at INTEGER NOT NULL,
    record INTEGER NOT NULL,
    PRIMARY KEY (target, at, record)
) WITHOUT ROWID;
CREATE TABLE routes (          -- the sets of destinations that events go to
    id INTEGER PRIMARY KEY,
    destinations TEXT NOT NULL UNIQUE  -- a JSON list of names
);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,    -- rises in the order of the commits
    target INTEGER NOT NULL,
    route INTEGER NOT NULL,
    at INTEGER NOT NULL,
    body TEXT NOT NULL         -- as it is sent
);
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    cursor INTEGER NOT NULL,   -- events up to here are settled or have a row in deliveries
    given INTEGER NOT NULL,    -- deliveries ever given to it
    passed INTEGER NOT NULL,   -- how many of them lie at or below the cursor
    dead INTEGER NOT NULL      -- how many are dead letters
);
CREATE TABLE deliveries (      -- the exceptions
    destination INTEGER NOT NULL,
    event INTEGER NOT NULL,
    state INTEGER NOT NULL,    -- 1 waits for another try, 2 is a dead letter
    attempts INTEGER NOT NULL,
    due INTEGER NOT NULL,
    error TEXT NOT NULL,
    PRIMARY KEY (destination, event)
) WITHOUT ROWID;
";

/// States stay as they are: which of them watch is a table of its own, so that writing one that does not
/// costs nothing more.
const CONTROLS_AND_UNDELIVERED_DECREASES: &str = "
CREATE TABLE controls (        -- what holds for all targets
    id INTEGER PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL,       -- when it was written
    body TEXT NOT NULL         -- JSON
);
CREATE TABLE watching (        -- targets that a change of the controls may concern
    target INTEGER PRIMARY KEY
);
CREATE TABLE tally (           -- what is open and what waits, over all targets; none is 0
    kind INTEGER NOT NULL,     -- 1 open episodes of a rule, 2 what waits, by its verdict
    name TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
ALTER TABLE events ADD COLUMN shrinks INTEGER NOT NULL DEFAULT 0;  -- 1 if it may make capacity less
CREATE INDEX shrinking ON events (id) WHERE shrinks = 1;
-- deliveries.state 3: cancelled, and the cursor does not tell it yet
CREATE INDEX cancelled ON deliveries (destination, event) WHERE state = 3;
UPDATE events SET shrinks = 1
WHERE (id > (SELECT coalesce(min(cursor), 0) FROM destinations)
       OR id IN (SELECT event FROM deliveries WHERE state = 1))
  AND CASE WHEN json_valid(body) THEN json_extract(body, '$.data.action') = 'scale_in'
       OR json_extract(body, '$.data.adjustment.allow_decrease') ELSE 0 END;
";

/// What a delivery was beside sent. Of what was open before nobody knows which events it has sent: what
/// undoes it is sent as before.
const OUTBOX: &str = "
ALTER TABLE targets ADD COLUMN fired BLOB;        -- see evidence.rs; NULL if that is not known
ALTER TABLE events ADD COLUMN undoes BLOB;        -- what was fired, where this undoes it
-- deliveries.state 4: arrived, and answered `error`; 5: withdrawn, for the reason `error`; 6: a dead letter
-- that was discarded; 7: arrived after it was cancelled. due: when, of 3 and 6 the event after which nobody
-- asks for the row any more, once that is known
ALTER TABLE deliveries ADD COLUMN expiry INTEGER; -- the event's expirytime, if redriven with another one
ALTER TABLE deliveries ADD COLUMN since INTEGER;  -- when it was redriven, if it was
UPDATE deliveries SET due = 0 WHERE state = 3;
DROP INDEX cancelled;
CREATE INDEX exceptions ON deliveries (state, destination, event) WHERE state IN (1, 2, 3, 6);
";

/// What was written before stays as it is. From here on `targets.state` and `records.body` may be packed
/// (`pack.rs`, `samples.rs`), and `events.body` is empty where the text is in `texts` (`bodies.rs`).
const COMPRESSION: &str = "
CREATE TABLE texts (           -- of some events that were decided together
    first INTEGER PRIMARY KEY, -- the number of the first one
    last INTEGER NOT NULL,     -- and of the last one; all between are meant
    packed BLOB NOT NULL       -- each text behind its length; kept until no event is left
);
CREATE TABLE samples (         -- states that others are packed with; none goes
    id INTEGER PRIMARY KEY,
    rule TEXT NOT NULL,
    text TEXT NOT NULL
);
ALTER TABLE targets ADD COLUMN sample INTEGER;    -- what the state is packed with, beside itself
";

/// Tables and columns get the names of the code. `ALTER TABLE … RENAME` changes the schema only, so this step takes
/// the same time for every store. The index `shrinking` stays: creating it anew would read all events.
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

/// `deliveries.state`: waits for another try.
pub(super) const RETRY: i64 = 1;
/// `deliveries.state`: a dead letter.
pub(super) const DEAD: i64 = 2;
/// `deliveries.state`: cancelled. Kept as evidence that it never arrived.
pub(super) const CANCELLED: i64 = 3;
/// `deliveries.state`: arrived, with an answer.
pub(super) const ANSWERED: i64 = 4;
/// `deliveries.state`: not sent, since there was nothing to undo.
pub(super) const WITHDRAWN: i64 = 5;
/// `deliveries.state`: was a dead letter. Kept as evidence that it never arrived.
pub(super) const DISCARDED: i64 = 6;
/// `deliveries.state`: arrived, though it was cancelled.
pub(super) const ARRIVED: i64 = 7;

/// An opened database: the writer's connection, and what holds other processes off.
pub(super) struct Database {
    pub writer: Connection,
    pub created: Time,
    pub hash_key: [u8; 16],
    /// For syncing. Closing any handle of the file drops the locks of all connections in this process,
    /// so it is opened before the first and closed after the last.
    pub file: Arc<File>,
    /// Locked as long as it is open.
    pub lock: File,
}

/// Opens a database, creates it if there is none, and brings its schema up to date.
pub(super) fn open(path: &Path, now: Time) -> Result<Database, Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|error| {
            Error::Unusable(format!("cannot create the folder {} of the store: {error}", folder.display()))
        })?;
    }
    let lock = lock(path)?;
    let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let file =
        file.map_err(|error| Error::Unusable(format!("cannot open the store {}: {error}", path.display())))?;
    if rusqlite::version_number() < MIN_SQLITE_VERSION {
        return Err(Error::Unusable(format!("SQLite {} is too old; 3.51 is needed", rusqlite::version())));
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
            "the store {} was written by a newer scalebridge (schema {version}, this one knows {}); start \
             that version, or give this one a store of its own",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    let (created, hash_key) = migrate(&mut writer, version, now).map_err(|error| unusable(path, &error))?;
    // Read back, since a pragma that is not understood is passed over.
    let level = writer.pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0));
    if level.map_err(|error| unusable(path, &error))? != SYNCHRONOUS_FULL {
        return Err(Error::Unusable("this SQLite does not commit with synchronous=FULL".to_owned()));
    }
    tracing::info!(store = %path.display(), "opened the store, which commits with synchronous=FULL");
    Ok(Database { writer, created, hash_key, file: Arc::new(file), lock })
}

/// Two bridges on one file would not see each other's state, so the second one does not start.
fn lock(path: &Path) -> Result<File, Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = File::options().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(|error| {
        Error::Unusable(format!(
            "cannot open {}: {error}; the store's folder has to be writable",
            name.display()
        ))
    })?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            // One that is just ending, or a child of one that has not become another program yet.
            Err(_) if Instant::now() < deadline => std::thread::sleep(LOCK_RETRY_DELAY),
            Err(error) => {
                return Err(Error::Unusable(format!(
                    "another scalebridge uses the store {} ({error}); stop it, or give this one a store of its own",
                    path.display()
                )));
            }
        }
    }
}

/// One more connection to an opened database.
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
    // Checkpoints have a connection of their own.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update_and_check(None, "journal_size_limit", JOURNAL_SIZE_LIMIT_BYTES, |_| Ok(()))?;
    Ok(connection)
}

fn prepare(writer: &Connection) -> rusqlite::Result<usize> {
    let is_new = writer.pragma_query_value(None, "page_count", |row| row.get::<_, i64>(0))? == 0;
    if is_new {
        // Both hold for good once there is a page. The second lets the file shrink after a storm.
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

/// Counts what is open and notes who watches, for a store that did not do so from the beginning.
fn count_states(transaction: &Connection) -> rusqlite::Result<()> {
    let mut deltas = Deltas::default();
    let mut targets = transaction.prepare("SELECT id, state FROM targets")?;
    let mut rows = targets.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let state: TargetState = match serde_json::from_str(row.get_ref(1)?.as_str()?) {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(%error, target = id, "a target's state cannot be read, and is not counted");
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

/// Finds damage without reading the whole file: small tables are checked completely, large ones along the path to
/// their first and last row; everything else that a start needs is read right after this. Runs before the migrations,
/// so a table may be missing or have its earlier name.
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
        "the store {path} is damaged ({found}); keep a copy, try `sqlite3 {path} .recover`, or move it \
         away: a new store adds capacity again where alerts still fire, and takes none away for them"
    ))
}

/// What an error at start means, and what to do about it.
pub(super) fn unusable(path: &Path, error: &rusqlite::Error) -> Error {
    if error.sqlite_error_code() == Some(ErrorCode::DatabaseCorrupt) {
        return damaged(path, &error.to_string());
    }
    let path = path.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => Error::Unusable(format!(
            "{path} is not a scalebridge store: it is no SQLite database; give `store.sqlite.path` another \
             name. If it was one, its head is damaged: keep a copy, and restore a backup or move it away: a \
             new store adds capacity again where alerts still fire, and takes none away for them"
        )),
        _ => Error::Unusable(format!("cannot open the store {path}: {error}")),
    }
}

/// What an error means while the bridge runs: nothing was written, and it may work later.
pub(super) fn unavailable(error: &rusqlite::Error) -> Error {
    Error::Unavailable(error.to_string())
}
