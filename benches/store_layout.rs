//! Compares table layouts and pragmas of the embedded store.
//!
//! One writer thread commits like the bridge: for each event the state of its target, the document and an entry
//! of the (target, time) index; for each notification of 20 alerts one row of decisions; for each commit the
//! settlement of the events of the commit before. Every run has its own database and counts its rows afterwards.
//!
//! `cargo bench --bench store_layout -- [GROUP…]`, with the groups `new`, `again`, `beside`, `pragmas`,
//! `start` and `idle`. Environment: `EVENTS` (20000) events per run; `STATES` (50000, in thousands) existing states;
//! `BEST` (2) repetitions, of which the best counts, since other load can only slow a run down; `COMMITS`
//! (20,500) events per commit, each a divisor or a multiple of 20; `TMPDIR` selects the disk.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program that measures and prints")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use std::{env, thread};

use rusqlite::{Connection, Result};

const ALERTS_PER_NOTIFICATION: i64 = 20;
const STATE_BYTES: usize = 450;
const EVENT_BYTES: usize = 1126;
const DECISION_BYTES: usize = 150;
const MIB: u64 = 1 << 20;
/// WAL pages that the writer may checkpoint between two commits.
const MAX_TAIL_PAGES: i64 = 150;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Layout {
    /// Conventional: a table per entity, text keys, a decision per alert, a delivery per event.
    Conventional,
    /// Integer keys in arrival order and a cursor per destination.
    Lean,
    /// `Lean`, but the id of a target is a hash of its key: random inserts in both trees.
    RandomIds,
    /// `Lean`, but the (target, time) index holds the hash, which stays valid after the target's row is deleted.
    HashedIndex,
}

#[derive(Clone, Copy)]
enum Checkpoint {
    /// SQLite's automatic checkpoint by the writer at this many WAL pages.
    Inline(u32),
    /// PASSIVE checkpoints on a separate thread and connection at this many WAL bytes.
    Thread(u64),
    /// The same in rounds until little is left, which the writer checkpoints itself between two commits. Only
    /// then does the WAL restart under load.
    Tail(u64),
}

#[derive(Clone, Copy)]
struct Setup {
    name: &'static str,
    layout: Layout,
    page: u32,
    vacuum: &'static str,
    checkpoint: Checkpoint,
}

use Checkpoint::{Inline, Tail, Thread};

const BASE: Setup = Setup {
    name: "lean",
    layout: Layout::Lean,
    page: 8192,
    vacuum: "INCREMENTAL",
    checkpoint: Tail(16 * MIB),
};

const LAYOUTS: [Setup; 4] = [
    Setup { name: "conventional", layout: Layout::Conventional, ..BASE },
    BASE,
    Setup { name: "random ids", layout: Layout::RandomIds, ..BASE },
    Setup { name: "index by hash", layout: Layout::HashedIndex, ..BASE },
];

const PRAGMAS: [Setup; 9] = [
    BASE,
    Setup { name: "auto_vacuum none", vacuum: "NONE", ..BASE },
    Setup { name: "page 4096", page: 4096, ..BASE },
    Setup { name: "page 16384", page: 16384, ..BASE },
    Setup { name: "inline, 1000 pages", checkpoint: Inline(1000), ..BASE },
    Setup { name: "inline, 4000 pages", checkpoint: Inline(4000), ..BASE },
    Setup { name: "thread alone, 16 MiB", checkpoint: Thread(16 * MIB), ..BASE },
    Setup { name: "thread and tail, 4 MiB", checkpoint: Tail(4 * MIB), ..BASE },
    Setup { name: "thread and tail, 64 MiB", checkpoint: Tail(64 * MIB), ..BASE },
];

/// Title, number of existing states, and the target of each event.
type Shape = (&'static str, bool, fn(i64) -> i64);

const SHAPES: [(&str, Shape); 3] = [
    ("new", ("every event a new target", false, |event| event + 1)),
    ("again", ("1,000 targets again and again", false, |event| event % 1000 + 1)),
    ("beside", ("new targets beside the states that exist", true, |event| event + 1)),
];

fn main() -> Result<()> {
    let number = |name, default| env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let groups: Vec<_> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |group| groups.is_empty() || groups.iter().any(|given| given == group);
    let dir = tempfile::tempdir().expect("a directory to measure in");
    let bench = Bench {
        dir: dir.path(),
        documents: documents(),
        events: number("EVENTS", 20_000) / 1000 * 1000,
        states: number("STATES", 50_000),
        best: number("BEST", 2).max(1),
    };
    let commits = env::var("COMMITS").unwrap_or_else(|_| "20,500".into());
    let commits: Vec<i64> = commits.split(',').map(|n| n.parse().expect("COMMITS=20,500")).collect();
    println!("SQLite {}, synchronous = FULL, best of {}", rusqlite::version(), bench.best);
    for (group, shape) in SHAPES {
        if wanted(group) {
            bench.table(shape, &LAYOUTS, &commits)?;
        }
    }
    if wanted("pragmas") {
        bench.table(("pragmas, every event a new target", false, |event| event + 1), &PRAGMAS, &[500])?;
    }
    if wanted("start") {
        bench.start()?;
    }
    if wanted("idle") {
        println!("\none commit of one event on an idle store");
        [LAYOUTS[0], LAYOUTS[1]].iter().try_for_each(|setup| bench.idle(setup))?;
    }
    Ok(())
}

// Measurements.

struct Bench<'a> {
    dir: &'a Path,
    documents: Vec<String>,
    events: i64,
    states: i64,
    best: i64,
}

/// Wall time, CPU time of the writer and of the process in seconds, bytes, slowest commit, WAL size.
type Outcome = [f64; 6];
/// Number of events, events per commit, and the target of each event.
type Load = (Range<i64>, i64, fn(i64) -> i64);

impl Bench<'_> {
    fn table(&self, (title, beside, target): Shape, setups: &[Setup], commits: &[i64]) -> Result<()> {
        println!("\n{title}");
        println!("{:24} commit  events/s  writer µs  CPU µs  bytes  worst ms  WAL MB  db MB", "");
        let rows = setups.iter().flat_map(|setup| commits.iter().map(move |&commit| (setup, commit)));
        for (setup, commit) in rows {
            // Small commits are dominated by fsync, so fewer of them are enough.
            let events = self.events.min(commit * 4000) / commit * commit;
            let path = self.dir.join("run.db");
            let mut best: Outcome = [f64::MAX; 6];
            for _ in 0..self.best {
                let before = if beside { self.states } else { 0 };
                let (file, conn) = self.fresh(setup, before)?;
                let next = self.run(setup, (&file, &conn), (before..before + events, commit, target))?;
                verify(&conn, setup.layout, before + events, commit)?;
                best = std::array::from_fn(|n| best[n].min(next[n]));
            }
            let [wall, writer, total, disk, worst, wal] = best;
            let (each, db) = (1e6 / events as f64, size(&path, "") / MIB);
            println!(
                "{:24}{commit:7}{:10.0}{:11.2}{:8.2}{:7.0}{:10.1}{:8.0}{db:7}",
                setup.name,
                events as f64 / wall,
                writer * each,
                total * each,
                disk / events as f64,
                worst * 1e3,
                wal / MIB as f64
            );
        }
        Ok(())
    }

    /// A database with `states` states and their events.
    fn fresh(&self, setup: &Setup, states: i64) -> Result<(File, Connection)> {
        let path = self.dir.join("run.db");
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", path.display()));
        }
        let file = File::options().append(true).create(true).open(&path).expect("a file for the database");
        let conn = open(&path, setup)?;
        conn.execute_batch(schema(setup.layout))?;
        for first in (0..states).step_by(1000) {
            let targets = (first + 1..=first + 1000).collect();
            Batch { first, targets, documents: &self.documents }.write(&conn, setup)?;
        }
        if setup.layout == Layout::Conventional {
            conn.execute_batch("UPDATE deliveries SET state = 1")?;
        }
        checkpoint(&conn, "TRUNCATE")?;
        Ok((file, conn))
    }

    fn run(&self, setup: &Setup, (file, conn): (&File, &Connection), load: Load) -> Result<Outcome> {
        let path = self.dir.join("run.db");
        let (events, commit, target) = load;
        let shared = Shared { file, uncheckpointed_bytes: 0.into(), tail: false.into(), done: false.into() };
        thread::scope(|scope| {
            let thread = scope.spawn(|| checkpointer(&path, setup, &shared));
            let (disk, busy, start) = (disk_bytes(), cpu(), Instant::now());
            let (mut wal, mut worst) = (0, Duration::ZERO);
            for first in events.step_by(commit as usize) {
                let begin = Instant::now();
                let targets = (first..first + commit).map(target).collect();
                Batch { first, targets, documents: &self.documents }.write(conn, setup)?;
                if !matches!(setup.checkpoint, Inline(_)) {
                    // NOOP copies nothing and returns the number of pages to copy.
                    let pages = checkpoint(conn, "NOOP")?;
                    shared.uncheckpointed_bytes.store(pages as u64 * u64::from(setup.page), SeqCst);
                }
                if shared.tail.load(SeqCst) {
                    checkpoint(conn, "PASSIVE")?;
                    shared.tail.store(false, SeqCst);
                }
                worst = worst.max(begin.elapsed());
                wal = wal.max(size(&path, "-wal"));
            }
            let (wall, writer) = (start.elapsed(), cpu() - busy);
            shared.done.store(true, SeqCst);
            let other = thread.join().expect("no panic")?;
            // The rest of the WAL counts as cost of the run.
            checkpoint(conn, "TRUNCATE")?;
            let (total, disk) = (other + cpu() - busy, disk_bytes() - disk);
            let [wall, writer, total, worst] = [wall, writer, total, worst].map(|time| time.as_secs_f64());
            Ok([wall, writer, total, disk as f64, worst, wal as f64])
        })
    }

    /// Time to load the index of targets and alerts at start.
    fn start(&self) -> Result<()> {
        let (_file, conn) = self.fresh(&BASE, self.states)?;
        let (mut targets, mut alerts, begin) = (HashMap::new(), HashMap::new(), Instant::now());
        let mut scan = conn.prepare("SELECT id, hash, due, alerts FROM targets")?;
        let mut rows = scan.query([])?;
        while let Some(row) = rows.next()? {
            let (id, _due) = (row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(2)?);
            targets.insert(row.get::<_, [u8; 16]>(1)?, id);
            for alert in row.get_ref(3)?.as_bytes()?.chunks(16) {
                alerts.insert(<[u8; 16]>::try_from(alert).expect("16 bytes an alert"), id);
            }
        }
        assert_eq!([targets.len() as i64, alerts.len() as i64], [self.states; 2]);
        let took = begin.elapsed().as_secs_f64() * 1e3;
        println!("\nstart: {} targets and alerts in {took:.0} ms", self.states);
        Ok(())
    }

    fn idle(&self, setup: &Setup) -> Result<()> {
        let (_file, conn) = self.fresh(setup, 0)?;
        let mut times = vec![];
        for first in 0..400 {
            thread::sleep(Duration::from_millis(4));
            let begin = Instant::now();
            Batch { first, targets: vec![first + 1], documents: &self.documents }.write(&conn, setup)?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        println!("{:24}{:7.2} ms median, {:.2} ms p99", setup.name, times[200], times[396]);
        Ok(())
    }
}

/// Checks that every event, decision and settlement is stored with the requested durability.
fn verify(conn: &Connection, layout: Layout, all: i64, commit: i64) -> Result<()> {
    let decided = if layout == Layout::Conventional { "decisions" } else { "decided" };
    let settled = match layout {
        Layout::Conventional => "SELECT count(*) FROM deliveries WHERE state = 1",
        _ => "SELECT settled FROM cursors",
    };
    let counts = [&format!("SELECT count(*) FROM {decided}"), "SELECT count(*) FROM events", settled];
    for (sql, expected) in counts.into_iter().chain(["PRAGMA synchronous"]).zip([all, all, all - commit, 2]) {
        assert_eq!(conn.query_row(sql, [], |row| row.get::<_, i64>(0))?, expected, "{sql}");
    }
    Ok(())
}

// Schema and writes.

fn schema(layout: Layout) -> &'static str {
    if layout == Layout::Conventional {
        return "CREATE TABLE episodes(id INTEGER PRIMARY KEY, target TEXT UNIQUE, opened_at INTEGER, state TEXT);
            CREATE TABLE occurrences(fingerprint TEXT PRIMARY KEY, episode INTEGER, heard INTEGER);
            CREATE TABLE decisions(id INTEGER PRIMARY KEY, target TEXT, at INTEGER, detail TEXT);
            CREATE INDEX decisions_of ON decisions(target, at);
            CREATE TABLE events(id TEXT PRIMARY KEY, target TEXT, at INTEGER, body TEXT);
            CREATE TABLE deliveries(event TEXT, destination INTEGER, state INTEGER, due INTEGER,
                PRIMARY KEY(event, destination));
            CREATE INDEX deliveries_due ON deliveries(destination, state, due);";
    }
    "CREATE TABLE targets(id INTEGER PRIMARY KEY, hash BLOB, due INTEGER, alerts BLOB, key TEXT, state BLOB);
        CREATE TABLE notifications(id INTEGER PRIMARY KEY, at INTEGER, body BLOB);
        CREATE TABLE decided(target INTEGER, notification INTEGER, PRIMARY KEY(target, notification)) WITHOUT ROWID;
        CREATE TABLE events(id INTEGER PRIMARY KEY, target INTEGER, route INTEGER, at INTEGER, body BLOB);
        CREATE TABLE cursors(destination INTEGER PRIMARY KEY, enqueued INTEGER, settled INTEGER);"
}

/// The events of one commit: the first id and the target of each.
struct Batch<'a> {
    first: i64,
    targets: Vec<i64>,
    documents: &'a [String],
}

impl Batch<'_> {
    fn write(&self, conn: &Connection, setup: &Setup) -> Result<()> {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        match setup.layout {
            Layout::Conventional => self.write_conventional(conn)?,
            layout => self.write_lean(conn, layout)?,
        }
        conn.execute_batch("COMMIT")
    }

    fn write_lean(&self, conn: &Connection, layout: Layout) -> Result<()> {
        let count = self.targets.len() as i64;
        // A commit smaller than a notification has a notification of its own size.
        let alerts = ALERTS_PER_NOTIFICATION.min(count);
        let hash = |n| (u128::from(mix(n)) << 64 | u128::from(mix(!n))).to_be_bytes();
        let mut state = conn.prepare_cached("REPLACE INTO targets VALUES (?, ?, NULL, ?, ?, ?)")?;
        let mut notification = conn.prepare_cached("INSERT INTO notifications VALUES (?1, ?1, ?2)")?;
        let mut decided = conn.prepare_cached("INSERT INTO decided VALUES (?, ?)")?;
        let mut event = conn.prepare_cached("INSERT INTO events VALUES (?1, ?2, 1, ?1, ?3)")?;
        for ((row, at), &target) in (0..).zip(self.first..).zip(&self.targets) {
            let hashed = (mix(target) >> 1) as i64;
            let id = if layout == Layout::RandomIds { hashed } else { target };
            let indexed = if layout == Layout::HashedIndex { hashed } else { id };
            let document = self.document(at, STATE_BYTES).as_bytes();
            state.execute((id, hash(target), hash(!target), key(target), document))?;
            decided.execute((indexed, at - row % alerts))?;
            event.execute((at, id, self.document(at, EVENT_BYTES).as_bytes()))?;
            if row % alerts == 0 {
                notification.execute((at, self.document(at, alerts as usize * DECISION_BYTES).as_bytes()))?;
            }
        }
        let mut cursor = conn.prepare_cached("REPLACE INTO cursors VALUES (1, ?, ?)")?;
        cursor.execute([self.first + count, self.first]).map(drop)
    }

    fn write_conventional(&self, conn: &Connection) -> Result<()> {
        let id = |event: i64| format!("{:016x}{:016x}", mix(event), mix(!event));
        let mut episode = conn.prepare_cached(
            "INSERT INTO episodes(target, opened_at, state) VALUES (?, ?, ?)
            ON CONFLICT(target) DO UPDATE SET state = excluded.state RETURNING id",
        )?;
        let mut occurrence = conn.prepare_cached("REPLACE INTO occurrences VALUES (?, ?, ?)")?;
        let mut decision =
            conn.prepare_cached("INSERT INTO decisions(target, at, detail) VALUES (?, ?, ?)")?;
        let mut document = conn.prepare_cached("INSERT INTO events VALUES (?, ?, ?, ?)")?;
        let mut delivery = conn.prepare_cached("INSERT INTO deliveries VALUES (?, 1, 0, ?)")?;
        for (at, &target) in (self.first..).zip(&self.targets) {
            let (id, key) = (id(at), key(target));
            let opened: i64 =
                episode.query_row((&key, at, self.document(at, STATE_BYTES)), |row| row.get(0))?;
            occurrence.execute((format!("{:016x}", mix(target)), opened, at))?;
            decision.execute((&key, at, self.document(at, DECISION_BYTES)))?;
            document.execute((&id, &key, at, self.document(at, EVENT_BYTES)))?;
            delivery.execute((&id, at))?;
        }
        let mut settle =
            conn.prepare_cached("UPDATE deliveries SET state = 1 WHERE event = ? AND destination = 1")?;
        for sent in (self.first - self.targets.len() as i64).max(0)..self.first {
            settle.execute([id(sent)])?;
        }
        Ok(())
    }

    fn document(&self, at: i64, size: usize) -> &str {
        &self.documents[at as usize % self.documents.len()][..size]
    }
}

fn key(target: i64) -> String {
    format!("eks/nodegroup/-/eu-west-1/prod-eu/-/workers-{target}")
}

/// Length of 20 decisions, with different content in each row.
fn documents() -> Vec<String> {
    let labels: String = (0..250).map(|n| format!(r#""label_{n}":"value {:x}","#, mix(n))).collect();
    (0..64).map(|n| labels[n..].to_owned()).collect()
}

fn mix(n: i64) -> u64 {
    let z = (n as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 27)
}

// Connections and checkpoints.

fn open(path: &Path, setup: &Setup) -> Result<Connection> {
    let new = size(path, "") == 0;
    let conn = Connection::open(path)?;
    if new {
        // Only for the first connection: `auto_vacuum` on an existing file waits for the writer.
        conn.pragma_update(None, "page_size", setup.page)?;
        conn.pragma_update(None, "auto_vacuum", setup.vacuum)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
    }
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "cache_size", -16384)?;
    conn.pragma_update(
        None,
        "wal_autocheckpoint",
        if let Inline(pages) = setup.checkpoint { pages } else { 0 },
    )?;
    Ok(conn)
}

/// Shared by the writer and the checkpoint thread.
struct Shared<'a> {
    /// Handle for syncing the database. Closing any handle of a file drops all POSIX locks of the process on it,
    /// SQLite's included, so this one is opened before the connections and closed after them.
    file: &'a File,
    /// WAL bytes that are not checkpointed yet.
    uncheckpointed_bytes: AtomicU64,
    /// Requests the final checkpoint by the writer.
    tail: AtomicBool,
    done: AtomicBool,
}

/// Checkpoints whenever the WAL is long enough. Returns the CPU time.
fn checkpointer(path: &Path, setup: &Setup, shared: &Shared<'_>) -> Result<Duration> {
    let (Thread(bytes) | Tail(bytes)) = setup.checkpoint else {
        return Ok(Duration::ZERO);
    };
    let conn = open(path, setup)?;
    while !shared.done.load(SeqCst) {
        if shared.uncheckpointed_bytes.load(SeqCst) < bytes || shared.tail.load(SeqCst) {
            thread::sleep(Duration::from_millis(2));
            continue;
        }
        checkpoint(&conn, "PASSIVE")?;
        if let Tail(_) = setup.checkpoint {
            // SQLite syncs the database only with the last page of the WAL, which would leave the wait to the
            // writer; so each round syncs its own pages.
            for _ in 0..8 {
                shared.file.sync_data().expect("sync the database");
                if checkpoint(&conn, "NOOP")? <= MAX_TAIL_PAGES {
                    break;
                }
                checkpoint(&conn, "PASSIVE")?;
            }
            shared.tail.store(true, SeqCst);
        }
        shared.uncheckpointed_bytes.store(0, SeqCst);
    }
    Ok(cpu())
}

/// Number of WAL pages that are not checkpointed.
fn checkpoint(conn: &Connection, mode: &str) -> Result<i64> {
    let mut statement = conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    statement.query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
}

// Operating system.

/// CPU time of this thread in nanoseconds resolution.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default())
}

fn disk_bytes() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).unwrap_or_default()
}

fn size(path: &Path, suffix: &str) -> u64 {
    fs::metadata(format!("{}{suffix}", path.display())).map_or(0, |data| data.len())
}
