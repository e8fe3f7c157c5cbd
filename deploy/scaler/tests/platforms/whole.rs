//! Events against a platform with a ledger in SQLite: each acts once, whatever fails, dies or comes twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use scalebridge::domain::time::Time;
use scalebridge_scaler::apply::{Capacity, apply};
use scalebridge_scaler::event::ScalingEvent;
use scalebridge_scaler::ledger::sqlite::SqliteLedger;
use scalebridge_scaler::outcome::{Answer, Outcome};
use scalebridge_scaler::plan::{MAX_HOLD, Policy};
use scalebridge_scaler::platform::kubernetes::{Cluster, Workload};
use scalebridge_scaler::platform::nomad::{NomadServer, TaskGroup};
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::nomad_server::{NomadStub, TOKEN};
use crate::wire::{Fault, WireServer};

/// 2026-11-30T10:00:00Z
const NOW_MILLIS: i64 = 1_796_032_800_000;

/// A ledger, a clock, and workers.
#[derive(Clone)]
struct Scaler {
    ledger: SqliteLedger,
    now: Arc<AtomicI64>,
    workers: Arc<AtomicU64>,
    _directory: Arc<tempfile::TempDir>,
}

impl Scaler {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scaler.db");
        let ledger = SqliteLedger::open(path, || Time::from_millis(NOW_MILLIS)).await.unwrap();
        let now = Arc::new(AtomicI64::new(NOW_MILLIS));
        Self { ledger, now, workers: Arc::default(), _directory: Arc::new(directory) }
    }

    async fn deliver(&self, event: &ScalingEvent, capacity: &impl Capacity) -> Answer {
        let worker = 1 + self.workers.fetch_add(1, Ordering::Relaxed);
        let now = || Time::from_millis(self.now.load(Ordering::Relaxed));
        apply(worker, event, &self.ledger, capacity, &Policy::default(), now, |_| ()).await
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

/// An event of `target`; the number is its id and its sequence.
fn event(target: &Value, number: u32, change: i64, reverts: &[u32]) -> ScalingEvent {
    let id = |number: &u32| format!("{number:032x}");
    let (kind, action) = match change > 0 {
        true => ("io.scalebridge.scale_out.v1", "scale_out"),
        false => ("io.scalebridge.scale_in.v1", "scale_in"),
    };
    let key = serde_json::from_value::<scalebridge::domain::target::Target>(target.clone()).unwrap().key();
    let document = json!({
        "specversion": "1.0", "id": id(&number), "source": "/scalebridge/lab", "type": kind,
        "subject": key.as_str(), "time": "2026-11-30T10:00:00Z", "sequence": number.to_string(),
        "expirytime": "2026-11-30T11:00:00Z",
        "data": { "rule": "queue-too-long", "action": action, "target": target, "reason": "1 alert",
                  "adjustment": { "type": "ChangeInCapacity", "value": change, "min_magnitude": null },
                  "reverts": reverts.iter().map(id).collect::<Vec<_>>() }
    });
    ScalingEvent::read(&document.to_string()).unwrap()
}

struct Kubernetes {
    server: ApiServer,
    web: Arc<Workload>,
    _directory: tempfile::TempDir,
}

impl Kubernetes {
    /// A deployment `web` of five.
    async fn new() -> Self {
        let server = ApiServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(directory.path());
        server.put(
            ("kubectl", "Update"),
            json!({ "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": 5 } }),
        );
        let cluster = Cluster::from_kubeconfig(&kubeconfig, None).await.unwrap();
        let web = Workload::new(Arc::new(cluster), "deployment", Some("shop"), "web");
        Self { server, web: Arc::new(web), _directory: directory }
    }

    fn event(number: u32, change: i64, reverts: &[u32]) -> ScalingEvent {
        let target = json!({ "platform": "kubernetes", "kind": "deployment", "name": "web", "cluster": "lab",
                             "namespace": "shop" });
        event(&target, number, change, reverts)
    }

    fn replicas(&self) -> u64 {
        self.server.spec("deployments", "web", "replicas")
    }

    fn floor(&self) -> u64 {
        self.server.spec("horizontalpodautoscalers", "web", "minReplicas")
    }
}

/// Delivers the event, and kills the worker when the server has its write, which is then carried out or not.
async fn kill_at_write<C: Capacity + 'static>(
    scaler: &Scaler,
    wire: &WireServer,
    event: ScalingEvent,
    capacity: &Arc<C>,
) {
    wire.take_log();
    wire.fail_writes([Fault::Silence]);
    let (worker, capacity) = (scaler.clone(), capacity.clone());
    let task = tokio::spawn(async move { worker.deliver(&event, &*capacity).await });
    while wire.take_writes().is_empty() {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
}

fn change(answer: &Answer) -> (Outcome, Option<u32>, Option<u32>) {
    (answer.outcome, answer.from, answer.to)
}

#[tokio::test]
async fn an_event_of_kubernetes_acts_once() {
    let (scaler, lab) = (Scaler::new().await, Kubernetes::new().await);
    let first = Kubernetes::event(1, 3, &[]);
    assert_eq!(change(&scaler.deliver(&first, &*lab.web).await), (Outcome::Applied, Some(5), Some(8)));
    let again = scaler.deliver(&first, &*lab.web).await;
    assert_eq!(change(&again), (Outcome::AlreadyApplied, Some(5), Some(8)));
    assert_eq!(lab.server.wire.take_writes().len(), 1);

    // Somebody changes the object between the read and the write: it is tried again with the next delivery.
    let second = Kubernetes::event(2, 2, &[]);
    let conflict = json!({ "kind": "Status", "status": "Failure", "reason": "Conflict", "message": "modified", "code": 409 });
    lab.server.wire.fail_writes([Fault::Answer(crate::wire::Answer::json(409, &conflict))]);
    let answer = scaler.deliver(&second, &*lab.web).await;
    assert_eq!(answer.outcome, Outcome::Retry, "{answer:?}");
    assert_eq!(scaler.deliver(&second, &*lab.web).await.outcome, Outcome::Applied);
    assert_eq!(lab.replicas(), 10);

    // The answer is lost: the change is known to be made when nobody can be making it any more.
    let third = Kubernetes::event(3, 1, &[]);
    lab.server.wire.fail_writes([Fault::LostAnswer]);
    assert_eq!(scaler.deliver(&third, &*lab.web).await.outcome, Outcome::Retry);
    lab.server.wire.take_log();
    assert_eq!(scaler.deliver(&third, &*lab.web).await.outcome, Outcome::Retry, "it may still be on its way");
    scaler.pass(MAX_HOLD);
    assert_eq!(change(&scaler.deliver(&third, &*lab.web).await), (Outcome::Applied, Some(10), Some(11)));
    assert_eq!((lab.replicas(), lab.server.wire.take_writes().len()), (11, 0));
}

#[tokio::test]
async fn a_killed_worker_leaves_its_change_to_the_next_event() {
    let (scaler, lab) = (Scaler::new().await, Kubernetes::new().await);
    let (first, second) = (Kubernetes::event(1, 3, &[]), Kubernetes::event(2, 2, &[]));
    kill_at_write(&scaler, &lab.server.wire, first.clone(), &lab.web).await;
    assert_eq!(lab.replicas(), 5);
    assert_eq!(scaler.deliver(&second, &*lab.web).await.outcome, Outcome::Retry);
    scaler.pass(MAX_HOLD);
    assert_eq!(change(&scaler.deliver(&second, &*lab.web).await), (Outcome::Applied, Some(8), Some(10)));
    assert_eq!(change(&scaler.deliver(&first, &*lab.web).await), (Outcome::AlreadyApplied, Some(5), Some(8)));
    assert_eq!(lab.replicas(), 10);
}

#[tokio::test]
async fn a_floor_returns_to_what_it_was() {
    let (scaler, lab) = (Scaler::new().await, Kubernetes::new().await);
    let hpa = json!({ "kind": "HorizontalPodAutoscaler", "metadata": { "name": "web" }, "spec": {
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "minReplicas": 2, "maxReplicas": 9 } });
    lab.server.put(("kubectl", "Update"), hpa);
    let (up, more) = (Kubernetes::event(1, 3, &[]), Kubernetes::event(2, 4, &[]));
    assert_eq!(change(&scaler.deliver(&up, &*lab.web).await), (Outcome::Applied, Some(2), Some(8)));
    // The autoscaler follows.
    lab.server.put(
        ("kube-controller-manager", "Update"),
        json!({ "kind": "Deployment", "metadata": { "name": "web" },
        "spec": { "replicas": 8 } }),
    );
    let answer = scaler.deliver(&more, &*lab.web).await;
    assert_eq!(
        (change(&answer), answer.reason.as_str()),
        ((Outcome::Capped, Some(8), Some(9)), "the maximum of the group is 9")
    );
    let down = Kubernetes::event(3, -7, &[1, 2]);
    assert_eq!(change(&scaler.deliver(&down, &*lab.web).await), (Outcome::Applied, Some(9), Some(2)));
    assert_eq!((lab.floor(), lab.replicas()), (2, 8), "the autoscaler decides about the rest");
    let again = Kubernetes::event(4, -7, &[1, 2]);
    assert_eq!(scaler.deliver(&again, &*lab.web).await.outcome, Outcome::Capped);
    assert_eq!(lab.floor(), 2);
}

#[tokio::test]
async fn an_event_of_nomad_acts_once() {
    let scaler = Scaler::new().await;
    let stub = NomadStub::start(None).await;
    stub.register("default", "web", &[("api", 5)]);
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let server =
        NomadServer::new(&stub.url(), Some(token), scalebridge::config::access::HttpClient::default());
    let api = Arc::new(TaskGroup::new(Arc::new(server), None, "web/api", ("1", "1 alert")));
    let target = json!({ "platform": "nomad", "kind": "job", "name": "web/api" });
    let event = |number, change| event(&target, number, change, &[]);
    let count = || stub.count("default", "web", "api");

    stub.set_deployment(true);
    let answer = scaler.deliver(&event(1, 3), &*api).await;
    assert_eq!(answer.outcome, Outcome::Retry, "{answer:?}");
    assert!(answer.reason.contains("active deployment"), "{answer:?}");
    stub.set_deployment(false);
    assert_eq!(change(&scaler.deliver(&event(1, 3), &*api).await), (Outcome::Applied, Some(5), Some(8)));
    assert_eq!(scaler.deliver(&event(1, 3), &*api).await.outcome, Outcome::AlreadyApplied);

    kill_at_write(&scaler, &stub.wire, event(2, 2), &api).await;
    scaler.pass(MAX_HOLD);
    assert_eq!(change(&scaler.deliver(&event(3, 1), &*api).await), (Outcome::Applied, Some(10), Some(11)));
    assert_eq!(scaler.deliver(&event(2, 2), &*api).await.outcome, Outcome::AlreadyApplied);
    assert_eq!(count(), 11);
    assert_eq!(scaler.deliver(&event(0, -2), &*api).await.outcome, Outcome::Overtaken);
}
