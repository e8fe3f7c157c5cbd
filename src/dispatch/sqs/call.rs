//! The body of `SendMessageBatch`, as SQS' JSON protocol has it.
//!
//! The SDK can write it too, from builders that own every text once more; that took a fifth of what the
//! bridge does for an event. Here it is written from where the texts lie.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::dispatch::Outgoing;
use crate::domain::header::ATTRIBUTE_TYPE;

/// The longest message group id.
const MAX_GROUP_CHARS: usize = 128;
/// What a message takes beside its event, about; so that the text is written in one piece of memory.
const BESIDE_EVENT: usize = 1024;

/// The whole document.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Call<'a> {
    queue_url: &'a str,
    entries: Vec<Entry<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry<'a> {
    /// Its place in the call.
    id: String,
    message_body: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_group_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_deduplication_id: Option<&'a str>,
    message_attributes: BTreeMap<&'static str, Attribute<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute<'a> {
    data_type: &'static str,
    string_value: &'a str,
}

impl<'a> Call<'a> {
    /// A call that sends these events, at most ten.
    pub fn new(queue_url: &'a str, batch: &'a [Outgoing], fifo: bool) -> Self {
        let entries = batch.iter().enumerate().map(|(at, event)| Entry::new(at, event, fifo)).collect();
        Self { queue_url, entries }
    }

    /// Its text.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        // Every quotation mark of an event takes one byte more.
        let bytes = |entry: &Entry<'_>| entry.message_body.len() / 8 * 9 + BESIDE_EVENT;
        let mut json = Vec::with_capacity(self.entries.iter().map(bytes).sum());
        serde_json::to_writer(&mut json, self)?;
        Ok(json)
    }
}

impl<'a> Entry<'a> {
    fn new(at: usize, event: &'a Outgoing, fifo: bool) -> Self {
        let header = &event.header;
        let source = Some(header.source_name()).filter(|name| !name.is_empty());
        let attribute = |string_value| Attribute { data_type: ATTRIBUTE_TYPE, string_value };
        Self {
            id: at.to_string(),
            message_body: &event.body,
            message_group_id: if fifo { Some(group(&header.subject)) } else { source.map(group) },
            message_deduplication_id: fifo.then_some(&header.id),
            message_attributes: header.attributes().map(|(name, value)| (name, attribute(value))).collect(),
        }
    }
}

/// A text as message group id: itself where SQS allows it, else its hash.
fn group(text: &str) -> Cow<'_, str> {
    let allowed = (1..=MAX_GROUP_CHARS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if allowed {
        return text.into();
    }
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_what_sqs_allows() {
        assert_eq!(group("eks/nodegroup/-/-/a%20b/-/w"), "eks/nodegroup/-/-/a%20b/-/w");
        assert_eq!(group(&"x".repeat(128)).len(), 128);
        let long = "x".repeat(129);
        let hashed = group(&long);
        assert_eq!((hashed.len(), &hashed), (64, &group(&long)));
        for odd in ["a b", "ü", "\u{7f}", ""] {
            assert_eq!(group(odd).len(), 64, "{odd:?}");
        }
        assert_eq!(group(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
