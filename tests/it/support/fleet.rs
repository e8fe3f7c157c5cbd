//! Replicas: several bridges on one PostgreSQL database, behind a plain TCP balancer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use super::bridge::Bridge;
use super::postgres::PostgresServer;
use super::queue::TEST_AWS_ENV;
use super::relay::Relay;
use super::tools::eventually_within;

/// How long a fleet may need until everything is delivered, on a busy machine.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(100);

/// Deliveries that are open or leased.
const UNDELIVERED: &str = "SELECT count(*) FROM deliveries WHERE state = 0 OR token IS NOT NULL";
/// Targets that wait for anything, but for those whose names begin with `guarded`: their guards last for an hour.
const DEFERRED_TARGETS: &str =
    "SELECT count(*) FROM targets WHERE (recheck OR tally ~ '(^|;)d ') AND key NOT LIKE '%/guarded-%'";
/// Leases that were held already when they were seen before end, as if their time were over.
const END_LEASES: &str = "
    UPDATE deliveries d SET due = now_ns() FROM (VALUES PAIRS) AS held (event, token)
    WHERE d.event = held.event AND d.token = held.token AND d.due > now_ns()";

/// Replicas with the same configuration.
pub(crate) struct Fleet {
    pub replicas: Vec<Bridge>,
    /// Connections to it reach the replicas in turn.
    pub balancer: Relay,
}

/// A bridge with these destinations whose store is the database at this URL, not started.
pub(crate) fn replica(url: &str, destinations: &[(&str, String)]) -> Bridge {
    let mut bridge = Bridge::with_destinations(destinations);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    use_database(&bridge, url);
    bridge
}

/// Lets a bridge use the database at this URL.
pub(crate) fn use_database(bridge: &Bridge, url: &str) {
    let file = bridge.dir().join("scalebridge.yaml");
    let config = fs::read_to_string(file).expect("a configuration");
    let changed = config.replace("sqlite: { path: bridge.db }", "postgres: { url_file: secrets/url }");
    assert_ne!(changed, config);
    bridge.write("scalebridge.yaml", &changed);
    fs::create_dir(bridge.dir().join("secrets")).expect("a directory");
    move_database(bridge, url);
}

/// The database is at this URL from now on: new connections use it.
pub(crate) fn move_database(bridge: &Bridge, url: &str) {
    let (file, new) = (bridge.dir().join("secrets/url"), bridge.dir().join("secrets/new"));
    fs::write(&new, url).expect("a URL");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).expect("permissions");
    fs::rename(new, file).expect("renamed");
}

impl Fleet {
    /// Starts the replicas one after the other, so that those after the first join a ready fleet.
    pub(crate) async fn start(replicas: Vec<Bridge>) -> Self {
        let balancer = Relay::start(replicas.len()).await;
        let mut fleet = Self { replicas, balancer };
        for index in 0..fleet.replicas.len() {
            fleet.run(index).await;
        }
        fleet
    }

    /// Starts a replica, and waits until it is ready.
    pub(crate) async fn run(&mut self, index: usize) {
        self.replicas[index].run().await;
        self.balance(index);
    }

    /// The balancer uses the replica, which is ready.
    pub(crate) fn balance(&self, index: usize) {
        self.balancer.set_server(index, Some(self.replicas[index].address().to_owned()));
    }

    /// Kills a replica. The balancer notices that it is gone as balancers do: nobody listens at its address.
    pub(crate) fn kill(&mut self, index: usize) {
        self.replicas[index].kill();
    }

    /// The URL of a source, behind the balancer.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/webhook/prod-eu", self.balancer.port())
    }

    /// The log of all replicas since they were started.
    pub(crate) fn log(&self) -> String {
        self.replicas.iter().map(Bridge::log).collect()
    }
}

/// Waits until everything is decided and delivered. Nothing may be posted meanwhile. Leases that are held for seconds are
/// those of replicas that were killed: they end.
pub(crate) async fn wait_settled(server: &PostgresServer, database: &str) {
    let (mut leases, mut since) = (Leases::read(server, database), Instant::now());
    eventually_within(SETTLE_TIMEOUT, "everything to be settled", async || {
        if since.elapsed() > Duration::from_secs(3) {
            std::mem::replace(&mut leases, Leases::read(server, database)).end(server, database);
            since = Instant::now();
        }
        // At one moment.
        let unsettled = format!("SELECT ({UNDELIVERED}) + ({DEFERRED_TARGETS})");
        (server.sql(database, &unsettled) == "0").then_some(())
    })
    .await;
}

/// Waits until everything that is emitted is delivered.
pub(crate) async fn wait_delivered(server: &PostgresServer, database: &str) {
    let is_delivered = async || (server.sql(database, UNDELIVERED) == "0").then_some(());
    eventually_within(SETTLE_TIMEOUT, "all deliveries", is_delivered).await;
}

/// The leases of claimed deliveries, by which those of a replica that was killed are told from those that are settled soon.
pub(crate) struct Leases(Vec<String>);

impl Leases {
    pub(crate) fn read(server: &PostgresServer, database: &str) -> Self {
        let rows = server.sql(database, "SELECT event, token FROM deliveries WHERE token IS NOT NULL");
        Self(rows.lines().map(|row| format!("({})", row.replace('|', ","))).collect())
    }

    /// Ends those that are still held, as if their time were over: a minute is long for a test.
    pub(crate) fn end(self, server: &PostgresServer, database: &str) {
        if !self.0.is_empty() {
            server.sql(database, &END_LEASES.replace("PAIRS", &self.0.join(",")));
        }
    }
}
