//! Lambda functions, called with `Invoke`.
//!
//! With `max_events: 1` the payload is the event. With more, the payload is always an array of events,
//! also for a single one, so that the function sees one shape.
//!
//! With invocation type `event`, a delivery is complete when Lambda has queued the payload (202); an array
//! is one unit. With `request_response` the bridge waits for the function: a `FunctionError` is a failure
//! although the status is 200, and the response is stored with the delivery. What the response says about the events is
//! read in `answer.rs`.
//!
//! With `durable: true` the event's id is the name of the durable execution, see [`OutgoingEvent::execution_name`]. A call
//! that is repeated with the same event belongs to the same execution, also after that has ended: the answer to a call
//! that was lost can be had again, and a failure of the execution is final. With another `expirytime`, Lambda answers
//! `DurableExecutionAlreadyStarted`. Each call is stored before it is made, so that it is known after a kill whether the
//! name was tried.
//!
//! Two events about one target never share a call, and the second is sent after the first has been
//! settled: the outbox returns one event of a target at a time.

mod answer;
mod name;
pub(super) mod schema;
pub(super) mod settings;

use aws_config::SdkConfig;
use aws_sdk_lambda::Client;
use aws_sdk_lambda::operation::invoke::InvokeOutput;
use aws_sdk_lambda::primitives::Blob;
use aws_sdk_lambda::types;

use super::{Answer, Class, Destination, Failure, Limits, OutgoingEvent, aws};

pub(super) use settings::{InvocationType, Settings};

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
    durable: bool,
    credentials: aws::CredentialsHandle,
}

/// The name of the durable execution has been taken.
const ALREADY_STARTED: &str = "DurableExecutionAlreadyStartedException";

impl Lambda {
    /// The function is called at the client's endpoint.
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            function: settings.function.clone(),
            qualifier: settings.qualifier.clone(),
            invocation_type: settings.invocation_type,
            max_events: settings.max_events,
            durable: settings.durable,
            credentials: aws::CredentialsHandle::default(),
        }
    }

    /// The same destination, with the credentials of its client.
    pub(in crate::dispatch) fn with_credentials(self, credentials: aws::CredentialsHandle) -> Self {
        Self { credentials, ..self }
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
            // Lambda has queued the payload.
            return vec![Ok(Some(format!("HTTP {}", output.status_code()))); batch.len()];
        }
        let payload = output.payload().map_or(&[] as &[u8], AsRef::as_ref);
        answer::read(payload, batch, self.max_events > 1)
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

    fn stores_calls(&self) -> bool {
        self.durable
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let (kind, expected_status) = match self.invocation_type {
            InvocationType::Event => (types::InvocationType::Event, 202),
            InvocationType::RequestResponse => (types::InvocationType::RequestResponse, 200),
        };
        // A batch of a durable function has one event.
        let execution = batch.first().filter(|_| self.durable).map(|event| (event, event.execution_name()));
        let call = self
            .client
            .invoke()
            .set_durable_execution_name(execution.as_ref().map(|(_, name)| name.clone()))
            .function_name(&self.function)
            .set_qualifier(self.qualifier.clone())
            .invocation_type(kind)
            .payload(Blob::new(self.payload(batch)))
            .customize()
            .interceptor(aws::BOUNDED_RESPONSE);
        let output = match (call.send().await, &execution) {
            (Ok(output), _) => output,
            (Err(error), Some((event, name))) if aws::is_code(&error, ALREADY_STARTED) => {
                return Ok(vec![event.answer_for_taken_name(ALREADY_STARTED, name)]);
            }
            (Err(error), _) => return Err(self.credentials.failure(&error)),
        };
        if let Some(failure) = function_error(&output, execution.is_some()) {
            return Ok(vec![Err(failure); batch.len()]);
        }
        if output.status_code() != expected_status {
            let status = output.status_code();
            let failure =
                Failure::transient(format!("Lambda returned HTTP {status}, expected {expected_status}"));
            // Accepted somehow, or answered by something else.
            return Err(failure.with_uncertainty(true));
        }
        Ok(self.answers(batch, &output))
    }
}

/// The failure of a function that was reached and failed. It does not affect other events. If it is that of an execution
/// with a name, another call would have the same answer.
fn function_error(output: &InvokeOutput, is_final: bool) -> Option<Failure> {
    let kind = output.function_error()?;
    let payload = output.payload().map_or(&[] as &[u8], AsRef::as_ref);
    let class = if is_final { Class::Permanent } else { Class::Transient };
    let failure = Failure::new(class, format!("function error ({kind})"));
    Some(Failure { answer: answer::excerpt(payload), ..failure })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::InvocationType::{Event, RequestResponse};
    use super::answer::{MAX_ANSWER_BYTES, parse_failed_ids, stored_answer};
    use super::*;
    use crate::dispatch::stub::{Reply, Stub, lambda_client, outgoing};

    fn function(stub: &Stub, invocation_type: InvocationType, max_events: usize) -> Lambda {
        let settings = Settings {
            function: "scaler".into(),
            qualifier: Some("live".into()),
            invocation_type,
            max_events,
            durable: false,
            access: aws::Access::default(),
        };
        Lambda::new(lambda_client(stub), &settings)
    }

    fn durable_function(stub: &Stub, invocation_type: InvocationType) -> Lambda {
        Lambda { durable: true, ..function(stub, invocation_type, 1) }
    }

    #[tokio::test]
    async fn a_durable_execution_is_named_by_the_events_id() {
        let stub = Stub::start(|_| Reply::status(202)).await;
        let function = durable_function(&stub, Event);
        for event in [outgoing(7), OutgoingEvent { redrives: 3, ..outgoing(7) }] {
            function.send(&[event]).await.unwrap()[0].as_ref().unwrap();
        }
        let names: Vec<_> = stub
            .requests()
            .iter()
            .map(|request| request.headers["x-amz-durable-execution-name"].to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["00000000000000000000000000000007", "00000000000000000000000000000007-3"]);
    }

    #[tokio::test]
    async fn a_durable_name_that_is_taken_was_delivered_if_it_was_tried_before() {
        let stub = Stub::start(|_| Reply::error(409, ALREADY_STARTED)).await;
        let answer = async |event: OutgoingEvent| {
            durable_function(&stub, Event).send(&[event]).await.unwrap().remove(0)
        };
        for event in [
            OutgoingEvent { attempts: 1, ..outgoing(7) },
            OutgoingEvent { is_uncertain: true, ..outgoing(7) },
        ] {
            let delivered = answer(event).await.unwrap().unwrap();
            assert_eq!(delivered, "DurableExecutionAlreadyStartedException 00000000000000000000000000000007");
        }
        assert_eq!(answer(outgoing(7)).await.unwrap_err().class, Class::Permanent);
    }

    #[tokio::test]
    async fn a_failure_of_a_durable_execution_is_final() {
        let stub = Stub::start(|_| {
            Reply::text(200, "{\"errorMessage\":\"no\"}").header("x-amz-function-error", "Unhandled")
        })
        .await;
        let mut classes = Vec::new();
        for function in [durable_function(&stub, RequestResponse), function(&stub, RequestResponse, 1)] {
            let failure = function.send(&[outgoing(1)]).await.unwrap().remove(0).unwrap_err();
            classes.push(failure.class);
        }
        assert_eq!(classes, [Class::Permanent, Class::Transient]);
    }

    async fn answering(body: &'static str) -> Stub {
        Stub::start(move |_| Reply::text(200, body)).await
    }

    #[tokio::test]
    async fn the_event_is_the_payload() {
        let stub = Stub::start(|_| Reply::status(202)).await;
        let event = outgoing(7);
        let answers = function(&stub, Event, 1).send(std::slice::from_ref(&event)).await;
        assert_eq!(answers, Ok(vec![Ok(Some("HTTP 202".into()))]));
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
        let queued = || Ok(Some("HTTP 202".to_owned()));
        assert_eq!(scaler.send(&events).await, Ok(vec![queued(), queued()]));
        assert_eq!(scaler.send(&events[..1]).await, Ok(vec![queued()]));
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
        let expected = Failure::transient("Lambda returned HTTP 200, expected 202");
        assert_eq!(failure, expected.with_uncertainty(true));

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

    /// A scaler's answer about the event with this number.
    fn outcome(seq: i64, outcome: &str) -> Value {
        json!({ "id": format!("{seq:032}"), "outcome": outcome, "from": 4, "to": 6, "reason": "as requested" })
    }

    async fn answers(batch: &[OutgoingEvent], max_events: usize, answer: &Value) -> Vec<Answer> {
        let reply = Reply::ok(answer.clone());
        let stub = Stub::start(move |_| reply.clone()).await;
        function(&stub, RequestResponse, max_events).send(batch).await.unwrap()
    }

    /// A scale-in with this number.
    fn scale_in(seq: i64) -> OutgoingEvent {
        use crate::dispatch::stub::event;
        use crate::domain::header::EventHeader;
        let mut outgoing = outgoing(seq);
        let body = event(seq, &outgoing.header.subject, "scale_in", outgoing.header.expirytime);
        outgoing.header = EventHeader::read(&body).unwrap().into();
        outgoing
    }

    #[tokio::test]
    async fn the_outcome_that_a_scaler_reports_is_that_of_the_delivery() {
        let delivered = ["applied", "capped", "already_applied", "dry_run"];
        let too_late = ["overtaken", "expired"];
        for decreases in [false, true] {
            let event = if decreases { scale_in(1) } else { outgoing(1) };
            let classes = async |word: &str| {
                let mut found = vec![];
                for answer in [outcome(1, word), json!([outcome(1, word)])] {
                    let answer = answers(std::slice::from_ref(&event), 1, &answer).await.remove(0);
                    let stored = answer.clone().unwrap_or_else(|failure| failure.answer);
                    let stored: Value = serde_json::from_str(&stored.unwrap()).unwrap();
                    assert_eq!((&stored["from"], &stored["to"]), (&json!(4), &json!(6)), "{word}");
                    assert!(answer.as_ref().map_or_else(|failure| !failure.uncertain, |_| true));
                    found.push(answer.map_err(|failure| failure.class).map(|_| ()));
                }
                assert_eq!(found[0], found[1], "{word}, also as the only element of an array");
                found.remove(0)
            };
            for word in delivered {
                assert_eq!(classes(word).await, Ok(()));
            }
            for word in too_late {
                let expected = if decreases { Err(Class::NotApplied) } else { Ok(()) };
                assert_eq!(classes(word).await, expected, "{word}");
            }
            assert_eq!(classes("refused").await, Err(Class::Permanent));
            assert_eq!(classes("retry").await, Err(Class::Transient));
        }
    }

    #[tokio::test]
    async fn an_answer_of_another_form_or_about_another_event_is_not_interpreted() {
        for answer in [
            json!({ "outcome": "refused" }),
            json!({ "id": "x" }),
            outcome(2, "refused"),
            outcome(1, "later_word"),
            json!(["refused"]),
            json!("refused"),
        ] {
            let answers = answers(&[outgoing(1)], 1, &answer).await;
            assert_eq!(answers, [Ok(Some(answer.to_string()))]);
        }
    }

    #[tokio::test]
    async fn a_scaler_answers_an_array_by_the_ids_of_its_events() {
        let batch = [outgoing(1), outgoing(2)];
        let found = answers(&batch, 10, &json!([outcome(2, "refused"), outcome(1, "applied")])).await;
        let stored: Value = serde_json::from_str(found[0].as_ref().unwrap().as_ref().unwrap()).unwrap();
        assert_eq!(stored, outcome(1, "applied"));
        assert_eq!(found[1].as_ref().unwrap_err().class, Class::Permanent);

        let found = answers(&batch, 10, &json!([outcome(1, "applied")])).await;
        assert!(found.iter().all(|answer| answer.as_ref().is_err_and(|failure| failure.uncertain)));
    }

    #[tokio::test]
    async fn a_huge_answer_is_read_with_a_bound() {
        let long = json!({ "id": format!("{:032}", 1), "outcome": "applied", "to": 6, "reason": "x".repeat(50_000) });
        let stored = answers(&[outgoing(1)], 1, &long).await.remove(0).unwrap().unwrap();
        assert!(stored.len() < MAX_ANSWER_BYTES && stored.contains(r#""to":6"#), "{stored}");
        let huge = Value::from("x".repeat(8_000_000));
        let stored = answers(&[outgoing(1)], 1, &huge).await.remove(0).unwrap().unwrap();
        assert_eq!(stored.len(), MAX_ANSWER_BYTES);
    }
}
