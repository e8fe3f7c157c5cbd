//! The RBAC that `iam-policy` prints is enough for everything that is done in a cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use scalebridge_scaler::apply::Capacity;
use scalebridge_scaler::config::Config;
use scalebridge_scaler::iam::{Options, Principal, documents};
use scalebridge_scaler::platform::kubernetes::{CapacityBuffer, Cluster, Workload};
use serde_json::{Value, json};

use crate::api_server::ApiServer;

/// What the printed roles allow in the cluster `lab`, as `verb resource.group[/subresource]`.
fn grants(targets: &str) -> BTreeSet<String> {
    let config = format!(
        "ledger: {{ sqlite: {{ path: x }} }}\nclusters: {{ lab: {{ kubeconfig: x }} }}\ntargets: [{targets}]"
    );
    let options = Options {
        principal: Principal::Ec2,
        account: "*",
        region: "*",
        role_arn: None,
        queue_url: None,
        kms_key_arn: None,
    };
    let documents = documents(&Config::read(&config).unwrap(), &options);
    let role = documents.clusters["lab"].rbac.split("---\n").next().unwrap();
    let role: Value = serde_saphyr::from_str(role).unwrap();
    let texts = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut grants = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let group = &texts(rule, "apiGroups")[0];
        for resource in texts(rule, "resources") {
            let (plural, subresource) = match resource.split_once('/') {
                Some((plural, subresource)) => (plural, format!("/{subresource}")),
                None => (resource.as_str(), String::new()),
            };
            for verb in texts(rule, "verbs") {
                let dot = if group.is_empty() { "" } else { "." };
                grants.insert(format!("{verb} {plural}{dot}{group}{subresource}"));
            }
        }
    }
    grants
}

struct World {
    server: ApiServer,
    cluster: Arc<Cluster>,
    _directory: tempfile::TempDir,
}

impl World {
    /// A cluster whose user may do what is printed for the targets.
    async fn new(targets: &str) -> Self {
        let server = ApiServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        let kubeconfig = server.kubeconfig(directory.path());
        let grants = grants(targets);
        server.grant_only(&grants.iter().map(String::as_str).collect::<Vec<_>>());
        let cluster = Arc::new(Cluster::from_kubeconfig(&kubeconfig, None).await.unwrap());
        Self { server, cluster, _directory: directory }
    }

    fn put(&self, object: Value) {
        self.server.put(("kubectl-client-side-apply", "Update"), object);
    }

    fn put_web(&self, kind: &str) {
        self.put(
            json!({ "kind": kind, "metadata": { "name": "web" }, "spec": { "replicas": 2, "template": {} } }),
        );
    }

    fn web(&self, kind: &str) -> Workload {
        Workload::new(self.cluster.clone(), kind, Some("shop"), "web")
    }
}

async fn set(capacity: &impl Capacity, to: u32) {
    let present = capacity.read().await.unwrap();
    capacity.set(&present, to, "t").await.unwrap();
}

#[tokio::test]
async fn workloads_and_their_autoscalers_can_be_changed() {
    let world = World::new("{ match: 'kubernetes/*/-/-/lab/shop/*' }").await;
    world.put_web("StatefulSet");
    set(&world.web("statefulset"), 3).await;
    assert_eq!(world.server.spec("statefulsets", "web", "replicas"), 3);

    world.put_web("Deployment");
    set(&world.web("deployment"), 4).await;
    assert_eq!(world.server.spec("deployments", "web", "replicas"), 4);

    world.put(json!({ "kind": "ScaledObject", "metadata": { "name": "keda" }, "spec": {
        "scaleTargetRef": { "name": "web" }, "minReplicaCount": 1 } }));
    set(&world.web("deployment"), 5).await;
    assert_eq!(world.server.spec("scaledobjects", "keda", "minReplicaCount"), 5);

    let owner = json!([{ "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "keda", "controller": true }]);
    let mut hpa = json!({ "kind": "HorizontalPodAutoscaler", "metadata": { "name": "hpa" }, "spec": {
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" },
        "minReplicas": 5, "maxReplicas": 20 } });
    hpa["metadata"]["ownerReferences"] = owner;
    world.put(hpa.clone());
    set(&world.web("deployment"), 6).await;
    assert_eq!(world.server.spec("scaledobjects", "keda", "minReplicaCount"), 6);

    hpa["metadata"]["ownerReferences"] = json!([]);
    world.put(hpa);
    set(&world.web("deployment"), 7).await;
    assert_eq!(world.server.spec("horizontalpodautoscalers", "hpa", "minReplicas"), 7);
}

#[tokio::test]
async fn buffers_and_static_node_pools_can_be_changed_and_nothing_else() {
    let targets = "{ match: 'kubernetes/nodepools.karpenter.sh/-/-/lab/-/*' }, \
                   { match: 'eks/*', managed_by: karpenter, buffer: 'shop/spare' }";
    let world = World::new(targets).await;
    world.put(json!({ "kind": "NodePool", "metadata": { "name": "pool" }, "spec": { "replicas": 2, "template": {} } }));
    set(&Workload::new(world.cluster.clone(), "nodepools.karpenter.sh", None, "pool"), 3).await;
    assert_eq!(world.server.spec("nodepools", "pool", "replicas"), 3);
    world
        .put(json!({ "kind": "CapacityBuffer", "metadata": { "name": "spare" }, "spec": { "replicas": 1 } }));
    set(&CapacityBuffer::new(world.cluster.clone(), "shop", "spare"), 2).await;
    assert_eq!(world.server.spec("capacitybuffers", "spare", "replicas"), 2);

    world.put_web("Deployment");
    world.web("deployment").read().await.unwrap_err();
}
