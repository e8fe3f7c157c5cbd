//! Files with secrets, read again when they change.
//!
//! A request looks at the stamp of a file at most every [`MAX_AGE`]. Before it is denied it looks again, so that a new
//! secret is valid at once. Only a changed file is read, on a thread for blocking calls; one that could not be used is
//! read again after [`MAX_AGE`] even if its stamp is the same.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::config::{FileStamp, byte_order_mark};

/// The maximum size of a file with a secret.
pub(super) const MAX_SECRET_BYTES: usize = 64 * 1024;

/// How long a reading counts without a look at the stamp: a removed secret is invalid after this time.
pub(super) const MAX_AGE: Duration = Duration::from_millis(500);

/// Two writes within one tick of the file system's clock can leave the same stamp. After this time the file is read
/// once more.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// How long a request waits for a file. Reads of network file systems can hang.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a file cannot be used: its path and the cause, without any of its content.
pub(super) type FileError = Arc<str>;

/// Parses a text; the value before, if there is one, may hold what stays valid.
pub(super) type Parse<T> = fn(&str, Option<&T>) -> Result<T, String>;

/// A file whose content is parsed to a `T`.
pub(super) struct SecretFile<T> {
    path: PathBuf,
    max_bytes: usize,
    parse: Parse<T>,
    /// Which settings name the file, for the log.
    used_by: Mutex<String>,
    reading: ArcSwap<Reading<T>>,
    /// When the stamp was looked at.
    checked_at: Mutex<Instant>,
    /// Held by the one task that reads.
    reader: Arc<tokio::sync::Mutex<()>>,
}

struct Reading<T> {
    stamp: FileStamp,
    /// When this stamp was seen first.
    since: Instant,
    read_at: Instant,
    /// Whether the file was read again after [`SETTLE_TIME`].
    is_settled: bool,
    /// The hash of the content, if it could be read.
    content: Option<[u8; 32]>,
    value: Result<Arc<T>, FileError>,
}

impl<T> Reading<T> {
    /// Whether the file need not be read as long as its stamp is the same. The cause of an error can end without a
    /// new stamp, as with a network file system.
    fn counts_while_unchanged(&self, now: Instant) -> bool {
        let is_recent = now.saturating_duration_since(self.read_at) < MAX_AGE;
        self.is_settled && (self.value.is_ok() || is_recent)
    }
}

impl<T: Send + Sync + 'static> SecretFile<T> {
    /// Reads the file at `path`. `parse` gets the trimmed, non-empty text; its error must not contain any of it.
    pub(super) fn load(path: &Path, max_bytes: usize, used_by: &str, parse: Parse<T>) -> Arc<Self> {
        let now = Instant::now();
        let unread = Reading {
            stamp: FileStamp::read(path.to_owned()),
            since: now,
            read_at: now,
            is_settled: false,
            content: None,
            value: Err(FileError::from("")),
        };
        let file = Self {
            path: path.to_owned(),
            max_bytes,
            parse,
            used_by: Mutex::new(used_by.to_owned()),
            reading: ArcSwap::from_pointee(unread),
            checked_at: Mutex::new(now),
            reader: Arc::default(),
        };
        let reading = file.read(now);
        if let Err(error) = &reading.value {
            file.log_failure(error);
        }
        file.reading.store(Arc::new(reading));
        Arc::new(file)
    }

    /// Sets which settings name the file, after a reload.
    pub(super) fn set_used_by(&self, used_by: &str) {
        used_by.clone_into(&mut self.used_by.lock());
    }

    /// The last reading, however old.
    pub(super) fn last(&self) -> Result<Arc<T>, FileError> {
        self.reading.load().value.clone()
    }

    /// The content of the file, whose stamp was looked at within `max_age`; now, if that is zero.
    pub(super) async fn current(self: &Arc<Self>, max_age: Duration) -> Result<Arc<T>, FileError> {
        let now = Instant::now();
        let age = now.saturating_duration_since(*self.checked_at.lock());
        if age < max_age {
            return self.last();
        }
        let reading = self.reading.load_full();
        // This takes about a microsecond; a task for it would take longer.
        if reading.counts_while_unchanged(now) && reading.stamp.refresh() == reading.stamp {
            self.set_checked_at(now);
            return reading.value.clone();
        }
        match tokio::time::timeout(READ_TIMEOUT, self.read_again(now)).await {
            Ok(()) => self.last(),
            Err(_) => Err(self.error(&format!("was not read within {} s", READ_TIMEOUT.as_secs()))),
        }
    }

    /// Reads the file, unless another task has done so since `asked_at`.
    async fn read_again(self: &Arc<Self>, asked_at: Instant) {
        let guard = self.reader.clone().lock_owned().await;
        if *self.checked_at.lock() > asked_at {
            return;
        }
        let file = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            // The guard is moved here: a request that gives up does not start a second reader.
            let _guard = guard;
            let now = Instant::now();
            let reading = file.read(now);
            file.replace(reading);
            file.set_checked_at(now);
        });
        // It fails only if `parse` panics or the runtime stops; the last reading stays.
        if let Err(error) = read.await {
            tracing::error!(file = %self.path.display(), %error, "reading a secret failed");
        }
    }

    fn set_checked_at(&self, now: Instant) {
        let mut checked_at = self.checked_at.lock();
        *checked_at = now.max(*checked_at);
    }

    fn replace(&self, reading: Reading<T>) {
        let last = self.reading.load();
        match (&last.value, &reading.value) {
            (Ok(_), Err(error)) => self.log_failure(error),
            (Err(_), Ok(_)) => {
                let used_by = self.used_by.lock().clone();
                tracing::info!(file = %self.path.display(), used_by, "secret readable again");
            }
            _ => {}
        }
        drop(last);
        self.reading.store(Arc::new(reading));
    }

    fn log_failure(&self, error: &FileError) {
        let used_by = self.used_by.lock().clone();
        tracing::error!(file = %self.path.display(), used_by, %error, "secret unavailable, requests are denied with 503");
    }

    /// Reads the file until its stamp is the same before and after.
    fn read(&self, now: Instant) -> Reading<T> {
        const MAX_ATTEMPTS: u32 = 3;
        let last = self.reading.load();
        let mut stamp = FileStamp::read(self.path.clone());
        let mut text = read_text(&self.path, self.max_bytes);
        for _ in 1..MAX_ATTEMPTS {
            let after = stamp.refresh();
            if after == stamp {
                break;
            }
            stamp = after;
            text = read_text(&self.path, self.max_bytes);
        }
        let is_same = stamp == last.stamp;
        let since = if is_same { last.since } else { now };
        let is_settled = is_same && now.saturating_duration_since(since) >= SETTLE_TIME;
        let content = text.as_ref().ok().map(|text| Sha256::digest(text.as_bytes()).into());
        let value = match text {
            // What was derived from the content, such as passwords that were compared, is kept with it.
            Ok(_) if content == last.content && last.value.is_ok() => last.value.clone(),
            Ok(text) => (self.parse)(text.trim(), last.value.as_deref().ok())
                .map(Arc::new)
                .map_err(|cause| self.error(&cause)),
            Err(cause) => Err(self.error(&cause)),
        };
        Reading { stamp, since, read_at: now, is_settled, content, value }
    }

    fn error(&self, cause: &str) -> FileError {
        FileError::from(format!("{}: {cause}", self.path.display()))
    }
}

/// The text of a file, which is not empty, without the byte order mark that some editors write.
pub(super) fn read_text(path: &Path, max_bytes: usize) -> Result<String, String> {
    let io = |error: std::io::Error| format!("the file cannot be read: {error}");
    // Opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(io)?.is_file() {
        return Err("not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() > max_bytes {
        return Err(format!("the file is larger than {} KiB", max_bytes / 1024));
    }
    byte_order_mark::strip(&mut bytes);
    let text = String::from_utf8(bytes).map_err(|_| "the file is not UTF-8 text".to_owned())?;
    if text.trim().is_empty() {
        return Err("the file is empty; write the secret into it".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What is logged on this thread.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_error_is_read_again_though_the_stamp_is_the_same() {
        use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

        // Stands for a cause outside of the file.
        static IS_USABLE: AtomicBool = AtomicBool::new(false);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret").unwrap();
        let parse = |_: &str, _: Option<&()>| {
            IS_USABLE.load(SeqCst).then_some(()).ok_or_else(|| "unusable".to_owned())
        };
        let file = SecretFile::load(&path, MAX_SECRET_BYTES, "source eu", parse);
        tokio::time::pause();
        for _ in 0..3 {
            tokio::time::advance(MAX_AGE).await;
            assert!(file.current(Duration::ZERO).await.is_err());
        }
        IS_USABLE.store(true, SeqCst);
        assert!(file.current(Duration::ZERO).await.is_err(), "not within half a second");
        tokio::time::advance(MAX_AGE).await;
        assert!(file.current(Duration::ZERO).await.is_ok());
    }

    #[test]
    fn a_file_that_becomes_unreadable_or_readable_is_logged_once() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let parse =
            |text: &str, _: Option<&()>| (text != "bad").then_some(()).ok_or_else(|| "invalid".to_owned());
        let file = SecretFile::load(&path, MAX_SECRET_BYTES, "source eu", parse);
        for content in ["bad", "", "secret-1", "secret-2", "bad", "bad"] {
            std::fs::write(&path, content).unwrap();
            for _ in 0..3 {
                file.replace(file.read(Instant::now()));
            }
        }
        let log = String::from_utf8(log.0.lock().clone()).unwrap();
        let lines: Vec<_> =
            log.lines().map(|line| line.split_whitespace().nth(1).unwrap_or_default()).collect();
        assert_eq!(lines, ["ERROR", "INFO", "ERROR"], "{log}");
        assert!(log.lines().all(|line| line.contains("token") && line.contains("source eu")), "{log}");
        assert!(!log.contains("secret-"), "{log}");
    }
}
