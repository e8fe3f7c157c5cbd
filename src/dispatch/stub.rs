//! For tests: events, and an HTTP server in place of AWS, so that tests see the requests on the wire
//! without another dependency.

use std::sync::Arc;

use aws_sdk_sqs::config::Credentials;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::OutgoingEvent;
use crate::domain::header::EventHeader;
use crate::domain::time::Time;
use crate::store::{EventSeq, Lease};

/// An event about `subject` with an id and sequence derived from `seq`.
pub(crate) fn event(seq: i64, subject: &str, action: &str, expirytime: Time) -> String {
    json!({
        "specversion": "1.0", "id": format!("{seq:032}"), "source": "/scalebridge/prod-eu",
        "type": format!("io.scalebridge.{action}.v1"), "subject": subject,
        "sequence": (1000 + seq).to_string(), "expirytime": expirytime.to_millis_string(),
        "traceparent": "00-0000000000000000000000000000000a-000000000000000b-00",
        "data": { "rule": "pods", "action": action, "alerts": [{ "starts_at": "2026-11-22T16:50:00Z" }] },
    })
    .to_string()
}

pub(crate) fn outgoing_about(seq: i64, subject: &str) -> OutgoingEvent {
    let expirytime = Time::from_millis(4_000_000_000_000);
    let body = event(seq, subject, "scale_out", expirytime);
    let header = EventHeader::read(&body).unwrap();
    let emitted_at = Time::from_millis(0);
    OutgoingEvent {
        lease: Lease::new(EventSeq(seq), 0),
        body: body.into(),
        header: header.into(),
        emitted_at,
        attempts: 0,
        is_uncertain: false,
        redrives: 0,
        last_error: None,
    }
}

/// An event about a target of its own.
pub(crate) fn outgoing(seq: i64) -> OutgoingEvent {
    outgoing_about(seq, &format!("eks/nodegroup/-/-/prod-eu/-/workers-{seq}"))
}

/// A server on the loopback interface that replies by a function and records all requests. It runs until
/// the test's runtime ends.
pub(crate) struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Stub {
    /// The configuration of clients of the stub, like that of destinations.
    pub(crate) fn sdk_config(&self) -> aws_config::SdkConfig {
        aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("eu-west-1"))
            .credentials_provider(aws_credential_types::provider::SharedCredentialsProvider::new(
                self.credentials(),
            ))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .endpoint_url(self.url())
            .build()
    }
}

/// An SQS client of the stub, configured like those of destinations.
pub(crate) fn sqs_client(stub: &Stub) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version_latest()
        .region(aws_sdk_sqs::config::Region::new("eu-west-1"))
        .credentials_provider(stub.credentials())
        .retry_config(aws_sdk_sqs::config::retry::RetryConfig::disabled())
        .endpoint_url(stub.url());
    aws_sdk_sqs::Client::from_conf(config.build())
}

/// A Lambda client of the stub.
pub(crate) fn lambda_client(stub: &Stub) -> aws_sdk_lambda::Client {
    let config = aws_sdk_lambda::Config::builder()
        .behavior_version_latest()
        .region(aws_sdk_lambda::config::Region::new("eu-west-1"))
        .credentials_provider(stub.credentials())
        .retry_config(aws_sdk_lambda::config::retry::RetryConfig::disabled())
        .endpoint_url(stub.url());
    aws_sdk_lambda::Client::from_conf(config.build())
}

#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Stub {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Reply + Clone + Send + Sync + 'static) -> Self {
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let recorded = Arc::clone(&requests);
        let handle = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let request = Request { uri: uri.to_string(), headers, body };
            let reply = answer(&request);
            recorded.lock().push(request);
            (reply.status, reply.headers, reply.body)
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(handle);
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, requests }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::new("id", "secret", None, None, "test")
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().clone()
    }

    pub(crate) fn only_request(&self) -> Request {
        let requests = self.requests();
        assert_eq!(requests.len(), 1);
        requests[0].clone()
    }
}

impl Request {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Reply {
    pub(crate) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, headers: HeaderMap::new(), body: body.to_string() }
    }

    pub(crate) fn text(status: u16, body: &str) -> Self {
        Self { body: body.to_owned(), ..Self::status(status) }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new(), body: String::new() }
    }

    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        let body = json!({ "__type": code, "message": "said so" }).to_string();
        Self { body, ..Self::status(status) }.header("x-amzn-errortype", code)
    }

    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }
}
