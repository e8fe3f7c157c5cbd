//! Event buses of Amazon EventBridge, called with `PutEvents`.
//!
//! `Source` is the event's `source`, `DetailType` its `type`, `Time` its `time`, and `Detail` the event itself, so that
//! rules of the bus can match any field of it. EventBridge keeps no order and can deliver an event twice; the id is in
//! `Detail`. The bridge sends an event of a target after the one before was accepted.
//!
//! EventBridge accepts an event also when no rule of the bus matches it.

pub(super) mod schema;
pub(super) mod settings;

use aws_config::SdkConfig;
use aws_sdk_eventbridge::Client;
use aws_sdk_eventbridge::operation::put_events::PutEventsOutput;
use aws_sdk_eventbridge::primitives::DateTime;
use aws_sdk_eventbridge::types::{PutEventsRequestEntry, PutEventsResultEntry};

use super::{Answer, Destination, Failure, Limits, OutgoingEvent, aws};
use crate::domain::event::EventDocument;
pub(super) use settings::Settings;

/// Quotas of EventBridge: entries per call, and their total size ("1 MB", the smaller one that this can mean).
const MAX_ENTRIES: usize = 10;
const MAX_CALL_BYTES: usize = 1_000_000;

/// What EventBridge counts for the time of an entry.
const TIME_BYTES: usize = 14;

/// The maximum of what counts beside `Detail`, for any event that the bridge encodes: `/scalebridge/` with a name, the
/// longest type, and the time.
const MAX_ENTRY_BYTES_BESIDE_DETAIL: usize = 128;

pub(super) type Clients = aws::SharedClients<Client>;

/// A client for destinations with this key.
pub(super) fn client(config: &SdkConfig, key: &aws::Key) -> Client {
    let mut config = aws_sdk_eventbridge::config::Builder::from(config);
    config.set_timeout_config(Some(key.timeouts()));
    if let Some(endpoint) = key.endpoint_url() {
        config.set_endpoint_url(Some(endpoint.to_owned()));
    }
    Client::from_conf(config.build())
}

#[derive(Debug)]
pub(crate) struct Eventbridge {
    client: Client,
    bus: String,
    max_entry_bytes: usize,
    credentials: aws::CredentialsHandle,
}

impl Eventbridge {
    /// The bus is called at the client's endpoint.
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        Self {
            client,
            bus: settings.bus.clone(),
            max_entry_bytes: settings.max_entry_bytes,
            credentials: aws::CredentialsHandle::default(),
        }
    }

    /// The same destination, with the credentials of its client.
    pub(in crate::dispatch) fn with_credentials(self, credentials: aws::CredentialsHandle) -> Self {
        Self { credentials, ..self }
    }

    fn entry(&self, event: &OutgoingEvent) -> PutEventsRequestEntry {
        let time = EventDocument::read(&event.body).ok().and_then(|document| document.time());
        PutEventsRequestEntry::builder()
            .event_bus_name(&self.bus)
            .source(&*event.header.source)
            .detail_type(&*event.header.kind)
            .detail(&*event.body)
            .set_time(time.map(|time| DateTime::from_millis(time.as_millis())))
            .build()
    }
}

impl Destination for Eventbridge {
    fn limits(&self) -> Limits {
        Limits { events: MAX_ENTRIES, bytes: MAX_CALL_BYTES, max_event_bytes: self.max_entry_bytes }
    }

    /// As counted by EventBridge: source, detail type, detail and time.
    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        event.body.len() + event.header.source.len() + event.header.kind.len() + TIME_BYTES
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        let entries = batch.iter().map(|event| self.entry(event)).collect();
        let call = self.client.put_events().set_entries(Some(entries)).customize();
        let call = call.interceptor(aws::BOUNDED_RESPONSE);
        let output = call.send().await.map_err(|error| self.credentials.failure(&error))?;
        Ok(answers(batch.len(), &output))
    }
}

/// One answer for each of `count` entries. Those of EventBridge are in the order of the request.
fn answers(count: usize, output: &PutEventsOutput) -> Vec<Answer> {
    let mut entries = output.entries().iter();
    (0..count).map(|_| entries.next().map_or_else(|| Err(missing_answer()), answer)).collect()
}

fn answer(entry: &PutEventsResultEntry) -> Answer {
    match (entry.event_id(), entry.error_code()) {
        (_, Some(code)) => Err(aws::entry_failure_without_fault(code, entry.error_message())),
        (Some(id), None) => Ok(Some(format!("EventId {}", id.chars().take(100).collect::<String>()))),
        (None, None) => Err(missing_answer()),
    }
}

fn missing_answer() -> Failure {
    aws::missing_answer("EventBridge")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dispatch::Class;
    use crate::dispatch::stub::{Reply, Stub, outgoing};

    fn bus(stub: &Stub) -> Eventbridge {
        let settings = Settings {
            bus: "scaling".into(),
            access: aws::Access::default(),
            max_entry_bytes: Settings::MAX_ENTRY_BYTES,
        };
        Eventbridge::new(Client::new(&stub.sdk_config()), &settings)
    }

    fn reply(entries: &Value) -> Reply {
        let failed = entries.as_array().unwrap().iter().filter(|entry| entry.get("ErrorCode").is_some());
        Reply::ok(json!({ "FailedEntryCount": failed.count(), "Entries": entries }))
    }

    #[tokio::test]
    async fn an_entry_is_right_field_by_field() {
        let stub = Stub::start(|_| reply(&json!([{ "EventId": "e-1" }]))).await;
        let mut event = outgoing(7);
        let body = event.body.replacen('{', "{\"time\":\"2026-11-22T16:55:20.062Z\",", 1);
        event.body = body.into();
        let answers = bus(&stub).send(std::slice::from_ref(&event)).await;
        assert_eq!(answers, Ok(vec![Ok(Some("EventId e-1".into()))]));
        let request = stub.only_request();
        assert_eq!(request.headers["x-amz-target"], "AWSEvents.PutEvents");
        let expected = json!({
            "Entries": [{
                "Time": 1_795_366_520.062,
                "Source": "/scalebridge/prod-eu",
                "DetailType": "io.scalebridge.scale_out.v1",
                "Detail": &*event.body,
                "EventBusName": "scaling",
            }],
        });
        assert_eq!(request.json(), expected);
    }

    /// `FailedEntryCount` is not read: each entry says what became of it.
    #[tokio::test]
    async fn each_event_gets_the_answer_at_its_place() {
        let entries = json!([
            { "EventId": "e-0" },
            { "ErrorCode": "ThrottlingException", "ErrorMessage": "slower" },
            { "ErrorCode": "InternalFailure", "ErrorMessage": "later" },
            { "ErrorCode": "MalformedDetail", "ErrorMessage": "not an object" },
            { "ErrorCode": "NotAuthorizedForSourceException", "ErrorMessage": "no" },
            {},
            { "EventId": "e-6" },
        ]);
        let stub = Stub::start(move |_| reply(&entries)).await;
        let batch: Vec<_> = (0..8).map(outgoing).collect();
        let answers = bus(&stub).send(&batch).await.unwrap();
        let found: Vec<_> = answers
            .iter()
            .map(|answer| answer.as_ref().map(drop).map_err(|failure| (failure.class, failure.uncertain)))
            .collect();
        let expected = [
            Ok(()),
            Err((Class::Throttled, false)),
            Err((Class::Transient, false)),
            Err((Class::Permanent, false)),
            Err((Class::Misconfigured, false)),
            Err((Class::Transient, true)),
            Ok(()),
            Err((Class::Transient, true)),
        ];
        assert_eq!(found, expected, "5 has neither an id nor an error, 7 is missing in the response");
        assert_eq!(answers[1].as_ref().unwrap_err().message, "ThrottlingException: slower");
    }

    #[tokio::test]
    async fn a_call_that_fails_is_the_failure_of_all() {
        for (status, code, class) in [
            (400, "ResourceNotFoundException", Class::Misconfigured),
            (400, "ValidationException", Class::Misconfigured),
            (500, "InternalException", Class::Transient),
            (413, "RequestEntityTooLarge", Class::Permanent),
        ] {
            let stub = Stub::start(move |_| Reply::error(status, code)).await;
            let failure = bus(&stub).send(&[outgoing(0), outgoing(1)]).await.unwrap_err();
            assert_eq!((failure.class, failure.uncertain), (class, false), "{failure}");
            assert_eq!(stub.requests().len(), 1, "the SDK does not retry");
        }
    }

    #[tokio::test]
    async fn event_bytes_are_what_eventbridge_counts() {
        let stub = Stub::start(|_| reply(&json!([]))).await;
        let (bus, event) = (bus(&stub), outgoing(1));
        let entry = bus.entry(&event);
        let text = [entry.source(), entry.detail_type(), entry.detail()];
        let counted: usize = text.into_iter().flatten().map(str::len).sum();
        assert_eq!(bus.event_bytes(&event), counted + TIME_BYTES);
    }

    #[test]
    fn what_counts_beside_the_detail_is_within_the_bound() {
        let source = "/scalebridge/".len() + 63;
        let longest = source + "io.scalebridge.set_capacity.v1".len() + TIME_BYTES;
        assert!(longest <= MAX_ENTRY_BYTES_BESIDE_DETAIL, "{longest}");
    }
}
