//! What the bridge makes of the answers of Alertmanagers. Real ones are asked in `tests/it/reconciliation.rs`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::bridge::Filter;
use crate::domain::control::{GapCause, ReceptionGaps};
use crate::domain::engine::Policy;
use crate::domain::heartbeat_key::HeartbeatKey;
use crate::domain::labels::Labels;
use crate::domain::notification::{Alert, Status};
use crate::domain::rate::PerMinute;
use crate::domain::reported::{ReportedAlert, ReportedState, SuppressedBy};
use crate::store::{DeliveryQueue as _, Memory, Settlement, Store};
use crate::telemetry::Metrics;
use crate::testing;

const CONFIG: &str = "
sources:
  prod: { heartbeat: [alertname = Watchdog], heartbeat_grace: 0s }
destinations: { queue: { file: { path: queue.jsonl } } }
rules: [rules.yaml]
";
const RULES: &str = r#"
defaults: { send_to: [queue] }
rules:
  - name: pods
    matchers: [alertname = Pods]
    target: { platform: custom, kind: pool, name: workers }
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 1 }, stabilization_window: 0s, cooldown: 0s }
  - name: broken
    matchers: [alertname = Broken]
    target: { platform: custom, kind: pool, name: "{{ labels.missing }}" }
    on_firing: { scale_out: { by: 2 } }
  - name: freeze
    matchers: [alertname = Freeze]
    target: {}
    on_firing: { hold: { all: true } }
"#;
/// The beginning of the tests, when the store has existed for long.
const BEGINNING: i64 = 100_000;
const LATE_SECONDS: i64 = 360;
const DAY: i64 = 24 * 3600;

struct World {
    bridge: Bridge,
    clock: Arc<AtomicI64>,
    progress: Progress,
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn at(seconds: i64) -> Time {
    Time::from_millis(seconds * 1000)
}

/// Alertmanager's answer about an alert that it sends to the receiver `scaling`.
fn active(alertname: &str, starts_at: i64) -> ReportedAlert {
    ReportedAlert {
        alert: Alert {
            status: Status::Firing,
            labels: Arc::new(Labels::from_iter([("alertname", alertname)])),
            annotations: Arc::default(),
            starts_at: at(starts_at),
            ends_at: None,
            valid_until: None,
            absence: None,
            generator_url: "".into(),
            fingerprint: alertname.into(),
        },
        receivers: vec!["scaling".into()],
        state: ReportedState::Active,
        suppressed_by: Vec::new(),
    }
}

fn heartbeat() -> ReportedAlert {
    active("Watchdog", 10)
}

fn scaling() -> BTreeSet<String> {
    BTreeSet::from(["scaling".to_owned()])
}

fn silenced(alert: ReportedAlert) -> ReportedAlert {
    let suppressed_by = vec![SuppressedBy::Silence("s".into())];
    ReportedAlert { state: ReportedState::Suppressed, suppressed_by, ..alert }
}

/// An Alertmanager that has been running for long.
fn report(alerts: Vec<ReportedAlert>) -> Report {
    Report { alerts, started_at: Some(at(0)), ..Report::default() }
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("scalebridge.yaml"), CONFIG).unwrap();
        std::fs::write(dir.path().join("rules.yaml"), RULES).unwrap();
        let settings = testing::load(&dir.path().join("scalebridge.yaml")).unwrap();
        let clock = Arc::new(AtomicI64::new(1));
        let read = clock.clone();
        let store =
            Store::Memory(Memory::new(&[name("queue")], Arc::new(move || at(read.load(Ordering::Relaxed)))));
        let policy = Policy {
            last_resolve_retention: Duration::from_hours(1),
            expired_episode_retention: Duration::from_hours(1),
            owed_retention: Duration::from_hours(1),
            probes_destinations: true,
            per_minute: PerMinute::default(),
        };
        let bridge = Bridge::new(store, settings.rules, settings.sources, policy, Metrics::new());
        bridge.set_reconciled_sources(&BTreeSet::from([name("prod")]));
        bridge.begin_reception().await;
        clock.store(BEGINNING, Ordering::Relaxed);
        let mut world = Self { bridge, clock, progress: Progress::default() };
        world.post(&[("Watchdog", "firing", 10, 0)]).await;
        world.pass(1000).await;
        world
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    async fn pass(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
        self.bridge.process_due().await.unwrap();
        self.deliver().await;
    }

    /// Delivers what was emitted, as the worker of the destination does.
    async fn deliver(&self) {
        let (store, queue) = (&self.bridge.0.store, name("queue"));
        loop {
            let claimed = store.claim(&queue, 100).await.unwrap();
            if claimed.is_empty() {
                return;
            }
            let leases: Vec<_> = claimed.iter().map(|claimed| claimed.lease).collect();
            assert!(store.begin_calls(&queue, leases.clone()).await.unwrap().is_empty());
            let delivered = leases.into_iter().map(|lease| (lease, Settlement::Delivered { answer: None }));
            store.settle(&queue, delivered.collect()).await.unwrap();
            self.bridge.process_due().await.unwrap();
        }
    }

    /// Sends a notification of alerts: name, status, start and end.
    async fn post(&mut self, alerts: &[(&str, &str, i64, i64)]) {
        let alert = |(name, status, starts_at, ends_at): &(&str, &str, i64, i64)| {
            json!({
                "status": status, "labels": { "alertname": name }, "annotations": {}, "fingerprint": name,
                "startsAt": at(*starts_at).to_millis_string(), "endsAt": at(*ends_at).to_millis_string(),
            })
        };
        let alerts: Vec<_> = alerts.iter().map(alert).collect();
        let body = json!({ "version": "4", "receiver": "scaling", "alerts": alerts }).to_string();
        let notification = testing::parse_notification(body.as_bytes()).unwrap();
        let source = self.bridge.source("prod").unwrap();
        self.bridge.ingest(&source, notification, None).await.unwrap();
        self.deliver().await;
    }

    fn refuse(&self) {
        self.bridge.receive(&name("prod")).refuse(GapCause::Refused);
    }

    async fn reconcile(&mut self, reports: Vec<Report>) -> Reconciled {
        let asked = PeerAnswers { at: self.bridge.clock(), receivers: scaling(), reports };
        let reconciled =
            self.bridge.reconcile(&name("prod"), asked, &mut self.progress).await.unwrap().unwrap();
        self.deliver().await;
        reconciled
    }

    /// How many alerts have opened, and whether nothing is missing any more.
    async fn opened(&mut self, reports: Vec<Report>) -> (usize, bool) {
        let reconciled = self.reconcile(reports).await;
        (reconciled.opened, reconciled.agrees)
    }

    /// The decisions with these verdicts, oldest first: verdict and rule, or the alert.
    async fn decisions(&self, verdicts: &[Verdict]) -> Vec<String> {
        let filter = Filter { verdicts: verdicts.to_vec(), ..Filter::default() };
        let page = self.bridge.decisions(&filter, None, 100).await.unwrap();
        let text = |decision: &DecisionView| {
            let action = decision.action.as_deref().unwrap_or("-");
            format!("{} {} {action}", decision.verdict, decision.rule.as_deref().unwrap_or("-"))
        };
        page.decisions.iter().rev().map(text).collect()
    }

    async fn emitted(&self) -> Vec<String> {
        self.decisions(&[Verdict::Emitted]).await
    }

    fn is_gap_over(&self) -> bool {
        self.bridge.controls().reception_gaps(&name("prod")).is_some_and(ReceptionGaps::is_reconciled)
    }
}

#[tokio::test]
async fn an_alert_that_fires_and_is_not_open_is_processed_like_a_notification() {
    let mut world = World::new().await;
    let old = world.now() - LATE_SECONDS;
    let alerts = || vec![active("Pods", old), active("Unknown", old), active("Watchdog", 10)];
    assert_eq!(world.opened(vec![report(alerts())]).await, (1, true));
    assert_eq!(world.emitted().await, ["emitted pods scale_out"]);
    let page = world.bridge.decisions(&Filter::default(), None, 1).await.unwrap();
    let notification = page.decisions[0].notification.clone().unwrap();
    assert_eq!((&*notification.receiver, notification.reason.as_deref()), ("scaling", Some(REASON)));
    assert_eq!(world.opened(vec![report(alerts())]).await, (0, true), "it is open");
    world.post(&[("Pods", "resolved", old, world.now())]).await;
    world.pass(LATE_SECONDS).await;
    assert_eq!(world.emitted().await, ["emitted pods scale_out", "emitted pods scale_in"]);
}

#[tokio::test]
async fn what_is_suppressed_young_or_for_others_does_not_open() {
    let mut world = World::new().await;
    let old = world.now() - LATE_SECONDS;
    let elsewhere = ReportedAlert { receivers: vec!["mail".into()], ..active("Pods", old) };
    for (alert, agrees) in
        [(silenced(active("Pods", old)), true), (elsewhere, true), (active("Pods", old + 1), false)]
    {
        world.progress = Progress::default();
        assert_eq!(world.opened(vec![report(vec![alert.clone()])]).await, (0, agrees), "{alert:?}");
    }
    assert!(world.emitted().await.is_empty());
    world.pass(1).await;
    assert_eq!(world.opened(vec![report(vec![active("Pods", old + 1)])]).await, (1, true), "old enough now");
}

#[tokio::test]
async fn holds_and_heartbeats_open_too_and_what_cannot_be_read_is_recorded() {
    let mut world = World::new().await;
    world.post(&[("Watchdog", "resolved", 10, world.now())]).await;
    world.pass(LATE_SECONDS).await;
    let old = world.now() - LATE_SECONDS;
    let heartbeat = HeartbeatKey::for_source(&name("prod"));
    let is_open = |world: &World| world.bridge.controls().heartbeat(&heartbeat).open_since.is_some();
    assert!(!is_open(&world));
    let alerts = vec![
        active("Watchdog", world.now() - LATE_SECONDS + 1),
        active("Freeze", old),
        active("Broken", old),
    ];
    assert_eq!(world.opened(vec![report(alerts)]).await, (2, false), "the heartbeat is young");
    assert_eq!(world.bridge.controls().holds().count(), 1);
    assert_eq!(world.decisions(&[Verdict::Invalid]).await, ["invalid broken -"]);
    world.pass(1).await;
    assert_eq!(
        world.opened(vec![report(vec![active("Watchdog", world.now() - LATE_SECONDS)])]).await,
        (1, true)
    );
    assert!(is_open(&world));
}

/// A peer that has not heard of the resolve goes on showing the alert for a while.
#[tokio::test]
async fn reconciling_right_after_a_resolve_opens_nothing() {
    let mut world = World::new().await;
    let start = world.now();
    world.post(&[("Pods", "firing", start, 0)]).await;
    world.pass(1000).await;
    let end = world.now();
    world.post(&[("Pods", "resolved", start, end)]).await;
    let lags = || report(vec![active("Pods", start)]);
    assert_eq!(world.opened(vec![lags(), report(vec![])]).await, (0, false));
    world.pass(LATE_SECONDS - 1).await;
    assert_eq!(world.opened(vec![lags(), lags()]).await, (0, false));
    assert!(world.decisions(&[Verdict::Late]).await.is_empty());
    world.pass(LATE_SECONDS).await;
    assert_eq!(world.opened(vec![lags(), report(vec![])]).await, (0, false), "one peer lags for very long");
    assert_eq!(world.emitted().await, ["emitted pods scale_out", "emitted pods scale_in"]);
    assert_eq!(world.opened(vec![lags(), lags()]).await, (1, true), "it fires again with the same start");
    assert_eq!(
        world.decisions(&[Verdict::Late]).await,
        ["late pods scale_out"],
        "and waits for its resolve first"
    );
}

#[tokio::test]
async fn a_reception_gap_ends_at_once_if_nothing_is_missing() {
    for is_missing in [false, true] {
        let mut world = World::new().await;
        let start = world.now();
        world.post(&[("Pods", "firing", start, 0)]).await;
        world.pass(1000).await;
        assert_eq!(world.opened(vec![report(vec![active("Pods", start)])]).await, (0, true));
        world.pass(1).await;
        world.refuse();
        assert!(world.bridge.may_have_missed(&name("prod"), &world.progress));
        world.post(&[("Pods", "resolved", start, world.now())]).await;
        // So that the heartbeat could have ended.
        world.pass(1).await;
        let missing = is_missing.then(|| active("Pods", world.now()));
        let alerts = missing.into_iter().chain([heartbeat()]).collect();
        let reconciled = world.reconcile(vec![report(alerts)]).await;
        assert_eq!((reconciled.agrees, reconciled.ended_gap.is_some()), (!is_missing, !is_missing));
        assert_eq!(world.is_gap_over(), !is_missing);
        assert_eq!(world.bridge.may_have_missed(&name("prod"), &world.progress), is_missing);
    }
}

#[tokio::test]
async fn a_gap_does_not_end_because_of_alertmanagers_that_may_not_know_all_alerts() {
    let mut world = World::new().await;
    world.refuse();
    world.pass(1).await;
    let fresh = |world: &World, age: i64| Report {
        started_at: Some(at(world.now() - age)),
        ..report(vec![heartbeat()])
    };
    for doubtful in [
        fresh(&world, LATE_SECONDS - 1),
        Report { started_at: None, ..report(vec![heartbeat()]) },
        Report { unreadable: 1, ..report(vec![heartbeat()]) },
    ] {
        let reconciled = world.reconcile(vec![report(vec![heartbeat()]), doubtful.clone()]).await;
        assert!(!reconciled.agrees && !world.is_gap_over(), "{doubtful:?}");
    }
    let asked_before = PeerAnswers {
        at: ClockReading::equal(at(world.now() - 10)),
        receivers: scaling(),
        reports: vec![report(vec![heartbeat()])],
    };
    let reconciled =
        world.bridge.reconcile(&name("prod"), asked_before, &mut world.progress).await.unwrap().unwrap();
    assert_eq!((reconciled.ended_gap, world.is_gap_over()), (None, false), "asked before the gap");
    let settled = fresh(&world, LATE_SECONDS);
    assert!(world.reconcile(vec![settled]).await.ended_gap.is_some());
    world.pass(1).await;
    world.refuse();
    assert!(!world.is_gap_over(), "another gap");
}

/// A peer that is cut off from Prometheus, an Alertmanager of another cluster, a receiver that has another name there.
#[tokio::test]
async fn a_gap_does_not_end_because_of_alertmanagers_that_have_nothing_of_what_is_open_here() {
    let mut world = World::new().await;
    world.refuse();
    world.pass(1).await;
    let foreign = || active("Pods", world.now() - 10_000);
    let elsewhere = ReportedAlert { receivers: vec!["mail".into()], ..foreign() };
    let whole = report(vec![heartbeat()]);
    for reports in [
        vec![report(vec![])],
        vec![report(vec![elsewhere])],
        vec![report(vec![silenced(heartbeat())])],
        vec![whole.clone(), report(vec![])],
    ] {
        let reconciled = world.reconcile(reports.clone()).await;
        assert_eq!((reconciled.ended_gap, world.is_gap_over()), (None, false), "{reports:?}");
        assert!(world.bridge.may_have_missed(&name("prod"), &world.progress), "they are asked again");
    }
    let learned =
        PeerAnswers { at: world.bridge.clock(), receivers: BTreeSet::new(), reports: vec![whole.clone()] };
    let reconciled = world.bridge.reconcile(&name("prod"), learned, &mut world.progress).await.unwrap();
    assert_eq!(
        reconciled.unwrap().ended_gap,
        None,
        "others than the known receivers may send to this source"
    );
    assert!(world.reconcile(vec![whole.clone(), whole]).await.ended_gap.is_some());
}

/// The resolve of the old occurrence may arrive late, after a new one has fired: it must not close the new one.
#[tokio::test]
async fn a_new_occurrence_of_an_open_alert_is_taken_over_before_the_resolve_of_the_old_one_arrives() {
    let mut world = World::new().await;
    let start = world.now();
    world.post(&[("Pods", "firing", start, 0)]).await;
    world.pass(1000).await;
    world.refuse();
    let (end, again) = (world.now(), world.now() + 5);
    world.pass(10).await;
    let reconciled = world.reconcile(vec![report(vec![active("Pods", again)])]).await;
    assert_eq!((reconciled.heard, reconciled.agrees), (1, true));
    world.post(&[("Pods", "resolved", start, end)]).await;
    assert_eq!(world.decisions(&[Verdict::Stale]).await, ["stale pods -"]);
    world.pass(LATE_SECONDS * 2).await;
    assert_eq!(world.emitted().await, ["emitted pods scale_out"]);
}

#[tokio::test]
async fn an_alert_that_goes_on_firing_without_a_word_does_not_expire() {
    let mut world = World::new().await;
    let start = world.now();
    world.post(&[("Pods", "firing", start, 0)]).await;
    let is_expired = async |world: &World| !world.decisions(&[Verdict::Expired]).await.is_empty();
    let mut heard = 0;
    for _ in 0..8 {
        world.pass(DAY / 4).await;
        heard +=
            world.reconcile(vec![report(vec![active("Pods", start), active("Watchdog", 10)])]).await.heard;
    }
    assert!(heard >= 4 && !is_expired(&world).await, "{heard}");
    // Nothing resolves, and what is not shown any more is not heard.
    world.pass(DAY / 2).await;
    assert_eq!(world.reconcile(vec![report(vec![])]).await.heard, 0);
    assert!(!is_expired(&world).await);
    world.pass(DAY).await;
    assert!(is_expired(&world).await);
    assert_eq!(world.emitted().await, ["emitted pods scale_out"]);
}

#[tokio::test]
async fn receivers_that_notifications_name_are_known_after_a_restart() {
    let mut world = World::new().await;
    world.bridge.commit_gaps().await;
    assert_eq!(
        world.bridge.0.store.controls().receivers(&name("prod")),
        Some(&BTreeSet::from(["scaling".to_owned()]))
    );
    world.bridge.set_reconciled_sources(&BTreeSet::new());
    world.bridge.set_reconciled_sources(&BTreeSet::from([name("prod")]));
    assert_eq!(world.bridge.known_receivers(&name("prod")).len(), 1);
    let old = world.now() - LATE_SECONDS;
    assert_eq!(world.opened(vec![report(vec![active("Pods", old)])]).await, (1, true));
}

#[tokio::test]
async fn what_is_suppressed_is_known_until_it_is_not() {
    let mut world = World::new().await;
    let old = world.now() - LATE_SECONDS;
    world.reconcile(vec![report(vec![silenced(active("Pods", old))])]).await;
    let known =
        || world.bridge.suppressions("prod", "Pods").iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(known(), ["silenced by silence s"]);
    assert!(world.bridge.suppressions("prod", "Other").is_empty());
    assert!(world.bridge.suppressions("lab", "Pods").is_empty());
    world.bridge.record_reconciliation_error(&name("prod"), Some("gone".to_owned()));
    let knowledge = world.bridge.reconciliation("prod").unwrap();
    assert_eq!((knowledge.suppressed_total, knowledge.last_error.as_deref()), (1, Some("gone")));
    world.reconcile(vec![report(vec![active("Pods", old)])]).await;
    assert!(world.bridge.suppressions("prod", "Pods").is_empty());
}
