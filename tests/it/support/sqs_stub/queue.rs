//! The state of the queue and the rules by which it accepts or rejects calls, as SQS does.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Kind};

const MAX_ENTRIES: usize = 10;
const MAX_ATTRIBUTES: usize = 10;
const MAX_GROUP_CHARS: usize = 128;

/// A message that was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub event: Value,
    /// The event's id.
    pub id: String,
    pub group: Option<String>,
    /// The sender got no acknowledgement of it.
    pub answer_lost: bool,
    /// A duplicate that the FIFO queue has dropped.
    pub dropped: bool,
}

/// The error of a call that is rejected as a whole.
pub(super) struct CallError {
    pub code: &'static str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Call {
    queue_url: String,
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    id: String,
    message_body: String,
    message_group_id: Option<String>,
    message_deduplication_id: Option<String>,
    #[serde(default)]
    message_attributes: std::collections::BTreeMap<String, Attribute>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute {
    data_type: String,
    string_value: String,
}

pub(super) struct Queue {
    kind: Kind,
    sent: Vec<Sent>,
    /// Deduplication ids. They never expire: no test lasts as long as SQS' five minutes.
    deduplication_ids: HashSet<String>,
    violations: Vec<String>,
}

impl Queue {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, sent: Vec::new(), deduplication_ids: HashSet::new(), violations: Vec::new() }
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.clone()
    }

    /// Handles a call of `SendMessageBatch` and returns the number of its entries and the body of the answer.
    pub(super) fn handle(
        &mut self,
        body: &[u8],
        fault: Fault,
        rng: &mut fastrand::Rng,
    ) -> Result<(usize, Value), CallError> {
        let call: Call = match serde_json::from_slice(body) {
            Ok(call) => call,
            Err(error) => return self.reject("InvalidRequest", &error.to_string()),
        };
        self.check(&call)?;
        let count = call.entries.len();
        // A fault of some entries affects at least this one.
        let unlucky = rng.usize(..call.entries.len());
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (at, entry) in call.entries.into_iter().enumerate() {
            let unlucky = at == unlucky || rng.bool();
            let id = entry.id.clone();
            if let Some((code, violation)) = self.entry_error(&entry) {
                self.violations.push(violation);
                failed.push(json!({ "Id": id, "Code": code, "SenderFault": true, "Message": "refused" }));
            } else if fault == Fault::Partial && unlucky {
                // Transient errors, with either value of `SenderFault`.
                let (code, sender_fault) = *rng
                    .choice(&[("InternalError", false), ("RequestThrottled", true), ("AccessDenied", true)])
                    .expect("a choice");
                failed
                    .push(json!({ "Id": id, "Code": code, "SenderFault": sender_fault, "Message": "later" }));
            } else {
                let acknowledged =
                    if fault == Fault::Unmentioned { !unlucky } else { !fault.loses_answers() };
                let is_duplicate = self.record(entry, !acknowledged);
                // The execution may have ended.
                if self.kind == Kind::StateMachine && is_duplicate && acknowledged && rng.bool() {
                    return Err(CallError { code: "ExecutionAlreadyExists" });
                }
                // A call whose answer is lost has no acknowledged entries.
                if acknowledged {
                    successful.push(json!({ "Id": id, "MessageId": "m", "MD5OfMessageBody": "-" }));
                }
            }
        }
        Ok((count, json!({ "Successful": successful, "Failed": failed })))
    }

    pub(super) fn reject<T>(&mut self, code: &'static str, about: &str) -> Result<T, CallError> {
        self.violations.push(format!("{code}: {about}"));
        Err(CallError { code })
    }

    fn check(&mut self, call: &Call) -> Result<(), CallError> {
        let ids: HashSet<&str> = call.entries.iter().map(|entry| entry.id.as_str()).collect();
        let bytes: usize = call.entries.iter().map(Entry::bytes).sum();
        if call.queue_url.ends_with(".fifo") != matches!(self.kind, Kind::Fifo | Kind::FifoTopic) {
            return self.reject("AWS.SimpleQueueService.NonExistentQueue", &call.queue_url);
        }
        match call.entries.len() {
            0 => self.reject("AWS.SimpleQueueService.EmptyBatchRequest", "no entry"),
            more if more > MAX_ENTRIES => {
                self.reject("AWS.SimpleQueueService.TooManyEntriesInBatchRequest", &more.to_string())
            }
            more if ids.len() < more => {
                self.reject("AWS.SimpleQueueService.BatchEntryIdsNotDistinct", &format!("{ids:?}"))
            }
            _ if bytes > self.kind.max_bytes() => {
                self.reject("AWS.SimpleQueueService.BatchRequestTooLong", &bytes.to_string())
            }
            _ => Ok(()),
        }
    }

    /// The error code and the violation of an entry that SQS would reject.
    fn entry_error(&self, entry: &Entry) -> Option<(&'static str, String)> {
        let values = entry.message_attributes.values().map(|attribute| &attribute.string_value);
        for text in values.clone().chain([&entry.message_body]) {
            if let Some(odd) = text.chars().find(|c| !is_accepted(*c)) {
                return Some(("InvalidMessageContents", format!("{odd:?} in {text}")));
            }
        }
        let groups = entry.message_group_id.iter().chain(&entry.message_deduplication_id);
        let good = |text: &String| {
            (1..=MAX_GROUP_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if let Some(bad) = groups.into_iter().find(|text| !good(text)) {
            return Some(("InvalidParameterValue", format!("group or deduplication id {bad:?}")));
        }
        let has_both = entry.message_group_id.is_some() && entry.message_deduplication_id.is_some();
        if self.drops_duplicates() && !has_both {
            return Some(("MissingParameter", "no group or no deduplication id".to_owned()));
        }
        let count = entry.message_attributes.len();
        if count > MAX_ATTRIBUTES || values.clone().any(String::is_empty) {
            return Some(("InvalidParameterValue", format!("{count} attributes, or an empty one")));
        }
        None
    }

    /// Whether a deduplication id is accepted once.
    fn drops_duplicates(&self) -> bool {
        matches!(self.kind, Kind::Fifo | Kind::FifoTopic | Kind::StateMachine)
    }

    /// Records an accepted message. Returns whether it is a duplicate that is dropped.
    fn record(&mut self, entry: Entry, answer_lost: bool) -> bool {
        let event: Value = serde_json::from_str(&entry.message_body).expect("an event");
        let id = event["id"].as_str().expect("an id").to_owned();
        match self.kind {
            Kind::Bus => {}
            Kind::StateMachine => assert_eq!(entry.message_deduplication_id.as_ref(), Some(&id)),
            _ => assert_eq!(entry.message_attributes["ce-id"].string_value, id),
        }
        let dropped = match &entry.message_deduplication_id {
            Some(deduplication) if self.drops_duplicates() => {
                !self.deduplication_ids.insert(deduplication.clone())
            }
            _ => false,
        };
        self.sent.push(Sent { event, id, group: entry.message_group_id, answer_lost, dropped });
        dropped
    }
}

impl Kind {
    /// The size of all entries of a call, without what the bridge cannot send beside the events.
    fn max_bytes(self) -> usize {
        match self {
            Self::Standard | Self::Fifo => 1024 * 1024,
            Self::Bus => 1_000_000,
            Self::Topic | Self::FifoTopic | Self::StateMachine => 256 * 1024,
        }
    }
}

impl Entry {
    /// The size as SQS counts it: body and message attributes.
    fn bytes(&self) -> usize {
        let attribute = |(name, value): (&String, &Attribute)| {
            name.len() + value.data_type.len() + value.string_value.len()
        };
        self.message_body.len() + self.message_attributes.iter().map(attribute).sum::<usize>()
    }
}

/// Whether SQS accepts a character: those of XML 1.0.
fn is_accepted(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}
