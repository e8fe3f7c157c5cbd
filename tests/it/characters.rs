//! Events with any character in an alert are delivered to a queue unchanged.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, notification, pending_pod};
use crate::support::queue::{create_queue, environment, receive_all};
use crate::support::sqs_stub::{Kind, SqsStub};
use crate::support::tools::{LocalAws, REGION};

/// Few enough that no event is truncated.
const CHARS_PER_ALERT: usize = 4096;

/// The Basic Multilingual Plane from U+0000 to U+FFFF in chunks, each followed by two characters of other
/// planes. Surrogates are not characters.
fn text_chunks() -> Vec<String> {
    let all: Vec<char> = ('\u{0}'..='\u{FFFF}').collect();
    assert_eq!(all.len(), 0x10000 - 0x800);
    let part = |part: &[char]| part.iter().chain(&['\u{1F4A5}', '\u{10FFFF}']).collect::<String>();
    all.chunks(CHARS_PER_ALERT).map(part).collect()
}

/// An alert with the text in an annotation and in a label that is not part of the target.
fn alert(name: &str, text: &str) -> Value {
    let mut alert = pending_pod(name, "a");
    alert["annotations"]["summary"] = json!(text);
    alert["labels"]["note"] = json!(text);
    alert
}

/// The text of each event, by target.
fn texts_by_target(events: &[Value]) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let part = |event: &Value| {
        let alert = &event["data"]["alerts"][0];
        assert!(alert["annotations"]["summary"] == alert["labels"]["note"]);
        (text(&event["data"]["target"]["name"]), text(&alert["labels"]["note"]))
    };
    events.iter().map(part).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_character_of_the_basic_plane_arrives_unchanged() {
    let dir = tempfile::tempdir().expect("a directory");
    let aws = LocalAws::start(dir.path()).await;
    let url = create_queue(&aws, "scaling").await;
    let strict = SqsStub::start(Kind::Fifo);
    let mut bridge = Bridge::with_destinations(&[
        ("emulator", format!("sqs: {{ queue_url: \"{url}\", region: {REGION} }}")),
        ("strict", strict.destination()),
    ]);
    environment(&aws).iter().for_each(|(name, value)| bridge.env(name, value));
    bridge.run().await;
    let mut sent = BTreeMap::new();
    for (at, text) in text_chunks().into_iter().enumerate() {
        // serde_json escapes only what JSON requires; other senders escape all non-ASCII characters.
        let (raw, ascii) = (format!("raw-{at}"), format!("escaped-{at}"));
        let bodies = [notification(&[alert(&raw, &text)]), escaped(&notification(&[alert(&ascii, &text)]))];
        for body in bodies {
            assert_eq!(bridge.post(body).await.verdicts(), json!({ "emitted": 1 }));
        }
        sent.extend([(raw, text.clone()), (ascii, text)]);
    }
    bridge.wait_delivered("emulator").await;
    bridge.wait_delivered("strict").await;
    strict.assert_no_violations();
    let received = receive_all(&aws, &url).await;
    let received: Vec<Value> = received
        .iter()
        .map(|message| serde_json::from_str(message.body().expect("a body")).expect("an event"))
        .collect();
    for (queue, events) in [("the emulator", received), ("the strict queue", strict.events())] {
        assert_eq!(events.len(), sent.len(), "{queue}");
        assert!(texts_by_target(&events) == sent, "{queue} received other texts");
    }
}

/// The same JSON in ASCII, with all other characters as `\uXXXX`.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    for c in json.chars() {
        if c.is_ascii() && !c.is_ascii_control() {
            text.push(c);
        } else {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}
