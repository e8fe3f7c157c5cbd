//! Validates every event that a test reads against the published schema.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// The published schema with unknown fields denied: a field that is sent but not published is an error.
fn event_validator() -> &'static Validator {
    static VALIDATOR: OnceLock<Validator> = OnceLock::new();
    VALIDATOR.get_or_init(|| {
        let mut schema = serde_json::to_value(scalebridge::domain::event::schema()).expect("JSON");
        deny_unknown_fields(&mut schema);
        jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema")
    })
}

fn deny_unknown_fields(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(deny_unknown_fields);
            if fields.get("properties").is_some_and(Value::is_object) && fields.contains_key("type") {
                fields.entry("additionalProperties").or_insert(json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(deny_unknown_fields),
        _ => {}
    }
}

/// Panics if an event does not conform to the published schema.
pub(crate) fn assert_valid_event(event: &Value) {
    let errors: Vec<String> = event_validator()
        .iter_errors(event)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "does not conform to the published schema: {errors:#?}\n{event:#}");
}

#[test]
fn a_field_that_is_missing_renamed_retyped_or_not_published_is_found() {
    let text = include_str!("../../fixtures/event.json");
    let event: Value = serde_json::from_str(text).expect("the published event");
    assert_valid_event(&event);
    let changed = |change: fn(&mut Value)| {
        let mut event = event.clone();
        change(&mut event);
        assert!(!event_validator().is_valid(&event), "{event:#}");
    };
    changed(|event| drop(event.as_object_mut().and_then(|fields| fields.remove("id"))));
    changed(|event| event["data"]["more"] = json!(1));
    changed(|event| event["sequence"] = json!(7));
    changed(|event| event["time"] = json!("yesterday"));
    changed(|event| event["data"]["alerts"][0]["status"] = json!("burning"));
    changed(|event| event["data"]["adjustment"]["type"] = json!("Doubling"));
}
