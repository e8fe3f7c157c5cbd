//! Reconciliation: what fires in Alertmanager and was not heard of opens, and a reception gap is over when nothing is
//! missing. Answers that cannot be used change nothing.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::bridge::{Bridge, CONFIG, notification, now, pending_pod, post, resolved};
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::tools::{Port, Server, eventually, eventually_within, get};

on_old_and_new!(
    what_fires_and_was_not_heard_of_opens_and_what_is_suppressed_is_shown,
    a_reception_gap_is_over_when_nothing_is_missing,
);

const RULES: &str = r#"
rules:
  - name: pods
    matchers: [alertname = KubePodsPending]
    target: { platform: eks, kind: nodegroup, name: "{{ labels.nodegroup }}" }
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 1 }, stabilization_window: 0s, cooldown: 0s }
    send_to: [journal]
"#;
/// Longer than for a few questions with growing pauses.
const SEVERAL_QUESTIONS: Duration = Duration::from_secs(120);

/// The source `prod-eu` with these Alertmanagers.
fn config(settings: &str) -> String {
    CONFIG
        .replace("region: eu-west-1 } }", &format!("region: eu-west-1 }}, alertmanager: {{ {settings} }} }}"))
}

/// Sends an alert to Alertmanager, as Prometheus does, that fires or has resolved.
async fn send(alertmanager: &Server, labels: &Value, starts_at: Timestamp, is_firing: bool) {
    let now = Timestamp::now();
    let end = if is_firing { now + SignedDuration::from_mins(30) } else { now };
    let alert = json!([{ "labels": labels, "startsAt": starts_at.to_string(), "endsAt": end.to_string() }]);
    let answer = post(alertmanager.url() + "/api/v2/alerts", &[], alert.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn pods(nodegroup: &str) -> Value {
    json!({ "alertname": "KubePodsPending", "nodegroup": nodegroup })
}

/// Silences a node group for an hour.
async fn silence(alertmanager: &Server, nodegroup: &str) {
    let now = Timestamp::now();
    let silence = json!({
        "matchers": [{ "name": "nodegroup", "value": nodegroup, "isRegex": false }],
        "startsAt": now.to_string(), "endsAt": (now + SignedDuration::from_hours(1)).to_string(),
        "createdBy": "alice", "comment": "upgrade of the group",
    });
    let answer = post(alertmanager.url() + "/api/v2/silences", &[], silence.to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn source(bridge: &Bridge, name: &str) -> Value {
    let sources = bridge.get_json("/api/v1/sources").await;
    let found = sources.as_array().expect("a list").iter().find(|source| source["name"] == name);
    found.expect("the source").clone()
}

async fn reconciliations(bridge: &Bridge, source: &str, result: &str) -> f64 {
    let labels = format!("{{source=\"{source}\",result=\"{result}\"}}");
    bridge.metric(&format!("scalebridge_source_reconciliations_total{labels}")).await
}

fn logged(bridge: &Bridge, message: &str) -> Vec<Value> {
    let log = bridge.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

/// Action and node group of each event.
fn events(bridge: &Bridge) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let event = |event: &Value| (text(&event["data"]["action"]), text(&event["data"]["target"]["name"]));
    bridge.journal().iter().map(event).collect()
}

fn event(action: &str, nodegroup: &str) -> (String, String) {
    (action.to_owned(), nodegroup.to_owned())
}

/// Alertmanager does not send anything: its groups wait for an hour.
const SILENT_ALERTMANAGER: &str = "
route:
  receiver: scaling
  group_wait: 1h
  routes:
    - { receiver: mail, matchers: ['nodegroup = \"elsewhere\"'] }
receivers:
  - name: scaling
    webhook_configs: [{ url: 'http://127.0.0.1:1/' }]
  - name: mail
    webhook_configs: [{ url: 'http://127.0.0.1:1/' }]
inhibit_rules:
  - source_matchers: ['alertname = \"ClusterUpgrade\"']
    target_matchers: ['nodegroup = \"inhibited\"']
";

async fn what_fires_and_was_not_heard_of_opens_and_what_is_suppressed_is_shown(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let alertmanager = release.start_alertmanager(dir.path(), SILENT_ALERTMANAGER).await;
    let hour_ago = Timestamp::now() - SignedDuration::from_hours(1);
    for nodegroup in ["missed", "silenced", "inhibited", "elsewhere"] {
        send(&alertmanager, &pods(nodegroup), hour_ago, true).await;
    }
    send(&alertmanager, &json!({ "alertname": "ClusterUpgrade" }), hour_ago, true).await;
    send(&alertmanager, &pods("young"), Timestamp::now(), true).await;
    silence(&alertmanager, "silenced").await;
    eventually("the inhibition and the silence", async || {
        let (_, alerts) = get(&(alertmanager.url() + "/api/v2/alerts?active=false")).await.ok()?;
        let alerts: Value = serde_json::from_str(&alerts).ok()?;
        (alerts.as_array()?.len() == 2).then_some(())
    })
    .await;

    let dead = Port::reserve();
    let urls = format!("'{}', 'http://127.0.0.1:{}'", alertmanager.url(), dead.number);
    let mut bridge = Bridge::new(&config(&format!("urls: [{urls}], receivers: [scaling]")), RULES);
    bridge.run().await;
    eventually("the missed alert", async || (!bridge.journal().is_empty()).then_some(())).await;
    let scale_out = bridge.events().await.remove(0);
    let sent_by = &scale_out["data"]["notification"];
    assert_eq!((&sent_by["receiver"], &sent_by["reason"]), (&json!("scaling"), &json!("reconciliation")));
    let opened = eventually("a log line", async || {
        logged(&bridge, "alerts fire of which no notification was received").first().cloned()
    });
    assert_eq!(opened.await["count"], 1);
    eventually("the count", async || {
        (reconciliations(&bridge, "prod-eu", "opened").await == 1.0).then_some(())
    })
    .await;

    // The alert that is young keeps the question open, so that it is asked again.
    eventually("another question", async || {
        (reconciliations(&bridge, "prod-eu", "differed").await >= 1.0).then_some(())
    })
    .await;
    assert_eq!(events(&bridge), [event("scale_out", "missed")]);
    let shown = source(&bridge, "prod-eu").await["alertmanager"].clone();
    assert_eq!(
        (&shown["suppressed_total"], &shown["receivers"]),
        (&json!(2), &json!(["scaling"])),
        "{shown}"
    );
    assert!(shown["last_success"].is_string(), "{shown}");
    let error = shown["last_error"].as_str().expect("an error");
    assert!(error.starts_with(&format!("http://127.0.0.1:{}: the request failed", dead.number)), "{error}");
    let failing = logged(&bridge, "Alertmanager does not answer, retrying");
    assert_eq!((failing.len(), &failing[0]["source"]), (1, &json!("prod-eu")), "logged once");

    check_what_is_suppressed(&bridge).await;
    silence(&alertmanager, "missed").await;
    eventually_within(SEVERAL_QUESTIONS, "the silence of an alert that is open", async || {
        let decision = bridge.decisions("emitted").await.pop()?;
        (decision["alerts"][0]["suppressed_by"][0]["created_by"] == "alice").then_some(())
    })
    .await;
    let (_, text, _) = bridge.cli(&["decisions"]);
    assert!(text.contains("now silenced by alice until "), "{text}");
    assert_eq!(events(&bridge), [event("scale_out", "missed")], "nothing resolves because it is silenced");
}

async fn check_what_is_suppressed(bridge: &Bridge) {
    let (code, text, _) = bridge.cli(&["sources"]);
    assert_eq!(code, Some(0));
    for shown in [
        "2 alerts suppressed",
        "prod-eu alertname=\"KubePodsPending\" nodegroup=\"silenced\": silenced by alice until ",
        " (upgrade of the group)",
        "prod-eu alertname=\"KubePodsPending\" nodegroup=\"inhibited\": inhibited by alert ",
    ] {
        assert!(text.contains(shown), "{shown}: {text}");
    }
    let (code, text, _) = bridge.cli(&[
        "explain",
        "alertname=KubePodsPending",
        "nodegroup=silenced",
        "--url",
        &bridge.admin_url(),
    ]);
    assert_eq!(code, Some(0));
    assert!(text.contains("Alertmanager notifies nobody of it: silenced by alice until "), "{text}");
}

/// Sends at once, except for one node group.
fn prompt_alertmanager(bridge: &Bridge) -> String {
    format!(
        "
route:
  receiver: scaling
  group_by: [nodegroup]
  group_wait: 1s
  group_interval: 1s
  routes:
    - {{ receiver: scaling, matchers: ['nodegroup = \"pending\"'], group_wait: 1h }}
receivers:
  - name: scaling
    webhook_configs: [{{ url: '{}', send_resolved: true }}]
",
        bridge.url("/webhook/prod-eu")
    )
}

/// The decrease comes as soon as everything that fires in Alertmanager is open here. Without its API, it waits.
async fn a_reception_gap_is_over_when_nothing_is_missing(release: Release) {
    let dir = tempfile::tempdir().expect("a directory");
    let front = Stub::start().await;
    let config = config(&format!("urls: ['{}'], receivers: [scaling]", front.url))
        .replace("sources:\n", "sources:\n  without: {}\n");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let alertmanager = release.start_alertmanager(dir.path(), &prompt_alertmanager(&bridge)).await;
    front.set(Answer::Alertmanager(alertmanager.url()));

    let started = Timestamp::now();
    send(&alertmanager, &pods("calm"), started, true).await;
    // Fires all the time: an alert by which the bridge knows that this Alertmanager has its alerts.
    send(&alertmanager, &pods("always"), started, true).await;
    let without = pending_pod("without", "a");
    assert_eq!(
        bridge.post_to("/webhook/without", &[], notification(std::slice::from_ref(&without))).await.status,
        200
    );
    eventually("the scale-outs", async || (events(&bridge).len() == 3).then_some(())).await;
    bridge.wait_delivered("journal").await;
    // Its group waits, so nobody is told that it fires.
    send(&alertmanager, &pods("pending"), Timestamp::now(), true).await;
    for path in ["/webhook/prod-eu", "/webhook/without"] {
        assert_eq!(bridge.post_to(path, &[], "{").await.status, 400);
    }
    let differed = reconciliations(&bridge, "prod-eu", "differed").await;
    send(&alertmanager, &pods("calm"), started, false).await;
    bridge.post_to("/webhook/without", &[], notification(&[resolved(&without)])).await;
    eventually("both decreases to wait", async || {
        (bridge.decisions("stabilizing").await.len() == 2).then_some(())
    })
    .await;
    eventually_within(SEVERAL_QUESTIONS, "a question after the gap", async || {
        (reconciliations(&bridge, "prod-eu", "differed").await > differed).then_some(())
    })
    .await;
    assert_eq!(source(&bridge, "prod-eu").await["last_gap"].get("reconciled_at"), None);
    assert_eq!(events(&bridge).len(), 3, "an alert fires that is not open here");

    send(&alertmanager, &pods("pending"), Timestamp::now(), false).await;
    eventually_within(SEVERAL_QUESTIONS, "the scale-in", async || {
        (events(&bridge).get(3) == Some(&event("scale_in", "calm"))).then_some(())
    })
    .await;
    let gap = source(&bridge, "prod-eu").await["last_gap"].clone();
    let time = |field: &str| gap[field].as_str().expect("text").parse::<Timestamp>().expect("a time");
    assert!(
        time("reconciled_at") >= time("until") && time("no_decrease_before") == time("reconciled_at"),
        "{gap}"
    );
    let ended = logged(&bridge, "nothing of a reception gap is missing, decreases do not wait for it");
    assert_eq!((&ended[0]["source"], &ended[0]["cause"]), (&json!("prod-eu"), &json!("refused")));
    let gap = source(&bridge, "without").await["last_gap"].clone();
    let time = |field: &str| gap[field].as_str().expect("text").parse::<Timestamp>().expect("a time");
    assert_eq!(time("no_decrease_before"), time("until") + SignedDuration::from_mins(6));
    assert_eq!(source(&bridge, "without").await["alertmanager"], Value::Null);
    assert_eq!(events(&bridge).len(), 4);
}

/// What answers in place of an Alertmanager.
#[derive(Clone)]
enum Answer {
    /// A real one, which looks as if it had been running for an hour: after a start, no Alertmanager knows all alerts.
    Alertmanager(String),
    /// These alerts.
    Alerts(Value),
    /// A response to every request.
    Response(StatusCode, &'static str),
    /// A redirect.
    Redirect(String),
    /// Alerts without end.
    Endless,
    /// No response.
    Silence,
}

struct Stub {
    url: String,
    answer: Arc<Mutex<Answer>>,
}

impl Stub {
    async fn start() -> Self {
        Self::with(Answer::Response(StatusCode::SERVICE_UNAVAILABLE, "starting")).await
    }

    async fn with(answer: Answer) -> Self {
        let answer = Arc::new(Mutex::new(answer));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let router = Router::new().fallback(respond).with_state(answer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, answer }
    }

    fn set(&self, answer: Answer) {
        *self.answer.lock().expect("the lock") = answer;
    }
}

async fn respond(State(answer): State<Arc<Mutex<Answer>>>, request: Request) -> Response {
    let answer = answer.lock().expect("the lock").clone();
    let is_status = request.uri().path() == "/api/v2/status";
    match answer {
        Answer::Alertmanager(_) | Answer::Alerts(_) if is_status => {
            let uptime = Timestamp::now() - SignedDuration::from_hours(1);
            json!({ "uptime": uptime.to_string() }).to_string().into_response()
        }
        Answer::Alertmanager(url) => {
            let path = request.uri().path_and_query().expect("a path").as_str();
            let (status, body) = get(&format!("{url}{path}")).await.expect("an answer");
            (StatusCode::from_u16(status).expect("a status"), body).into_response()
        }
        Answer::Alerts(alerts) => alerts.to_string().into_response(),
        Answer::Response(status, body) => (status, body).into_response(),
        Answer::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, to)]).into_response(),
        Answer::Endless => {
            let chunk = Bytes::from(vec![b' '; 1 << 20]);
            let chunks = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            Body::from_stream(chunks).into_response()
        }
        Answer::Silence => std::future::pending().await,
    }
}

/// An alert as the API shows it.
fn reported(nodegroup: &str, starts_at: &str) -> Value {
    json!({
        "labels": pods(nodegroup), "annotations": {}, "fingerprint": nodegroup, "startsAt": starts_at,
        "endsAt": now(), "updatedAt": now(), "receivers": [{ "name": "scaling" }],
        "status": { "state": "active", "silencedBy": [], "inhibitedBy": [] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_cannot_be_used_change_nothing_and_are_shown() {
    let honest = Stub::with(Answer::Alerts(json!([reported("stolen", "2026-01-01T00:00:00Z")]))).await;
    let mut unreadable = reported("unreadable", "2026-01-01T00:00:00Z");
    unreadable["labels"]["nodegroup"] = json!(7);
    let answers = [
        ("html", Answer::Response(StatusCode::OK, "<html>s3cr3t</html>"), "not that of Alertmanager's API"),
        ("object", Answer::Response(StatusCode::OK, r#"{"status":"success","data":[]}"#), "API"),
        ("error", Answer::Response(StatusCode::INTERNAL_SERVER_ERROR, "[]"), "the status 500"),
        ("denied", Answer::Response(StatusCode::UNAUTHORIZED, "[]"), "the status 401"),
        ("redirect", Answer::Redirect(honest.url.clone() + "/api/v2/alerts"), "redirects are not followed"),
        ("endless", Answer::Endless, "larger than"),
        ("slow", Answer::Silence, "no complete response within"),
        ("unreadable", Answer::Alerts(json!([unreadable])), ""),
    ];
    let (mut sources, mut stubs) = (String::new(), Vec::new());
    for (name, answer, _) in &answers {
        let stub = Stub::with(answer.clone()).await;
        sources +=
            &format!("  {name}: {{ alertmanager: {{ urls: ['{}'], receivers: [scaling] }} }}\n", stub.url);
        stubs.push(stub);
    }
    let mut bridge = Bridge::new(&CONFIG.replace("sources:\n", &format!("sources:\n{sources}")), RULES);
    bridge.run().await;
    for (name, ..) in &answers {
        assert_eq!(bridge.post_to(&format!("/webhook/{name}"), &[], "{").await.status, 400);
    }
    for (name, _, error) in &answers {
        let result = if error.is_empty() { "differed" } else { "failed" };
        // One of which begins after the gap. The slow one takes 20 seconds for each.
        let questions = if *name == "slow" { 1.0 } else { 2.0 };
        eventually_within(SEVERAL_QUESTIONS, "the questions", async || {
            (reconciliations(&bridge, name, result).await >= questions).then_some(())
        })
        .await;
        let shown = source(&bridge, name).await;
        assert_eq!(shown["last_gap"].get("reconciled_at"), None, "{name}: {shown}");
        let last_error = shown["alertmanager"]["last_error"].as_str().unwrap_or_default();
        assert!(last_error.contains(error) && !last_error.contains("s3cr3t"), "{name}: {last_error}");
        assert_eq!(last_error.is_empty(), error.is_empty(), "{name}: {last_error}");
    }
    assert_eq!(events(&bridge), []);
    assert!(bridge.all_decisions().await.is_empty());
    assert!(!bridge.log().contains("s3cr3t"), "{}", bridge.log());

    // They are asked again, and one that answers is heard.
    stubs[0].set(Answer::Alerts(json!([reported("missed", "2026-01-01T00:00:00Z")])));
    eventually_within(SEVERAL_QUESTIONS, "the missed alert", async || {
        (events(&bridge) == [event("scale_out", "missed")]).then_some(())
    })
    .await;
    assert_eq!(source(&bridge, "html").await["alertmanager"]["last_error"], Value::Null);
    assert_eq!(logged(&bridge, "Alertmanager answers again").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_starts_and_stops_to_ask() {
    let stub = Stub::with(Answer::Alerts(json!([reported("missed", "2026-01-01T00:00:00Z")]))).await;
    let mut bridge = Bridge::new(CONFIG, RULES);
    bridge.run().await;
    assert_eq!(source(&bridge, "prod-eu").await["alertmanager"], Value::Null);
    bridge.write("scalebridge.yaml", &config(&format!("urls: ['{}/'], receivers: [scaling]", stub.url)));
    let (code, text, _) = bridge.cli(&["reload"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("source prod-eu changed"), "{text}");
    eventually("the missed alert", async || (events(&bridge).len() == 1).then_some(())).await;
    assert_eq!(source(&bridge, "prod-eu").await["alertmanager"]["urls"], json!([stub.url]));
    bridge.write("scalebridge.yaml", CONFIG);
    assert_eq!(bridge.cli(&["reload"]).0, Some(0));
    assert_eq!(source(&bridge, "prod-eu").await["alertmanager"], Value::Null);
    assert_eq!(events(&bridge), [event("scale_out", "missed")], "what has opened stays open");
}
