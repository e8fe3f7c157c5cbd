//! Folding the log (WAL) into the database file, without holding up the writer.
//!
//! SQLite starts the log over only when all of it has been folded, which a thread beside a busy writer
//! never achieves: the writer has appended meanwhile, and the log would grow as long as the load lasts.
//! So the thread folds nearly all of it and syncs the file, and the writer folds the short rest between
//! two commits. Measured in `benches/store_layout.rs`.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rusqlite::Connection;

/// The thread is woken when this many pages of the log wait; 4 MiB.
const MIN_CHECKPOINT_PAGES: i64 = (4 << 20) / super::schema::PAGE_BYTES;
/// The writer folds what is left when it is no more than this many pages.
const MAX_REMAINDER_PAGES: i64 = 200;
/// A writer that is faster than the thread: then the rest is longer.
const MAX_ROUNDS: usize = 10;

/// Says that the writer's turn has come.
pub(super) type HandOver = Arc<AtomicBool>;

/// Pages in the log that have not been folded into the file.
pub(super) fn uncheckpointed_pages(connection: &Connection) -> rusqlite::Result<i64> {
    checkpoint(connection, "NOOP").map(|(pages, checkpointed)| pages - checkpointed)
}

/// Whether so much waits that the thread should be woken.
pub(super) fn is_needed(waiting: i64) -> bool {
    waiting > MIN_CHECKPOINT_PAGES
}

/// Pages in the log, and how many of them are in the file.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<(i64, i64)> {
    let mut pragma = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    pragma.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// The writer's turn: folds the rest, so that its next commit starts the log over.
pub(super) fn checkpoint_remainder(connection: &Connection, hand_over: &HandOver) {
    if hand_over.swap(false, Ordering::AcqRel) {
        log_failure(checkpoint(connection, "PASSIVE"));
    }
}

/// Folds the rest and gives the log's room back. False if more than a rest waits, which is the thread's to
/// fold; then nothing is done.
pub(super) fn truncate_wal(connection: &Connection) -> bool {
    if !uncheckpointed_pages(connection).is_ok_and(|waiting| waiting <= MAX_REMAINDER_PAGES) {
        return false;
    }
    let patience = |patience| connection.busy_timeout(patience);
    // One that reads is not waited for: the next round is early enough.
    log_failure(patience(Duration::ZERO).and_then(|()| checkpoint(connection, "TRUNCATE")));
    log_failure(patience(super::schema::BUSY_TIMEOUT).map(|()| (0, 0)));
    true
}

/// Folds everything and empties the log; when nobody writes any more.
pub(super) fn checkpoint_all(connection: &Connection) {
    log_failure(checkpoint(connection, "TRUNCATE"));
}

fn log_failure(checkpointed: rusqlite::Result<(i64, i64)>) {
    if let Err(error) = checkpointed {
        tracing::warn!(%error, "cannot fold the store's log into its file; it grows until that works");
    }
}

/// The thread: folds whenever it is woken, until nobody can wake it any more.
pub(super) fn run(connection: &Connection, file: &File, requests: &Receiver<()>, hand_over: &HandOver) {
    while requests.recv().is_ok() {
        for _ in 0..MAX_ROUNDS {
            log_failure(checkpoint(connection, "PASSIVE"));
            // SQLite syncs the file only with the last page, which would be in the writer's turn.
            if let Err(error) = file.sync_data() {
                tracing::warn!(%error, "cannot sync the store's file");
            }
            if uncheckpointed_pages(connection).is_ok_and(|waiting| waiting <= MAX_REMAINDER_PAGES) {
                break;
            }
        }
        hand_over.store(true, Ordering::Release);
    }
}
