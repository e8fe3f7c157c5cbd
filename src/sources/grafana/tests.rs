use super::*;
use crate::domain::notification::MAX_ALERT_BYTES;
use crate::domain::notification::Status;
use crate::sources::alertmanager::{MAX_REASON_CHARS, STATE_REASON};

fn fixture(name: &str) -> Notification {
    let path = format!("{}/tests/fixtures/grafana/{name}.json", env!("CARGO_MANIFEST_DIR"));
    parse(&std::fs::read(path).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn alerts(name: &str) -> Vec<Alert> {
    fixture(name).alerts.into_iter().map(|alert| alert.unwrap_or_else(|error| panic!("{error:?}"))).collect()
}

/// The only alert of a body, with these members instead of the usual ones.
fn parse_one(members: &str) -> Result<Alert, InvalidAlert> {
    let usual = r#""labels":{"alertname":"X"},"startsAt":"2026-11-22T16:55:15Z","endsAt":"2026-11-22T17:55:15Z","fingerprint":"f""#;
    let body = format!(r#"{{"version":"1","alerts":[{{{usual},{members}}}]}}"#);
    parse(body.as_bytes()).unwrap().alerts.remove(0)
}

fn rejected(body: &str) -> String {
    parse(body.as_bytes()).unwrap_err().to_string()
}

#[test]
fn every_body_is_read() {
    for (name, count, truncated) in [
        ("12.4/two-firing", 2, 0),
        ("12.4/one-resolved-one-firing", 2, 0),
        ("12.4/truncated", 2, 3),
        ("12.4/datasource-no-data", 1, 0),
        ("12.4/datasource-error", 1, 0),
        ("12.4/test-notification", 1, 0),
        ("9.3/two-firing", 2, 0),
    ] {
        let notification = fixture(name);
        assert!(notification.alerts.iter().all(Result::is_ok), "{name}");
        assert_eq!((notification.alerts.len(), notification.truncated_alerts), (count, truncated), "{name}");
    }
    let envelope = fixture("12.4/two-firing").envelope;
    assert_eq!(envelope.receiver, "scalebridge");
    assert_eq!(envelope.group_key, r#"{}:{alertname="QueueTooLong", grafana_folder="Scaling"}"#);
    assert_eq!((&*envelope.external_url, envelope.reason), ("https://grafana.example/", None));
}

#[test]
fn all_fields_of_an_alert_are_read() {
    let [resolved, firing] = &alerts("12.4/one-resolved-one-firing")[..] else { panic!() };
    assert_eq!((resolved.status, firing.status), (Status::Resolved, Status::Firing));
    assert_eq!(resolved.starts_at.to_string(), "2026-11-22T16:55:10Z");
    assert_eq!(resolved.ends_at.unwrap().to_string(), "2026-11-22T17:01:10Z");
    assert_eq!(firing.ends_at, None, "Grafana sends the zero time");
    assert_eq!(firing.labels.get("queue"), "mails");
    assert_eq!(firing.annotations.get("summary"), "The queue mails is long");
    assert_eq!(&*firing.generator_url, "https://grafana.example/alerting/grafana/ce1/view?orgId=1");
    assert_eq!(&*firing.fingerprint, "7e15a3bd90c2f468");
    assert_eq!((resolved.absence.as_deref(), firing.valid_until), (None, None));
}

#[test]
fn a_resolve_with_a_reason_is_absence_and_a_firing_alert_is_not() {
    for reason in [
        "MissingSeries",
        "NoData",
        "Error",
        "Paused",
        "Updated",
        "RuleDeleted",
        "NoData, KeepLast",
        "NewWord",
    ] {
        let with = |status: &str| {
            let members =
                format!(r#""status":"{status}","annotations":{{"grafana_state_reason":"{reason}"}}"#);
            let alert = parse_one(&members).unwrap();
            assert_eq!(alert.annotations.get(STATE_REASON), reason, "rules can see it");
            alert.absence
        };
        assert_eq!(with("resolved").as_deref(), Some(reason));
        assert_eq!(with("firing"), None, "{reason}");
    }
    for annotations in [r#"{"grafana_state_reason":" "}"#, r#"{"grafana_state_reason":""}"#, "{}", "null"] {
        let members = format!(r#""status":"resolved","annotations":{annotations}"#);
        assert_eq!(parse_one(&members).unwrap().absence, None, "{annotations}");
    }
    let long = format!(
        r#""status":"resolved","annotations":{{"grafana_state_reason":"{}"}}"#,
        "é".repeat(2 * MAX_REASON_CHARS)
    );
    assert_eq!(parse_one(&long).unwrap().absence.unwrap().chars().count(), MAX_REASON_CHARS);
}

#[test]
fn every_reason_that_grafana_gives_has_a_body() {
    for (name, reason) in [
        ("missing-series", "MissingSeries"),
        ("no-data", "NoData"),
        ("error", "Error"),
        ("paused", "Paused"),
        ("updated", "Updated"),
        ("rule-deleted", "RuleDeleted"),
        ("error-keep-last", "Error, KeepLast"),
    ] {
        let alerts = alerts(&format!("12.4/resolved-{name}"));
        assert!(alerts.iter().all(|alert| alert.absence.as_deref() == Some(reason)), "{name}: {alerts:?}");
    }
}

#[test]
fn values_are_annotations() {
    let [alert, _] = &alerts("12.4/two-firing")[..] else { panic!() };
    assert_eq!(alert.annotations.get("value_B"), "44.23943737541908");
    assert_eq!(alert.annotations.get("value_C"), "1");
    assert_eq!(alert.annotations.get("summary"), "The queue orders is long", "beside the others");

    let values = |annotations: &str, values: &str| {
        let members = format!(r#""status":"firing","annotations":{annotations},"values":{values}"#);
        let annotations = parse_one(&members).unwrap().annotations;
        annotations.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        values("{}", r#"{"B":1e+21,"A0":-0.5,"queue length":7}"#),
        "value_A0=-0.5 value_B=1e+21 value_queue length=7"
    );
    assert_eq!(values(r#"{"value_B":"mine"}"#, r#"{"B":1}"#), "value_B=mine");
    assert_eq!(values("{}", r#"{"A":null,"B":"1","C":true,"D":1e999,"E":2}"#), "value_E=2");
    for other in ["null", "[1]", "7", r#""B""#] {
        assert_eq!(values(r#"{"a":"b"}"#, other), "a=b", "{other}");
    }
    let many: Vec<String> = (0..1000).map(|number| format!(r#""R{number}":1"#)).collect();
    assert_eq!(values("{}", &format!("{{{}}}", many.join(","))).split(' ').count(), MAX_VALUES);
}

#[test]
fn a_value_without_data_is_not_shown_as_a_number() {
    for name in ["12.4/datasource-no-data", "12.4/datasource-error"] {
        assert_eq!(alerts(name)[0].annotations.get("value_B"), "", "{name}: it is -1");
    }
    let kept =
        r#""status":"firing","annotations":{"grafana_state_reason":"NoData, KeepLast"},"values":{"B":-1}"#;
    assert_eq!(parse_one(kept).unwrap().annotations.get("value_B"), "");
}

#[test]
fn a_body_of_another_shape_is_rejected_with_its_position_and_the_fix() {
    assert!(rejected("{\"version\":\"1\",\n  oops}").contains("line 2 column 3"));
    assert!(rejected(r#"{"version":"1"}"#).contains("missing field `alerts`"));
    assert!(rejected(r#"{"version":"1","alerts":{}}"#).contains("expected a sequence"));
    assert!(rejected(r#"{"alerts":[]}"#).contains("missing field `version`"));
    for custom in
        ["", "Queue is long", "[]", "null", r#"{"text":"Queue is long"}"#, r#"{"version":"2","alerts":[]}"#]
    {
        assert!(rejected(custom).contains("custom payload"), "{custom}: {}", rejected(custom));
    }
    for body in [r#"{"version":"4","alerts":[]}"#, r#"{"version":"4"}"#] {
        assert!(rejected(body).contains("kind: alertmanager"), "{}", rejected(body));
    }
    let many = format!(r#"{{"version":"1","alerts":[{}1]}}"#, "1,".repeat(MAX_ALERTS));
    assert_eq!(parse(many.as_bytes()), Err(ParseError::TooManyAlerts(MAX_ALERTS + 1)));
    assert!(parse(b"{\"version\":\"1\",\"title\":\"\xff\"}").unwrap_err().to_string().contains("UTF-8"));
}

#[test]
fn an_error_in_one_alert_says_what_and_where() {
    let error = |members: &str| parse_one(members).unwrap_err();
    assert!(error(r#""status":"pending""#).error.contains("`pending`"));
    assert!(error(r#""status":"firing","annotations":{"a":1}"#).error.starts_with("annotations: "));
    assert_eq!(error(r#""status":"pending""#).fingerprint.as_deref(), Some("f"));
    let long = "x".repeat(MAX_ALERT_BYTES);
    assert!(error(&format!(r#""status":"firing","valueString":"{long}""#)).error.contains("bytes"));
    let body = r#"{"version":"1","alerts":["firing",{"status":"resolved","labels":{},"startsAt":"2026-11-22T16:55:15Z",
        "endsAt":"0001-01-01T00:00:00Z","fingerprint":"f"},{"status":"firing","labels":{},"startsAt":"2026-11-22T16:55:15Z"}]}"#;
    let errors: Vec<String> =
        parse(body.as_bytes()).unwrap().alerts.into_iter().map(|alert| alert.unwrap_err().error).collect();
    assert!(errors[0].contains("JSON object"), "{errors:?}");
    assert!(errors[1].contains("endsAt") && errors[2].contains("no fingerprint"), "{errors:?}");
}

#[test]
fn a_field_that_only_informs_may_have_any_type() {
    let body = r#"{"version":"1","alerts":[],"receiver":5,"groupKey":null,"externalURL":[1],"orgId":"x","message":{}}"#;
    let envelope = parse(body.as_bytes()).unwrap().envelope;
    assert_eq!([envelope.receiver, envelope.group_key, envelope.external_url], ["", "", ""]);
}
