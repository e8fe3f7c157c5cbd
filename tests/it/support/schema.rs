//! The published schema of events, which every event that a test sees is held to.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// The schema, and nothing beside what it names: a field that is sent and not published is a fault here.
fn published() -> &'static Validator {
    static PUBLISHED: OnceLock<Validator> = OnceLock::new();
    PUBLISHED.get_or_init(|| {
        let mut schema = serde_json::to_value(scalebridge::domain::event::schema()).expect("JSON");
        close(&mut schema);
        jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema")
    })
}

fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(Value::is_object) && fields.contains_key("type") {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Fails if an event is not as published.
pub fn is_published(event: &Value) {
    let faults: Vec<String> =
        published().iter_errors(event).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
    assert!(faults.is_empty(), "not as published: {faults:#?}\n{event:#}");
}

#[test]
fn a_field_that_is_missing_renamed_retyped_or_not_published_is_found() {
    let text = include_str!("../../fixtures/event.json");
    let event: Value = serde_json::from_str(text).expect("the published event");
    is_published(&event);
    let changed = |change: fn(&mut Value)| {
        let mut event = event.clone();
        change(&mut event);
        assert!(!published().is_valid(&event), "{event:#}");
    };
    changed(|event| drop(event.as_object_mut().and_then(|fields| fields.remove("id"))));
    changed(|event| event["data"]["more"] = json!(1));
    changed(|event| event["sequence"] = json!(7));
    changed(|event| event["time"] = json!("yesterday"));
    changed(|event| event["data"]["alerts"][0]["status"] = json!("burning"));
    changed(|event| event["data"]["adjustment"]["type"] = json!("Doubling"));
}
