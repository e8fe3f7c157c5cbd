//! `make soak`: many deliveries beside a transaction that stays open, which keeps the server from removing dead rows.
//!
//! Claims must not become slower by the dead rows of what is delivered, and what retention has deleted must be used again.
//! The load is paced, so that a claim has as much to do at the beginning as at the end.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio_postgres::{Client, Config, NoTls};

use super::postgres_server::PostgresServer;
use super::*;
use crate::store::Record;
use crate::store::postgres::{Connector, Settings};

/// Targets of a notification, each with an event.
const TARGETS: u64 = 20;
/// All targets.
const ALL_TARGETS: u64 = 20_000;
/// The deliveries of a sample.
const SAMPLE_DELIVERIES: u64 = 50_000;
/// What a worker claims at most: 16 calls of ten events.
const MAX_CLAIMED: usize = 160;
/// Undelivered events from which on nothing is emitted.
const MAX_BACKLOG: u64 = 2_000;
/// How long what was delivered is stored.
const RETENTION: Duration = Duration::from_secs(30);
/// Of a server of production; vacuum runs as by default.
const SETTINGS: [&str; 5] = [
    "fsync=on",
    "synchronous_commit=on",
    "shared_buffers=512MB",
    "max_wal_size=4GB",
    "shared_preload_libraries=pg_stat_statements",
];

fn parameter(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}: {value}")))
}

/// A store on a server of its own.
struct Soak {
    server: PostgresServer,
    database: String,
    store: Store,
    emitted: AtomicU64,
    /// Deliveries a second.
    rate: u64,
}

/// The durations of claims that have found something.
#[derive(Debug, Default)]
struct Claims(Vec<Duration>);

impl Claims {
    fn at(&mut self, part: f64) -> f64 {
        self.0.sort_unstable();
        let found = self.0.get((self.0.len() as f64 * part) as usize).copied().unwrap_or_default();
        found.as_secs_f64() * 1e3
    }

    fn show(&mut self, what: &str) -> f64 {
        let [median, p99, max] = [0.5, 0.99, 0.9999].map(|part| self.at(part));
        println!("{what}: {} claims, median {median:.2} ms, p99 {p99:.2} ms, max {max:.2} ms", self.0.len());
        p99
    }
}

impl Soak {
    async fn start(rate: u64) -> Self {
        let server = PostgresServer::start(&SETTINGS, "host all all 127.0.0.1/32 trust\n", |_| {});
        let database = server.create_database(None);
        server.sql(&database, "CREATE EXTENSION pg_stat_statements");
        let connector = Connector::from_url(&server.url(&database)).unwrap();
        let settings = Settings { connector, max_connections: 8, notify: true };
        let store = Store::Postgres(Postgres::open(settings, &[name("queue")]).await.unwrap());
        Self { server, database, store, emitted: AtomicU64::new(0), rate }
    }

    async fn connect(&self) -> Client {
        let config: Config = self.server.url(&self.database).parse().unwrap();
        let (client, connection) = config.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Delivers so many events, and goes on until `until`. Returns the durations of the last claims.
    async fn deliver(&self, count: u64, until: Instant) -> Claims {
        let begun = Instant::now();
        let (delivered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
        let is_wanted = || delivered.load(Ordering::Relaxed) < count || Instant::now() < until;
        let emit = async {
            let mut sent = 0;
            while is_wanted() {
                let due = begun + Duration::from_secs_f64(sent as f64 / self.rate as f64);
                tokio::time::sleep_until(due.into()).await;
                while self.store.undelivered() > MAX_BACKLOG {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                // Several notifications at once, as from several senders.
                let all: Vec<_> = (0..8).map(|_| self.emit()).collect();
                futures_util::future::join_all(all).await;
                sent += 8 * TARGETS;
            }
            is_over.store(true, Ordering::Relaxed);
        };
        let deliver = async {
            let mut claims = Vec::new();
            while !is_over.load(Ordering::Relaxed) || self.store.undelivered() > 0 {
                let began = Instant::now();
                let claimed = self.store.claim(&name("queue"), MAX_CLAIMED).await.unwrap();
                if claimed.is_empty() {
                    drop(
                        tokio::time::timeout(Duration::from_millis(200), self.store.wait(&name("queue")))
                            .await,
                    );
                    continue;
                }
                let seen = delivered.fetch_add(claimed.len() as u64, Ordering::Relaxed);
                claims.push((seen, began.elapsed()));
                let settled = claimed.iter().map(|one| (one.lease, Settlement::Delivered { answer: None }));
                self.store.settle(&name("queue"), settled.collect()).await.unwrap();
            }
            claims
        };
        let prune = async {
            while !is_over.load(Ordering::Relaxed) {
                while self.store.prune(RETENTION, RETENTION).await.unwrap() {}
                // Each minute in a bridge, whose retention is longer.
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        };
        let ((), claims, ()) = futures_util::future::join3(emit, deliver, prune).await;
        let all = delivered.into_inner();
        let rate = all as f64 / begun.elapsed().as_secs_f64();
        println!("{all} deliveries at {rate:.0} a second");
        let last =
            claims.into_iter().filter(|(seen, _)| seen + SAMPLE_DELIVERIES >= all).map(|(_, took)| took);
        Claims(last.collect())
    }

    /// Emits an event about each of some targets.
    async fn emit(&self) {
        let first = self.emitted.fetch_add(TARGETS, Ordering::Relaxed);
        let events: Vec<NewEvent> = (first..first + TARGETS)
            .map(|number| {
                let target = format!("target-{}", number % ALL_TARGETS);
                event(&target, Kind::Out, &format!("{number:032x}"), &["queue"]).event()
            })
            .collect();
        let targets: Vec<TargetKey> = events.iter().map(|event| event.target.clone()).collect();
        let keys = Keys { targets: targets.clone(), alerts: Vec::new() };
        let decide = move |_: &View| {
            let body = "{\"decisions\":[]}".to_owned();
            let record = Some(Record { targets: targets.clone(), body });
            (Changes { events: events.clone(), record, ..Changes::default() }, ())
        };
        self.store.transact(keys, decide).await.unwrap();
    }

    /// Prints the statements that have read the most pages since the last time, with pages and milliseconds of each call:
    /// unlike the durations of claims, the pages do not depend on the load of the machine.
    fn show_statements(&self) {
        let largest = "SELECT string_agg(format('  %s calls, %s pages, %s ms: %s', calls,
                shared_blks_hit / calls + shared_blks_read / calls, round(mean_exec_time::numeric, 2),
                left(regexp_replace(query, '\\s+', ' ', 'g'), 90)), E'\\n')
            FROM (SELECT * FROM pg_stat_statements WHERE calls > 50
                ORDER BY shared_blks_hit + shared_blks_read DESC LIMIT 12) AS s";
        println!("{}", self.server.sql(&self.database, largest));
        self.server.sql(&self.database, "SELECT pg_stat_statements_reset()");
    }

    /// Deletes all that is past its retention, and lets the server remove the dead rows. Returns the size in MB.
    async fn clean(&self, what: &str) -> f64 {
        tokio::time::sleep(RETENTION).await;
        while self.store.prune(RETENTION, RETENTION).await.unwrap() {}
        // What autovacuum does within its interval.
        self.server.sql(&self.database, "VACUUM");
        let size = self.server.sql(&self.database, "SELECT pg_database_size(current_database())");
        let size = size.parse::<f64>().unwrap() / 1e6;
        println!("{what}: {size:.0} MB in the database");
        let largest = "SELECT string_agg(relname || ' ' || pg_table_size(oid) / 1000000 || '+' ||
                pg_indexes_size(oid) / 1000000, ', ' ORDER BY pg_total_relation_size(oid) DESC)
            FROM pg_class WHERE relkind = 'r' AND pg_total_relation_size(oid) > 1000000";
        println!("  table+indexes in MB: {}", self.server.sql(&self.database, largest));
        size
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "half an hour: `make soak`"]
async fn claims_stay_fast_beside_an_open_transaction_and_the_size_stays_flat() {
    let deliveries = parameter("SOAK_DELIVERIES", 2_000_000);
    let minutes = parameter("SOAK_OPEN_MINUTES", 10);
    let soak = Soak::start(deliveries / (minutes * 60)).await;
    println!("{deliveries} deliveries in {minutes} minutes beside an open transaction");
    // Without those of the first second, which read files and plan for empty tables.
    soak.deliver(SAMPLE_DELIVERIES.min(deliveries / 4), Instant::now()).await;
    soak.show_statements();
    let fresh = soak.deliver(SAMPLE_DELIVERIES.min(deliveries / 4), Instant::now()).await.show("fresh");
    soak.show_statements();

    let open = soak.connect().await;
    open.batch_execute(
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id(), count(*) FROM targets",
    )
    .await
    .unwrap();
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let beside = soak.deliver(deliveries, until).await.show("beside an open transaction");
    soak.show_statements();
    let dead = soak.server.sql(&soak.database, "SELECT sum(n_dead_tup) FROM pg_stat_user_tables");
    println!("dead rows: {dead}");
    open.batch_execute("COMMIT").await.unwrap();
    let first = soak.clean("after retention").await;

    let after = soak.deliver(deliveries / 4, Instant::now()).await.show("after it");
    soak.show_statements();
    let second = soak.clean("after retention again").await;
    soak.store.close().await;
    assert!(
        beside <= fresh * 3.0,
        "p99 of claims: {beside:.2} ms beside an open transaction, {fresh:.2} ms fresh"
    );
    assert!(after <= fresh * 3.0, "p99 of claims: {after:.2} ms after it, {fresh:.2} ms fresh");
    assert!(second <= first * 1.05, "{second:.0} MB after {first:.0} MB");
}
