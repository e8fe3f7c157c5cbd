//! Whether a store can commit, and why not.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Why a store refuses changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outage {
    /// The last commit has failed with this error, and none has succeeded since.
    Failing(String),
    /// This file of the store is no longer the one that is open: what is committed now is lost when the process ends.
    Detached(PathBuf),
    /// A newer version has written what this one cannot read. That does not end before this one is replaced.
    Outdated(String),
    /// This file of the store was truncated while it was open: what it had is lost. That does not end before a restart,
    /// since the pages that SQLite writes from then on do not make it complete.
    Truncated(PathBuf),
}

impl fmt::Display for Outage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing(error) => write!(f, "the store cannot commit: {error}"),
            Self::Outdated(cause) => f.write_str(cause),
            Self::Detached(_) => f.write_str("a file of the store was removed or replaced; see the log"),
            Self::Truncated(_) => f.write_str("the file of the store was truncated; see the log"),
        }
    }
}

/// The health of an open store. Changes are logged, once each.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failing: Option<String>,
    outdated: Option<String>,
    detached: Option<PathBuf>,
    truncated: Option<PathBuf>,
    /// When the writer was last seen between two batches.
    writer_seen: Option<Instant>,
}

impl Health {
    /// Why changes are refused now. Only [`Outage::Failing`] ends with a commit that succeeds.
    pub(super) fn outage(&self) -> Option<Outage> {
        let State { failing, outdated, detached, truncated, .. } = &*self.0.lock();
        let lasting = truncated.clone().map(Outage::Truncated);
        let lasting = lasting.or_else(|| detached.clone().map(Outage::Detached));
        let lasting = lasting.or_else(|| outdated.clone().map(Outage::Outdated));
        lasting.or_else(|| failing.clone().map(Outage::Failing))
    }

    /// Why this version is too old for the store.
    pub(super) fn too_old(&self) -> Option<String> {
        self.0.lock().outdated.clone()
    }

    pub(super) fn is_failing(&self) -> bool {
        self.0.lock().failing.is_some()
    }

    /// The writer is between two batches.
    pub(super) fn writer_seen(&self) {
        self.0.lock().writer_seen = Some(Instant::now());
    }

    /// How long the writer has been in its batch, or idle for at most a second. Zero before its first round.
    pub(super) fn writer_busy_for(&self) -> Duration {
        self.0.lock().writer_seen.map_or(Duration::ZERO, |seen| seen.elapsed())
    }

    /// A commit has failed.
    pub(super) fn failed(&self, error: &str) {
        let before = self.0.lock().failing.replace(error.to_owned());
        if before.is_none() {
            tracing::error!(error, "the store cannot commit, refusing notifications; retrying");
        }
    }

    /// A commit has succeeded.
    pub(super) fn committed(&self) {
        if self.0.lock().failing.take().is_some() {
            tracing::info!("the store commits again");
        }
    }

    /// A newer version has written what this one cannot read.
    pub(super) fn outdated(&self, cause: &str) {
        if self.0.lock().outdated.replace(cause.to_owned()).is_none() {
            tracing::error!(cause, "this version is too old for the store, refusing notifications");
        }
    }

    /// The file was found truncated.
    pub(super) fn truncated(&self, file: &Path) {
        if self.0.lock().truncated.replace(file.to_owned()).is_none() {
            tracing::error!(
                file = %file.display(),
                fix = "stop scalebridge, put a backup of the file in its place without `-wal` and `-shm`, and start it",
                "the file of the store was truncated, refusing all changes"
            );
        }
    }

    /// Sets the file that is not at its path, or none.
    pub(super) fn set_detached(&self, file: Option<&Path>) {
        let before = std::mem::replace(&mut self.0.lock().detached, file.map(Path::to_owned));
        match (before, file) {
            (None, Some(file)) => tracing::error!(
                file = %file.display(),
                fix = "move it back; or restart scalebridge, which loses what the removed file has",
                "a file of the store was removed or replaced, refusing all changes but deliveries"
            ),
            (Some(file), None) => {
                tracing::info!(file = %file.display(), "the file of the store is back at its path");
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_ends_a_failure_but_not_the_loss_of_the_file() {
        let health = Health::default();
        assert_eq!(health.outage(), None);
        health.failed("disk full");
        assert_eq!(health.outage(), Some(Outage::Failing("disk full".to_owned())));
        health.set_detached(Some(Path::new("bridge.db")));
        health.committed();
        assert_eq!(health.outage(), Some(Outage::Detached(PathBuf::from("bridge.db"))));
        health.set_detached(None);
        assert_eq!(health.outage(), None);
        health.truncated(Path::new("bridge.db"));
        health.set_detached(None);
        health.committed();
        assert_eq!(health.outage(), Some(Outage::Truncated(PathBuf::from("bridge.db"))));
    }
}
