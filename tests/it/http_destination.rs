//! HTTP services as destinations: what they get, who can verify it, and what their answers do.

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::bridge::{Bridge, notification, pending_pod, resolved};
use crate::support::schema::assert_valid_event;
use crate::support::secrets::secret;
use crate::support::signing::hmac_sha256;
use crate::support::tools::eventually;

/// How the service answers.
#[derive(Debug, Clone)]
enum Reply {
    Status(u16),
    /// With a location or the seconds to wait.
    With(u16, &'static str, &'static str),
    /// The request is read, and the connection closed.
    Lost,
    /// No answer.
    Silence,
}

/// A request that the service has received.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

impl Call {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn event(&self) -> Value {
        serde_json::from_slice(&self.body).expect("an event")
    }

    /// Whether this key has signed it, by the definition of Standard Webhooks.
    fn is_signed_by(&self, key: &str) -> bool {
        let bytes = STANDARD.decode(key.strip_prefix("whsec_").expect("a key")).expect("base64");
        let head = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let expected = STANDARD.encode(hmac_sha256(&bytes, &[head.as_bytes(), &self.body].concat()));
        self.header("webhook-signature").split(' ').any(|signature| signature == format!("v1,{expected}"))
    }
}

/// A service of our own. It lives as long as the test's runtime.
struct Service {
    url: String,
    shared: Arc<Mutex<(Reply, Vec<Call>)>>,
}

impl Service {
    async fn start(reply: Reply) -> Self {
        let shared = Arc::new(Mutex::new((reply, Vec::new())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let state = Arc::clone(&shared);
        let handle = async move |uri: axum::http::Uri, headers: HeaderMap, body: Bytes| {
            let reply = {
                let mut state = state.lock().expect("the lock is not poisoned");
                state.1.push(Call { path: uri.to_string(), headers, body });
                state.0.clone()
            };
            answer(reply).await
        };
        let router = axum::Router::new().fallback(handle);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    fn settings(&self, more: &str) -> String {
        format!("http: {{ url: \"{}/events?key=of-the-url\"{more} }}", self.url)
    }

    fn set(&self, reply: Reply) {
        self.shared.lock().expect("the lock is not poisoned").0 = reply;
    }

    fn calls(&self) -> Vec<Call> {
        self.shared.lock().expect("the lock is not poisoned").1.clone()
    }
}

async fn answer(reply: Reply) -> Response {
    let status = |code| StatusCode::from_u16(code).expect("a status");
    match reply {
        Reply::Status(code) => (status(code), "said the service").into_response(),
        Reply::With(code, name, value) => (status(code), [(name, value)], "").into_response(),
        // axum closes the connection of a body that fails.
        Reply::Lost => panic!("the connection ends without an answer"),
        Reply::Silence => std::future::pending().await,
    }
}

async fn dead_letters(bridge: &Bridge) -> Vec<Value> {
    let page = bridge.get_json("/api/v1/dead-letters").await;
    page["dead_letters"].as_array().expect("a list").clone()
}

/// A bridge whose one destination is this service.
async fn bridge(service: &Service, more: &str) -> Bridge {
    let mut bridge = Bridge::with_destinations(&[("scaler", service.settings(more))]);
    bridge.without_late_window();
    bridge.run().await;
    bridge
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_gets_each_event_once_signed_with_every_key() {
    let [first, second] = [7_u8, 9].map(|byte| secret(format!("whsec_{}", STANDARD.encode([byte; 32]))));
    let service = Service::start(Reply::Status(202)).await;
    let keys = ", signing_key_files: [first.token, second.token]";
    let mut bridge = Bridge::with_destinations(&[("scaler", service.settings(keys))]);
    bridge.write("first.token", &format!("{first}\n"));
    bridge.write("second.token", &second);
    bridge.run().await;
    let pods: Vec<Value> = (0..20).map(|at| pending_pod(&format!("group-{at}"), "a")).collect();
    assert_eq!(bridge.post(notification(&pods)).await.verdicts(), json!({ "emitted": 20 }));
    assert_eq!(bridge.post(notification(&pods)).await.verdicts(), json!({ "duplicate": 20 }));
    bridge.wait_delivered("scaler").await;
    let calls = service.calls();
    let mut ids: Vec<&str> = calls.iter().map(|call| call.header("webhook-id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((calls.len(), ids.len()), (20, 20), "nothing is doubled");
    for call in &calls {
        let event = call.event();
        assert_valid_event(&event);
        assert_eq!(call.path, "/events?key=of-the-url");
        assert_eq!(call.header("content-type"), "application/cloudevents+json");
        assert_eq!(call.header("webhook-id"), event["id"]);
        assert_eq!(call.header("traceparent"), event["traceparent"]);
        let age = jiff::Timestamp::now().as_second()
            - call.header("webhook-timestamp").parse::<i64>().expect("a time");
        assert!((0..60).contains(&age), "{age} s");
        assert!(call.is_signed_by(&first) && call.is_signed_by(&second));
        assert!(
            !call.is_signed_by("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            "the check can fail"
        );
    }
    // One key is replaced while the bridge runs.
    let third = secret(format!("whsec_{}", STANDARD.encode([11_u8; 32])));
    bridge.write("first.token", &third);
    bridge.post(notification(&[pending_pod("another", "a")])).await;
    bridge.wait_delivered("scaler").await;
    let last = service.calls().pop().expect("a call");
    assert!(last.is_signed_by(&third) && last.is_signed_by(&second) && !last.is_signed_by(&first));

    let destinations = bridge.get_json("/api/v1/destinations").await;
    assert_eq!(
        (&destinations[0]["kind"], &destinations[0]["address"]),
        (&json!("http"), &json!(format!("{}/events", service.url)))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_a_dead_letter_and_what_fails_is_tried_again_under_its_id() {
    let service = Service::start(Reply::Status(422)).await;
    let bridge = bridge(&service, "").await;
    bridge.post(notification(&[pending_pod("refused", "a")])).await;
    let refused = eventually("a dead letter", async || dead_letters(&bridge).await.pop()).await;
    assert!(refused["error"].as_str().is_some_and(|error| error.starts_with("HTTP 422: said")), "{refused}");
    assert_eq!(service.calls().len(), 1, "it is not tried again");

    for reply in [Reply::Status(503), Reply::With(429, "retry-after", "0"), Reply::Lost] {
        let before = service.calls().len();
        service.set(reply.clone());
        let pod = format!("retried-{before}");
        bridge.post(notification(&[pending_pod(&pod, "a")])).await;
        eventually("two attempts", async || (service.calls().len() >= before + 2).then_some(())).await;
        service.set(Reply::Status(200));
        bridge.wait_delivered("scaler").await;
        let calls = &service.calls()[before..];
        let id = calls[0].header("webhook-id");
        assert!(calls.iter().all(|call| call.header("webhook-id") == id), "{reply:?}: one id");
        assert!(calls.iter().all(|call| call.body == calls[0].body), "{reply:?}: the same bytes");
    }
    assert_eq!(dead_letters(&bridge).await.len(), 1);
    assert!(!bridge.log().contains("of-the-url"), "what may be a secret is not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed_and_waits_for_an_operator() {
    let other = Service::start(Reply::Status(200)).await;
    let target: &'static str = Box::leak(other.url.clone().into_boxed_str());
    let service = Service::start(Reply::With(307, "location", target)).await;
    let bridge = bridge(&service, "").await;
    bridge.post(notification(&[pending_pod("workers", "a")])).await;
    eventually("a failing destination", async || {
        (bridge.metric("scalebridge_destination_up{destination=\"scaler\"}").await == 0.0
            && !service.calls().is_empty())
        .then_some(())
    })
    .await;
    eventually("the cause", async || {
        let shown = bridge.get_json("/api/v1/destinations").await.to_string();
        shown.contains("redirects are not followed").then_some(())
    })
    .await;
    assert_eq!(other.calls().len(), 0, "the event did not change its receiver");
    service.set(Reply::Status(200));
    bridge.wait_delivered("scaler").await;
    assert_eq!(dead_letters(&bridge).await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_makes_no_second_event() {
    let service = Service::start(Reply::Status(200)).await;
    let mut bridge = Bridge::with_destinations(&[("scaler", service.settings("") + ", timeout: 1s")]);
    bridge.without_late_window();
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    bridge.post(notification(std::slice::from_ref(&pod))).await;
    bridge.wait_delivered("scaler").await;
    // The service acts, and nobody hears of it.
    service.set(Reply::Silence);
    bridge.post(notification(&[resolved(&pod)])).await;
    eventually("a second attempt", async || (service.calls().len() >= 3).then_some(())).await;
    service.set(Reply::Status(200));
    bridge.wait_settled(&["scaler"]).await;
    let calls = service.calls();
    let ids: Vec<&str> = calls[1..].iter().map(|call| call.header("webhook-id")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(calls[1].event()["data"]["action"], "scale_in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metadata_service_gets_no_event() {
    let settings = "http: { url: \"http://2852039166/latest\" }".to_owned();
    let bridge = Bridge::with_destinations(&[("scaler", settings.clone())]);
    let checked = std::process::Command::new(crate::support::bridge::program())
        .args(["check", "scalebridge.yaml"])
        .current_dir(bridge.dir())
        .output()
        .expect("the program");
    let says =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{says}");
    assert!(says.contains("169.254.169.254") && says.contains("allow_link_local"), "{says}");
}
