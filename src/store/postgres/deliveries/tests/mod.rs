//! Deliveries on a server, in a database of its own for each test. Events are inserted by SQL.

mod claims;
mod concurrent;
mod leases;
mod outcomes;
mod plans;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, NoTls};

use crate::domain::delivery::{DeliveryChangeKind, GiveUp};
use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};
use crate::store::outbox::{DeliveryQueue as _, Outbox as _};
use crate::store::postgres::destinations::ScanFloor;
use crate::store::postgres::transaction::Transaction;
use crate::store::postgres::{Connector, Postgres, Settings, Shared};
use crate::store::tests::postgres_server::PostgresServer;
use crate::store::{AuditEntry, AuditWrite, Claimed, DeliveryId, EventSeq, Lease, Redrive, Settlement};

/// A database with handles of replicas on it.
struct World {
    config: Config,
    client: Client,
    replicas: Vec<Postgres>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

async fn connect(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

const SUCCESS: Settlement = Settlement::Delivered { answer: None };

fn retry_after(seconds: u64) -> Settlement {
    let delay = std::time::Duration::from_secs(seconds);
    Settlement::Retry { delay, error: "no answer".to_owned(), uncertain: false }
}

fn dead(cause: GiveUp) -> Settlement {
    Settlement::Dead { error: "refused".to_owned(), cause, called: true, uncertain: false }
}

fn not_called(stands_aside: bool) -> Settlement {
    Settlement::NotCalled { delay: std::time::Duration::from_secs(3600), stands_aside }
}

impl World {
    async fn new(replicas: usize) -> Self {
        let server = PostgresServer::shared();
        let url = server.url(&server.create_database(None));
        let config: Config = url.parse().unwrap();
        let mut opened = Vec::new();
        for _ in 0..replicas {
            let connector = Connector::from_url(&url).unwrap();
            let settings = Settings { connector, max_connections: 8, notify: true };
            opened.push(Postgres::open(settings, &[name("queue"), name("journal")]).await.unwrap());
        }
        Self { client: connect(&config).await, config, replicas: opened }
    }

    fn store(&self) -> &Postgres {
        &self.replicas[0]
    }

    fn shared(&self) -> &Shared {
        &self.store().0
    }

    async fn execute(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        self.forget_scan_floors();
    }

    /// The next claims look at all deliveries, since no replica knows what the client of the test has written.
    fn forget_scan_floors(&self) {
        for replica in &self.replicas {
            for destination in replica.0.destinations.all().values() {
                *destination.scan_floor.lock() = ScanFloor::default();
            }
        }
    }

    async fn number(&self, sql: &str) -> i64 {
        self.client.query_typed(sql, &[]).await.unwrap()[0].get(0)
    }

    /// Inserts an event about a target, with its deliveries.
    async fn emit(&self, target: &str, id: &str, to: &[&str]) -> i64 {
        self.emit_compensating(target, id, to, None).await
    }

    /// The same, which takes back these events.
    async fn emit_compensating(&self, target: &str, id: &str, to: &[&str], events: Option<Vec<i64>>) -> i64 {
        const EMIT: &str = "
            WITH known AS (
                INSERT INTO targets (hash, key, watch) VALUES (decode(md5($1), 'hex'), $1, 3)
                ON CONFLICT (hash) DO UPDATE SET key = excluded.key RETURNING id
            ), event AS (
                INSERT INTO events (id, target, at, destinations, acting, may_decrease, compensates, tracked, body)
                SELECT $2, id, now_ns(), $3, $3, false, $5, true, $4 FROM known RETURNING seq, target, at
            )
            INSERT INTO deliveries (destination, event, target, state, due, age_from)
            SELECT n.id, e.seq, e.target, 0, e.at, e.at FROM event e, destinations n WHERE n.name = ANY ($3)
            RETURNING event";
        let body = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "/scalebridge/prod", "type": "io.scalebridge.scale_out.v1",
            "subject": target, "sequence": "7", "expirytime": "2099-01-01T00:00:00.000Z",
            "data": { "rule": "nodes", "phase": "firing", "action": "scale_out", "alerts": [] },
        });
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 5] = [
            (&target, Type::TEXT),
            (&id, Type::TEXT),
            (&to, Type::TEXT_ARRAY),
            (&body.to_string(), Type::TEXT),
            (&events, Type::INT8_ARRAY),
        ];
        let event = self.client.query_typed(EMIT, &params).await.unwrap()[0].get(0);
        self.forget_scan_floors();
        event
    }

    /// Claims for the queue; returns the numbers of the events with their leases.
    async fn claim(&self) -> Vec<(i64, Lease)> {
        claim(self.store(), 100).await
    }

    /// Claims, and expects these events.
    async fn claim_expecting(&self, expected: &[i64]) -> Vec<Lease> {
        let claimed = self.claim().await;
        let events: Vec<i64> = claimed.iter().map(|(event, _)| *event).collect();
        assert_eq!(events, expected);
        claimed.into_iter().map(|(_, lease)| lease).collect()
    }

    async fn settle(&self, lease: Lease, settlement: Settlement) {
        self.store().settle(&name("queue"), vec![(lease, settlement)]).await.unwrap();
    }

    /// Claims, expects exactly this event, and settles it.
    async fn claim_and_settle(&self, event: i64, settlement: Settlement) {
        let lease = self.claim_expecting(&[event]).await[0];
        self.settle(lease, settlement).await;
    }

    async fn redrive(&self, event: i64) {
        let delivery_id = DeliveryId { seq: EventSeq(event), destination: name("queue") };
        let redrive = Redrive { force: true, ..Redrive::default() };
        self.store().redrive(&delivery_id, redrive, audit()).await.unwrap();
    }

    /// Applies a change to an event as a decision does.
    async fn change(&self, event: i64, kind: DeliveryChangeKind) {
        let shared = self.shared();
        let transaction = Transaction::begin(&shared.pool).await.unwrap();
        let lock =
            "SELECT id FROM targets WHERE id = (SELECT target FROM events WHERE seq = $1) FOR NO KEY UPDATE";
        transaction.query(lock, &[(&event, Type::INT8)]).await.unwrap();
        let now = "SELECT now_ns(), pg_current_xact_id()::text::bigint";
        let now = transaction.query_one(now, &[]).await.unwrap();
        let clock = ClockReading::equal(Time::from_nanos(now.get(0)));
        let counts = super::changes::apply(shared, &transaction, clock, vec![(event, kind)]).await.unwrap();
        transaction.commit().await.unwrap();
        counts.apply(shared, now.get(1));
    }

    /// Pending, retrying and dead deliveries of the queue: as the replica knows them, which is what is in the database.
    async fn backlog(&self) -> (u64, u64, u64) {
        let shown = |store: &Postgres| store.stats(&name("queue"));
        let known = shown(self.store());
        self.shared().destinations.refresh(&self.shared().pool).await.unwrap();
        assert_eq!(known, shown(self.store()), "the statistics are not those of the database");
        (known.backlog.pending, known.backlog.retrying, known.backlog.dead)
    }

    /// Counts the deliveries, since the test has inserted some.
    async fn count(&self) {
        for replica in &self.replicas {
            replica.0.destinations.refresh(&replica.0.pool).await.unwrap();
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let mut server = self.config.clone();
        let database = server.get_dbname().unwrap().to_owned();
        server.dbname("postgres");
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let sql = format!("DROP DATABASE {database} WITH (FORCE)");
                connect(&server).await.batch_execute(&sql).await
            })
        };
        drop(std::thread::spawn(remove).join());
    }
}

async fn claim(store: &Postgres, max: usize) -> Vec<(i64, Lease)> {
    let claimed = store.claim(&name("queue"), max).await.unwrap();
    claimed.into_iter().map(|one: Claimed| (one.lease.seq().0, one.lease)).collect()
}

fn audit() -> AuditWrite {
    AuditWrite::Add(AuditEntry { actor: "ann".into(), act: "redrive".into(), body: "{}".into() })
}
