//! A PostgreSQL database for each test, with a clock that the test sets.

use std::sync::OnceLock;
use std::time::SystemTime;

use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use super::postgres_server::PostgresServer;
use super::{Postgres, Store, clock};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::postgres::{Connector, Settings};

/// Names of databases of tests begin with it and the id of their process.
const PREFIX: &str = "scalebridge_test_";

/// The server of the tests.
fn server() -> Config {
    with_database("postgres")
}

/// A database that is dropped with this value.
pub(crate) struct Database(Config);

impl Database {
    /// A new database with the schema. Its clock begins at the time of the tests.
    pub(crate) fn new() -> Self {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (name, template) = (format!("{PREFIX}{}_{number}", std::process::id()), template());
        execute(&server(), &format!("CREATE DATABASE {name} TEMPLATE {template}"));
        let database = Self(with_database(&name));
        database.set_clock(clock()());
        database
    }

    /// The server's clock shows this time now.
    pub(super) fn set_clock(&self, time: Time) {
        let real = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let ahead = time.as_nanos() - i64::try_from(real.as_nanos()).unwrap();
        self.set_now(&format!("(extract(epoch FROM clock_timestamp()) * 1000000000)::bigint + ({ahead})"));
    }

    /// The server's clock shows this time, and stands still.
    pub(crate) fn freeze_clock(&self, time: Time) {
        self.set_now(&time.as_nanos().to_string());
    }

    fn set_now(&self, now: &str) {
        self.execute(&format!(
            "CREATE OR REPLACE FUNCTION now_ns() RETURNS bigint LANGUAGE sql VOLATILE PARALLEL RESTRICTED
             AS 'SELECT ({now})::bigint'"
        ));
    }

    pub(crate) async fn open(&self, destinations: &[Name]) -> Store {
        Store::Postgres(Postgres::open(self.settings(), destinations).await.unwrap())
    }

    pub(in crate::store) fn url(&self) -> String {
        PostgresServer::shared().url(self.0.get_dbname().unwrap())
    }

    pub(in crate::store) fn settings(&self) -> Settings {
        settings(&self.0)
    }

    pub(super) fn config(&self) -> &Config {
        &self.0
    }

    /// Runs statements; returns the first column of the last row.
    pub(crate) fn execute(&self, sql: &str) -> Option<String> {
        execute(&self.0, sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.0.get_dbname().unwrap().to_owned();
        // What is left at the end of the process is dropped by the next one.
        drop(std::thread::spawn(move || execute(&server(), &format!("DROP DATABASE {name} WITH (FORCE)"))));
    }
}

fn settings(config: &Config) -> Settings {
    let url = PostgresServer::shared().url(config.get_dbname().unwrap());
    Settings { connector: Connector::from_url(&url).unwrap(), max_connections: 4, notify: true }
}

fn with_database(name: &str) -> Config {
    PostgresServer::shared().url(name).parse().unwrap()
}

/// A database with the schema and nothing else, for the tests of this process.
fn template() -> &'static str {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let listed = format!(
            "SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database WHERE datname LIKE '{PREFIX}%'"
        );
        for left in execute(&server(), &listed).unwrap().split_whitespace() {
            let process = left.strip_prefix(PREFIX).and_then(|rest| rest.split('_').next()).unwrap();
            if !std::path::Path::new("/proc").join(process).exists() {
                execute(&server(), &format!("DROP DATABASE IF EXISTS {left} WITH (FORCE)"));
            }
        }
        let name = format!("{PREFIX}{}_template", std::process::id());
        execute(&server(), &format!("CREATE DATABASE {name}"));
        let settings = settings(&with_database(&name));
        blocking(async move { Postgres::create_schema(settings).await.unwrap() });
        name
    })
}

/// Runs a future on a thread of its own, so that it can be waited for also within a runtime.
fn blocking<T: Send>(future: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| {
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(future)
        };
        scope.spawn(run).join().unwrap()
    })
}

fn execute(config: &Config, sql: &str) -> Option<String> {
    blocking(async {
        let (client, connection) = config.connect(NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let messages = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        drop(client);
        drop(connection.await);
        messages.into_iter().rev().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        })
    })
}
