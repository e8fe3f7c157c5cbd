use super::*;

/// 2026-11-22T17:00:00Z
fn now() -> Time {
    Time::parse("2026-11-22T17:00:00Z").unwrap()
}

/// Parses a body with one alert that has these members.
fn parse_one(members: &str) -> Result<Alert, InvalidAlert> {
    parse(format!("[{{{members}}}]").as_bytes(), now()).unwrap().alerts.remove(0)
}

/// A firing alert with these labels, and what else is given.
fn alert(labels: &str, others: &str) -> Result<Alert, InvalidAlert> {
    parse_one(&format!(r#""labels":{{{labels}}}{others}"#))
}

fn error_of(labels: &str, others: &str) -> InvalidAlert {
    alert(labels, others).unwrap_err()
}

const X: &str = r#""alertname":"X""#;

/// A captured body, and a time at which its firing alerts fire and its resolved ones have ended: between the ends.
fn captured(name: &str, received_at: &str) -> Vec<Alert> {
    let path = format!("{}/tests/fixtures/prometheus/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let notification = parse(&std::fs::read(path).unwrap(), Time::parse(received_at).unwrap()).unwrap();
    notification.alerts.into_iter().map(Result::unwrap).collect()
}

#[test]
fn what_each_sender_sends_is_read() {
    use Status::{Firing, Resolved};
    for (sender, times) in [
        ("2.42", ["2026-11-30T21:07:22Z", "2026-11-30T21:07:26Z", "2026-11-30T21:07:27Z"]),
        ("3.5", ["2026-11-30T21:07:35Z", "2026-11-30T21:07:38Z", "2026-11-30T21:07:39Z"]),
        ("vmalert", ["2026-11-30T21:07:44Z", "2026-11-30T21:07:47Z", "2026-11-30T21:07:48Z"]),
    ] {
        let read = |name: &str, received_at: &str| {
            let mut alerts = captured(&format!("{sender}/{name}"), received_at);
            alerts.sort_by(|a, b| a.labels.get("pod").cmp(b.labels.get("pod")));
            alerts
        };
        let [firing, one_resolved, all_resolved] =
            [read("firing", times[0]), read("one-resolved", times[1]), read("all-resolved", times[2])];
        let statuses = |alerts: &[Alert]| alerts.iter().map(|alert| alert.status).collect::<Vec<_>>();
        assert_eq!(statuses(&firing), [Firing, Firing], "{sender}");
        assert_eq!(statuses(&one_resolved), [Resolved, Firing], "{sender}");
        assert_eq!(statuses(&all_resolved), [Resolved, Resolved], "{sender}");
        for ((one, two), three) in firing.iter().zip(&one_resolved).zip(&all_resolved) {
            assert_eq!([&one.fingerprint, &two.fingerprint], [&two.fingerprint, &three.fingerprint]);
            assert_eq!([one.starts_at, two.starts_at], [two.starts_at, three.starts_at]);
        }
        // Each copy of a firing alert is vouched for longer; the end is the same in each copy.
        assert!(one_resolved[1].valid_until > firing[1].valid_until);
        assert_eq!(one_resolved[0].ends_at, all_resolved[0].ends_at);
        assert_eq!(firing[0].labels.get("pod"), "web-1");
        assert_eq!(firing[0].annotations.get("summary"), "pod web-1 is \"pending\" ✓");
        assert!(firing[0].generator_url.starts_with("http://"), "{sender}");
    }
}

#[test]
fn an_alert_fires_until_its_end_and_has_resolved_from_then_on() {
    let at = |ends_at: &str| {
        let alert =
            alert(X, &format!(r#","startsAt":"2026-11-22T16:55:15.05Z","endsAt":"{ends_at}""#)).unwrap();
        (alert.status, alert.ends_at.map(|at| at.to_string()), alert.valid_until.map(|at| at.to_string()))
    };
    let time = |text: &str| Some(text.to_owned());
    for end in ["2026-11-22T16:59:59.999Z", "2026-11-22T17:00:00Z"] {
        assert_eq!(at(end), (Status::Resolved, time(end), None));
    }
    let end = "2026-11-22T17:00:00.001Z";
    assert_eq!(at(end), (Status::Firing, None, time(end)));
    // With an offset, as vmalert writes it outside of UTC.
    assert_eq!(at("2026-11-22T18:04:00+01:00"), (Status::Firing, None, time("2026-11-22T17:04:00Z")));
}

#[test]
fn what_is_missing_is_taken_as_alertmanager_takes_it() {
    for missing in [
        "",
        r#","startsAt":null,"endsAt":null"#,
        r#","startsAt":"0001-01-01T00:00:00.000Z","endsAt":"0001-01-01T00:00:00Z""#,
    ] {
        let alert = alert(X, missing).unwrap();
        assert_eq!((alert.status, alert.starts_at), (Status::Firing, now()), "{missing}");
        assert_eq!(alert.valid_until, Some(now().after(RESOLVE_TIMEOUT)), "{missing}");
        assert_eq!((alert.annotations.iter().len(), &*alert.generator_url), (0, ""));
    }
    let ended = alert(X, r#","endsAt":"2026-11-22T16:59:00Z""#).unwrap();
    assert_eq!((ended.status, Some(ended.starts_at)), (Status::Resolved, ended.ends_at));
    let fires = alert(X, r#","endsAt":"2026-11-22T17:01:00Z""#).unwrap();
    assert_eq!((fires.status, Some(fires.starts_at)), (Status::Firing, fires.valid_until));
}

#[test]
fn the_fingerprint_is_that_of_the_labels_without_empty_ones() {
    let alert = alert(r#""b":"2","alertname":"X","replica":"","a":"1""#, "").unwrap();
    let names: Vec<&str> = alert.labels.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "alertname", "b"]);
    let pairs = [("a", "1"), ("alertname", "X"), ("b", "2")];
    assert_eq!(*alert.fingerprint, fingerprint::from_labels(pairs));
}

#[test]
fn an_invalid_alert_keeps_what_can_be_read_of_it() {
    let fingerprint = alert(X, "").unwrap().fingerprint.to_string();
    for (others, error) in [
        (r#","startsAt":"soon""#, "startsAt: `soon`"),
        (r#","endsAt":"2026-13-01T00:00:00Z""#, "endsAt: `2026-13"),
        (
            r#","startsAt":"2026-11-22T16:00:01Z","endsAt":"2026-11-22T16:00:00Z""#,
            "endsAt: is before startsAt",
        ),
        (r#","annotations":{"a":1}"#, "annotations: "),
        (r#","generatorURL":7"#, "generatorURL: "),
        (r#","endsAt":7"#, "endsAt: "),
    ] {
        let invalid = error_of(X, others);
        assert!(invalid.error.starts_with(error), "{others}: {}", invalid.error);
        assert_eq!(invalid.fingerprint.as_deref(), Some(&*fingerprint), "{others}");
    }
    let status = |others: &str| error_of(X, others).status;
    assert_eq!(status(r#","startsAt":"soon","endsAt":"2026-11-22T17:01:00Z""#), Some(Status::Firing));
    assert_eq!(status(r#","startsAt":"soon","endsAt":"2026-11-22T16:01:00Z""#), Some(Status::Resolved));
    assert_eq!(status(r#","endsAt":"soon""#), None, "it may fire");
    let start = error_of(X, r#","startsAt":"2026-11-22T16:00:01Z","endsAt":1"#).starts_at;
    assert_eq!(start, Time::parse("2026-11-22T16:00:01Z").ok());
}

#[test]
fn an_alert_without_labels_has_no_identity() {
    for (members, error) in [
        ("", "missing field `labels`"),
        (r#""labels":{}"#, "at least one"),
        (r#""labels":{"a":""}"#, "at least one"),
        (r#""labels":null"#, "labels: "),
        (r#""labels":{"a":1}"#, "labels: "),
        (r#""labels":{"a":"1","a":"2"}"#, "`a` is given twice"),
    ] {
        let invalid = parse_one(members).unwrap_err();
        assert!(invalid.error.contains(error), "{members}: {}", invalid.error);
        assert_eq!(invalid.fingerprint, None, "{members}");
    }
    assert!(error_of(r#""":"1""#, "").error.contains("a name is empty"));
}

#[test]
fn an_error_in_one_alert_does_not_affect_the_others() {
    let long = "x".repeat(MAX_ALERT_BYTES);
    let body =
        format!(r#"[1, {{"labels":{{{X}}}}}, ["a"], {{"labels":{{{X}}},"annotations":{{"a":"{long}"}}}}]"#);
    let alerts = parse(body.as_bytes(), now()).unwrap().alerts;
    assert_eq!(alerts.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, false]);
    let too_long = alerts[3].as_ref().unwrap_err();
    assert!(too_long.error.contains("bytes; the maximum is"), "{}", too_long.error);
    assert_eq!(too_long.fingerprint.as_deref(), Some(&*alerts[1].as_ref().unwrap().fingerprint));
}

#[test]
fn a_body_of_another_shape_is_rejected_with_its_position() {
    let rejected = |body: &str| parse(body.as_bytes(), now()).unwrap_err().to_string();
    assert!(rejected("").contains("line 1 column 0"));
    assert!(rejected("[{\"labels\":{}},\n  oops]").contains("line 2 column 3"));
    assert!(rejected("[").contains("line 1 column 1"));
    assert!(rejected("[] []").contains("trailing characters"));
    for text in ["{}", "null", "7", r#""x""#] {
        assert!(rejected(text).contains("expected a sequence"), "{text}");
    }
    assert!(
        parse(b"[\"\xFF\"]", now()).unwrap_err().to_string().contains("not UTF-8 after its first 2 bytes")
    );
    assert_eq!(parse(b" [ ] ", now()).unwrap().alerts, []);
    let many = format!("[{}1]", "1,".repeat(MAX_ALERTS));
    assert_eq!(parse(many.as_bytes(), now()), Err(ParseError::TooManyAlerts(MAX_ALERTS + 1)));
}
