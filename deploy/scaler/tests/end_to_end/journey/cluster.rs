//! The EKS cluster `prod-eu`: its Kubernetes API server, which accepts tokens of IAM, and the API of EKS, which returns the
//! server's address.

use std::io::{Read, Write};
use std::net::TcpStream;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::api_server::ApiServer;
use crate::setup::BEFORE;
use crate::wire::{Answer, Request, WireServer};

pub(crate) struct Cluster {
    server: ApiServer,
    eks: WireServer,
}

impl Cluster {
    /// A cluster with the deployment `web` in the namespace `shop`. `nodegroups` is the address of an emulator of EKS, which
    /// answers every call except DescribeCluster: its clusters have no API server.
    pub(crate) async fn start(nodegroups: &str) -> Self {
        let server = ApiServer::start().await;
        server.accept(|token| token.starts_with("k8s-aws-v1."));
        let web =
            json!({ "kind": "Deployment", "metadata": { "name": "web" }, "spec": { "replicas": BEFORE[0] } });
        server.put(("kubectl-client-side-apply", "Update"), web);
        let authority = BASE64_STANDARD.encode(server.authority());
        let description = json!({ "cluster": {
            "name": "prod-eu", "status": "ACTIVE", "endpoint": server.url(),
            "certificateAuthority": { "data": authority },
        } });
        let nodegroups = nodegroups.trim_start_matches("http://").to_owned();
        let eks = WireServer::start(None, move |request| match request.path.as_str() {
            "/clusters/prod-eu" => Answer::json(200, &description),
            _ => tokio::task::block_in_place(|| pass_on(&nodegroups, request)),
        })
        .await;
        Self { server, eks }
    }

    /// The value for `AWS_ENDPOINT_URL_EKS`.
    pub(crate) fn eks_url(&self) -> String {
        format!("http://{}", self.eks.address)
    }

    pub(crate) fn replicas(&self) -> u64 {
        self.server.spec("deployments", "web", "replicas")
    }
}

/// Sends a request to another server, and returns its answer, which is JSON.
fn pass_on(address: &str, request: &Request) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a connection");
    let Request { method, path, query, body, .. } = request;
    let head = format!(
        "{method} {path}?{query} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Authorization: {}\r\nContent-Length: {}\r\n\r\n",
        request.header("authorization"),
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("a connection");
    stream.write_all(body).expect("a connection");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, content_type: "application/json", body: body.to_owned() }
}
