//! PostgreSQL with durable settings, and what it says about the work that it has done.

use std::fs;
use std::io;

use super::support::PostgresServer;

/// As a small server in production: commits wait for the disk, and checkpoints are rare.
const SETTINGS: [&str; 9] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=1GB",
    "max_wal_size=4GB",
    "wal_init_zero=on",
    "shared_preload_libraries=pg_stat_statements",
    // Only where a run asks for it.
    "pg_stat_statements.track=none",
    "deadlock_timeout=1s",
];
/// The longest statements, as they are shown.
const MAX_STATEMENTS: usize = 14;

/// A running server.
pub(crate) struct Server(PostgresServer);

/// What one statement has cost.
pub(crate) struct Statement {
    pub calls: f64,
    /// Time of planning and execution.
    pub milliseconds: f64,
    /// Pages that were found in the server's memory or read, also several times.
    pub pages: f64,
    pub text: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self(PostgresServer::start(&SETTINGS, "host all all 127.0.0.1/32 trust\n", |_| {}))
    }

    /// The version, and the settings that decide what a commit costs.
    pub(crate) fn describe(&self) -> String {
        let settings = "SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name)
            FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit', 'shared_buffers', 'max_wal_size')";
        format!(
            "PostgreSQL {}, {}",
            self.sql("postgres", "SHOW server_version"),
            self.sql("postgres", settings)
        )
    }

    /// Creates a database, empty or as a copy.
    pub(crate) fn create_database(&self, template: Option<&str>) -> String {
        self.0.create_database(template)
    }

    pub(crate) fn drop_database(&self, database: &str) {
        self.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
    }

    pub(crate) fn url(&self, database: &str) -> String {
        self.0.url(database)
    }

    /// Runs SQL as the superuser. Returns the rows, with `|` between columns.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        self.0.sql(database, sql)
    }

    /// Reads one number.
    pub(crate) fn number(&self, database: &str, sql: &str) -> io::Result<f64> {
        self.sql(database, sql).parse().map_err(io::Error::other)
    }

    /// Counts the statements of a database from now on.
    pub(crate) fn track_statements(&self, database: &str) {
        self.sql(database, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements");
        for setting in ["track = 'all'", "track_planning = on"] {
            self.sql("postgres", &format!("ALTER DATABASE {database} SET pg_stat_statements.{setting}"));
        }
    }

    pub(crate) fn reset_statements(&self, database: &str) {
        self.sql(database, "SELECT pg_stat_statements_reset()");
    }

    /// The number of committed transactions of a database.
    pub(crate) fn transactions(&self, database: &str) -> io::Result<f64> {
        // Sessions report what they have done with a delay of up to a second, or when they end.
        let commits = format!("SELECT xact_commit FROM pg_stat_database WHERE datname = '{database}'");
        self.number("postgres", &commits)
    }

    /// The statements of a database that have cost most.
    pub(crate) fn statements(&self, database: &str) -> Vec<Statement> {
        let rows = self.sql(
            database,
            &format!(
                "SELECT calls || '|' || total_plan_time + total_exec_time || '|' ||
                        shared_blks_hit + shared_blks_read || '|' ||
                        left(regexp_replace(trim(query), '\\s+', ' ', 'g'), 200)
                 FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
                 WHERE d.datname = '{database}' AND toplevel ORDER BY total_plan_time + total_exec_time DESC"
            ),
        );
        let read = |line: &str| {
            let mut columns = line.splitn(4, '|');
            let calls = columns.next()?.parse().ok()?;
            let milliseconds = columns.next()?.parse().ok()?;
            let pages = columns.next()?.parse().ok()?;
            Some(Statement { calls, milliseconds, pages, text: columns.next()?.to_owned() })
        };
        rows.lines().filter_map(read).collect()
    }

    /// CPU time of all its processes in microseconds, with those that have ended.
    pub(crate) fn cpu_us(&self) -> io::Result<u64> {
        let pid = fs::read_to_string(self.0.directory().join("data/postmaster.pid"))?;
        let postmaster: u32 =
            pid.lines().next().unwrap_or_default().trim().parse().map_err(io::Error::other)?;
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let Ok(pid) = name.parse::<u32>() else { continue };
            // It may have ended meanwhile.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let fields: Vec<u64> = stat
                .rsplit_once(')')
                .map_or("", |(_, rest)| rest)
                .split_whitespace()
                .skip(1)
                .map(|field| field.parse().unwrap_or(0))
                .collect();
            let own: u64 = fields.iter().skip(10).take(2).sum();
            let of_ended: u64 = fields.iter().skip(12).take(2).sum();
            if pid == postmaster {
                ticks += own + of_ended;
            } else if fields.first() == Some(&u64::from(postmaster)) {
                ticks += own;
            }
        }
        Ok(ticks * 10_000)
    }
}

/// Lines of the statements that have cost most.
pub(crate) fn statement_rows(statements: &[Statement], notifications: f64) -> Vec<Vec<String>> {
    let row = |statement: &Statement| {
        vec![
            statement.text.clone(),
            format!("{:.2}", statement.calls / notifications),
            format!("{:.3}", statement.milliseconds / statement.calls),
            format!("{:.1}", statement.pages / statement.calls),
        ]
    };
    statements.iter().take(MAX_STATEMENTS).map(row).collect()
}
