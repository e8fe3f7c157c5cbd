//! The state of the queue and the rules by which it accepts or rejects calls, as SQS does.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::Fault;

const MAX_ENTRIES: usize = 10;
const MAX_BYTES: usize = 1024 * 1024;
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
    fifo: bool,
    sent: Vec<Sent>,
    /// Deduplication ids. They never expire: no test lasts as long as SQS' five minutes.
    deduplication_ids: HashSet<String>,
    violations: Vec<String>,
}

impl Queue {
    pub(super) fn new(fifo: bool) -> Self {
        Self { fifo, sent: Vec::new(), deduplication_ids: HashSet::new(), violations: Vec::new() }
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.clone()
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.clone()
    }

    /// Handles a call and returns the body of the answer.
    pub(super) fn handle(
        &mut self,
        operation: &str,
        body: &[u8],
        fault: Fault,
        rng: &mut fastrand::Rng,
    ) -> Result<Value, CallError> {
        if operation != "AmazonSQS.SendMessageBatch" {
            return self.reject("InvalidAction", operation);
        }
        let call: Call = match serde_json::from_slice(body) {
            Ok(call) => call,
            Err(error) => return self.reject("InvalidRequest", &error.to_string()),
        };
        self.check(&call)?;
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
                self.record(entry, !acknowledged);
                // A call whose answer is lost has no acknowledged entries.
                if acknowledged {
                    successful.push(json!({ "Id": id, "MessageId": "m", "MD5OfMessageBody": "-" }));
                }
            }
        }
        Ok(json!({ "Successful": successful, "Failed": failed }))
    }

    fn reject<T>(&mut self, code: &'static str, about: &str) -> Result<T, CallError> {
        self.violations.push(format!("{code}: {about}"));
        Err(CallError { code })
    }

    fn check(&mut self, call: &Call) -> Result<(), CallError> {
        let ids: HashSet<&str> = call.entries.iter().map(|entry| entry.id.as_str()).collect();
        let bytes: usize = call.entries.iter().map(Entry::bytes).sum();
        if call.queue_url.ends_with(".fifo") != self.fifo {
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
            _ if bytes > MAX_BYTES => {
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
        if self.fifo && !has_both {
            return Some(("MissingParameter", "no group or no deduplication id".to_owned()));
        }
        let count = entry.message_attributes.len();
        if count > MAX_ATTRIBUTES || values.clone().any(String::is_empty) {
            return Some(("InvalidParameterValue", format!("{count} attributes, or an empty one")));
        }
        None
    }

    fn record(&mut self, entry: Entry, answer_lost: bool) {
        let event: Value = serde_json::from_str(&entry.message_body).expect("an event");
        let id = event["id"].as_str().expect("an id").to_owned();
        assert_eq!(entry.message_attributes["ce-id"].string_value, id);
        let dropped = match &entry.message_deduplication_id {
            Some(deduplication) if self.fifo => !self.deduplication_ids.insert(deduplication.clone()),
            _ => false,
        };
        self.sent.push(Sent { event, id, group: entry.message_group_id, answer_lost, dropped });
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
