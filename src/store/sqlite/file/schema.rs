//! Opening a database file: its settings, a check of its integrity, and the migration of its schema.
//!
//! The layout is the fastest one in `benches/store_layout.rs`: at most three narrow rows per event (the
//! target's state, the event, one entry of the target's history), increasing integers as keys instead of
//! hashes, so that new rows are appended at the end of each B-tree, and no unique index on the hot path. The
//! schema's version is `user_version`; each step of [`MIGRATIONS`] leads to the next.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::attachment::Attachment;
use super::lock::{self, StoreLock};
use super::migrations::{MIGRATIONS, migrate};
use crate::domain::time::Time;
use crate::store::Error;

/// Page size. Larger pages cost less CPU under load, and more bytes for a commit of a single event.
pub(crate) const PAGE_BYTES: i64 = 8192;
/// The first version with `wal_checkpoint(NOOP)`; older ones silently run another checkpoint mode.
const MIN_SQLITE_VERSION: i32 = 3_051_000;
/// How long a statement waits for a lock of another process, such as a backup or a `sqlite3` shell.
pub(crate) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// The WAL file is truncated to this size when it restarts.
const JOURNAL_SIZE_LIMIT_BYTES: i64 = 16 << 20;
/// The value of `PRAGMA synchronous` for `FULL`.
const SYNCHRONOUS_FULL: i64 = 2;
/// Page cache of a connection, in KiB: enough for the interior pages of the B-trees and the pages that grow.
const CACHE_KIB: i64 = 4 * 1024;

/// An open database: the writer's connection, and the lock against other processes.
pub(crate) struct Database {
    pub writer: Connection,
    /// Whether this call has created the database.
    pub is_new: bool,
    pub created: Time,
    pub hash_key: [u8; 16],
    /// For syncing. Closing any handle of the file drops the POSIX locks of all connections of this process,
    /// so it is opened before the first connection and closed after the last.
    pub file: Arc<File>,
    pub lock: StoreLock,
    pub attachment: Attachment,
}

/// Opens a database, creates it if it does not exist, and migrates its schema.
pub(crate) fn open(path: &Path, now: Time) -> Result<Database, Error> {
    let (file, lock) = lock::open(path)?;
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
    let attachment = Attachment::read(path, file.clone()).map_err(|error| {
        Error::Unusable(format!("cannot read the files of the store {}: {error}", path.display()))
    })?;
    tracing::info!(store = %path.display(), "store opened with synchronous=FULL");
    Ok(Database { writer, is_new: version == 0, created, hash_key, file, lock, attachment })
}

/// Opens a connection to a database file.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
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

/// Finds damage without reading the whole file: small tables are checked completely, large ones along the
/// path to their first and last row; everything else that a start needs is read right after this. Runs before
/// the migrations, so a table may be missing or have its earlier name.
fn check_integrity(writer: &Connection) -> rusqlite::Result<Option<String>> {
    let small = [
        "store",
        "routes",
        "destinations",
        "controls",
        "tally",
        "recheck_queue",
        "delivery_rechecks",
        "dictionaries",
        "wall_clock_steps",
    ];
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
        ("notifications", "at"),
        ("events", "id"),
        ("event_blocks", "first"),
        ("texts", "first"),
        ("history", "target, at, record"),
        ("deliveries", "destination, event"),
        ("receipts", "destination, first"),
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
pub(crate) fn unusable(path: &Path, error: &rusqlite::Error) -> Error {
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
pub(crate) fn unavailable(error: &rusqlite::Error) -> Error {
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
            opened
                .writer
                .execute("INSERT INTO notifications VALUES (1, 0, 0, 'prod-eu', x'00')", [])
                .unwrap();
            opened.writer.execute("INSERT INTO receipts VALUES (1, 2, 3, x'00')", []).unwrap();
        }
    }
}
