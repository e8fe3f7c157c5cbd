//! A storm on a store, with any number of replicas.

use std::io;
use std::path::Path;

use super::super::bridge::{self, Bridge, Setup, Store};
use super::super::check;
use super::super::load::{Load, Sent};
use super::super::scenarios::{ensure, log_progress, stats, wait_for};
use super::super::stub::Stub;
use super::server::Server;

/// Where a storm runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deployment {
    Sqlite,
    /// With this number of replicas.
    Postgres(usize),
}

/// What a storm has cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub sent: Sent,
    /// Alerts a second.
    pub accepted: f64,
    pub delivered: f64,
    /// CPU time of all replicas, and of the server, for each alert.
    pub bridge_us: f64,
    pub server_us: f64,
}

/// Replicas on one store, with the stub that they call.
pub(crate) struct Fleet<'a> {
    server: Option<(&'a Server, &'a str)>,
    bridges: Vec<Bridge>,
    stub: Stub,
}

impl<'a> Fleet<'a> {
    /// Starts bridges on a SQLite file.
    pub(crate) fn sqlite(folder: &Path, setup: &Setup) -> io::Result<Self> {
        clear(folder)?;
        let stub = Stub::start()?;
        let bridge = Bridge::start(&folder.join("replica-0"), setup, stub.address)?;
        Ok(Self { server: None, bridges: vec![bridge], stub })
    }

    /// Starts bridges on a database.
    pub(crate) fn postgres(
        folder: &Path,
        setup: &Setup,
        replicas: usize,
        (server, database): (&'a Server, &'a str),
    ) -> io::Result<Self> {
        clear(folder)?;
        let stub = Stub::start()?;
        let url = server.url(database);
        let start = |replica: usize| {
            let folder = folder.join(format!("replica-{replica}"));
            Bridge::start_on(Store::Postgres(&url), &folder, setup, stub.address)
        };
        let bridges = (0..replicas).map(start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { server: Some((server, database)), bridges, stub })
    }

    /// Sends alerts, each about its own target, from number `first` on, and waits until all events have arrived.
    pub(crate) fn storm(&self, first: u64, alerts: u64) -> io::Result<Measured> {
        let (before, bridge_before, server_before) =
            (stats(self.stub.address)?, self.bridge_cpu_us()?, self.server_cpu_us()?);
        let [one, others @ ..] = &*self.bridges else { return Err(io::Error::other("no bridge")) };
        let others = others.iter().map(|bridge| bridge.webhook).collect();
        let sent = Load { first, others, ..Load::new(one.webhook, alerts) }.run()?;
        let after = wait_for(self.stub.address, before.messages + alerts)?;
        let (bridge, server) = (self.bridge_cpu_us()? - bridge_before, self.server_cpu_us()? - server_before);
        let count = alerts as f64;
        let rate = |until: u64| count * 1e6 / until.saturating_sub(sent.first_us) as f64;
        Ok(Measured {
            sent,
            accepted: rate(sent.last_us),
            delivered: rate(after.last_us),
            bridge_us: bridge as f64 / count,
            server_us: server as f64 / count,
        })
    }

    /// Sends alerts that are known already, and checks that they cause nothing.
    pub(crate) fn repeat(&self, first: u64, alerts: u64) -> io::Result<()> {
        let [one, ..] = &*self.bridges else { return Ok(()) };
        let before = stats(self.stub.address)?.messages;
        Load { first, ..Load::new(one.webhook, alerts) }.run()?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        let messages = stats(self.stub.address)?.messages - before;
        ensure(messages == 0, &format!("{messages} events about {alerts} alerts that were open"))
    }

    /// From the start of the first bridge until it was ready.
    pub(crate) fn ready_after(&self) -> std::time::Duration {
        self.bridges.first().map_or(std::time::Duration::ZERO, |bridge| bridge.ready_after)
    }

    fn bridge_cpu_us(&self) -> io::Result<u64> {
        self.bridges.iter().map(Bridge::cpu_us).sum()
    }

    fn server_cpu_us(&self) -> io::Result<u64> {
        self.server.map_or(Ok(0), |(server, _)| server.cpu_us())
    }

    /// Stops all bridges. Returns their logs.
    pub(crate) fn stop(self) -> io::Result<Vec<String>> {
        let mut logs = Vec::new();
        for bridge in self.bridges {
            let log = bridge.log();
            bridge.stop()?;
            logs.push(std::fs::read_to_string(log)?);
        }
        Ok(logs)
    }

    /// Stops all bridges, and checks that each of the first `alerts` alerts, each with its own target, has a decision and
    /// an event.
    pub(crate) fn stop_and_verify(self, alerts: u64) -> io::Result<()> {
        let (_, distinct) = bridge::get(self.stub.address, "/distinct")?;
        let messages = stats(self.stub.address)?.messages;
        let (server, mut found) = (self.server, 0);
        let mut store = None;
        for bridge in self.bridges {
            store = Some(bridge.stop()?);
        }
        if let Some((server, database)) = server {
            found = server.number(database, DECIDED)? as u64;
        } else if let Some(store) = store {
            found = check::count_decisions(&store, |target| vec![format!("{target:016x}")])?;
        }
        ensure(distinct == alerts.to_string(), &format!("{distinct} of {alerts} events arrived"))?;
        // That is allowed: a replica that is stopped for a minute loses its leases.
        if messages > alerts {
            log_progress(&format!("{} events were sent twice", messages - alerts));
        }
        ensure(found == alerts, &format!("{found} of {alerts} decisions can be queried"))
    }
}

/// The targets with a record about their alert. The number in the name of a target is the fingerprint of its alert.
const DECIDED: &str = "
    SELECT count(DISTINCT t.id) FROM targets t
    JOIN record_targets h ON h.target = t.id JOIN records r ON r.id = h.record
    WHERE position(lpad(to_hex(substring(t.key FROM '[0-9]+$')::bigint), 16, '0') IN r.body) > 0";

fn clear(folder: &Path) -> io::Result<()> {
    if folder.exists() { std::fs::remove_dir_all(folder) } else { Ok(()) }
}
