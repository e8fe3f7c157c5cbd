//! Kubernetes: what is set, what is refused, and what happens if the API server fails.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use scalebridge_scaler::apply::{Capacity, PlatformError};
use scalebridge_scaler::capacity::Lever;
use scalebridge_scaler::event::Limits;
use scalebridge_scaler::platform::kubernetes::{CapacityBuffer, Cluster, Tokens, Workload};
use serde_json::{Value, json};

use crate::api_server::{ApiServer, Kind, TOKEN};
use crate::wire::{Answer, Fault};

/// A server and a connection to it by its kubeconfig.
struct World {
    server: ApiServer,
    cluster: Arc<Cluster>,
    _directory: tempfile::TempDir,
}

const KUBECTL: (&str, &str) = ("kubectl-client-side-apply", "Update");

impl World {
    async fn new() -> Self {
        let server = ApiServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(directory.path());
        let cluster = Cluster::from_kubeconfig(&kubeconfig, Some("lab")).await.unwrap();
        Self { server, cluster: Arc::new(cluster), _directory: directory }
    }

    /// With a deployment `web` of `replicas`.
    async fn with_web(replicas: u32) -> Self {
        let world = Self::new().await;
        world.server.put(KUBECTL, deployment(replicas));
        world
    }

    fn workload(&self, kind: &str, name: &str) -> Workload {
        let namespace = (kind != "nodepools.karpenter.sh").then_some("shop");
        Workload::new(self.cluster.clone(), kind, namespace, name)
    }

    fn web(&self) -> Workload {
        self.workload("deployment", "web")
    }

    fn buffer(&self) -> CapacityBuffer {
        CapacityBuffer::new(self.cluster.clone(), "shop", "spare")
    }
}

fn deployment(replicas: u32) -> Value {
    json!({ "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": replicas, "template": {} } })
}

fn hpa(min: u32, max: u32) -> Value {
    json!({ "kind": "HorizontalPodAutoscaler", "metadata": { "name": "web-hpa" }, "spec": {
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "minReplicas": min, "maxReplicas": max } })
}

fn scaled_object(spec: &Value) -> Value {
    let mut object = json!({ "kind": "ScaledObject", "metadata": { "name": "web-keda" },
        "spec": { "scaleTargetRef": { "name": "web" } } });
    for (name, value) in spec.as_object().unwrap() {
        object["spec"][name] = value.clone();
    }
    object
}

/// Changes an object before it is put.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[name] = value;
    object
}

fn controlled_by(object: Value, api_version: &str, kind: &str, name: &str) -> Value {
    let owner =
        json!([{ "apiVersion": api_version, "kind": kind, "name": name, "uid": "u", "controller": true }]);
    with(object, "/metadata/ownerReferences", owner)
}

fn limits(min_capacity: Option<u32>, max_capacity: Option<u32>) -> Limits {
    Limits { min_capacity, max_capacity }
}

async fn refusal(capacity: &impl Capacity) -> String {
    match capacity.read().await {
        Err(PlatformError::Refused(text)) => text,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

/// Both directions are refused for the same reason.
async fn refused_changes(capacity: &impl Capacity) -> String {
    let present = capacity.read().await.unwrap();
    assert_eq!(present.refuses_increase, present.refuses_decrease);
    present.refuses_increase.expect("a refusal")
}

#[tokio::test]
async fn everything_with_a_scale_is_scaled() {
    let world = World::new().await;
    let static_pool = json!({ "kind": "NodePool", "metadata": { "name": "static" },
        "spec": { "replicas": 2, "limits": { "nodes": "12" } } });
    let cases = [
        ("deployment", "deployments", deployment(2), None),
        ("replicaset", "replicasets", with(deployment(2), "/kind", json!("ReplicaSet")), None),
        ("statefulset", "statefulsets", with(deployment(2), "/kind", json!("StatefulSet")), None),
        (
            "replicationcontroller",
            "replicationcontrollers",
            with(deployment(2), "/kind", json!("ReplicationController")),
            None,
        ),
        ("deployments.apps", "deployments", deployment(2), None),
        ("fleets.example.com", "fleets", with(deployment(2), "/kind", json!("Fleet")), None),
        ("nodepools.karpenter.sh", "nodepools", static_pool, Some(12)),
    ];
    for (kind, plural, object, max) in cases {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        world.server.put(KUBECTL, object);
        let workload = world.workload(kind, &name);
        let present = workload.read().await.unwrap();
        assert_eq!((present.lever, present.limits), (Lever::Size(2), limits(None, max)), "{kind}");
        assert_eq!((present.refuses_increase.clone(), present.busy.clone()), (None, None), "{kind}");
        world.server.wire.take_log();
        workload.set(&present, 5, "token").await.unwrap();
        assert_eq!(world.server.spec(plural, &name, "replicas"), 5, "{kind}");
        let writes = world.server.wire.take_writes();
        let [(request, _)] = writes.as_slice() else { panic!("{kind}: {writes:?}") };
        assert!(request.starts_with("PATCH ") && request.contains("/scale?"), "{request}");
        let fields = &world.server.get(plural, &name)["metadata"]["managedFields"];
        let own = fields.as_array().unwrap().iter().find(|entry| entry["manager"] == "scalebridge-scaler");
        assert_eq!(own.expect("its own entry")["subresource"], "scale", "{kind}");
    }
    // A number that is 0 is left out of the scale.
    world.server.put(KUBECTL, deployment(0));
    assert_eq!(world.web().read().await.unwrap().lever, Lever::Size(0));
}

#[tokio::test]
async fn an_object_that_was_changed_since_it_was_read_stays_as_it_is() {
    let world = World::with_web(2).await;
    world.server.put(
        KUBECTL,
        json!({ "kind": "CapacityBuffer", "metadata": { "name": "spare" }, "spec": { "replicas": 1 } }),
    );
    let (web, buffer) = (world.web(), world.buffer());
    let (first, second) = (web.read().await.unwrap(), buffer.read().await.unwrap());
    world.server.touch("deployments", "web");
    world.server.touch("capacitybuffers", "spare");
    for error in [web.set(&first, 5, "t").await.unwrap_err(), buffer.set(&second, 5, "t").await.unwrap_err()]
    {
        let PlatformError::Busy(text) = error else { panic!("{error:?}") };
        assert!(text.contains("it was changed meanwhile: Operation cannot be fulfilled on"), "{text}");
    }
    assert_eq!(world.server.spec("deployments", "web", "replicas"), 2);
    assert_eq!(world.server.spec("capacitybuffers", "spare", "replicas"), 1);

    // So a change is made once, whatever is repeated.
    let present = web.read().await.unwrap();
    web.set(&present, 5, "t").await.unwrap();
    assert!(matches!(web.set(&present, 5, "t").await, Err(PlatformError::Busy(_))));
    assert!(matches!(web.set(&present, 8, "t").await, Err(PlatformError::Busy(_))));
    assert_eq!(world.server.spec("deployments", "web", "replicas"), 5);

    world.server.put(KUBECTL, hpa(2, 9));
    let present = web.read().await.unwrap();
    world.server.touch("horizontalpodautoscalers", "web-hpa");
    assert!(matches!(web.set(&present, 5, "t").await, Err(PlatformError::Busy(_))));
    assert_eq!(world.server.spec("horizontalpodautoscalers", "web-hpa", "minReplicas"), 2);
}

#[tokio::test]
async fn what_cannot_be_scaled_is_refused_with_the_reason() {
    let world = World::with_web(2).await;
    let server = &world.server;
    server.put(KUBECTL, json!({ "kind": "Setting", "metadata": { "name": "one" }, "spec": {} }));
    server.put(KUBECTL, json!({ "kind": "NodePool", "metadata": { "name": "dynamic" }, "spec": {} }));
    let gone = with(deployment(2), "/metadata/deletionTimestamp", json!("2026-11-30T10:00:00Z"));
    server.put(KUBECTL, with(gone, "/metadata/name", json!("gone")));
    let workload = |kind: &str, name: &str| world.workload(kind, name);
    let cases = [
        (
            workload("deployment", "api"),
            "deployment shop/api cannot be read: deployments.apps \"api\" not found",
        ),
        (workload("deployment", "gone"), "deployment shop/gone is being deleted"),
        (workload("settings.example.com", "one"), "settings.example.com has no /scale subresource"),
        (
            workload("nothing.example.com", "x"),
            "API group example.com has no resource nothing: correct the target's kind",
        ),
        (
            workload("jobs.unknown.example", "x"),
            "the cluster has no resource jobs.unknown.example: install its definition",
        ),
        (workload("cronjob", "x"), "the target's kind is `cronjob`; deployment, "),
        (workload("nodepools.karpenter.sh", "dynamic"), "dynamic has no number of replicas"),
        (Workload::new(world.cluster.clone(), "deployment", None, "web"), "the target has no namespace"),
    ];
    for (workload, expected) in cases {
        let text = refusal(&workload).await;
        assert!(text.contains(expected), "{text}, expected {expected}");
    }
    let present = world.web().read().await.unwrap();
    let error = world.web().set(&present, u32::MAX, "t").await.unwrap_err();
    assert!(matches!(error, PlatformError::Refused(_)), "{error:?}");
}

#[tokio::test]
async fn names_of_events_lead_to_no_other_path() {
    let world = World::with_web(2).await;
    for (kind, namespace, name) in [
        ("deployment", "shop", "../../secrets/x"),
        ("deployment", "shop/deployments/web", "scale"),
        ("deployment", "shop", "web?watch=1"),
        ("x/../../api.v1", "shop", "web"),
        ("fleets.example.com/../../api", "shop", "web"),
    ] {
        let workload = Workload::new(world.cluster.clone(), kind, Some(namespace), name);
        let text = refusal(&workload).await;
        assert!(text.contains("is not a valid name in Kubernetes"), "{text}");
    }
    assert_eq!(world.server.wire.take_log(), []);
}

#[tokio::test]
async fn the_floor_of_a_horizontal_pod_autoscaler_moves_instead() {
    let world = World::with_web(6).await;
    world.server.put(KUBECTL, hpa(3, 20));
    // Those of other workloads do not count.
    let other = with(hpa(1, 2), "/metadata/name", json!("other"));
    world.server.put(KUBECTL, with(other.clone(), "/spec/scaleTargetRef/name", json!("api")));
    let other = with(other, "/metadata/name", json!("another"));
    world.server.put(KUBECTL, with(other.clone(), "/spec/scaleTargetRef/kind", json!("StatefulSet")));
    let other = with(other, "/metadata/name", json!("third"));
    world.server.put(KUBECTL, with(other, "/spec/scaleTargetRef/apiVersion", json!("example.com/v1")));

    let present = world.web().read().await.unwrap();
    assert_eq!(present.lever, Lever::Floor { floor: 3, current: 6 });
    assert_eq!(present.limits, limits(Some(1), Some(20)));
    assert_eq!((present.refuses_increase.clone(), present.refuses_decrease.clone()), (None, None));
    world.server.wire.take_log();
    world.web().set(&present, 8, "t").await.unwrap();
    assert_eq!(world.server.spec("horizontalpodautoscalers", "web-hpa", "minReplicas"), 8);
    assert_eq!(world.server.spec("deployments", "web", "replicas"), 6, "the autoscaler changes them");
    assert_eq!(world.server.wire.take_writes().len(), 1);

    // What the server itself does not allow.
    let present = world.web().read().await.unwrap();
    let error = world.web().set(&present, 21, "t").await.unwrap_err();
    let PlatformError::Refused(text) = error else { panic!("{error:?}") };
    assert!(text.contains("must be greater than or equal to `minReplicas`"), "{text}");
}

#[tokio::test]
async fn a_floor_that_has_no_effect_or_is_not_its_own_is_refused() {
    let world = World::with_web(0).await;
    world.server.put(KUBECTL, hpa(3, 20));
    let present = world.web().read().await.unwrap();
    let text = present.refuses_increase.unwrap();
    assert!(text.contains("has 0 replicas, which switches HorizontalPodAutoscaler web-hpa off"), "{text}");
    assert_eq!(present.refuses_decrease, None, "a floor can be lowered");

    world.server.put(KUBECTL, deployment(5));
    world.server.put(
        ("knative", "Update"),
        controlled_by(hpa(4, 20), "autoscaling.internal.knative.dev/v1alpha1", "PodAutoscaler", "web"),
    );
    let text = refused_changes(&world.web()).await;
    assert!(text.contains("controlled by PodAutoscaler web"), "{text}");
    assert!(text.ends_with("the last manager of spec.minReplicas is knative"), "{text}");

    world.server.put(("kustomize-controller", "Apply"), hpa(7, 20));
    let text = refused_changes(&world.web()).await;
    let expected = "HorizontalPodAutoscaler web-hpa owns the replicas of deployment shop/web: spec.minReplicas is \
                    managed by kustomize-controller (Flux)";
    assert!(text.starts_with(expected), "{text}");
    let present = world.web().ignoring_field_managers().read().await.unwrap();
    assert_eq!(
        present.lever,
        Lever::Floor { floor: 7, current: 5 },
        "autoscalers are respected nevertheless"
    );
    assert_eq!(present.refuses_increase, None);

    world.server.put(KUBECTL, with(hpa(1, 20), "/metadata/name", json!("second")));
    let text = refusal(&world.web()).await;
    assert_eq!(text, "several HorizontalPodAutoscalers scale it, against each other: second, web-hpa");
}

#[tokio::test]
async fn the_floor_of_keda_moves_where_it_owns_the_autoscaler() {
    let world = World::with_web(4).await;
    let owned = controlled_by(hpa(2, 30), "keda.sh/v1alpha1", "ScaledObject", "web-keda");
    world.server.put(("keda-operator", "Update"), owned);
    world.server.put(KUBECTL, scaled_object(&json!({ "minReplicaCount": 2, "maxReplicaCount": 30 })));
    let present = world.web().read().await.unwrap();
    assert_eq!(present.lever, Lever::Floor { floor: 2, current: 4 });
    assert_eq!(present.limits, limits(None, Some(30)));
    world.web().set(&present, 6, "t").await.unwrap();
    assert_eq!(world.server.spec("scaledobjects", "web-keda", "minReplicaCount"), 6);
    assert_eq!(world.server.spec("horizontalpodautoscalers", "web-hpa", "minReplicas"), 2, "KEDA changes it");
}

#[tokio::test]
async fn keda_owns_a_workload_also_without_an_autoscaler() {
    // It makes none while it is paused.
    let world = World::with_web(0).await;
    world.server.put(KUBECTL, scaled_object(&json!({ "idleReplicaCount": 0 })));
    let present = world.web().read().await.unwrap();
    assert_eq!(present.lever, Lever::Floor { floor: 0, current: 0 }, "KEDA's default");
    assert_eq!(present.limits, limits(Some(1), Some(100)), "above the idle count, and KEDA's default");
    assert_eq!(present.refuses_increase, None, "KEDA scales from 0");

    for (annotation, value) in [("paused", "true"), ("paused-replicas", "3")] {
        let annotations = json!({ format!("autoscaling.keda.sh/{annotation}"): value });
        let paused = with(scaled_object(&json!({})), "/metadata/annotations", annotations);
        world.server.put(KUBECTL, paused);
        let text = refused_changes(&world.web()).await;
        assert!(text.starts_with("ScaledObject web-keda owns") && text.contains("it is paused"), "{text}");
    }
    let annotations = json!({ "autoscaling.keda.sh/paused": "false" });
    world.server.put(KUBECTL, with(scaled_object(&json!({})), "/metadata/annotations", annotations));
    assert_eq!(world.web().read().await.unwrap().refuses_increase, None);

    world.server.uninstall("keda.sh");
    assert_eq!(world.web().read().await.unwrap().lever, Lever::Size(0), "without KEDA nobody owns it");
}

#[tokio::test]
async fn what_others_would_set_back_is_refused_with_the_last_manager() {
    let world = World::new().await;
    world.server.put(("argocd-controller", "Apply"), deployment(4));
    let text = refused_changes(&world.web()).await;
    assert!(
        text.starts_with("deployment shop/web: spec.replicas is managed by argocd-controller (Argo CD)"),
        "{text}"
    );
    assert!(text.contains("managed_by: nobody"), "{text}");
    let ignoring = world.web().ignoring_field_managers();
    let present = ignoring.read().await.unwrap();
    assert_eq!(present.refuses_increase, None);
    ignoring.set(&present, 6, "t").await.unwrap();
    // From then on the field is the scaler's, until Argo CD sets it back.
    assert_eq!(world.web().read().await.unwrap().refuses_increase, None);
    world.server.put(("argocd-controller", "Apply"), deployment(4));
    assert!(refused_changes(&world.web()).await.contains("Argo CD"));

    world.server.put(("HashiCorp", "Update"), deployment(5));
    assert!(refused_changes(&world.web()).await.contains("managed by HashiCorp (Terraform)"));
    let revision = with(deployment(5), "/kind", json!("ReplicaSet"));
    world
        .server
        .put(("kube-controller-manager", "Update"), controlled_by(revision, "apps/v1", "Deployment", "web"));
    let text = refused_changes(&world.workload("replicaset", "web").ignoring_field_managers()).await;
    assert_eq!(
        text,
        "replicaset shop/web is controlled by Deployment web, which would set it back: scale that one; the last manager of \
         spec.replicas is kube-controller-manager"
    );
}

#[tokio::test]
async fn the_replicas_of_a_capacity_buffer_are_its_size() {
    let world = World::new().await;
    let buffer =
        |spec: Value| json!({ "kind": "CapacityBuffer", "metadata": { "name": "spare" }, "spec": spec });
    world.server.put(KUBECTL, buffer(json!({ "replicas": 3, "podTemplateRef": { "name": "chunk" } })));
    let present = world.buffer().read().await.unwrap();
    assert_eq!((present.lever, present.limits), (Lever::Size(3), Limits::default()));
    world.server.wire.take_log();
    world.buffer().set(&present, 7, "t").await.unwrap();
    assert_eq!(world.server.spec("capacitybuffers", "spare", "replicas"), 7);
    let (request, _) = world.server.wire.take_writes().remove(0);
    assert!(
        request
            .starts_with("PATCH /apis/autoscaling.x-k8s.io/v1beta1/namespaces/shop/capacitybuffers/spare?")
    );

    // Older and later versions of the API.
    for version in [&["v1alpha1"], &["v1"]] {
        let kind = Kind {
            group: "autoscaling.x-k8s.io",
            versions: version,
            plural: "capacitybuffers",
            kind: "CapacityBuffer",
            is_namespaced: true,
            scale: None,
        };
        world.server.define(kind);
        assert_eq!(world.buffer().read().await.unwrap().lever, Lever::Size(7), "{version:?}");
    }
    world.server.put(("Terraform", "Apply"), buffer(json!({ "replicas": 4 })));
    assert!(refused_changes(&world.buffer()).await.contains("(Terraform)"));
    assert_eq!(world.buffer().ignoring_field_managers().read().await.unwrap().refuses_increase, None);
    // As large as its limits allow: a number would make it smaller.
    world.server.put(KUBECTL, buffer(json!({ "limits": { "cpu": "100" } })));
    assert!(refusal(&world.buffer()).await.contains("has no spec.replicas: set it"));
    world.server.uninstall("autoscaling.x-k8s.io");
    assert!(
        refusal(&world.buffer())
            .await
            .contains("the cluster has no resource capacitybuffers.autoscaling.x-k8s.io")
    );
}

#[tokio::test]
async fn a_write_is_sent_once_however_it_fails() {
    let world = World::with_web(2).await;
    let web = world.web();
    let answer = |code, reason: &str| {
        let status =
            json!({ "kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code });
        Fault::Answer(Answer::json(code, &status))
    };
    let cases = [
        (answer(403, "Forbidden"), "busy"),
        (answer(429, "TooManyRequests"), "busy"),
        (Fault::Answer(Answer::text(413, "<html>too large</html>")), "busy"),
        (answer(422, "Invalid"), "refused"),
        (answer(500, "InternalError"), "unknown"),
        (answer(503, "ServiceUnavailable"), "unknown"),
        (Fault::Answer(Answer::text(502, "<html>bad gateway</html>")), "unknown"),
    ];
    for (fault, expected) in cases {
        let present = web.read().await.unwrap();
        world.server.wire.take_log();
        world.server.wire.fail_writes([fault]);
        let error = web.set(&present, 5, "t").await.unwrap_err();
        assert_eq!(class(&error), expected, "{error:?}");
        assert_eq!(world.server.wire.take_writes().len(), 1, "{error:?}");
        assert_eq!(world.server.spec("deployments", "web", "replicas"), 2);
    }
    let present = web.read().await.unwrap();
    world.server.wire.fail_writes([Fault::LostAnswer]);
    let error = web.set(&present, 5, "t").await.unwrap_err();
    assert_eq!(class(&error), "unknown", "{error:?}");
    assert_eq!(web.read().await.unwrap().lever, Lever::Size(5), "it was set");
}

fn class(error: &PlatformError) -> &'static str {
    match error {
        PlatformError::Refused(_) => "refused",
        PlatformError::Busy(_) => "busy",
        PlatformError::Unknown(_) => "unknown",
    }
}

#[tokio::test]
async fn a_write_without_an_answer_ends_in_time() {
    let world = World::with_web(2).await;
    let web = world.web();
    let present = web.read().await.unwrap();
    world.server.wire.fail_writes([Fault::Silence]);
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let error = web.set(&present, 5, "t").await.unwrap_err();
    assert_eq!(class(&error), "unknown", "{error:?}");
    assert!(began.elapsed() <= Duration::from_secs(10), "of the paused clock");
}

#[tokio::test]
async fn an_unreachable_cluster_has_changed_nothing() {
    let world = World::with_web(2).await;
    let web = world.web();
    let present = web.read().await.unwrap();
    // A connection that is open is still served.
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = world.server.kubeconfig(directory.path());
    let cluster = Arc::new(Cluster::from_kubeconfig(&kubeconfig, None).await.unwrap());
    let other = ApiServer::start().await;
    let (ca, tokens) = (other.authority(), Arc::new(Fixed(Mutex::new(TOKEN.to_owned()))));
    let distrusting = Arc::new(Cluster::with_tokens(&world.server.url(), ca.as_bytes(), tokens).unwrap());
    drop(other);
    let web_of = |cluster| Workload::new(cluster, "deployment", Some("shop"), "web");
    let error = web_of(distrusting).set(&present, 5, "t").await.unwrap_err();
    assert!(matches!(&error, PlatformError::Busy(text) if text.contains("certificate")), "{error:?}");
    drop(world.server);
    let error = web_of(cluster).set(&present, 5, "t").await.unwrap_err();
    assert_eq!(class(&error), "busy", "{error:?}");
}

/// A token that a test changes.
struct Fixed(Mutex<String>);

impl Tokens for Fixed {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        let token = self.0.lock().unwrap().clone();
        Box::pin(async move {
            if token.is_empty() { Err("the role cannot be assumed".to_owned()) } else { Ok(token) }
        })
    }
}

#[tokio::test]
async fn each_call_has_the_token_of_the_moment() {
    let world = World::with_web(2).await;
    let tokens = Arc::new(Fixed(Mutex::new(TOKEN.to_owned())));
    let ca = world.server.authority();
    let cluster = Cluster::with_tokens(&world.server.url(), ca.as_bytes(), tokens.clone()).unwrap();
    let web = Workload::new(Arc::new(cluster), "deployment", Some("shop"), "web");
    let present = web.read().await.unwrap();
    world.server.accept_only("token-2");
    let error = web.set(&present, 5, "t").await.unwrap_err();
    let PlatformError::Busy(text) = error else { panic!("{error:?}") };
    assert!(text.contains("access denied: Unauthorized: check the credentials"), "{text}");
    "token-2".clone_into(&mut tokens.0.lock().unwrap());
    web.set(&present, 5, "t").await.unwrap();
    assert_eq!(world.server.spec("deployments", "web", "replicas"), 5);
    tokens.0.lock().unwrap().clear();
    let error = web.read().await.unwrap_err();
    assert!(
        matches!(&error, PlatformError::Busy(text) if text.contains("the role cannot be assumed")),
        "{error:?}"
    );
    assert!(!format!("{text}{error:?}").contains("token-"), "no secret");

    let invalid = Cluster::with_tokens("https://cluster.example.com", b"no certificate", tokens).map(|_| ());
    assert!(invalid.unwrap_err().to_string().contains("has no certificate"));
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let server = ApiServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = server.kubeconfig(directory.path());
    let error =
        Cluster::from_kubeconfig(&kubeconfig, Some("prod")).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("kubeconfig") && error.contains("prod"), "{error}");
    let missing = directory.path().join("missing");
    let error = Cluster::from_kubeconfig(&missing, None).await.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("missing"), "{error}");
}

/// What the printed RBAC has to grant.
#[tokio::test]
async fn few_permissions_are_enough() {
    let world = World::with_web(2).await;
    let workload = [
        "get deployments.apps",
        "get deployments.apps/scale",
        "patch deployments.apps/scale",
        "list horizontalpodautoscalers.autoscaling",
        "list scaledobjects.keda.sh",
    ];
    world.server.grant_only(&workload);
    let present = world.web().read().await.unwrap();
    world.web().set(&present, 3, "t").await.unwrap();

    world.server.put(KUBECTL, hpa(3, 20));
    let present = world.web().read().await.unwrap();
    let error = world.web().set(&present, 5, "t").await.unwrap_err();
    let PlatformError::Busy(text) = error else { panic!("{error:?}") };
    assert!(
        text.contains("access denied: horizontalpodautoscalers.autoscaling \"web-hpa\" is forbidden"),
        "{text}"
    );
    assert!(text.contains("iam-policy"), "{text}");
    world.server.grant_only(&[workload.as_slice(), &["patch horizontalpodautoscalers.autoscaling"]].concat());
    world.web().set(&present, 5, "t").await.unwrap();

    // Without a look at the autoscalers nothing is changed beside them, also where KEDA is not installed: the API server
    // does not tell.
    world.server.grant_only(&workload[..4]);
    world.server.uninstall("autoscaling");
    world.server.uninstall("keda.sh");
    let error = world.web().read().await.unwrap_err();
    assert!(matches!(&error, PlatformError::Busy(text) if text.contains("access denied")), "{error:?}");
}
