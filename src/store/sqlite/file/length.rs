//! Whether the file of an open database was truncated in place. SQLite does not notice: it reads zeros for the pages that
//! are missing, and goes on with those that it remembers.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// What each database begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// As much of the header as is read.
const HEADER_BYTES: usize = 32;

/// Watches the length of the database file.
///
/// In WAL mode only a checkpoint changes the file. It can make it shorter, after a vacuum: then to the length of a
/// committed database, which its first page has. While it runs, it writes the first page before it makes the file
/// longer. So a file was truncated if it became shorter, and is shorter than any recent commit and its first page allow.
pub(super) struct DatabaseLength {
    /// Never closed before the connections: that would drop their locks.
    file: Arc<File>,
    last: u64,
    /// The fewest pages of a commit between the last look and the one before it, and since the last look.
    fewest: [u64; 2],
    /// The pages of the last commit.
    committed: u64,
}

/// What the first page says.
struct FirstPage {
    page_bytes: u64,
    pages: u64,
}

impl DatabaseLength {
    pub(super) fn read(file: Arc<File>) -> io::Result<Self> {
        let last = file.metadata()?.len();
        // The number of pages is not known before the first commit.
        Ok(Self { file, last, fewest: [0; 2], committed: 0 })
    }

    /// The database has this number of pages after a commit.
    pub(super) fn record_commit(&mut self, pages: u64) {
        self.committed = pages;
        self.fewest[1] = self.fewest[1].min(pages);
    }

    /// Whether the file was truncated since the last look. A file that cannot be read counts as unchanged.
    pub(super) fn is_truncated(&mut self) -> bool {
        let (Ok(header), Ok(length)) = (self.first_page(), self.file.metadata().map(|found| found.len()))
        else {
            return false;
        };
        let Some(header) = header else { return true };
        let allows = |pages: u64| length >= pages.saturating_mul(header.page_bytes);
        let fewest = self.fewest[0].min(self.fewest[1]);
        if length < self.last && !allows(fewest) && !allows(header.pages) {
            return true;
        }
        self.last = length;
        self.fewest = [self.fewest[1], self.committed];
        false
    }

    /// `None` if the file does not begin like a database.
    fn first_page(&self) -> io::Result<Option<FirstPage>> {
        let mut bytes = [0; HEADER_BYTES];
        match self.file.read_exact_at(&mut bytes, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        if !bytes.starts_with(MAGIC) {
            return Ok(None);
        }
        let [.., pages_0, pages_1, pages_2, pages_3] = bytes;
        let page_bytes = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 1 << 16,
            bytes => bytes.into(),
        };
        let pages = u32::from_be_bytes([pages_0, pages_1, pages_2, pages_3]);
        Ok(Some(FirstPage { page_bytes, pages: pages.into() }))
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// A database in WAL mode with some hundred pages in its file, and its length.
    fn database() -> (tempfile::TempDir, Connection, DatabaseLength) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bridge.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA page_size = 8192; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
                 PRAGMA wal_autocheckpoint = 0; CREATE TABLE rows (body BLOB);",
            )
            .unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut length = DatabaseLength::read(Arc::new(file)).unwrap();
        insert(&connection, 300);
        checkpoint(&connection);
        for _ in 0..3 {
            assert!(!look(&connection, &mut length));
        }
        (folder, connection, length)
    }

    fn insert(connection: &Connection, rows: u32) {
        let insert =
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
                      INSERT INTO rows SELECT zeroblob(8000) FROM numbers";
        connection.execute(insert, [rows]).unwrap();
    }

    fn checkpoint(connection: &Connection) {
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    }

    fn pages(connection: &Connection) -> u64 {
        connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap()
    }

    fn look(connection: &Connection, length: &mut DatabaseLength) -> bool {
        length.record_commit(pages(connection));
        length.is_truncated()
    }

    #[test]
    fn a_file_that_is_cut_is_truncated_wherever_it_is_cut() {
        for left in [0, 1, 31, 4096, 8192, 100 * 8192, 299 * 8192] {
            let (_folder, connection, mut length) = database();
            length.file.set_len(left).unwrap();
            assert!(length.is_truncated(), "{left} bytes are left");
            assert!(length.is_truncated(), "and it stays so");
            drop(connection);
        }
        let (_folder, _connection, mut length) = database();
        length.file.write_all_at(&[0; 8192], 0).unwrap();
        assert!(length.is_truncated(), "overwritten by something else");
    }

    #[test]
    fn vacuums_and_checkpoints_truncate_nothing() {
        let (folder, connection, mut length) = database();
        let reader = Connection::open(folder.path().join("bridge.db")).unwrap();
        let before = length.file.metadata().unwrap().len();
        for (number, step) in [
            "DELETE FROM rows WHERE rowid % 2 = 0",
            "PRAGMA incremental_vacuum(50)",
            "PRAGMA wal_checkpoint(PASSIVE)",
            "PRAGMA incremental_vacuum",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "VACUUM",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "DELETE FROM rows",
            "VACUUM",
        ]
        .into_iter()
        .enumerate()
        {
            // A reader of an older state keeps a checkpoint from being complete.
            let is_read = number % 3 == 0;
            if is_read {
                reader.execute_batch("BEGIN; SELECT count(*) FROM rows").unwrap();
            }
            connection.execute_batch(step).unwrap();
            assert!(!look(&connection, &mut length), "{step}");
            insert(&connection, 20);
            assert!(!look(&connection, &mut length), "{step}");
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
            assert!(!look(&connection, &mut length), "{step}");
            if is_read {
                reader.execute_batch("COMMIT").unwrap();
            }
        }
        checkpoint(&connection);
        assert!(!look(&connection, &mut length));
        let after = length.file.metadata().unwrap().len();
        assert!(after < before / 2, "the file was shortened by SQLite: {before} → {after}");
    }

    /// What a look may see while a checkpoint runs: a first page that counts pages that are not written yet.
    #[test]
    fn a_file_that_a_checkpoint_shortens_and_then_makes_longer_is_not_truncated() {
        let (_folder, connection, mut length) = database();
        let (page, few) = (8192, 40_u64);
        length.record_commit(few);
        length.record_commit(pages(&connection));
        length.file.set_len(few * page).unwrap();
        assert!(
            !length.is_truncated(),
            "a checkpoint of the commit with few pages, then the first page of the next"
        );
        drop(connection);
    }
}
