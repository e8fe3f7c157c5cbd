//! The ledger of workers on one machine: one SQLite file, which survives `kill -9` and a power failure.
//!
//! Several processes can use the file, for example a worker and the command that stops a direction. A network file system
//! does not do: its locks are not reliable, and the memory that SQLite shares between processes is of one machine.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior, params};
use scalebridge::domain::time::Time;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AppliedItem, Entries, Freeze, Ledger, LedgerError, TargetItem, Written};
use crate::event::ScalingEvent;

/// Distinguishes the file from those of other programs: "sbsc".
const APPLICATION_ID: i64 = 0x7362_7363;
const SCHEMA_VERSION: i64 = 1;
/// How long a transaction waits for those of other processes. Ours take milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Each write of an applied item deletes at most this many outdated ones: more than it adds, and little work.
const MAX_DELETED_ROWS: i64 = 20;

/// Versions are numbers of their own, so that a write is conditional on them; the rest of an item is JSON.
const SCHEMA: &str = "
    CREATE TABLE targets (subject TEXT PRIMARY KEY, version INTEGER NOT NULL, item TEXT NOT NULL) STRICT;
    CREATE TABLE applied (id TEXT PRIMARY KEY, delete_after_ms INTEGER NOT NULL, item TEXT NOT NULL) STRICT;
    CREATE INDEX applied_by_age ON applied (delete_after_ms);
    CREATE TABLE freeze (one INTEGER PRIMARY KEY CHECK (one = 1), version INTEGER NOT NULL, item TEXT NOT NULL) STRICT;
";

/// SQLite goes on with a file that is not at its path any more, and sees nothing of what others write to the new one.
const REPLACED: &str = "the file was deleted or replaced while it was in use: restart the scaler, which then uses the \
                        file that is there; an empty one does not know what was applied, so put the old one back before";

/// Distinguishes a file from any other one that is at the same path later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    fn at(path: &Path) -> Result<Self, Failure> {
        let metadata = std::fs::metadata(path).map_err(|error| Failure(error.to_string()))?;
        Ok(Self { device: metadata.dev(), inode: metadata.ino() })
    }
}

/// A ledger in a file.
#[derive(Clone)]
pub struct SqliteLedger {
    path: Arc<Path>,
    connection: Arc<Mutex<Connection>>,
    /// The file that is open.
    file: FileId,
    /// The time, to delete outdated items.
    now: fn() -> Time,
}

impl SqliteLedger {
    /// Opens the file, or creates it.
    ///
    /// # Errors
    /// It cannot be opened, or is not a ledger that this version can read.
    pub async fn open(path: PathBuf, now: fn() -> Time) -> Result<Self, LedgerError> {
        let shown: Arc<Path> = path.as_path().into();
        let (connection, file) = blocking(&shown, move || Ok((open(&path)?, FileId::at(&path)?))).await?;
        Ok(Self { path: shown, connection: Arc::new(Mutex::new(connection)), file, now })
    }

    /// Runs a transaction. If the caller goes away meanwhile, it is carried out nevertheless.
    async fn run<T: Send + 'static>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (connection, path, file) = (self.connection.clone(), Arc::clone(&self.path), self.file);
        blocking(&self.path, move || {
            let mut connection = connection.lock();
            if FileId::at(&path).ok() != Some(file) {
                return Err(Failure(REPLACED.to_owned()));
            }
            let transaction = connection.transaction_with_behavior(behavior)?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }
}

impl Ledger for SqliteLedger {
    /// All of it as of one moment.
    async fn read(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        let subject = event.subject.clone();
        let mut ids = event.reverts.clone();
        ids.push(event.id.clone());
        self.run(TransactionBehavior::Deferred, move |transaction| {
            let target = transaction
                .prepare_cached("SELECT item FROM targets WHERE subject = ?1")?
                .query_row([subject], |row| row.get::<_, String>(0))
                .optional()?;
            let target: TargetItem =
                target.map_or_else(|| Ok(TargetItem::default()), |text| decode(&text))?;
            if let Some(pending) = &target.pending {
                ids.extend(pending.reverts.iter().cloned().chain([pending.id.clone()]));
            }
            Ok(Entries { target, applied: applied(transaction, &ids)?, freeze: freeze(transaction)? })
        })
        .await
    }

    async fn write_target(
        &self,
        subject: &str,
        version: u64,
        item: &TargetItem,
    ) -> Result<Written, LedgerError> {
        let (subject, next, item) = (subject.to_owned(), item.version, encode(item)?);
        self.run(TransactionBehavior::Immediate, move |transaction| {
            let rows = if version == 0 {
                transaction
                    .prepare_cached("INSERT INTO targets VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
                    .execute(params![subject, next, item])?
            } else {
                transaction
                    .prepare_cached(
                        "UPDATE targets SET version = ?2, item = ?3 WHERE subject = ?1 AND version = ?4",
                    )?
                    .execute(params![subject, next, item, version])?
            };
            Ok(if rows == 1 { Written::Yes } else { Written::Changed })
        })
        .await
    }

    async fn replace_applied(
        &self,
        _subject: &str,
        old: &AppliedItem,
        new: &AppliedItem,
    ) -> Result<Written, LedgerError> {
        let (id, old, new) = (new.id.clone(), encode(old)?, encode(new)?);
        self.run(TransactionBehavior::Immediate, move |transaction| {
            let rows = transaction
                .prepare_cached("UPDATE applied SET item = ?2 WHERE id = ?1 AND item IN (?2, ?3)")?
                .execute(params![id, new, old])?;
            Ok(if rows == 1 { Written::Yes } else { Written::Changed })
        })
        .await
    }

    async fn write_applied(&self, _subject: &str, item: &AppliedItem) -> Result<(), LedgerError> {
        let delete_after = item.kept_until().as_millis();
        let (id, item, now) = (item.id.clone(), encode(item)?, (self.now)().as_millis());
        self.run(TransactionBehavior::Immediate, move |transaction| {
            transaction
                .prepare_cached("INSERT INTO applied VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING")?
                .execute(params![id, delete_after, item])?;
            transaction
                .prepare_cached(
                    "DELETE FROM applied WHERE id IN
                     (SELECT id FROM applied WHERE delete_after_ms < ?1 ORDER BY delete_after_ms LIMIT ?2)",
                )?
                .execute(params![now, MAX_DELETED_ROWS])?;
            Ok(())
        })
        .await
    }

    async fn read_freeze(&self) -> Result<Freeze, LedgerError> {
        self.run(TransactionBehavior::Deferred, freeze).await
    }

    async fn write_freeze(&self, version: u64, freeze: &Freeze) -> Result<Written, LedgerError> {
        let (next, item) = (freeze.version, encode(freeze)?);
        self.run(TransactionBehavior::Immediate, move |transaction| {
            let rows = if version == 0 {
                let insert = "INSERT INTO freeze VALUES (1, ?1, ?2) ON CONFLICT DO NOTHING";
                transaction.execute(insert, params![next, item])?
            } else {
                let update = "UPDATE freeze SET version = ?1, item = ?2 WHERE version = ?3";
                transaction.execute(update, params![next, item, version])?
            };
            Ok(if rows == 1 { Written::Yes } else { Written::Changed })
        })
        .await
    }
}

/// An error of SQLite, or of the text of an item.
struct Failure(String);

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self(error.to_string())
    }
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, LedgerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(Failure(error))) => Err(LedgerError(format!("{}: {error}", path.display()))),
        Err(error) => Err(LedgerError(format!("{}: {error}", path.display()))),
    }
}

fn open(path: &Path) -> Result<Connection, Failure> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Before anything is written to the file of another program.
    let found = |connection: &Connection| -> Result<(i64, i64, bool), Failure> {
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let is_empty =
            connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((pragma("application_id")?, pragma("user_version")?, is_empty))
    };
    check(found(&connection)?)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Failure(format!(
            "the journal mode is `{mode}`, WAL is needed: put the ledger on a local file system"
        )));
    }
    // A commit that was answered is on disk: a change whose pending item was lost would be made twice.
    connection.pragma_update(None, "synchronous", "FULL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = found(&transaction)?;
    check(found)?;
    if let (_, _, true) = found {
        transaction.execute_batch(SCHEMA)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    Ok(connection)
}

fn check((application, version, is_empty): (i64, i64, bool)) -> Result<(), Failure> {
    if is_empty && application == 0 {
        return Ok(());
    }
    if application != APPLICATION_ID {
        return Err(Failure("the file is a database of another program: name another file".to_owned()));
    }
    if version != SCHEMA_VERSION {
        return Err(Failure(format!(
            "the schema has version {version}, this scaler knows {SCHEMA_VERSION}: use a newer scaler"
        )));
    }
    Ok(())
}

/// The applied items of these events.
fn applied(transaction: &Transaction<'_>, ids: &[String]) -> Result<BTreeMap<String, AppliedItem>, Failure> {
    let ids = serde_json::to_string(ids).map_err(|error| Failure(error.to_string()))?;
    let mut statement = transaction
        .prepare_cached("SELECT item FROM applied WHERE id IN (SELECT value FROM json_each(?1))")?;
    let rows = statement.query_map([ids], |row| row.get::<_, String>(0))?;
    let mut applied = BTreeMap::new();
    for text in rows {
        let item: AppliedItem = decode(&text?)?;
        applied.insert(item.id.clone(), item);
    }
    Ok(applied)
}

fn freeze(transaction: &Transaction<'_>) -> Result<Freeze, Failure> {
    let text = transaction
        .prepare_cached("SELECT item FROM freeze")?
        .query_row([], |row| row.get::<_, String>(0))
        .optional()?;
    text.map_or_else(|| Ok(Freeze::default()), |text| decode(&text))
}

fn encode(item: &impl Serialize) -> Result<String, LedgerError> {
    serde_json::to_string(item).map_err(|error| LedgerError(error.to_string()))
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| Failure(format!("an item cannot be read: {error}")))
}

#[cfg(test)]
mod tests;
