//! Supervision of the store by its writer: whether commits succeed, and whether the files are still at their paths and
//! complete.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::ErrorCode;

use super::Writer;
use crate::store::Error;
use crate::store::health::{Health, Outage};
use crate::store::sqlite::file::attachment::Attachment;

/// How long the writer waits for a command before it checks the store.
pub(super) const IDLE_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The interval of the checks while there are commands.
const BUSY_CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// The interval of the attempts to commit while commits fail.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// An attempt writes less than a batch: on a full disk it can succeed while batches fail. So it ends an outage only after
/// nothing has failed for this long; a batch that commits ends it at once.
const MIN_RECOVERY: Duration = Duration::from_secs(5);

/// What the writer knows about the health of the store.
pub(crate) struct Supervision {
    health: Arc<Health>,
    attachment: Attachment,
    checked_at: Instant,
    last_attempt: Instant,
    failed_at: Instant,
}

impl Supervision {
    pub(crate) fn new(health: Arc<Health>, attachment: Attachment) -> Self {
        let now = Instant::now();
        Self { health, attachment, checked_at: now, last_attempt: now, failed_at: now }
    }

    /// Why changes are refused although SQLite would commit them.
    pub(super) fn refusal(&self) -> Option<Error> {
        match self.health.outage()? {
            outage @ (Outage::Detached(_) | Outage::Truncated(_)) => {
                Some(Error::Unavailable(outage.to_string()))
            }
            // The next commit may succeed.
            Outage::Failing(_) | Outage::Outdated(_) => None,
        }
    }

    /// Reports an outage before the caller of the command gets its error, and returns its text: the caller must find the
    /// store not ready.
    pub(super) fn report(&self, error: &rusqlite::Error) -> String {
        let text = error.to_string();
        self.health.failed(&text);
        text
    }

    /// Records the result of a batch.
    pub(super) fn record(&mut self, failure: Option<&str>, has_committed: bool) {
        match failure {
            Some(error) => {
                self.failed_at = Instant::now();
                self.last_attempt = self.failed_at;
                self.health.failed(error);
            }
            None if has_committed => self.health.committed(),
            None => {}
        }
    }

    /// Records that an attempt has succeeded.
    fn record_probe(&mut self) {
        self.last_attempt = Instant::now();
        if self.failed_at.elapsed() >= MIN_RECOVERY {
            self.health.committed();
        }
    }

    /// Checks whether the files are at their paths and complete. Costs some calls of the kernel, so it is not done for each
    /// batch.
    fn check_files(&mut self) {
        if self.checked_at.elapsed() >= BUSY_CHECK_INTERVAL {
            self.checked_at = Instant::now();
            let detached = self.attachment.detached();
            self.health.set_detached(detached);
            // A file that is not at its path is not looked at: it may be moved back.
            if detached.is_none()
                && let Some(file) = self.attachment.truncated()
            {
                self.health.truncated(file);
            }
        }
    }

    fn is_probe_due(&self) -> bool {
        self.health.is_failing() && self.last_attempt.elapsed() >= PROBE_INTERVAL
    }
}

impl Writer {
    /// Runs before each batch, and once a second without commands. If the last commit has failed, tries another one: a
    /// sender that sees that the bridge is not ready may send nothing.
    pub(super) fn supervise(&mut self) {
        self.supervision.health.writer_seen();
        let pages = "PRAGMA page_count";
        let pages =
            self.connection.prepare_cached(pages).and_then(|mut pages| pages.query_one([], |row| row.get(0)));
        if let Ok(pages) = pages {
            self.supervision.attachment.record_commit(pages);
        }
        self.supervision.check_files();
        if self.supervision.is_probe_due() {
            // Writes a page, although nothing changes.
            let probe = "BEGIN IMMEDIATE; UPDATE store SET created = created; COMMIT";
            match self.connection.execute_batch(probe) {
                Ok(()) => self.supervision.record_probe(),
                Err(error) => {
                    self.roll_back();
                    self.supervision.record(Some(&error.to_string()), false);
                }
            }
        }
    }
}

/// Whether a command has failed because the file cannot be written, and not for a reason of its own.
pub(super) fn is_outage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    code.is_some_and(|code| {
        matches!(
            code,
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::DatabaseBusy
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_attempt_ends_an_outage_only_after_a_quiet_time_and_a_batch_at_once() {
        let folder = tempfile::tempdir().unwrap();
        for suffix in ["", "-wal", "-shm"] {
            std::fs::write(folder.path().join(format!("bridge.db{suffix}")), "").unwrap();
        }
        let path = folder.path().join("bridge.db");
        let attachment = Attachment::read(&path, Arc::new(std::fs::File::open(&path).unwrap())).unwrap();
        let health = Arc::new(Health::default());
        let mut supervision = Supervision::new(health.clone(), attachment);
        supervision.record(Some("database or disk is full"), false);
        supervision.record_probe();
        assert!(health.is_failing(), "batches may still fail");
        supervision.failed_at -= MIN_RECOVERY;
        supervision.record_probe();
        assert!(!health.is_failing());
        supervision.record(Some("database or disk is full"), false);
        supervision.record(None, true);
        assert!(!health.is_failing());
    }
}
