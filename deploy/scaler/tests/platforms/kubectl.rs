//! The API server of the tests is what a real client expects: `kubectl` reads and scales with it, and shows its errors.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use scalebridge_scaler::apply::Capacity as _;
use scalebridge_scaler::capacity::Lever;
use scalebridge_scaler::platform::kubernetes::{Cluster, Workload};

use crate::api_server::{ApiServer, USER};

struct Kubectl {
    server: ApiServer,
    directory: tempfile::TempDir,
}

impl Kubectl {
    async fn new() -> Self {
        let server = ApiServer::start().await;
        let directory = tempfile::tempdir().unwrap();
        server.kubeconfig(directory.path());
        let manager = ("kubectl-create", "Update");
        server.put(
            manager,
            json!({ "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": 2 } }),
        );
        server.put(
            manager,
            json!({ "kind": "NodePool", "metadata": { "name": "static" }, "spec": { "replicas": 2 } }),
        );
        server.put(manager, json!({ "kind": "NodePool", "metadata": { "name": "dynamic" }, "spec": {} }));
        Self { server, directory }
    }

    async fn run(&self, arguments: &str) -> Output {
        // target/tmp, wherever the target directory is.
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let program = target.join("tools/bin/kubectl");
        assert!(program.exists(), "{} is missing: run deploy/tools.sh", program.display());
        let home = self.directory.path();
        tokio::process::Command::new(program)
            .args(arguments.split(' '))
            .env_clear()
            .env("HOME", home)
            .env("KUBECONFIG", home.join("kubeconfig"))
            .output()
            .await
            .unwrap()
    }

    /// The standard output of a command that succeeds.
    async fn output(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The error of a command that fails.
    async fn error(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        assert!(!output.status.success(), "kubectl {arguments} has succeeded");
        let text = String::from_utf8(output.stderr).unwrap();
        // Its log, for example of a slow machine: "E1130 11:37:37.643176 …".
        let is_log = |line: &&str| {
            let mut rest = line.chars().skip(1);
            line.starts_with(['E', 'I', 'W']) && rest.by_ref().take(4).all(|digit| digit.is_ascii_digit())
        };
        text.lines().filter(|line| !is_log(line)).collect::<Vec<_>>().join("\n").trim().to_owned()
    }

    fn replicas(&self) -> u64 {
        self.server.spec("deployments", "web", "replicas")
    }
}

#[tokio::test]
async fn kubectl_reads_and_scales() {
    let kubectl = Kubectl::new().await;
    let shown = kubectl.output("get deployment web --show-managed-fields -o json").await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown, kubectl.server.get("deployments", "web"));
    assert_eq!(kubectl.output("get deployments,replicasets -o name").await, "deployment.apps/web");
    let resources = kubectl.output("api-resources --namespaced=false -o name").await;
    assert_eq!(resources, "namespaces\nnodepools.karpenter.sh");

    assert_eq!(kubectl.output("scale deployment/web --replicas=5").await, "deployment.apps/web scaled");
    assert_eq!(kubectl.replicas(), 5);
    // With a precondition it reads the scale and replaces it.
    let scaled = kubectl.output("scale deployment/web --current-replicas=5 --replicas=6").await;
    assert_eq!((scaled.as_str(), kubectl.replicas()), ("deployment.apps/web scaled", 6));
    let writes = kubectl.server.wire.take_writes();
    let methods: Vec<_> = writes.iter().map(|(request, _)| request.split('?').next().unwrap()).collect();
    let path = "/apis/apps/v1/namespaces/shop/deployments/web/scale";
    assert_eq!(methods, [format!("PATCH {path}"), format!("PUT {path}")]);

    assert_eq!(kubectl.output("scale deployment/web --replicas=0").await, "deployment.apps/web scaled");
    let scale = kubectl.output("get deployment web --subresource=scale -o jsonpath={.spec}").await;
    assert_eq!(scale, "{}", "0 is left out");
    assert_eq!(
        kubectl.output("scale nodepools.karpenter.sh/static --replicas=4").await,
        "nodepool.karpenter.sh/static scaled"
    );
    assert_eq!(kubectl.server.spec("nodepools", "static", "replicas"), 4);
}

#[tokio::test]
async fn kubectl_and_the_scaler_see_the_same() {
    let kubectl = Kubectl::new().await;
    kubectl.output("scale deployment/web --replicas=5").await;
    let kubeconfig = kubectl.directory.path().join("kubeconfig");
    let cluster = Cluster::from_kubeconfig(&kubeconfig, None).await.unwrap();
    let web = Workload::new(cluster.into(), "deployment", Some("shop"), "web");
    let present = web.read().await.unwrap();
    assert_eq!((present.lever, present.refuses_increase.clone()), (Lever::Size(5), None));
    web.set(&present, 7, "t").await.unwrap();
    assert_eq!(kubectl.output("get deployment web -o jsonpath={.spec.replicas}").await, "7");
    let managers = "get deployment web --show-managed-fields -o \
                    jsonpath={range.metadata.managedFields[*]}{.manager}:{.subresource},{end}";
    assert_eq!(kubectl.output(managers).await, "scalebridge-scaler:scale,");

    // Somebody scales in between.
    let present = web.read().await.unwrap();
    kubectl.output("scale deployment/web --replicas=9").await;
    web.set(&present, 8, "t").await.unwrap_err();
    assert_eq!(kubectl.replicas(), 9);
}

#[tokio::test]
async fn kubectl_shows_the_errors() {
    let kubectl = Kubectl::new().await;
    assert_eq!(
        kubectl.error("scale deployment/api --replicas=3").await,
        "Error from server (NotFound): deployments.apps \"api\" not found"
    );
    assert_eq!(
        kubectl.error("scale nodepools.karpenter.sh/dynamic --current-replicas=0 --replicas=3").await,
        "Error from server (InternalError): Internal error occurred: the spec replicas field \".spec.replicas\" does not \
         exist"
    );
    let error = kubectl.error("scale nodepools.karpenter.sh/dynamic --replicas=3").await;
    assert!(error.starts_with("The NodePool \"dynamic\" is invalid: spec: Invalid value: "), "{error}");
    let patch = r#"{"metadata":{"resourceVersion":"0"},"spec":{"replicas":9}}"#;
    let error =
        kubectl.error(&format!("patch deployment web --subresource=scale --type=merge -p {patch}")).await;
    assert!(
        error.starts_with(
            "Error from server (Conflict): Operation cannot be fulfilled on deployments.apps \"web\": the \
                               object has been modified"
        ),
        "{error}"
    );
    let error = kubectl.error("patch nodepool static --type=strategic -p {}").await;
    assert!(error.contains("the body of the request was in an unknown format"), "{error}");
    assert_eq!(kubectl.replicas(), 2);
}

#[tokio::test]
async fn kubectl_shows_what_is_denied() {
    let kubectl = Kubectl::new().await;
    kubectl.server.grant_only(&["get deployments.apps"]);
    let error = kubectl.error("scale deployment/web --replicas=3").await;
    assert_eq!(
        error,
        format!(
            "Error from server (Forbidden): deployments.apps \"web\" is forbidden: User \"{USER}\" cannot patch resource \
             \"deployments/scale\" in API group \"apps\" in the namespace \"shop\""
        )
    );
    kubectl.server.accept_only("another");
    let error = kubectl.error("get deployment web").await;
    assert!(
        error.contains("You must be logged in to the server") || error.contains("Unauthorized"),
        "{error}"
    );
}
