use super::*;
use crate::ledger::conformance;
use crate::plan::test_support::{LATER, event, id};
use crate::test_support::cloud::create_table;
use crate::test_support::emulators::ministack;
use crate::test_support::stub::{Reply, Stub};

const TABLE: &str = "scalebridge-scaler";

/// A ledger of an emulator, with the table that the module describes, and without timeouts of its calls.
pub(crate) async fn ledger_of(config: &SdkConfig) -> DynamoDb {
    create_table(config, TABLE).await;
    let client = Client::new(config);
    DynamoDb::with_client(client, TABLE)
}

#[tokio::test]
async fn it_conforms_on_ministack() {
    let emulator = ministack().await;
    let config = crate::test_support::config(&emulator.url()).await;
    conformance::check(&ledger_of(&config).await).await;
}

async fn stub() -> (Stub, DynamoDb) {
    let stub = Stub::start().await;
    let ledger = DynamoDb::new(&stub.config().await, TABLE);
    (stub, ledger)
}

fn found(items: &[(&str, &impl Serialize)]) -> Reply {
    let items: Vec<serde_json::Value> = items.iter().map(|(key, item)| stored(key, item)).collect();
    Reply::Ok(serde_json::json!({ "Responses": { TABLE: items } }).to_string())
}

fn stored(key: &str, item: &impl Serialize) -> serde_json::Value {
    serde_json::json!({ KEY: { "S": key }, DOCUMENT: { "S": serde_json::to_string(item).unwrap() } })
}

fn applied(number: u32) -> AppliedItem {
    AppliedItem::new(&id(number), "eks/…", (2, 5), LATER)
}

/// Otherwise an event that is ended between the two would be applied once more.
#[tokio::test]
async fn the_target_is_read_before_what_was_applied() {
    let (stub, ledger) = stub().await;
    let event = event(1, 1, "+3");
    let target = TargetItem { version: 1, ..TargetItem::default() };
    let subject = target_key(&event.subject);
    stub.reply(
        "BatchGetItem",
        [found(&[(&subject, &target)]), found(&[(&event_key(&event.id), &applied(1))])],
    );
    let entries = ledger.read(&event).await.unwrap();
    assert_eq!((entries.target, entries.applied.len()), (target, 1));
    let calls = stub.calls("BatchGetItem");
    let has = |call: usize, key: &str| calls[call].body.contains(key);
    assert_eq!(calls.len(), 2);
    assert!(has(0, "target#") && has(0, FREEZE_KEY) && !has(0, "event#"));
    assert!(has(1, &event_key(&event.id)) && !has(1, "target#"));
    for call in calls {
        assert!(call.body.contains(r#""ConsistentRead":true"#), "{}", call.body);
    }
}

#[tokio::test]
async fn keys_that_were_not_processed_are_asked_for_again() {
    let (stub, ledger) = stub().await;
    let event = event(1, 1, "+3");
    let rest = |key: &str| {
        let keys = serde_json::json!({ TABLE: { "Keys": [{ KEY: { "S": key } }], "ConsistentRead": true } });
        Reply::Ok(serde_json::json!({ "Responses": {}, "UnprocessedKeys": keys }).to_string())
    };
    let target = TargetItem { version: 4, ..TargetItem::default() };
    let (subject, key) = (target_key(&event.subject), event_key(&event.id));
    let replies = [
        rest(&subject),
        rest(&subject),
        found(&[(&subject, &target)]),
        rest(&key),
        found(&[(&key, &applied(1))]),
    ];
    stub.reply("BatchGetItem", replies);
    let entries = ledger.read(&event).await.unwrap();
    assert_eq!((entries.target, entries.applied.len()), (target, 1));
    assert_eq!(stub.calls("BatchGetItem").len(), 5);
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_recognized() {
    let event = event(1, 1, "+3");
    let own = TargetItem { version: 3, sequence: 7, ..TargetItem::default() };
    let other = TargetItem { sequence: 8, ..own.clone() };
    for (written, expected) in [(&own, Written::Yes), (&other, Written::Changed)] {
        let (stub, ledger) = stub().await;
        let body = serde_json::json!({
            "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
            "message": "The conditional request failed",
            "Item": stored(&target_key(&event.subject), written),
        });
        let failed = Reply::Page(400, Box::leak(body.to_string().into_boxed_str()));
        // The first attempt was carried out, or another worker was faster; its answer is lost.
        stub.reply("PutItem", [Reply::Close, failed]);
        assert_eq!(ledger.write_target(&event.subject, 2, &own).await.unwrap(), expected);
        let calls = stub.calls("PutItem");
        assert_eq!(calls.len(), 2);
        assert!(calls[1].body.contains("version = :version") && calls[1].body.contains("ALL_OLD"));
    }
}

#[tokio::test]
async fn what_was_applied_is_kept_for_a_week_after_the_event_and_increases_for_a_year() {
    let increase = AppliedItem { from: 2, to: 3, ..applied(1) };
    let decrease = AppliedItem { from: 3, to: 2, ..applied(2) };
    for (item, days) in [(increase, 400), (decrease, 7)] {
        let (stub, ledger) = stub().await;
        stub.reply("PutItem", [Reply::Ok("{}".to_owned())]);
        ledger.write_applied("eks/…", &item).await.unwrap();
        let body: serde_json::Value = serde_json::from_str(&stub.body("PutItem")).unwrap();
        let expected = LATER.as_millis() / 1_000 + days * 24 * 60 * 60;
        assert_eq!(body["Item"]["ttl"]["N"], expected.to_string());
        assert_eq!(body["Item"]["subject"]["S"], "eks/…");
    }
}

#[tokio::test]
async fn an_error_says_what_to_do() {
    let (stub, ledger) = stub().await;
    for (code, expected) in [
        ("ResourceNotFoundException", "; create it with the partition key `pk`, a string"),
        ("AccessDeniedException", "; grant it to the scaler's role, see `scalebridge-scaler iam-policy`"),
        ("ValidationException", ""),
    ] {
        stub.reply("BatchGetItem", [Reply::Error(400, code, "said so")]);
        let LedgerError(text) = ledger.read_freeze().await.unwrap_err();
        assert_eq!(text, format!("dynamodb:BatchGetItem of table `{TABLE}`: {code}: said so{expected}"));
    }
    stub.reply("BatchGetItem", [found(&[(FREEZE_KEY, &serde_json::json!({ "increases": 5 }))])]);
    let LedgerError(text) = ledger.read_freeze().await.unwrap_err();
    assert!(text.starts_with("item `freeze` cannot be read: ") && text.ends_with(RESTORE), "{text}");
}

/// Writes count it as one that exists, so an event with such an item would be applied with each of its copies.
#[tokio::test]
async fn an_item_without_a_readable_document_is_an_error_that_names_it() {
    let event = event(1, 1, "+3");
    let (target, own) = (target_key(&event.subject), event_key(&event.id));
    let items = |items: serde_json::Value| {
        Reply::Ok(serde_json::json!({ "Responses": { TABLE: items } }).to_string())
    };
    let without = |key: &str| items(serde_json::json!([{ KEY: { "S": key } }]));
    let binary = |key: &str| items(serde_json::json!([{ KEY: { "S": key }, DOCUMENT: { "B": "e30=" } }]));
    for unreadable in [&target, FREEZE_KEY, &own] {
        for reply in [without(unreadable), binary(unreadable)] {
            let (stub, ledger) = stub().await;
            let first = if unreadable == own { vec![items(serde_json::json!([]))] } else { Vec::new() };
            stub.reply("BatchGetItem", first.into_iter().chain([reply]));
            let LedgerError(text) = ledger.read(&event).await.unwrap_err();
            let expected =
                format!("item `{unreadable}` of table `{TABLE}` has no attribute `document` with a text; ");
            assert!(text.starts_with(&expected), "{text}");
        }
    }
    let (stub, ledger) = stub().await;
    stub.reply("BatchGetItem", [items(serde_json::json!([])), found(&[(&own, &applied(2))])]);
    let LedgerError(text) = ledger.read(&event).await.unwrap_err();
    assert!(text.starts_with(&format!("item `{own}` is of the event `{}`: ", id(2))), "{text}");
}
