//! The request body of `SendMessageBatch` in the JSON protocol of SQS.
//!
//! The SDK can write it as well, from builders that copy every string; that took a fifth of the
//! processor time per event. Here it is written from borrowed strings.

use super::super::message::{ATTRIBUTE_TYPE, attributes, message_group};
use crate::dispatch::OutgoingEvent;

/// The approximate size of an entry without its event, to allocate the body once.
const ENTRY_OVERHEAD_BYTES: usize = 1024;

/// The body of a call with these events, at most ten. The id of an entry is its index in the batch.
pub(super) fn body(queue_url: &str, batch: &[OutgoingEvent], fifo: bool) -> Vec<u8> {
    // Escaping adds one byte per quotation mark.
    let bytes = |event: &OutgoingEvent| event.body.len() / 4 * 5 + ENTRY_OVERHEAD_BYTES;
    let mut json = Vec::with_capacity(batch.iter().map(bytes).sum());
    json.extend_from_slice(br#"{"QueueUrl":"#);
    push_string(&mut json, queue_url);
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
    push_string(json, &index.to_string());
    json.extend_from_slice(br#","MessageBody":"#);
    push_string(json, &event.body);
    if let Some(group) = message_group(header, fifo) {
        json.extend_from_slice(br#","MessageGroupId":"#);
        push_string(json, &group);
    }
    if fifo {
        json.extend_from_slice(br#","MessageDeduplicationId":"#);
        push_string(json, &header.id);
    }
    json.extend_from_slice(br#","MessageAttributes":{"#);
    for (at, (name, value)) in attributes(header).enumerate() {
        if at > 0 {
            json.push(b',');
        }
        push_string(json, name);
        json.extend_from_slice(br#":{"DataType":"#);
        push_string(json, ATTRIBUTE_TYPE);
        json.extend_from_slice(br#","StringValue":"#);
        push_string(json, value);
        json.push(b'}');
    }
    json.extend_from_slice(b"}}");
}

/// Appends a string with its quotation marks.
#[expect(clippy::expect_used, reason = "a string can be encoded, and memory does not fail")]
fn push_string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a string can be encoded, and memory does not fail");
}
