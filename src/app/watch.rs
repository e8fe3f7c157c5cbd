//! Watches the files of the configuration for changes, and its patterns for files that appear or disappear, by polling.
//!
//! inotify on the files would miss updates of a ConfigMap: Kubernetes exchanges a symbolic link two
//! directories above. Polling follows links, so it detects another file behind one.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::config::FileStamp;

/// The polling interval. A change is reported after the files have stayed the same for a quarter of it, so
/// that no partially written file is read.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The delay before a failed reload is retried.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// The files of the current configuration, as of the time when they were read: a write during the read, or
/// before the first poll, is a change as well.
pub(super) type FileStamps = Arc<Mutex<Vec<FileStamp>>>;

fn current_stamps(files: &FileStamps) -> Vec<FileStamp> {
    files.lock().clone()
}

/// Calls `changed` for each change of the files once they are stable, until `stop` is cancelled. If `changed`
/// returns false, the call is retried after [`RETRY_INTERVAL`].
pub(super) async fn watch(files: FileStamps, stop: CancellationToken, changed: impl AsyncFn() -> bool) {
    let mut loaded = current_stamps(&files);
    // The files as of the last reload or reported change.
    let mut known = loaded.clone();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(POLL_INTERVAL) => {}
        }
        let loaded_now = current_stamps(&files);
        if loaded_now != loaded {
            known.clone_from(&loaded_now);
            loaded = loaded_now;
        }
        // Blocks for some microseconds, for a few files in the page cache: a thread for blocking calls would cost
        // more memory than an idle bridge otherwise needs.
        let stat = || known.iter().map(FileStamp::refresh).collect::<Vec<_>>();
        let found = stat();
        if found == known {
            continue;
        }
        tokio::time::sleep(POLL_INTERVAL / 4).await;
        if stat() == found {
            while !changed().await {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY_INTERVAL) => {}
                }
            }
            // A rejected configuration is not read again until it changes.
            known = found;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Watches `files` for a minute of virtual time and returns the number of reports. `changed` is called at
    /// each report, with the number of earlier ones.
    async fn count_reports(files: &FileStamps, changed: impl Fn(usize)) -> usize {
        let (reports, stop) = (AtomicUsize::new(0), CancellationToken::new());
        let watching = watch(files.clone(), stop.clone(), async || {
            changed(reports.fetch_add(1, Ordering::Relaxed));
            true
        });
        tokio::select! {
            () = watching => {}
            () = tokio::time::sleep(Duration::from_secs(60)) => {}
        }
        reports.into_inner()
    }

    fn file() -> (tempfile::TempDir, std::path::PathBuf, FileStamps) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yaml");
        std::fs::write(&path, "as it was read").unwrap();
        let files = FileStamps::new(Mutex::new(vec![FileStamp::read(path.clone())]));
        (folder, path, files)
    }

    #[tokio::test(start_paused = true)]
    async fn unchanged_files_are_not_reported() {
        let (_folder, _, files) = file();
        assert_eq!(count_reports(&files, |_| {}).await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_before_the_first_poll_is_reported_once_even_if_it_is_rejected() {
        let (_folder, path, files) = file();
        std::fs::write(&path, "written while the store was opened").unwrap();
        assert_eq!(count_reports(&files, |_| {}).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_that_a_reload_has_read_is_not_reported() {
        let (_folder, path, files) = file();
        let signal = async {
            tokio::time::sleep(POLL_INTERVAL * 5 / 2).await;
            std::fs::write(&path, "read on a signal").unwrap();
            *files.lock() = vec![FileStamp::read(path.clone())];
        };
        assert_eq!(tokio::join!(count_reports(&files, |_| {}), signal).0, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_a_reload_is_reported_too() {
        let (_folder, path, files) = file();
        std::fs::write(&path, "the first change").unwrap();
        let reload = |time| {
            let read = current_stamps(&files).iter().map(FileStamp::refresh).collect();
            if time == 0 {
                std::fs::write(&path, "the second, after the first was read").unwrap();
            }
            *files.lock() = read;
        };
        assert_eq!(count_reports(&files, reload).await, 2);
    }
}
