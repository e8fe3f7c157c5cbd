//! Looks whether the configuration's files are others than they were.
//!
//! By looking, not by being told: what Kubernetes does to a ConfigMap is to exchange a symbolic link two
//! directories above, of which a file is not told. Links are followed, so another file behind one is seen.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often it looks. What has changed is read when it is as it was the last time, so that nothing half written
/// is.
const EVERY: Duration = Duration::from_secs(1);

/// How long it waits before it has it tried again.
const AGAIN: Duration = Duration::from_secs(10);

/// The files that a configuration was read from.
pub type Files = Arc<Mutex<Vec<PathBuf>>>;

/// Of a file: device, number, length, and when it was written. `None` if it is not there.
type Mark = Option<(u64, u64, u64, i64, i64)>;

fn marks(files: &Files) -> Vec<(PathBuf, Mark)> {
    use std::os::unix::fs::MetadataExt as _;
    let files = files.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mark = |path: PathBuf| {
        let found = std::fs::metadata(&path).ok();
        let mark = found.map(|file| (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
        (path, mark)
    };
    files.into_iter().map(mark).collect()
}

/// Calls `changed` each time when a file has changed and is at rest, until it is stopped; again after a while
/// where it says that it could not do it.
pub async fn watch(files: Files, stop: CancellationToken, changed: impl AsyncFn() -> bool) {
    // Some microseconds for a handful of files that are always at hand: a thread that may block would cost more
    // memory than the rest of an idle bridge's work.
    let look = || marks(&files);
    let mut known = look();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let found = look();
        if found == known {
            continue;
        }
        tokio::time::sleep(EVERY / 4).await;
        if look() == found {
            while !changed().await {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => {}
                }
            }
            // The files may be others now; what was written meanwhile is seen the next time.
            let after = look();
            let same_files = after.iter().map(|(path, _)| path).eq(found.iter().map(|(path, _)| path));
            known = if same_files { found } else { after };
        }
    }
}
