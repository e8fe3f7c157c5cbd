//! WAL checkpointing on a separate thread; the writer only checkpoints the short remainder.
//!
//! SQLite restarts the WAL only after all of it has been checkpointed. A thread next to a busy writer never
//! reaches that point, because the writer appends meanwhile, and the WAL would grow for as long as the load
//! lasts. So the thread checkpoints nearly all pages and syncs the file, and the writer checkpoints the
//! remainder between two commits. Measured in `benches/store_layout.rs`.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rusqlite::Connection;

/// The thread is woken when the WAL has more uncheckpointed pages than this; 4 MiB.
const MIN_CHECKPOINT_PAGES: i64 = (4 << 20) / super::schema::PAGE_BYTES;
/// The thread leaves a remainder of at most this many pages to the writer.
const MAX_REMAINDER_PAGES: i64 = 200;
/// Bound of the rounds of the thread, for a writer that is faster; the remainder is longer then.
const MAX_ROUNDS: usize = 10;

/// Set by the thread when the writer has to checkpoint the remainder.
pub(crate) type HandOver = Arc<AtomicBool>;

/// Pages in the WAL that have not been checkpointed.
pub(crate) fn uncheckpointed_pages(connection: &Connection) -> rusqlite::Result<i64> {
    checkpoint(connection, "NOOP").map(|(pages, checkpointed)| pages - checkpointed)
}

/// Whether the thread should be woken for this number of uncheckpointed pages.
pub(crate) fn is_needed(pages: i64) -> bool {
    pages > MIN_CHECKPOINT_PAGES
}

/// Returns the number of pages in the WAL and of those that are checkpointed.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<(i64, i64)> {
    let mut pragma = connection.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    pragma.query_row([], |row| Ok((row.get(1)?, row.get(2)?)))
}

/// Runs on the writer after a hand-over: checkpoints the remainder, so that the next commit restarts the WAL.
pub(crate) fn checkpoint_remainder(connection: &Connection, hand_over: &HandOver) {
    if hand_over.swap(false, Ordering::AcqRel) {
        log_failure(checkpoint(connection, "PASSIVE"));
    }
}

/// Checkpoints the remainder and truncates the WAL file. Does nothing and returns false if the remainder is
/// too long.
pub(crate) fn truncate_wal(connection: &Connection) -> bool {
    if !uncheckpointed_pages(connection).is_ok_and(|pages| pages <= MAX_REMAINDER_PAGES) {
        return false;
    }
    let set_timeout = |timeout| connection.busy_timeout(timeout);
    // Does not wait for readers: the next round is early enough.
    log_failure(set_timeout(Duration::ZERO).and_then(|()| checkpoint(connection, "TRUNCATE")));
    log_failure(set_timeout(super::schema::BUSY_TIMEOUT).map(|()| (0, 0)));
    true
}

/// Checkpoints everything and truncates the WAL; at shutdown, after the last write.
pub(crate) fn checkpoint_all(connection: &Connection) {
    log_failure(checkpoint(connection, "TRUNCATE"));
}

fn log_failure(checkpointed: rusqlite::Result<(i64, i64)>) {
    if let Err(error) = checkpointed {
        tracing::warn!(%error, "WAL checkpoint failed; the WAL keeps growing");
    }
}

/// The checkpoint thread: runs a checkpoint for each request, until the sender is gone.
pub(crate) fn run(connection: &Connection, file: &File, requests: &Receiver<()>, hand_over: &HandOver) {
    let mut was_failing = false;
    while requests.recv().is_ok() {
        for _ in 0..MAX_ROUNDS {
            let checkpointed = checkpoint(connection, "PASSIVE");
            let is_failing = checkpointed.is_err();
            // One line at the change: a full disk fails at each request.
            if !was_failing {
                log_failure(checkpointed);
            }
            was_failing = is_failing;
            if is_failing {
                break;
            }
            // SQLite syncs the file only with the last page, which would be on the writer.
            if let Err(error) = file.sync_data() {
                tracing::warn!(%error, "syncing the database file failed");
            }
            if uncheckpointed_pages(connection).is_ok_and(|pages| pages <= MAX_REMAINDER_PAGES) {
                break;
            }
        }
        hand_over.store(true, Ordering::Release);
    }
}
