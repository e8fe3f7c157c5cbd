//! Lambda functions, called with `Invoke`.
//!
//! With `max_events: 1` the payload is the event. With more, the payload is always an array of events,
//! also for a single one, so that the function sees one shape.
//!
//! With invocation type `event`, a delivery is complete when Lambda has queued the payload (202); an array
//! is one unit. With `request_response` the bridge waits for the function: a `FunctionError` is a failure
//! although the status is 200, and the response is stored with the delivery. For an array, the function
//! can report the events that failed, as it would to a queue:
//! `{"batchItemFailures":[{"itemIdentifier":"the event's id"}]}`.
//!
//! Two events about one target never share a call, and the second is sent after the first has been
//! settled: the outbox returns one event of a target at a time.

mod name;
pub(super) mod schema;
pub(super) mod settings;

use std::collections::HashSet;

use aws_config::SdkConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types;
use serde::Deserialize;

use super::{Answer, Destination, Failure, Limits, OutgoingEvent, aws};
use crate::json::Object;

pub(super) use settings::{InvocationType, Settings};

/// The maximum size of a stored response.
const MAX_ANSWER_BYTES: usize = 4096;

pub(super) type Clients = aws::SharedClients<Client>;

/// A client for destinations with this key.
pub(super) fn client(config: &SdkConfig, key: &aws::Key) -> Client {
    let mut config = aws_sdk_lambda::config::Builder::from(config);
    config.set_timeout_config(Some(key.timeouts()));
    if let Some(endpoint) = key.endpoint_url() {
        config.set_endpoint_url(Some(endpoint.to_owned()));
    }
    Client::from_conf(config.build())
}

#[derive(Debug)]
pub(crate) struct Lambda {
    client: Client,
    function: String,
    qualifier: Option<String>,
    invocation_type: InvocationType,
    max_events: usize,
}

impl Lambda {
    /// The function is called at the client's endpoint.
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            function: settings.function.clone(),
            qualifier: settings.qualifier.clone(),
            invocation_type: settings.invocation_type,
            max_events: settings.max_events,
        }
    }

    fn payload(&self, batch: &[OutgoingEvent]) -> String {
        match batch {
            [event] if self.max_events == 1 => event.body.to_string(),
            _ => {
                let bodies: Vec<&str> = batch.iter().map(|event| &*event.body).collect();
                format!("[{}]", bodies.join(","))
            }
        }
    }

    /// The answer for each event, from the response of a function that did not fail.
    fn answers(&self, batch: &[OutgoingEvent], output: &InvokeOutput) -> Vec<Answer> {
        if self.invocation_type == InvocationType::Event {
            return vec![Ok(None); batch.len()];
        }
        let payload = output.payload().map_or(&[] as &[u8], AsRef::as_ref);
        let stored = stored_answer(payload);
        if self.max_events == 1 {
            return vec![Ok(stored); batch.len()];
        }
        let failed_ids = match parse_failed_ids(payload, batch) {
            Ok(failed_ids) => failed_ids,
            Err(reason) => {
                let failure = Failure::transient(reason);
                return vec![Err(Failure { answer: answer_excerpt(payload), ..failure }); batch.len()];
            }
        };
        let answer = |event: &OutgoingEvent| {
            if failed_ids.contains(&*event.header.id) {
                let failure = Failure::transient("the function reported the event in `batchItemFailures`");
                Err(Failure { answer: answer_excerpt(payload), ..failure })
            } else {
                Ok(stored.clone())
            }
        };
        batch.iter().map(answer).collect()
    }
}

impl Destination for Lambda {
    fn limits(&self) -> Limits {
        // Each event counts one separator; one byte is reserved for the remaining bracket.
        let bytes = self.invocation_type.max_payload_bytes() - 1;
        Limits { events: self.max_events, bytes, max_event_bytes: usize::MAX }
    }

    /// Including the comma or bracket before it.
    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len() + 1
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let (kind, expected_status) = match self.invocation_type {
            InvocationType::Event => (types::InvocationType::Event, 202),
            InvocationType::RequestResponse => (types::InvocationType::RequestResponse, 200),
        };
        let call = self
            .client
            .invoke()
            .function_name(&self.function)
            .set_qualifier(self.qualifier.clone())
            .invocation_type(kind)
            .payload(Blob::new(self.payload(batch)));
        let output = call.send().await.map_err(|error| aws::failure(&error))?;
        if let Some(failure) = function_error(&output) {
            return Ok(vec![Err(failure); batch.len()]);
        }
        if output.status_code() != expected_status {
            let status = output.status_code();
            return Err(Failure::transient(format!(
                "Lambda returned HTTP {status}, expected {expected_status}"
            )));
        }
        Ok(self.answers(batch, &output))
    }
}

/// The failure of a function that was reached and failed. It does not affect other events.
fn function_error(output: &InvokeOutput) -> Option<Failure> {
    let kind = output.function_error()?;
    let payload = output.payload().map_or(&[] as &[u8], AsRef::as_ref);
    let failure = Failure::transient(format!("function error ({kind})"));
    Some(Failure { answer: answer_excerpt(payload), ..failure })
}

/// The start of a response, stored with a failure.
fn answer_excerpt(payload: &[u8]) -> Option<String> {
    // A character has at most four bytes: a long response is not decoded to its end.
    let start = &payload[..payload.len().min(4 * Failure::MAX_CHARS)];
    Some(String::from_utf8_lossy(start).chars().take(Failure::MAX_CHARS).collect())
}

/// The start of a response, in whole characters, stored with the delivery. None if it is empty.
fn stored_answer(payload: &[u8]) -> Option<String> {
    let start = &payload[..payload.len().min(MAX_ANSWER_BYTES)];
    // A character that was cut is dropped. Replacement characters make invalid UTF-8 longer.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text.to_owned(),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&start[..error.valid_up_to()]).into_owned()
        }
        Err(_) => {
            let mut text = String::from_utf8_lossy(start).into_owned();
            text.truncate(text.floor_char_boundary(MAX_ANSWER_BYTES));
            text
        }
    };
    (!text.is_empty()).then_some(text)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialBatchResponse {
    batch_item_failures: Option<Vec<Object<BatchItemFailure>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchItemFailure {
    item_identifier: String,
}

/// The ids of the events that a function reports as failed, parsed as AWS does: an empty response, null,
/// an object without the list and an empty list are success; an invalid response, or one with an id that
/// was not sent, fails the whole batch.
fn parse_failed_ids(payload: &[u8], batch: &[OutgoingEvent]) -> Result<HashSet<String>, &'static str> {
    if payload.trim_ascii().is_empty() {
        return Ok(HashSet::new());
    }
    let answer: Option<Object<PartialBatchResponse>> = serde_json::from_slice(payload)
        .map_err(|_| "the function returned an invalid `batchItemFailures` response")?;
    let failures = answer.and_then(|Object(answer)| answer.batch_item_failures).unwrap_or_default();
    let ids: HashSet<String> = failures.into_iter().map(|Object(failure)| failure.item_identifier).collect();
    if ids.iter().any(|id| batch.iter().all(|event| *event.header.id != **id)) {
        return Err("the function reported an event in `batchItemFailures` that it was not sent");
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::InvocationType::{Event, RequestResponse};
    use super::*;
    use crate::dispatch::Class;
    use crate::dispatch::stub::{Reply, Stub, lambda_client, outgoing};

    fn function(stub: &Stub, invocation_type: InvocationType, max_events: usize) -> Lambda {
        let settings = Settings {
            function: "scaler".into(),
            qualifier: Some("live".into()),
            invocation_type,
            max_events,
            access: aws::Access::default(),
        };
        Lambda::new(lambda_client(stub), &settings)
    }

    async fn answering(body: &'static str) -> Stub {
        Stub::start(move |_| Reply::text(200, body)).await
    }

    #[tokio::test]
    async fn the_event_is_the_payload() {
        let stub = Stub::start(|_| Reply::status(202)).await;
        let event = outgoing(7);
        let answers = function(&stub, Event, 1).send(std::slice::from_ref(&event)).await;
        assert_eq!(answers, Ok(vec![Ok(None)]));
        let request = stub.only_request();
        assert_eq!(request.uri, "/2015-03-31/functions/scaler/invocations?Qualifier=live");
        assert_eq!(request.headers["x-amz-invocation-type"], "Event");
        assert_eq!(request.body, event.body.as_bytes());
    }

    #[tokio::test]
    async fn several_events_are_an_array_and_so_is_one_of_them() {
        let stub = Stub::start(|_| Reply::status(202)).await;
        let events = [outgoing(1), outgoing(2)];
        let scaler = function(&stub, Event, 10);
        assert_eq!(scaler.send(&events).await, Ok(vec![Ok(None), Ok(None)]));
        assert_eq!(scaler.send(&events[..1]).await, Ok(vec![Ok(None)]));
        let parsed = events.map(|event| serde_json::from_str::<Value>(&event.body).unwrap());
        let sent: Vec<Value> = stub.requests().iter().map(super::super::stub::Request::json).collect();
        assert_eq!(sent, [json!(parsed), json!(parsed[..1])]);
    }

    #[tokio::test]
    async fn a_full_payload_is_within_the_limit() {
        let stub = answering("").await;
        for (kind, max_bytes) in [(Event, 1_000_000), (RequestResponse, 6_000_000)] {
            let scaler = function(&stub, kind, 100);
            let mut events: Vec<_> = (0..3).map(outgoing).collect();
            let spare =
                scaler.limits().bytes - events.iter().map(|event| scaler.event_bytes(event)).sum::<usize>();
            events[0].body = format!("{}{}", events[0].body, " ".repeat(spare)).into();
            assert_eq!(scaler.payload(&events).len(), max_bytes);
            assert!(scaler.event_bytes(&events[0]) <= scaler.limits().bytes);
        }
    }

    #[tokio::test]
    async fn the_answer_of_the_function_is_stored() {
        let stub = answering(r#"{"done":true}"#).await;
        let answers = function(&stub, RequestResponse, 1).send(&[outgoing(1)]).await;
        assert_eq!(answers, Ok(vec![Ok(Some(r#"{"done":true}"#.into()))]));
        assert_eq!(stub.only_request().headers["x-amz-invocation-type"], "RequestResponse");

        let stub = answering("").await;
        let answers = function(&stub, RequestResponse, 1).send(&[outgoing(1)]).await;
        assert_eq!(answers, Ok(vec![Ok(None)]));

        // With a single event, the response is not interpreted.
        let stub = answering(r#"{"batchItemFailures":[{"itemIdentifier":"x"}]}"#).await;
        let answers = function(&stub, RequestResponse, 1).send(&[outgoing(1)]).await;
        assert!(matches!(answers.as_deref(), Ok([Ok(Some(_))])));
    }

    #[tokio::test]
    async fn a_function_may_name_the_events_that_failed() {
        let answer = r#"{"batchItemFailures":[{"itemIdentifier":"00000000000000000000000000000002"}],"x":1}"#;
        let stub = answering(answer).await;
        let events: Vec<_> = (1..=3).map(outgoing).collect();
        let answers = function(&stub, RequestResponse, 10).send(&events).await.unwrap();
        assert_eq!(answers[0], Ok(Some(answer.into())));
        assert_eq!(answers[2], answers[0]);
        let failure = answers[1].as_ref().unwrap_err();
        assert_eq!(failure.class, Class::Transient);
        assert_eq!(failure.message, "the function reported the event in `batchItemFailures`");
    }

    #[tokio::test]
    async fn an_answer_is_read_as_aws_reads_it() {
        let success = [
            "",
            " ",
            "null",
            "{}",
            r#"{"done":1}"#,
            r#"{"batchItemFailures":[]}"#,
            r#"{"batchItemFailures":null}"#,
        ];
        let malformed = [
            "{",
            "\"ok\"",
            "7",
            "[null]",
            r#"[["00000000000000000000000000000001"]]"#,
            r#"{"batchItemFailures":[["00000000000000000000000000000001"]]}"#,
            r#"{"batchItemFailures":"all"}"#,
            r#"{"batchItemFailures":["00000000000000000000000000000001"]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"id":"00000000000000000000000000000001"}]}"#,
        ];
        let unknown = [
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":"00000000000000000000000000000001"},{"itemIdentifier":"9"}]}"#,
        ];
        let events = [outgoing(1), outgoing(2)];
        for answer in success {
            assert_eq!(parse_failed_ids(answer.as_bytes(), &events), Ok(HashSet::new()), "{answer}");
        }
        for answer in malformed {
            let answers =
                function(&answering(answer).await, RequestResponse, 10).send(&events).await.unwrap();
            let failures: Vec<_> = answers.into_iter().map(Result::unwrap_err).collect();
            assert!(failures.iter().all(|failure| failure.class == Class::Transient), "{answer}");
            assert_eq!(failures[1].message, "the function returned an invalid `batchItemFailures` response");
            assert_eq!(failures[1].answer.as_deref(), Some(answer));
        }
        for answer in unknown {
            let answer = parse_failed_ids(answer.as_bytes(), &events).unwrap_err();
            assert_eq!(answer, "the function reported an event in `batchItemFailures` that it was not sent");
        }
    }

    #[tokio::test]
    async fn a_function_error_fails_every_event() {
        let long = "é".repeat(9000);
        let reply = Reply::ok(json!({ "errorMessage": long })).header("x-amz-function-error", "Unhandled");
        let stub = Stub::start(move |_| reply.clone()).await;
        for max_events in [1, 10] {
            let batch: Vec<_> = (0..max_events as i64).map(outgoing).collect();
            let answers = function(&stub, RequestResponse, max_events).send(&batch).await.unwrap();
            assert_eq!(answers.len(), batch.len());
            for answer in answers {
                let failure = answer.unwrap_err();
                assert_eq!(failure.class, Class::Transient);
                assert_eq!(failure.to_string(), "function error (Unhandled)", "the response is not logged");
                let begins = "function error (Unhandled): {\"errorMessage\":\"é";
                assert!(failure.stored_error().starts_with(begins));
                assert_eq!(failure.answer.unwrap().chars().count(), Failure::MAX_CHARS);
            }
        }
    }

    #[tokio::test]
    async fn another_status_and_an_error_are_failures_of_the_call() {
        let stub = Stub::start(|_| Reply::ok(json!({}))).await;
        let failure = function(&stub, Event, 1).send(&[outgoing(1)]).await.unwrap_err();
        assert_eq!(failure, Failure::transient("Lambda returned HTTP 200, expected 202"));

        let stub = Stub::start(|_| Reply::error(429, "TooManyRequestsException")).await;
        let failure = function(&stub, Event, 1).send(&[outgoing(1)]).await.unwrap_err();
        assert_eq!(failure.class, Class::Throttled);
        assert!(failure.message.starts_with("TooManyRequestsException"), "{failure}");
        assert_eq!(stub.requests().len(), 1, "the SDK does not retry");

        let stub = Stub::start(|_| Reply::error(413, "RequestTooLargeException")).await;
        let failure = function(&stub, Event, 1).send(&[outgoing(1)]).await.unwrap_err();
        assert_eq!(failure.class, Class::Permanent);
    }

    proptest! {
        #[test]
        fn the_stored_answer_is_short_and_whole(text in "\\PC{0,2000}", bytes in prop::collection::vec(any::<u8>(), 0..9000)) {
            let long = text.repeat(1 + MAX_ANSWER_BYTES / text.len().max(1));
            let stored = stored_answer(long.as_bytes()).unwrap_or_default();
            prop_assert!(long.starts_with(&stored));
            prop_assert!(stored.len() <= MAX_ANSWER_BYTES && stored.len() + 4 > MAX_ANSWER_BYTES.min(long.len()));
            prop_assert!(stored_answer(&bytes).unwrap_or_default().len() <= MAX_ANSWER_BYTES);
        }
    }
}
