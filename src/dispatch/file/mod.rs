//! Files and stdout: one event per line.
//!
//! The file is opened for each batch, so that after a rotation (logrotate) the next event goes to a new
//! file, and no state in memory can disagree with the disk. That costs microseconds next to the
//! `fdatasync` of each batch. All calls block, so they run on tokio's threads for blocking work;
//! `tokio::fs` would do the same once per call.

pub(super) mod schema;
pub(super) mod settings;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::{Answer, Class, Destination, Failure, Limits, OutgoingEvent};

use crate::config::OwnFiles;
pub(super) use settings::Settings;

/// The limits of one write and sync.
const LIMITS: Limits = Limits { events: 1000, bytes: 4 * 1024 * 1024, max_event_bytes: usize::MAX };

/// The modes of files and directories that are created: others cannot read the events. Those of existing ones are kept.
const FILE_MODE: u32 = 0o640;
const DIRECTORY_MODE: u32 = 0o750;

/// The files that no destination may write, as of the current configuration.
pub(crate) type ProtectedFiles = Arc<ArcSwap<OwnFiles>>;

#[derive(Debug)]
pub(crate) struct File {
    output: Settings,
    own_files: ProtectedFiles,
}

impl File {
    /// Does not open the file.
    pub(crate) fn new(settings: &Settings, own_files: ProtectedFiles) -> Self {
        Self { output: settings.clone(), own_files }
    }
}

impl Destination for File {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len() + 1
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let mut lines = String::with_capacity(batch.iter().map(|event| self.event_bytes(event)).sum());
        for event in batch {
            lines.push_str(&event.body);
            lines.push('\n');
        }
        let (output, own_files) = (self.output.clone(), self.own_files.load_full());
        let written = tokio::task::spawn_blocking(move || match output {
            Settings::Stdout => print(&lines).map_err(|error| uncertain(format!("stdout: {error}"))),
            Settings::Path(path) => check(&path, &own_files).and_then(|()| append(&path, &lines)),
        });
        match written.await {
            Ok(written) => written.map(|()| vec![Ok(None); batch.len()]),
            // The runtime is shutting down.
            Err(error) => Err(uncertain(error.to_string())),
        }
    }
}

/// A failure after which some of the events may have been written.
fn uncertain(message: String) -> Failure {
    Failure::transient(message).with_uncertainty(true)
}

fn print(lines: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(lines.as_bytes())?;
    stdout.flush()
}

/// Checks that the path does not lead to a file of the bridge: a link may have been made after the configuration was
/// checked. Before the file is opened, since closing it again would drop SQLite's locks, were it the database.
fn check(path: &Path, own_files: &OwnFiles) -> Result<(), Failure> {
    let Some(what) = own_files.find(path) else { return Ok(()) };
    let path = path.display();
    let message =
        format!("{path}: leads to a file of {what}, which events would destroy; nothing is written");
    Err(Failure::new(Class::Misconfigured, message))
}

/// Appends all lines and syncs them to disk, or fails and appends none.
fn append(path: &Path, lines: &str) -> Result<(), Failure> {
    let message = |error: io::Error| format!("{}: {error}", path.display());
    let not_written = |error| Failure::transient(message(error));
    let Some(mut file) = RegularFile::open(path).map_err(not_written)? else {
        // A device or pipe cannot be truncated or synced.
        let mut file = fs::OpenOptions::new().write(true).open(path).map_err(not_written)?;
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.flush());
        return written.map_err(|error| uncertain(message(error)));
    };
    file.write(lines).map_err(|error| {
        let is_undone = file.rollback();
        not_written(error).with_uncertainty(!is_undone)
    })
}

/// A regular file, opened for appending.
struct RegularFile {
    file: fs::File,
    /// The length at opening.
    length: u64,
    /// The directory to sync if the file was created.
    unsynced_directory: Option<PathBuf>,
}

impl RegularFile {
    /// Creates the file and its directory if they are missing. None if `path` is not a regular file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let unsynced_directory = match fs::metadata(path) {
            Ok(found) if !found.is_file() => return Ok(None),
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                let directory = directory.unwrap_or(Path::new(".")).to_owned();
                fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(&directory)?;
                Some(directory)
            }
            Err(error) => return Err(error),
        };
        // `read` for the last byte.
        let file = fs::OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)?;
        let length = file.metadata()?.len();
        Ok(Some(Self { file, length, unsynced_directory }))
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        // A partial line after a crash stays a line of its own.
        if self.has_partial_last_line()? {
            self.file.write_all(format!("\n{lines}").as_bytes())?;
        } else {
            self.file.write_all(lines.as_bytes())?;
        }
        self.file.sync_data()?;
        match &self.unsynced_directory {
            Some(directory) => fs::File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }

    fn has_partial_last_line(&self) -> io::Result<bool> {
        let Some(last) = self.length.checked_sub(1) else { return Ok(false) };
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, last)?;
        Ok(byte != *b"\n")
    }

    /// Truncates the partial write of a failed batch, which is retried. If that fails, the partial line
    /// stays and the next batch starts a new line. Returns whether nothing of the batch is left.
    fn rollback(&self) -> bool {
        let truncated = self.file.set_len(self.length);
        if let Err(error) = &truncated {
            tracing::debug!(%error, "truncating a partial write failed");
        }
        truncated.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::stub::outgoing;

    fn file_at(path: &Path) -> File {
        File::new(&Settings::Path(path.to_owned()), ProtectedFiles::default())
    }

    #[tokio::test]
    async fn events_are_lines_and_the_directory_is_created() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/events.jsonl");
        let events = [outgoing(1), outgoing(2), outgoing(3)];
        assert_eq!(file_at(&path).send(&events[..2]).await, Ok(vec![Ok(None), Ok(None)]));
        assert_eq!(file_at(&path).send(&events[2..]).await, Ok(vec![Ok(None)]));
        let text = fs::read_to_string(&path).unwrap();
        let bodies: Vec<&str> = events.iter().map(|event| &*event.body).collect();
        assert_eq!(text.lines().collect::<Vec<_>>(), bodies);
        assert!(text.ends_with('\n'));
    }

    #[tokio::test]
    async fn a_partial_line_stays_a_line_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        fs::write(&path, "{\"cut").unwrap();
        let event = outgoing(1);
        file_at(&path).send(std::slice::from_ref(&event)).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{{\"cut\n{}\n", event.body));
    }

    #[tokio::test]
    async fn a_file_that_was_moved_away_is_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let file = file_at(&path);
        file.send(&[outgoing(1)]).await.unwrap();
        fs::rename(&path, directory.path().join("events.1")).unwrap();
        file.send(&[outgoing(2)]).await.unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    }

    #[tokio::test]
    async fn an_output_that_cannot_be_written_is_a_failure_that_names_it() {
        let failure = file_at(Path::new("/dev/full")).send(&[outgoing(1)]).await.unwrap_err();
        assert!(failure.message.starts_with("/dev/full: ") && failure.uncertain, "{failure:?}");
        let directory = tempfile::tempdir().unwrap();
        let failure = file_at(directory.path()).send(&[outgoing(1)]).await.unwrap_err();
        assert!(failure.message.contains("directory") && !failure.uncertain, "{failure:?}");
    }

    #[test]
    fn a_failed_batch_is_rolled_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        fs::write(&path, "before\n").unwrap();
        let mut file = RegularFile::open(&path).unwrap().unwrap();
        file.write("half").unwrap();
        assert!(file.rollback());
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\n");
    }

    #[tokio::test]
    async fn a_device_is_written_without_a_sync() {
        assert_eq!(file_at(Path::new("/dev/null")).send(&[outgoing(1)]).await, Ok(vec![Ok(None)]));
    }
}
