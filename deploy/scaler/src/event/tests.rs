use serde_json::{Value, json};

use super::*;

fn document() -> Value {
    json!({
        "specversion": "1.0", "id": "0123456789abcdef0123456789abcdef",
        "source": "/scalebridge/prod-eu", "type": "io.scalebridge.scale_in.v1",
        "subject": "eks/nodegroup/-/eu-west-1/prod/-/workers", "time": "2026-11-22T16:55:20.062Z",
        "datacontenttype": "application/json", "dataschema": DATA_SCHEMA,
        "sequence": "1795366520062131", "expirytime": "2026-11-22T17:55:20.062Z",
        "data": {
            "rule": "unschedulable-pods", "phase": "resolved", "action": "scale_in",
            "adjustment": { "type": "ChangeInCapacity", "value": -2, "min_magnitude": null },
            "target": { "platform": "eks", "kind": "nodegroup", "name": "workers", "cluster": "prod", "region": "eu-west-1" },
            "limits": { "min_capacity": 2, "max_capacity": 40 },
            "reason": "1 alert resolved", "reverts": ["00000000000000000000000000000001"],
            "a_later_field": { "of": "v1" }
        }
    })
}

/// The document with another value at a JSON pointer; `null` removes it.
fn with(pointer: &str, value: Value) -> String {
    let mut document = document();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = if parent.is_empty() { &mut document } else { document.pointer_mut(parent).unwrap() };
    match value {
        Value::Null => drop(parent.as_object_mut().unwrap().shift_remove(name)),
        value => parent[name] = value,
    }
    document.to_string()
}

#[test]
fn an_event_is_read() {
    let event = ScalingEvent::read(&document().to_string()).unwrap();
    assert_eq!((event.adjustment.value, event.sequence), (-2, 1_795_366_520_062_131));
    assert_eq!(event.limits, Limits { min_capacity: Some(2), max_capacity: Some(40) });
    assert_eq!(event.reverts, ["00000000000000000000000000000001"]);
    assert_eq!(event.expirytime.to_millis_string(), "2026-11-22T17:55:20.062Z");
    // What an event may leave out.
    for pointer in ["/data/limits", "/data/reverts", "/data/reason", "/dataschema"] {
        assert!(ScalingEvent::read(&with(pointer, Value::Null)).is_ok(), "{pointer}");
    }
}

#[test]
fn what_is_not_understood_completely_is_refused_with_the_field() {
    let adjustment = "/data/adjustment";
    let cases = [
        ("/specversion", json!("0.3"), "specversion is `0.3`"),
        ("/specversion", Value::Null, "missing field `specversion`"),
        ("/dataschema", json!("urn:scalebridge:schema:event-data:v2"), "dataschema is"),
        ("/type", json!("io.scalebridge.scale_in.v2"), "type is `io.scalebridge.scale_in.v2`"),
        ("/type", json!("io.scalebridge.notify.v1"), "changes no capacity"),
        ("/type", json!("io.scalebridge.scale_out.v1"), "data.action is `scale_in`"),
        ("/id", json!("0123"), "id is `0123`"),
        ("/id", json!("0123456789ABCDEF0123456789ABCDEF"), "32 hexadecimal digits"),
        ("/id", json!(7), "the event cannot be read"),
        ("/subject", json!("eks/nodegroup/-/eu-west-1/prod/-/other"), "subject is"),
        ("/sequence", json!("-1"), "sequence is `-1`"),
        ("/sequence", json!(7), "the event cannot be read"),
        ("/expirytime", json!("tomorrow"), "expirytime is `tomorrow`"),
        ("/data/adjustment", Value::Null, "data.adjustment is null"),
        (adjustment, json!({ "type": "ChangeInCapacity", "value": 2 }), "data.adjustment of a scale_in"),
        (adjustment, json!({ "type": "ChangeInCapacity", "value": 0 }), "data.adjustment of a scale_in"),
        (adjustment, json!({ "type": "ChangeInCapacity", "value": -2.5 }), "the event cannot be read"),
        (adjustment, json!({ "type": "ChangeInCapacity", "value": -1_000_000_001 }), "data.adjustment of a"),
        (adjustment, json!({ "type": "ExactCapacity", "value": 2 }), "data.adjustment of a scale_in"),
        (adjustment, json!({ "type": "Halve", "value": -2 }), "the event cannot be read"),
        (
            adjustment,
            json!({ "type": "ChangeInCapacity", "value": -2, "min_magnitude": 1 }),
            "min_magnitude is only for",
        ),
        (
            adjustment,
            json!({ "type": "ChangeInCapacity", "value": -2, "allow_decrease": true }),
            "allow_decrease is only",
        ),
        ("/data/limits", json!({ "min_capacity": 5, "max_capacity": 4 }), "data.limits contradict"),
        ("/data/limits", json!({ "min_capacity": -1 }), "the event cannot be read"),
        ("/data/reverts", json!(["x"]), "data.reverts is not a list"),
        ("/data/target/platform", json!("azure"), "the event cannot be read"),
    ];
    for (pointer, value, expected) in cases {
        let text = with(pointer, value.clone());
        let error = ScalingEvent::read(&text).expect_err(pointer).to_string();
        assert!(error.contains(expected), "{pointer} {value}: {error}");
    }
    for text in ["", "null", "[]", "{", "scale out please"] {
        assert!(ScalingEvent::read(text).is_err(), "{text}");
    }
}

#[test]
fn only_the_kinds_of_a_platform_are_scaled() {
    let read = |platform: &str, kind: &str| {
        let mut document = document();
        document["data"]["target"] = json!({ "platform": platform, "kind": kind, "name": "x" });
        document["subject"] = json!(format!("{platform}/{kind}/-/-/-/-/x"));
        ScalingEvent::read(&document.to_string()).map(drop).map_err(|error| error.to_string())
    };
    for (platform, kind) in [
        ("eks", "nodegroup"),
        ("ec2", "autoscaling-group"),
        ("ecs", "service"),
        ("kubernetes", "deployment"),
        ("kubernetes", "nodepools.karpenter.sh"),
        ("nomad", "job"),
    ] {
        assert_eq!(read(platform, kind), Ok(()), "{platform}/{kind}");
    }
    for (platform, kind) in [("eks", "cluster"), ("ec2", "instance"), ("custom", "x"), ("nomad", "node")] {
        let error = read(platform, kind).unwrap_err();
        assert!(error.contains(&format!("data.target is `{platform}/{kind}`")), "{error}");
    }
}

#[test]
fn errors_repeat_no_more_than_the_beginning_of_a_value_on_one_line() {
    let long = format!("a\nb\u{1b}[31m{}", "x".repeat(240_000));
    for pointer in [
        "/specversion",
        "/dataschema",
        "/id",
        "/type",
        "/subject",
        "/sequence",
        "/expirytime",
        "/data/action",
        "/data/target/kind",
        "/data/target/platform",
        "/data/target/name",
        "/data/adjustment/type",
        "/data/reverts",
    ] {
        let error = ScalingEvent::read(&with(pointer, json!(long))).expect_err(pointer).to_string();
        assert!(error.len() < 600 && !error.contains(char::is_control), "{pointer}: {error}");
    }
    let error = ScalingEvent::read(&with("/specversion", json!(long))).unwrap_err().to_string();
    assert!(
        error.starts_with("specversion is `a\\nb\\u{1b}[31mxxx") && error.ends_with("…`; 1.0 is supported"),
        "{error}"
    );
    let error = ScalingEvent::read(&with("/data/target/platform", json!(long))).unwrap_err().to_string();
    assert!(error.contains(" at line 1 column "), "{error}");
}
