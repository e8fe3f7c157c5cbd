//! Contract of all stores, and durability across restarts.

mod audit;
mod backlog;
mod batches;
mod cancelling;
mod clocks;
mod compensation;
mod compression;
mod concurrent;
mod controls;
mod copying;
mod dead_letters;
mod expiry;
mod faults;
mod notifications;
pub(crate) mod postgres;
#[path = "../../../tests/it/support/postgres.rs"]
#[allow(dead_code, reason = "shared with the integration tests")]
pub(super) mod postgres_server;
mod properties;
mod query;
mod retention;
mod soak;
mod tally;
pub(super) mod tracking;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::outbox::DeliveryQueue as _;
use super::{
    AuditEntry, AuditWrite, Changes, Claimed, DeadLetterError, DeliveryId, EpisodePhase, EventSeq, Keys,
    Lease, Memory, NewEvent, Postgres, Redrive, Settlement, Sqlite, Store, View,
};
use crate::domain::alert_key::AlertKey;
use crate::domain::delivery::GiveUp;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::{
    ClosedEpisode, Deferred, Episode, LastResolve, Occurrence, RuleState, TargetState,
};
use crate::domain::target::{Platform, Target, TargetKey};
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Verdict;
use postgres::Database;

/// A store that can be restarted.
struct StoreHarness {
    store: Store,
    dir: TempDir,
    postgres: Option<Database>,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key(text: &str) -> TargetKey {
    TargetKey::from_stored(text)
}

fn destinations() -> [Name; 2] {
    [name("queue"), name("journal")]
}

fn clock() -> super::WallClock {
    Arc::new(|| Time::from_millis(1_795_366_500_000))
}

fn sqlite(dir: &TempDir, destinations: &[Name]) -> Store {
    Store::Sqlite(Sqlite::open(&dir.path().join("bridge.db"), destinations, clock()).unwrap())
}

impl StoreHarness {
    fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: sqlite(&dir, &destinations()), dir, postgres: None }
    }

    fn memory() -> Self {
        Self::of_memory(Memory::new(&destinations(), clock()))
    }

    fn of_memory(memory: Memory) -> Self {
        Self { store: Store::Memory(memory), dir: tempfile::tempdir().unwrap(), postgres: None }
    }

    async fn postgres() -> Self {
        let (database, dir) = (Database::new(), tempfile::tempdir().unwrap());
        Self { store: database.open(&destinations()).await, dir, postgres: Some(database) }
    }

    /// All stores.
    async fn all() -> [Self; 3] {
        [Self::sqlite(), Self::memory(), Self::postgres().await]
    }

    /// The stores that outlive a process.
    async fn durable() -> [Self; 2] {
        [Self::sqlite(), Self::postgres().await]
    }

    fn is_durable(&self) -> bool {
        !matches!(self.store, Store::Memory(_))
    }

    fn keys(&self, targets: &[&str]) -> Keys {
        // Every notification reads its alerts too.
        let unknown = AlertKey { source: name("prod"), fingerprint: "unknown".into() };
        Keys { targets: targets.iter().map(|target| key(target)).collect(), alerts: vec![unknown] }
    }

    /// Closes the store and opens it again; does nothing for an in-memory store.
    async fn restart(&mut self) {
        self.restart_for(&destinations()).await;
    }

    async fn restart_for(&mut self, destinations: &[Name]) {
        if self.is_durable() {
            self.store.close().await;
        }
        match (&self.store, &self.postgres) {
            (Store::Sqlite(_), _) => self.store = sqlite(&self.dir, destinations),
            (_, Some(database)) => self.store = database.open(destinations).await,
            _ => {}
        }
    }

    /// A second connection to the file.
    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.dir.path().join("bridge.db")).unwrap()
    }

    /// Runs statements beside the store.
    fn execute(&self, sql: &str) {
        match &self.postgres {
            Some(database) => drop(database.execute(sql)),
            None => self.database().execute_batch(sql).unwrap(),
        }
    }

    /// Rows that the stores have in different tables.
    fn table<'a>(&self, of_sqlite: &'a str, of_postgres: &'a str) -> &'a str {
        if self.postgres.is_some() { of_postgres } else { of_sqlite }
    }

    /// Makes each statement fail that inserts a row into this table for which the condition holds.
    fn break_inserts(&self, table: &str, condition: &str) {
        self.execute(&match &self.postgres {
            Some(_) => format!(
                "CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
                 AS $$ BEGIN RAISE 'on purpose' USING ERRCODE = 'check_violation'; END $$;
                 CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION fail()"
            ),
            None => format!(
                "CREATE TRIGGER fail BEFORE INSERT ON {table} WHEN {condition}
                 BEGIN SELECT RAISE(ABORT, 'on purpose'); END"
            ),
        });
    }

    fn repair_inserts(&self, table: &str) {
        self.execute(&format!("DROP TRIGGER fail{}", self.table("", &format!(" ON {table}"))));
    }

    fn count(&self, rows: &str) -> i64 {
        let query = format!("SELECT count(*) FROM {rows}");
        match &self.postgres {
            Some(database) => database.execute(&query).unwrap().parse().unwrap(),
            None => self.database().query_row(&query, [], |row| row.get(0)).unwrap(),
        }
    }

    async fn write(&self, targets: &[&str], mut changes: impl FnMut(&View) -> Changes + Send + 'static) {
        let keys = self.keys(targets);
        self.store.transact(keys, move |view| (changes(view), ())).await.unwrap();
    }

    /// Emits one event about a target.
    async fn emit(&self, target: &str, kind: Kind, id: &str, to: &[&str]) {
        let event = event(target, kind, id, to);
        self.write(&[target], move |_| event.clone().changes()).await;
    }

    /// Claims, and returns numbers and ids of the events.
    async fn claim(&self, destination: &str) -> Vec<(Lease, String)> {
        let claimed = self.store.claim(&name(destination), 100).await.unwrap();
        claimed.into_iter().map(|claimed| (claimed.lease, id_of(&claimed))).collect()
    }

    /// Claims, and expects these ids.
    async fn claim_expecting(&self, destination: &str, expected: &[&str]) -> Vec<Lease> {
        let claimed = self.claim(destination).await;
        let ids: Vec<&str> = claimed.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!(ids, expected, "claimed for {destination}");
        claimed.into_iter().map(|(lease, _)| lease).collect()
    }

    async fn settle(&self, destination: &str, lease: Lease, settlement: Settlement) {
        self.store.settle(&name(destination), vec![(lease, settlement)]).await.unwrap();
    }

    fn backlog(&self, destination: &str) -> (u64, u64, u64) {
        let backlog = self.store.backlog(&name(destination));
        (backlog.pending, backlog.retrying, backlog.dead)
    }
}

/// Blocks SQLite's writer, so that commands submitted meanwhile are one batch.
struct Gate(Option<(tokio::task::JoinHandle<()>, std::sync::mpsc::Sender<()>)>);

impl Gate {
    async fn new(store: &Store, closed: bool) -> Self {
        let Store::Sqlite(_) = store else { return Self(None) };
        if !closed {
            return Self(None);
        }
        let (opener, opened) = std::sync::mpsc::channel::<()>();
        let (enters, entered) = tokio::sync::oneshot::channel::<()>();
        let (store, mut enters) = (store.clone(), Some(enters));
        let held = tokio::spawn(async move {
            let hold = move |_: &View| {
                drop(enters.take());
                (Changes::default(), opened.recv().unwrap_or(()))
            };
            drop(store.transact(Keys::default(), hold).await);
        });
        // Commands submitted from now on are not in the batch of the blocking transaction.
        drop(entered.await);
        Self(Some((held, opener)))
    }

    async fn open(self) {
        // Each task submits its command when it first runs.
        tokio::task::yield_now().await;
        if let Some((held, opener)) = self.0 {
            drop(opener);
            held.await.unwrap();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Increases capacity.
    Out,
    /// Decreases capacity.
    In,
    /// Neither.
    Note,
}

/// An event with a state of its target, so that it is in the target's order.
#[derive(Clone)]
struct Emission {
    target: TargetKey,
    kind: Kind,
    id: String,
    to: Vec<Name>,
}

fn event(target: &str, kind: Kind, id: &str, to: &[&str]) -> Emission {
    Emission {
        target: key(target),
        kind,
        id: id.to_owned(),
        to: to.iter().map(|destination| name(destination)).collect(),
    }
}

impl Emission {
    fn changes(self) -> Changes {
        Changes {
            states: vec![(self.target.clone(), state_with_last_resolve(self.target.as_str()))],
            events: vec![self.event()],
            ..Changes::default()
        }
    }

    fn event(self) -> NewEvent {
        let action = self.kind.action();
        // Every other event is long enough to be compressed.
        let is_long = self.id.bytes().map(u32::from).sum::<u32>() % 2 == 0;
        let body = json!({
            "specversion": "1.0", "id": self.id, "source": "/scalebridge/prod",
            "type": format!("io.scalebridge.{action}.v1"), "subject": self.target.as_str(), "sequence": "7",
            "expirytime": now().after(HOUR).to_millis_string(),
            "data": {
                "rule": "nodes", "phase": "firing", "action": action, "episode": { "id": "e", "emission": 1 },
                "alerts": [{ "fingerprint": "f1" }], "notification": { "source": "prod" },
                "parameters": { "why": if is_long { "pods wait ".repeat(300) } else { "they wait".to_owned() } },
            },
        });
        NewEvent {
            target: self.target,
            acting: self.to.clone().into(),
            destinations: self.to.into(),
            may_decrease_capacity: self.kind == Kind::In,
            reverts: Arc::default(),
            episode_phase: None,
            body: body.to_string().into(),
        }
    }
}

/// An event of an episode with the state after it, as the bridge writes them.
#[derive(Clone)]
struct EpisodeEvent {
    emission: Emission,
    phase: Phase,
    episode: String,
}

impl EpisodeEvent {
    fn changes(self) -> Changes {
        let Self { emission, phase, episode } = self;
        let target = emission.target.clone();
        let state = match phase {
            Phase::Firing => open_episode(&episode),
            Phase::Resolved => state_with_last_resolve(target.as_str()),
        };
        let mut event = emission.event();
        let mut body: serde_json::Value = serde_json::from_str(&event.body).unwrap();
        if phase == Phase::Firing {
            body["data"]["phase"] = "firing".into();
            event.body = body.to_string().into();
        }
        event.episode_phase = Some(EpisodePhase { phase, episode: episode.into() });
        Changes { states: vec![(target, state)], events: vec![event], ..Changes::default() }
    }
}

impl Kind {
    fn action(self) -> &'static str {
        match self {
            Self::Out => "scale_out",
            Self::In => "scale_in",
            Self::Note => "notify",
        }
    }
}

impl StoreHarness {
    /// Emits the `on_firing` scale-out of episode `e` of the target.
    async fn emit_firing(&self, target: &str, id: &str, to: &[&str]) {
        self.emit_episode_event(event(target, Kind::Out, id, to), Phase::Firing, "e").await;
    }

    /// Emits the `on_resolved` scale-in of the same episode.
    async fn emit_resolved(&self, target: &str, id: &str, to: &[&str]) {
        self.emit_episode_event(event(target, Kind::In, id, to), Phase::Resolved, "e").await;
    }

    async fn emit_episode_event(&self, emission: Emission, phase: Phase, episode: &str) {
        let target = emission.target.as_str().to_owned();
        let episode_event = EpisodeEvent { emission, phase, episode: episode.to_owned() };
        self.write(&[&target], move |_| episode_event.clone().changes()).await;
    }

    /// Claims, and expects exactly this event.
    async fn claim_one(&self, destination: &str, id: &str) -> Claimed {
        let mut claimed = self.store.claim(&name(destination), 100).await.unwrap();
        let ids: Vec<String> = claimed.iter().map(id_of).collect();
        assert_eq!(ids, [id], "claimed for {destination}");
        claimed.remove(0)
    }

    /// Claims, expects exactly this event, and settles it.
    async fn claim_and_settle(&self, destination: &str, id: &str, settlement: Settlement) {
        let claimed = self.claim_one(destination, id).await;
        self.settle(destination, claimed.lease, settlement).await;
    }

    /// The first decision of each record about a target.
    async fn decisions(&self, target: &str) -> Vec<serde_json::Value> {
        let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        let records = self.store.history(&key(target), from, to).await.unwrap();
        let decisions = records.iter().map(|record| {
            let record: serde_json::Value = serde_json::from_str(record).unwrap();
            record["decisions"][0].clone()
        });
        decisions.collect()
    }

    async fn prune(&self) {
        while self.store.prune(Duration::ZERO, Duration::ZERO).await.unwrap() {}
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Time {
    clock()()
}

fn dead() -> Settlement {
    Settlement::Dead { error: "refused".into(), cause: GiveUp::Rejected, called: true, uncertain: false }
}

/// An audit entry of an act by Ann.
fn audit(act: &str) -> AuditWrite {
    AuditWrite::Add(AuditEntry { actor: "ann".into(), act: act.to_owned(), body: "{}".into() })
}

fn withdrawn() -> Settlement {
    Settlement::Withdrawn { reason: "nothing to compensate".into() }
}

/// A state with nothing but an open episode.
pub(super) fn open_episode(id: &str) -> TargetState {
    let mut state = deferred_state("nodes", Verdict::Paused, false);
    for rule in state.rules.values_mut() {
        if let Some(episode) = &mut rule.episode {
            (episode.id, episode.deferred) = (id.into(), None);
        }
    }
    state
}

fn id_of(claimed: &Claimed) -> String {
    let body: serde_json::Value = serde_json::from_str(&claimed.body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

fn retry_after(seconds: u64) -> Settlement {
    Settlement::Retry { delay: Duration::from_secs(seconds), error: "no answer".into(), uncertain: false }
}

fn alert(text: &str) -> AlertKey {
    AlertKey { source: name("prod"), fingerprint: text.into() }
}

/// A state with nothing but the last resolve of an alert.
fn state_with_last_resolve(text: &str) -> TargetState {
    let ended = LastResolve {
        alert: alert(text),
        ends_at: Time::from_nanos(0),
        was_open: true,
        closed_at: None,
        until: Time::from_nanos(i64::MAX),
    };
    TargetState { last_resolves: std::iter::once(ended).collect(), ..TargetState::default() }
}

/// A state with a deferred action. It depends on controls if it is paused or, with `closing`, a decrease.
pub(super) fn deferred_state(rule: &str, verdict: Verdict, closing: bool) -> TargetState {
    let trigger = Trigger {
        source: name("prod"),
        receiver: String::new(),
        group_key: String::new(),
        external_url: String::new(),
        reason: None,
        traceparent: None,
    };
    let deferred = Deferred {
        requested_at: Time::from_nanos(0),
        stable_since: None,
        recheck_at: None,
        limited_direction: None,
        decreases: closing,
        is_repeat: false,
        is_retry: false,
        wait: None,
        blocked_by: Some(verdict),
        alerts: vec![alert("f1")],
        trigger: trigger.into(),
    };
    let target = Target {
        platform: Platform::Eks,
        kind: "nodegroup".into(),
        name: "workers".into(),
        account: None,
        cluster: Some("prod-eu".into()),
        namespace: None,
        region: Some("eu-west-1".into()),
    };
    let mut episode = Episode {
        id: "e".into(),
        scope: EpisodeScope::Target(target.into()),
        opened_at: Time::from_nanos(0),
        open: std::iter::empty::<Occurrence>().collect(),
        emissions: 1,
        most_open: 1,
        resolved_emissions: 0,
        undelivered_emissions: 0,
        sources: [name("prod")].into(),
        adopted: false,
        expired: false,
        heartbeats: Vec::new(),
        truncated: false,
        hold_over: false,
        is_silent: false,
        deferred: None,
        emitted: None,
        parameters: [].into(),
    };
    let mut state = RuleState::default();
    if closing {
        state.closed = Some(Box::new(ClosedEpisode {
            episode: Box::new(episode),
            closed: Vec::new(),
            deferred: Some(deferred),
            unneeded: None,
            is_answered: false,
            emitted: None,
            until: None,
        }));
    } else {
        episode.deferred = Some(deferred);
        state.episode = Some(Box::new(episode));
    }
    TargetState { rules: [(name(rule), state)].into_iter().collect(), ..TargetState::default() }
}
