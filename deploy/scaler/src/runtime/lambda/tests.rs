use std::collections::BTreeSet;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::*;
use crate::runtime::script::Script;

const FIFO: &str = "arn:aws:sqs:eu-west-1:111122223333:scaling.fifo";
const STANDARD: &str = "arn:aws:sqs:eu-west-1:111122223333:scaling";

fn noon() -> Time {
    Time::from_millis(1_000_000)
}

fn in_time() -> Time {
    noon().after(Duration::from_secs(300))
}

fn event(id: &str, target: &str) -> Value {
    json!({ "id": id, "subject": target })
}

fn record(queue: &str, id: &str, group: &str) -> Value {
    json!({
        "messageId": format!("m-{id}"), "receiptHandle": "x", "body": event(id, group).to_string(),
        "attributes": { "MessageGroupId": group }, "eventSource": "aws:sqs", "eventSourceARN": queue,
    })
}

async fn answer_to(payload: &Value, script: &Arc<Script>) -> Result<Value, FunctionError> {
    answer(&payload.to_string(), in_time(), script, noon).await
}

fn failures(response: &Value) -> Vec<String> {
    let failures = response["batchItemFailures"].as_array().unwrap().iter();
    failures.map(|failure| failure["itemIdentifier"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_event_is_answered_by_its_answer() {
    let script = Arc::<Script>::default();
    script.answer("1", [Outcome::Refused]);
    let answer = answer_to(&event("1", "a"), &script).await.unwrap();
    assert_eq!(
        answer,
        json!({ "id": "1", "outcome": "refused", "from": 2, "to": 4, "reason": "as scripted" })
    );
}

#[tokio::test]
async fn a_list_is_answered_by_answers_in_its_order() {
    let script = Arc::<Script>::default();
    script.answer("2", [Outcome::Overtaken]);
    script.hold("1");
    let payload = json!([event("1", "a"), event("2", "b")]);
    let (script_, answers) = (Arc::clone(&script), answer_to(&payload, &script));
    let (answers, ()) = tokio::join!(answers, async move {
        script_.until("-2").await;
        script_.let_go("1");
    });
    let answers = answers.unwrap();
    assert_eq!([&answers[0]["id"], &answers[1]["id"]], ["1", "2"]);
    assert_eq!([&answers[0]["outcome"], &answers[1]["outcome"]], ["applied", "overtaken"]);
    assert_eq!(answer_to(&json!([]), &script).await.unwrap(), json!([]));
}

#[tokio::test]
async fn an_event_to_be_tried_again_is_a_function_error_which_lambda_and_the_bridge_repeat() {
    let script = Arc::<Script>::default();
    for payload in [event("1", "a"), json!([event("0", "a"), event("1", "b"), event("2", "c")])] {
        script.answer("1", [Outcome::Retry]);
        let error = answer_to(&payload, &script).await.unwrap_err();
        assert_eq!(error, FunctionError::Retry("to be tried again: 1: as scripted".into()));
    }
    assert_eq!(script.begun().len(), 4, "those of other targets are applied nevertheless");
}

#[tokio::test]
async fn a_payload_of_another_kind_is_a_function_error() {
    let script = Arc::<Script>::default();
    for payload in
        [json!(7), json!({ "Records": [{ "eventSource": "aws:s3", "messageId": "1", "body": "" }] })]
    {
        let error = answer_to(&payload, &script).await.unwrap_err();
        assert!(matches!(error, FunctionError::InvalidPayload(_)), "{error:?}");
    }
    assert_eq!(script.log(), [""; 0]);
}

#[tokio::test]
async fn messages_to_be_tried_again_stay_in_the_queue_with_the_later_ones_of_their_group() {
    let script = Arc::<Script>::default();
    script.answer("2", [Outcome::Retry]);
    script.answer("5", [Outcome::Refused]);
    let records = [("1", "a"), ("2", "a"), ("3", "b"), ("4", "a"), ("5", "b"), ("6", "b")];
    let fifo = records.map(|(id, group)| record(FIFO, id, group));
    let response = answer_to(&json!({ "Records": fifo }), &script).await.unwrap();
    assert_eq!(failures(&response), ["m-2", "m-4"]);
    let begun: BTreeSet<String> = script.begun().into_iter().collect();
    assert_eq!(begun.into_iter().collect::<Vec<_>>(), ["1", "2", "3", "5", "6"]);
    let of_b = script.log().into_iter().filter(|entry| ["3", "5", "6"].contains(&&entry[1..]));
    assert_eq!(of_b.collect::<Vec<_>>(), ["+3", "-3", "+5", "-5", "+6", "-6"]);
}

#[tokio::test]
async fn messages_of_a_standard_queue_wait_for_an_earlier_one_of_their_target_only() {
    let script = Arc::<Script>::default();
    script.answer("1", [Outcome::Retry]);
    let standard = [("1", "a"), ("2", "a"), ("3", "b")].map(|(id, group)| record(STANDARD, id, group));
    let response = answer_to(&json!({ "Records": standard }), &script).await.unwrap();
    assert_eq!(failures(&response), ["m-1", "m-2"]);
    let of_a = script.log().into_iter().filter(|entry| &entry[1..] != "3");
    assert_eq!(of_a.collect::<Vec<_>>(), ["+1", "-1"], "the second one was not begun");
    let response = answer_to(&json!({ "Records": standard }), &script).await.unwrap();
    assert_eq!(failures(&response), [""; 0]);
}

#[tokio::test]
async fn a_list_stops_at_an_event_that_is_tried_again_for_its_target_only() {
    let script = Arc::<Script>::default();
    script.answer("1", [Outcome::Retry]);
    let payload = json!([event("1", "a"), event("2", "a"), event("3", "b")]);
    let FunctionError::Retry(message) = answer_to(&payload, &script).await.unwrap_err() else { panic!() };
    assert!(message.ends_with("; 2: an earlier event of its target is to be tried again"), "{message}");
    let begun: BTreeSet<String> = script.begun().into_iter().collect();
    assert_eq!(begun.into_iter().collect::<Vec<_>>(), ["1", "3"]);
}

#[tokio::test]
async fn no_more_events_are_handled_at_the_same_time_than_the_bound() {
    let script = Arc::<Script>::default();
    let ids: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    ids.iter().for_each(|id| script.hold(id));
    let records: Vec<Value> = ids.iter().map(|id| record(FIFO, id, id)).collect();
    let payload = json!({ "Records": records });
    let (handled, script_) = (answer_to(&payload, &script), Arc::clone(&script));
    let (response, ()) = tokio::join!(handled, async move {
        script_.until("+7").await;
        assert_eq!(script_.log().len(), CONCURRENCY);
        ids.iter().for_each(|id| script_.let_go(id));
    });
    assert_eq!(failures(&response.unwrap()), [""; 0]);
    assert_eq!((script.begun().len(), script.most_at_once()), (30, CONCURRENCY));
}

#[tokio::test]
async fn an_event_for_which_no_time_is_left_is_not_begun() {
    let script = Arc::<Script>::default();
    let records = json!({ "Records": [record(FIFO, "1", "a"), record(FIFO, "2", "b")] });
    let deadline = noon().after(MIN_TIME_LEFT - Duration::from_millis(1));
    let response = answer(&records.to_string(), deadline, &script, noon).await.unwrap();
    assert_eq!(failures(&response), ["m-1", "m-2"]);
    let error = answer(&event("1", "a").to_string(), deadline, &script, noon).await.unwrap_err();
    let FunctionError::Retry(message) = error else { panic!("{error:?}") };
    assert!(message.contains("1: 24 s are left of the invocation, and 25 s are needed: set"), "{message}");
    assert_eq!(script.log(), [""; 0]);
    let deadline = noon().after(MIN_TIME_LEFT);
    let response = answer(&records.to_string(), deadline, &script, noon).await.unwrap();
    assert_eq!(failures(&response), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_done_shortly_before_the_deadline_stays_in_the_queue() {
    let script = Arc::<Script>::default();
    script.hold("2");
    let records = [("1", "a"), ("2", "b"), ("3", "b")].map(|(id, group)| record(FIFO, id, group));
    let start = tokio::time::Instant::now();
    let response = answer_to(&json!({ "Records": records }), &script).await.unwrap();
    assert_eq!(failures(&response), ["m-2", "m-3"]);
    assert_eq!(start.elapsed().as_secs(), 299);
}

#[tokio::test]
async fn an_event_that_panics_stays_in_the_queue() {
    let script = Arc::<Script>::default();
    script.panic("1");
    let records = [("1", "a"), ("2", "a"), ("3", "b")].map(|(id, group)| record(FIFO, id, group));
    let response = answer_to(&json!({ "Records": records }), &script).await.unwrap();
    assert_eq!(failures(&response), ["m-1", "m-2"]);
}

/// The process that Lambda starts; see the test below.
#[tokio::test]
#[ignore = "needs a Runtime API"]
async fn function() {
    let script = Script::default();
    script.answer("again", [Outcome::Retry]);
    run(Arc::new(script)).await.unwrap();
}

/// What the function sends to the Runtime API for an invocation: the last part of the path, and the body.
async fn invoke(api: &TcpListener, payload: &str, left: Duration) -> (String, Value) {
    let deadline = crate::runtime::now().after(left).as_millis();
    let (mut stream, _) = api.accept().await.unwrap();
    let next = request(&mut stream).await;
    assert!(next.starts_with("GET /2018-06-01/runtime/invocation/next "), "{next}");
    let head = format!(
        "HTTP/1.1 200 OK\r\nlambda-runtime-aws-request-id: r1\r\nlambda-runtime-deadline-ms: {deadline}\r\n\
         lambda-runtime-invoked-function-arn: arn\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{payload}",
        payload.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let (mut stream, _) = api.accept().await.unwrap();
    let answer = request(&mut stream).await;
    let accepted = "HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(accepted.as_bytes()).await.unwrap();
    let path = answer.split(' ').nth(1).unwrap();
    let kind = path.strip_prefix("/2018-06-01/runtime/invocation/r1/").unwrap().to_owned();
    (kind, serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap())
}

/// A whole request.
async fn request(stream: &mut tokio::net::TcpStream) -> String {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let mut buffer = vec![0; 4096];
        let length = stream.read(&mut buffer).await.unwrap();
        assert!(length > 0, "the end of {text}");
        text += std::str::from_utf8(&buffer[..length]).unwrap();
    }
}

#[tokio::test]
async fn the_function_speaks_with_the_runtime_api() {
    let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut function = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "runtime::lambda::tests::function", "--ignored", "--nocapture"])
        .env("AWS_LAMBDA_RUNTIME_API", api.local_addr().unwrap().to_string())
        .env("AWS_LAMBDA_FUNCTION_NAME", "scaler")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let minute = Duration::from_secs(60);

    let (kind, answer) = invoke(&api, &event("1", "a").to_string(), minute).await;
    assert_eq!((kind.as_str(), &answer["outcome"]), ("response", &json!("applied")));

    let (kind, answer) = invoke(&api, &json!([event("1", "a"), event("2", "b")]).to_string(), minute).await;
    assert_eq!((kind.as_str(), answer.as_array().unwrap().len()), ("response", 2));

    let (kind, error) = invoke(&api, &event("again", "a").to_string(), minute).await;
    assert_eq!(kind, "error");
    assert_eq!(
        error,
        json!({ "errorType": "Retry", "errorMessage": "to be tried again: again: as scripted" })
    );

    let (kind, error) = invoke(&api, "\"text\"", minute).await;
    assert_eq!((kind.as_str(), &error["errorType"]), ("error", &json!("InvalidPayload")));

    let records = json!({ "Records": [record(FIFO, "1", "a"), record(FIFO, "2", "b")] }).to_string();
    let (kind, answer) = invoke(&api, &records, minute).await;
    assert_eq!((kind.as_str(), answer), ("response", json!({ "batchItemFailures": [] })));

    let (kind, answer) = invoke(&api, &records, Duration::from_secs(20)).await;
    assert_eq!((kind.as_str(), failures(&answer)), ("response", vec!["m-1".to_owned(), "m-2".to_owned()]));
    function.kill().await.unwrap();
}
