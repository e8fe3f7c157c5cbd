//! What destinations answer: it is kept with the delivery, shown as text, read with a bound, and a refusal of the
//! credentials makes the bridge read them again.

use std::fs;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::aws_stub::{AwsStub, Reply};
use crate::support::bridge::{Bridge, notification, pending_pod};
use crate::support::queue::{TEST_AWS_ENV, create_function, create_queue, environment, receive_all};
use crate::support::tools::{LocalAws, REGION, eventually, get};

async fn bridge_with(name: &str, destination: String) -> Bridge {
    let mut bridge = Bridge::with_destinations(&[(name, destination)]);
    TEST_AWS_ENV.iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    bridge
}

/// Fires about a node group and returns the id of its event.
async fn emit(bridge: &Bridge, nodegroup: &str) -> String {
    let answer = bridge.post(notification(&[pending_pod(nodegroup, "a")])).await;
    assert_eq!(answer.verdicts(), json!({ "emitted": 1 }));
    bridge.decisions("emitted").await[0]["event"].as_str().expect("an id").to_owned()
}

async fn deliveries(bridge: &Bridge, id: &str) -> Vec<Value> {
    let event = bridge.get_json(&format!("/api/v1/events/{id}")).await;
    event["deliveries"].as_array().expect("a list").clone()
}

/// The error of the last call, as the status of the only destination shows it.
async fn last_error(bridge: &Bridge, of: &str) -> String {
    eventually("the error", async || {
        let destination = bridge.get_json("/api/v1/destinations").await[0].clone();
        let error = destination["failing"].as_str()?.to_owned();
        error.contains(of).then_some(error)
    })
    .await
}

/// A queue that is created after the first calls, and a function that Lambda calls later.
#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_and_their_time_and_answer_are_kept_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    create_function(&aws, dir.path(), "scaler", "def handler(event, context):\n    return None\n");
    let queue = format!("sqs: {{ queue_url: \"{}/000000000000/scaling\", region: {REGION} }}", aws.url());
    let function = format!("lambda: {{ function: scaler, invocation_type: event, region: {REGION} }}");
    let mut bridge = Bridge::with_destinations(&[("function", function), ("queue", queue)]);
    environment(&aws).iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let id = emit(&bridge, "workers").await;
    let retries = "scalebridge_deliveries_total{destination=\"queue\",result=\"retry\"}";
    eventually("two retries", async || (bridge.metric(retries).await >= 2.0).then_some(())).await;
    let before = Timestamp::now();
    let url = create_queue(&aws, "scaling").await;
    bridge.wait_delivered("queue").await;
    bridge.wait_delivered("function").await;
    let failures = bridge.metric(retries).await;
    let shown = deliveries(&bridge, &id).await;
    let [function, queue] = &shown[..] else { panic!("{shown:#?}") };
    assert_eq!(queue["attempts"].as_f64(), Some(failures + 1.0), "{queue}");
    let delivered_at: Timestamp = queue["delivered_at"].as_str().expect("a time").parse().expect("RFC 3339");
    // The API shows whole milliseconds.
    assert!(delivered_at.as_millisecond() >= before.as_millisecond() && delivered_at <= Timestamp::now());
    let message = receive_all(&aws, &url).await.remove(0);
    assert_eq!(queue["answer"], format!("MessageId {}", message.message_id().expect("an id")));
    assert_eq!((&function["attempts"], &function["answer"]), (&json!(1), &json!("HTTP 202")), "{function}");

    bridge.kill();
    bridge.run().await;
    assert_eq!(deliveries(&bridge, &id).await, shown);
    let (_, text, _) = bridge.cli(&["event", &id]);
    assert!(text.contains(message.message_id().expect("an id")), "{text}");
}

/// A proxy in front of AWS answers for it, with a page or in the XML of an older protocol.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_html_or_xml_is_shown_as_its_text() {
    let page = "<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title>\
                <style>h1 { color: red }</style></head>\n<body>\n<h1>The upstream\r\nis away</h1></body></html>\n";
    let stub = AwsStub::start(Reply::Page(502, "text/html", page.to_owned())).await;
    let bridge = bridge_with("queue", stub.queue()).await;
    emit(&bridge, "workers").await;
    let error = last_error(&bridge, "502 Bad Gateway").await;
    assert!(error.contains("The upstream is away"), "{error}");
    let (_, ready) = get(&bridge.url("/-/ready")).await.expect("an answer");
    for text in [&error, &ready, &bridge.log()] {
        assert!(!text.contains('<') && !text.contains("color"), "{text}");
    }

    let xml = "<?xml version=\"1.0\"?>\n<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
               <Message>not for you</Message></Error><RequestId>r-1</RequestId></ErrorResponse>";
    stub.set(Reply::Page(403, "text/xml", xml.to_owned()));
    assert_eq!(last_error(&bridge, "AccessDenied").await, "AccessDenied: not for you");
}

/// The largest amount of memory that the bridge has ever used, in KiB.
fn peak_memory(bridge: &Bridge) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", bridge.pid())).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A function, or what answers in its place, can return anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_huge_answer_is_neither_kept_in_memory_nor_stored() {
    const MIB: usize = 1024;
    const HUGE: usize = 200;
    let stub = AwsStub::start(Reply::FunctionResult("\"small\"".to_owned())).await;
    let bridge = bridge_with("function", stub.function()).await;
    let small = emit(&bridge, "a").await;
    bridge.wait_delivered("function").await;
    assert_eq!(deliveries(&bridge, &small).await[0]["answer"], "\"small\"");
    let before = peak_memory(&bridge);
    stub.set(Reply::FunctionResult("x".repeat(HUGE * 1024 * MIB)));
    let huge = emit(&bridge, "b").await;
    bridge.wait_delivered("function").await;
    let delivered = deliveries(&bridge, &huge).await.remove(0);
    assert_eq!(delivered["state"], "delivered");
    let answer = delivered["answer"].as_str().expect("text");
    assert!(answer.len() <= 4096 && answer.starts_with("xxx"), "{} bytes", answer.len());
    let grown = peak_memory(&bridge) - before;
    assert!(grown < (HUGE * MIB / 4) as u64, "{grown} KiB more for an answer of {HUGE} MiB");
}

/// The function fails for the only event that there is, so that the circuit breaker never opens.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_fails_each_call_is_not_up() {
    let stub = AwsStub::start(Reply::FunctionError).await;
    let bridge = bridge_with("function", stub.function()).await;
    let up = "scalebridge_destination_up{destination=\"function\"}";
    assert_eq!(bridge.metric(up).await, 1.0);
    let id = emit(&bridge, "workers").await;
    eventually("a failing destination", async || (bridge.metric(up).await == 0.0).then_some(())).await;
    let calls = stub.calls().len();
    assert!(calls >= 10, "after {calls} calls");
    last_error(&bridge, "function error (Unhandled)").await;
    let error = deliveries(&bridge, &id).await[0]["error"].clone();
    assert!(error.as_str().is_some_and(|error| error.contains("no capacity")), "{error}");

    stub.set(Reply::FunctionResult("{}".to_owned()));
    bridge.wait_delivered("function").await;
    eventually("a working destination", async || (bridge.metric(up).await == 1.0).then_some(())).await;
    let attempts = deliveries(&bridge, &id).await[0]["attempts"].clone();
    assert_eq!(attempts.as_u64(), Some(stub.calls().len() as u64), "calls made");
}

fn write_key(bridge: &Bridge, key: &str) {
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n");
    bridge.write("credentials", &text);
}

/// The old key is valid for as long as the operator leaves it so; then the service refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_credentials_file_is_read_when_the_old_key_is_refused_and_on_a_reload() {
    let stub = AwsStub::start(Reply::AcceptOnlyFrom("FIRST")).await;
    let mut bridge = Bridge::with_destinations(&[("queue", stub.queue())]);
    bridge.env("AWS_EC2_METADATA_DISABLED", "true");
    bridge.env("AWS_CONFIG_FILE", "/dev/null");
    bridge.env("AWS_SHARED_CREDENTIALS_FILE", &bridge.dir().join("credentials").display().to_string());
    write_key(&bridge, "FIRST");
    bridge.run().await;
    emit(&bridge, "a").await;
    bridge.wait_delivered("queue").await;

    write_key(&bridge, "SECOND");
    emit(&bridge, "b").await;
    bridge.wait_delivered("queue").await;
    stub.set(Reply::AcceptOnlyFrom("SECOND"));
    emit(&bridge, "c").await;
    bridge.wait_delivered("queue").await;
    let keys: Vec<String> = stub.calls().into_iter().map(|call| call.access_key).collect();
    assert_eq!(keys, ["FIRST", "FIRST", "FIRST", "SECOND"]);

    // A second refusal within a minute loads nothing, but a reload does.
    write_key(&bridge, "THIRD");
    stub.set(Reply::AcceptOnlyFrom("THIRD"));
    emit(&bridge, "d").await;
    eventually("two refusals", async || (stub.calls().len() >= 6).then_some(())).await;
    assert!(stub.calls()[4..].iter().all(|call| call.access_key == "SECOND"));
    let (code, _, error) = bridge.cli(&["reload"]);
    assert_eq!(code, Some(0), "{error}");
    bridge.wait_delivered("queue").await;
    assert_eq!(stub.calls().last().map(|call| call.access_key.clone()).as_deref(), Some("THIRD"));
}
