//! Clusters of EKS: how they are found, and who the scaler is there.

use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use scalebridge_scaler::apply::{Capacity, PlatformError};
use scalebridge_scaler::aws::Accounts;
use scalebridge_scaler::platform::kubernetes::{EksConnection, Workload};
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::wire::{Answer, WireServer};

/// EKS, whose answer a test changes, and a connection to the cluster that it tells of.
struct World {
    eks: WireServer,
    answer: Arc<Mutex<(u16, Value)>>,
    connection: EksConnection,
}

impl World {
    async fn new(status: u16, answer: Value) -> Self {
        let answer = Arc::new(Mutex::new((status, answer)));
        let shared = answer.clone();
        let eks = WireServer::start(None, move |_| {
            let (status, body) = &*shared.lock().unwrap();
            Answer::json(*status, body)
        })
        .await;
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .endpoint_url(format!("http://{}", eks.address))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "AKIDSCALER",
                "secret",
                None,
                None,
                "test",
            )))
            .load()
            .await;
        let account = Accounts::new(config).account("eu-west-1", None).await;
        Self { eks, answer, connection: EksConnection::new(&account, "prod-eu") }
    }

    /// With a cluster at `server`.
    async fn of(server: &ApiServer) -> Self {
        Self::new(200, description(server)).await
    }

    fn reply(&self, answer: Value) {
        *self.answer.lock().unwrap() = (200, answer);
    }

    async fn web(&self) -> Workload {
        Workload::new(self.connection.cluster().await.unwrap(), "deployment", Some("shop"), "web")
    }

    /// How often EKS was asked since the last look.
    fn asked(&self) -> usize {
        let log = self.eks.take_log();
        assert!(log.iter().all(|(request, _)| request == "GET /clusters/prod-eu"), "{log:?}");
        log.len()
    }
}

fn description(server: &ApiServer) -> Value {
    let authority = BASE64_STANDARD.encode(server.authority());
    json!({ "cluster": {
        "name": "prod-eu", "status": "ACTIVE", "endpoint": server.url(), "certificateAuthority": { "data": authority }
    } })
}

/// A cluster that accepts tokens as EKS does, with a deployment `web`.
async fn cluster(replicas: u32) -> ApiServer {
    let server = ApiServer::start().await;
    let web =
        json!({ "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": replicas } });
    server.put(("kubectl-client-side-apply", "Update"), web);
    server.accept(is_token);
    server
}

fn is_token(token: &str) -> bool {
    let url = token.strip_prefix("k8s-aws-v1.").and_then(|url| BASE64_URL_SAFE_NO_PAD.decode(url).ok());
    url.and_then(|url| String::from_utf8(url).ok()).is_some_and(|url| {
        let has = |parameter: &str| url.split(['?', '&']).any(|found| found == parameter);
        url.starts_with("https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&")
            && has("X-Amz-SignedHeaders=host%3Bx-k8s-aws-id")
            && has("X-Amz-Expires=60")
            && url.contains("X-Amz-Credential=AKIDSCALER%2F")
    })
}

#[tokio::test]
async fn a_cluster_is_looked_up_once_and_knows_the_scaler_by_a_signed_token() {
    let server = cluster(2).await;
    let world = World::of(&server).await;
    for to in [5, 7] {
        let web = world.web().await;
        let present = web.read().await.unwrap();
        web.set(&present, to, "t").await.unwrap();
    }
    assert_eq!(server.spec("deployments", "web", "replicas"), 7);
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn a_cluster_that_was_made_anew_is_found_again() {
    let server = cluster(2).await;
    let world = World::of(&server).await;
    let web = world.web().await;
    let successor = cluster(3).await;
    world.reply(description(&successor));
    drop(server);
    let error = web.read().await.unwrap_err();
    assert!(matches!(error, PlatformError::Busy(_)), "{error:?}");
    assert_eq!(world.asked(), 1);
    let present = world.web().await.read().await.unwrap();
    assert_eq!((present.lever.value(), world.asked()), (3, 1));
}

#[tokio::test]
async fn a_role_without_an_access_entry_is_told_so_and_works_when_it_has_one() {
    let server = cluster(2).await;
    let world = World::of(&server).await;
    server.accept(|_| false);
    let error = world.web().await.read().await.unwrap_err();
    let PlatformError::Busy(text) = error else { panic!("{error:?}") };
    assert!(text.contains("Unauthorized") && text.contains("access entry"), "{text}");
    assert!(!text.contains("k8s-aws-v1"), "no secret");
    server.accept(is_token);
    world.web().await.read().await.unwrap();
    assert_eq!(world.asked(), 2, "it is looked up again after the failure");
}

#[tokio::test]
async fn what_eks_answers_instead_of_a_cluster_is_said() {
    let missing =
        json!({ "__type": "ResourceNotFoundException", "message": "No cluster found for name: prod-eu." });
    let world = World::new(404, missing).await;
    let error = world.connection.cluster().await.map(drop).unwrap_err();
    assert!(
        matches!(&error, PlatformError::Refused(text) if text.contains("eks:DescribeCluster of EKS cluster `prod-eu`")),
        "{error:?}"
    );

    world.reply(json!({ "cluster": { "name": "prod-eu", "status": "CREATING" } }));
    let error = world.connection.cluster().await.map(drop).unwrap_err();
    assert_eq!(
        error,
        PlatformError::Busy("EKS cluster `prod-eu`: it has no address, its status is CREATING".to_owned())
    );

    let denied = json!({ "__type": "AccessDeniedException", "message": "User is not authorized" });
    let world = World::new(403, denied).await;
    let error = world.connection.cluster().await.map(drop).unwrap_err();
    assert!(matches!(&error, PlatformError::Busy(text) if text.contains("iam-policy")), "{error:?}");
}
