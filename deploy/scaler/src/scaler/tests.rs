//! Refused events, with a queue for them that answers as a test wants it.

use serde_json::{Value, json};

use super::observer::tests::Lines;
use super::*;
use crate::ledger::sqlite::SqliteLedger;
use crate::metrics::Metrics;
use crate::plan::test_support::{LATER, NOW, id};
use crate::test_support::stub::{Reply, Stub};

const CONFIG: &str = r#"
ledger: { sqlite: { path: unused } }
targets: [{ match: "eks/*", managed_by: nobody }]
"#;
const DENIED: Reply = Reply::Error(403, "AccessDenied", "not for you");

struct World {
    stub: Stub,
    scaler: Scaler<SqliteLedger>,
    lines: Lines,
    metrics: Metrics,
    _directory: tempfile::TempDir,
}

/// A scaler that refuses everything but what is of EKS, and whose queue answers so.
async fn world(clock: fn() -> Time, replies: impl IntoIterator<Item = Reply>, is_function: bool) -> World {
    let stub = Stub::start().await;
    stub.reply("SendMessage", replies);
    let directory = tempfile::tempdir().unwrap();
    let config = Arc::new(Config::read(CONFIG).unwrap());
    let (lines, metrics) = (Lines::default(), Metrics::new());
    let scaler = Scaler::new(Parts {
        connections: Connections::new(Arc::clone(&config)).await,
        config,
        ledger: SqliteLedger::open(directory.path().join("scaler.db"), || NOW).await.unwrap(),
        observer: Observer::new(Box::new(lines.clone()), metrics.clone(), is_function),
        refusals: Some(Refusals::new(&stub.config().await, "http://127.0.0.1/000000000000/refusals".into())),
        clock,
        random: || 1,
    });
    World { stub, scaler, lines, metrics, _directory: directory }
}

impl World {
    fn send_errors(&self) -> String {
        let text = self.metrics.plain_text().unwrap();
        let prefix = "scalebridge_scaler_queue_errors_total{call=\"send\"} ";
        text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap().to_owned()
    }
}

fn web() -> String {
    json!({
        "specversion": "1.0", "id": id(1), "type": "io.scalebridge.scale_out.v1",
        "subject": "ecs/service/-/eu-west-1/prod/-/web", "sequence": "1",
        "expirytime": LATER.to_millis_string(),
        "data": {
            "rule": "queue", "action": "scale_out", "adjustment": { "type": "ChangeInCapacity", "value": 2 },
            "target": { "platform": "ecs", "kind": "service", "name": "web", "cluster": "prod", "region": "eu-west-1" },
        },
    })
    .to_string()
}

#[tokio::test]
async fn a_refused_event_stays_until_the_queue_of_refused_events_takes_it() {
    let world = world(|| NOW, [DENIED, Reply::Ok(r#"{"MessageId":"m"}"#.to_owned())], false).await;
    let answer = world.scaler.handle(&web()).await;
    assert_eq!((&answer.id, answer.outcome), (&id(1), Outcome::Retry));
    let refused = "no pattern of `targets` matches ecs/service/-/eu-west-1/prod/-/web";
    let expected = format!("it is refused ({refused}), and the queue of refused events cannot be reached: ");
    assert!(answer.reason.starts_with(&expected) && answer.reason.ends_with("not for you"), "{answer:?}");
    let lines = world.lines.read();
    assert_eq!((&lines[0]["level"], &lines[0]["body"]), (&json!("ERROR"), &json!(web())));
    assert_eq!((&lines[1]["message"], &lines[1]["outcome"]), (&json!("event"), &json!("retry")));
    assert_eq!(world.send_errors(), "1");

    let answer = world.scaler.handle(&web()).await;
    assert_eq!((answer.outcome, answer.reason.as_str()), (Outcome::Refused, refused));
    assert_eq!((world.lines.read().len(), world.send_errors()), (3, "1".to_owned()));
    let sent: Value = serde_json::from_str(&world.stub.calls("SendMessage")[1].body).unwrap();
    let sent: Value = serde_json::from_str(sent["MessageBody"].as_str().unwrap()).unwrap();
    assert_eq!((&sent["answer"]["outcome"], &sent["event"]["id"]), (&json!("refused"), &json!(id(1))));
}

#[tokio::test]
async fn an_expired_event_is_refused_with_its_body_in_the_log() {
    let world = world(|| LATER, [DENIED], false).await;
    assert_eq!(world.scaler.handle(&web()).await.outcome, Outcome::Refused);
    let lines = world.lines.read();
    assert_eq!((&lines[0]["body"], &lines[0]["event"]), (&json!(web()), &json!(id(1))));
    assert_eq!((&lines[1]["outcome"], lines.len()), (&json!("refused"), 2));
    assert_eq!(world.send_errors(), "1");
}

#[tokio::test]
async fn what_is_no_event_is_refused_with_4_kb_of_it_in_the_log() {
    let world = world(|| NOW, [DENIED], true).await;
    // No character is cut.
    let body = format!("x{}", "é".repeat(4_000));
    assert_eq!(world.scaler.handle(&body).await.outcome, Outcome::Refused);
    let line = &world.lines.read()[0];
    assert_eq!(line["body"], json!(format!("x{}", "é".repeat(2_047))));
    let metrics = line["_aws"]["CloudWatchMetrics"].as_array().unwrap();
    assert_eq!((&line["call"], &line["queue_errors_total"], metrics.len()), (&json!("send"), &json!(1), 1));
}
