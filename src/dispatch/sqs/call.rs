//! The body of `SendMessageBatch`, as SQS' JSON protocol has it.
//!
//! The SDK can write it too, from builders that own every text once more; that took a fifth of what the
//! bridge does for an event. Here it is written from where the texts lie.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use crate::dispatch::OutgoingEvent;
use crate::domain::header::ATTRIBUTE_TYPE;
use crate::json::push_string as text;

/// The longest message group id.
const MAX_GROUP_CHARS: usize = 128;
/// What a message takes beside its event, about; so that the text is written in one piece of memory.
const ENTRY_OVERHEAD_BYTES: usize = 1024;

/// The text of a call that sends these events, at most ten. An entry's id is its place in the call.
pub(super) fn body(queue_url: &str, batch: &[OutgoingEvent], fifo: bool) -> Vec<u8> {
    // Every quotation mark of an event takes one byte more.
    let bytes = |event: &OutgoingEvent| event.body.len() / 4 * 5 + ENTRY_OVERHEAD_BYTES;
    let mut json = Vec::with_capacity(batch.iter().map(bytes).sum());
    json.extend_from_slice(br#"{"QueueUrl":"#);
    text(&mut json, queue_url);
    json.extend_from_slice(br#","Entries":["#);
    for (index, event) in batch.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        push_entry(&mut json, index, event, fifo);
    }
    json.extend_from_slice(b"]}");
    json
}

fn push_entry(json: &mut Vec<u8>, index: usize, event: &OutgoingEvent, fifo: bool) {
    let header = &event.header;
    json.extend_from_slice(br#"{"Id":"#);
    text(json, &index.to_string());
    json.extend_from_slice(br#","MessageBody":"#);
    text(json, &event.body);
    if fifo {
        json.extend_from_slice(br#","MessageGroupId":"#);
        text(json, &message_group_id(&header.subject));
        json.extend_from_slice(br#","MessageDeduplicationId":"#);
        text(json, &header.id);
    } else if !header.source_name().is_empty() {
        json.extend_from_slice(br#","MessageGroupId":"#);
        text(json, &message_group_id(header.source_name()));
    }
    json.extend_from_slice(br#","MessageAttributes":{"#);
    for (at, (name, value)) in header.attributes().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        text(json, name);
        json.extend_from_slice(br#":{"DataType":"#);
        text(json, ATTRIBUTE_TYPE);
        json.extend_from_slice(br#","StringValue":"#);
        text(json, value);
        json.push(b'}');
    }
    json.extend_from_slice(b"}}");
}

/// A text as message group id: itself where SQS allows it, else its hash.
fn message_group_id(text: &str) -> Cow<'_, str> {
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
    fn message_group_ids_are_what_sqs_allows() {
        assert_eq!(message_group_id("eks/nodegroup/-/-/a%20b/-/w"), "eks/nodegroup/-/-/a%20b/-/w");
        assert_eq!(message_group_id(&"x".repeat(128)).len(), 128);
        let long = "x".repeat(129);
        let hashed = message_group_id(&long);
        assert_eq!((hashed.len(), &hashed), (64, &message_group_id(&long)));
        for odd in ["a b", "ü", "\u{7f}", ""] {
            assert_eq!(message_group_id(odd).len(), 64, "{odd:?}");
        }
        assert_eq!(message_group_id(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
