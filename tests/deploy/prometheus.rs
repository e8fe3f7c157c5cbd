//! The alert rules for capacity in `deploy/prometheus`, and the rule table in `config` that takes their alerts: Prometheus
//! and Alertmanager accept them, the alerts are what the rules read, and a hold comes before the resolve of an exporter
//! that has died.

mod documents;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::bridge::program;
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::tools::tool;
use crate::support::{repository, run};

const RULES: &str = "deploy/prometheus/capacity.rules.yml";
const TESTS: &str = "deploy/prometheus/capacity.rules.test.yml";
const CONFIG: &str = "config/scalebridge.yaml";
const ALERTMANAGER: &str = "deploy/prometheus/alertmanager.yml";

/// The alert of a deployment that runs: a pipeline sends it, so no rule of Prometheus has it.
const SENT_BY_PIPELINES: &str = "deploy-freeze";

/// A file of the repository in YAML.
fn yaml(path: &str) -> Value {
    let convert = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let text = run(tool("deploy/bin/python").args(["-c", convert]).arg(repository(path)));
    serde_json::from_str(&text).expect("JSON")
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key}: {value}"))
}

/// The alerts of the rules file, without its recording rules.
fn alerts(rules: &Value) -> impl Iterator<Item = &Value> {
    list(&rules["groups"]).flat_map(|group| list(&group["rules"])).filter(|rule| rule["alert"].is_string())
}

on_old_and_new!(rules_and_alertmanager_are_valid_and_the_tests_of_the_rules_pass);

async fn rules_and_alertmanager_are_valid_and_the_tests_of_the_rules_pass(release: Release) {
    run(release.tool("promtool").args(["check", "rules"]).arg(repository(RULES)));
    run(release.tool("promtool").args(["test", "rules"]).arg(repository(TESTS)));
    run(release.tool("amtool").arg("check-config").arg(repository(ALERTMANAGER)));
}

/// Debian's Prometheus 2.42 is built without discovery in Kubernetes, so that only the newest can read this file.
#[test]
fn prometheus_accepts_its_configuration() {
    if !Release::New.is_replaced() {
        let file = repository("deploy/prometheus/prometheus.yml");
        run(Release::New.tool("promtool").args(["check", "config"]).arg(file));
    }
}

#[test]
fn the_bridge_has_no_finding_about_the_example_and_its_alertmanager() {
    let mut check = Command::new(program());
    check.args([
        "check",
        "--deny-warnings",
        "-o",
        "json",
        "--config",
        CONFIG,
        "--alertmanager",
        ALERTMANAGER,
    ]);
    let report: Value =
        serde_json::from_str(&run(check.current_dir(repository("")))).expect("a report in JSON");
    assert_eq!(report["findings"], json!([]));
}

/// The labels and annotations of each alert that promtool has seen firing, as Prometheus sends them: with its name and
/// with the external labels.
fn sent_alerts() -> Vec<Value> {
    let mut found = BTreeMap::new();
    let tests = yaml(TESTS);
    for test in list(&tests["tests"]).filter_map(|test| test["alert_rule_test"].as_array()).flatten() {
        for alert in list(&test["exp_alerts"]) {
            let mut labels =
                json!({ "cluster": "prod-eu", "region": "eu-west-1", "alertname": test["alertname"] });
            let own = alert["exp_labels"].as_object().expect("labels").clone();
            labels.as_object_mut().expect("labels").extend(own);
            let fingerprint = format!("{:016x}", found.len());
            let sent = json!({ "status": "firing", "labels": labels, "annotations": alert["exp_annotations"],
                "fingerprint": fingerprint, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "0001-01-01T00:00:00Z" });
            found.entry(labels.to_string()).or_insert(sent);
        }
    }
    found.into_values().collect()
}

/// What the bridge explains about these alerts in one notification.
fn explained(alerts: &[Value]) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let body = directory.path().join("notification.json");
    let notification = json!({ "version": "4", "status": "firing", "receiver": "scalebridge", "truncatedAlerts": 0,
        "alerts": alerts });
    fs::write(&body, notification.to_string()).expect("a file");
    let mut explain = Command::new(program());
    explain.args(["explain", "-o", "json", "--config", CONFIG]).arg(body).current_dir(repository(""));
    serde_json::from_str(&run(&mut explain)).expect("an explanation in JSON")
}

/// The rules that take an alert.
fn matched(alert: &Value) -> Vec<&str> {
    // A heartbeat does not reach the rules.
    let rules = alert["rules"].as_array().into_iter().flatten();
    rules.filter(|rule| rule["outcome"] == "matched").map(|rule| text(rule, "rule")).collect()
}

#[test]
fn each_alert_is_taken_by_one_rule_and_each_rule_takes_an_alert() {
    let sent = sent_alerts();
    let explanation = explained(&sent);
    let mut used = BTreeSet::new();
    for alert in list(&explanation["alerts"]) {
        let name = text(&alert["labels"], "alertname");
        let matched = matched(alert);
        if name == "Watchdog" {
            assert!(matched.is_empty(), "the heartbeat is taken by {matched:?}");
            continue;
        }
        assert_eq!(matched.len(), 1, "{name} is taken by {matched:?}");
        let is_hold = matched[0].ends_with("-metrics-missing");
        assert_eq!(is_hold, name.ends_with("MetricsMissing"), "{name} is taken by {matched:?}");
        used.insert(matched[0].to_owned());
    }
    let unusable: Vec<_> =
        list(&explanation["decisions"]).filter(|made| made["verdict"] == "invalid").collect();
    assert!(unusable.is_empty(), "{unusable:?}");

    let mut table: BTreeSet<String> =
        list(&yaml("config/rules.yaml")["rules"]).map(|rule| text(rule, "name").to_owned()).collect();
    assert!(table.remove(SENT_BY_PIPELINES));
    assert_eq!(used, table, "rules that take an alert, and all rules");

    let tested: BTreeSet<&str> = sent.iter().map(|alert| text(&alert["labels"], "alertname")).collect();
    let rules = yaml(RULES);
    let written: BTreeSet<&str> = alerts(&rules).map(|alert| text(alert, "alert")).collect();
    assert_eq!(tested, written, "alerts with a test, and all alerts");
}

/// Seconds of a duration such as `10m` or `1h30m`.
fn seconds(duration: &str) -> u64 {
    let mut number = 0;
    let mut total = 0;
    for character in duration.chars() {
        let unit = match character {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            digit => {
                number = number * 10 + u64::from(digit.to_digit(10).expect("a duration"));
                continue;
            }
        };
        total += number * unit;
        number = 0;
    }
    total
}

/// What a decrease may still owe when the bridge remembers it for the last time: the default of `retention.owed`.
const OWED: u64 = 7 * 86_400;

#[test]
fn the_rules_remember_what_had_metrics_for_longer_than_the_bridge_owes() {
    let rules = yaml(RULES);
    let mut memories = 0;
    for rule in list(&rules["groups"]).flat_map(|group| list(&group["rules"])) {
        for after in text(rule, "expr").split("last_over_time(").skip(1) {
            let range = after.split(['[', ']']).nth(1).expect("a range");
            assert!(seconds(range) > OWED, "{rule} remembers {range}");
            memories += 1;
        }
    }
    assert!(memories > 10);
}

/// The longest scrape and evaluation interval that `capacity.rules.yml` counts with.
const INTERVAL: u64 = 60;

/// The longest time between the first datum that is missing and the hold: the route of the missing metrics takes the
/// longer of its two intervals.
fn latest_hold(missing: &Value) -> u64 {
    let routes = yaml(ALERTMANAGER);
    let route = list(&routes["route"]["routes"]).find(|route| {
        list(&route["matchers"]).any(|matcher| matcher.as_str() == Some(r#"alertname =~ ".+MetricsMissing""#))
    });
    let route = route.expect("a route of the missing metrics");
    let sent = seconds(text(route, "group_wait")).max(seconds(text(route, "group_interval")));
    INTERVAL + seconds(text(missing, "for")) + sent
}

/// The arithmetic in the first comment of `capacity.rules.yml`.
#[test]
fn a_hold_begins_before_the_resolve_of_a_dead_exporter_and_ends_after_the_alert_could_fire_again() {
    let (rules, table) = (yaml(RULES), yaml("config/rules.yaml"));
    let is_missing = |alert: &Value| text(alert, "alert").ends_with("MetricsMissing");
    let missing: Vec<&Value> = alerts(&rules).filter(|alert| is_missing(alert)).collect();
    let scaling: Vec<&Value> =
        alerts(&rules).filter(|alert| !is_missing(alert) && alert["keep_firing_for"].is_string()).collect();
    assert!(missing.len() > 10 && scaling.len() > 10);
    for alert in &missing {
        let latest = latest_hold(alert);
        for resolves in &scaling {
            let earliest = seconds(text(resolves, "keep_firing_for"));
            assert!(
                latest < earliest,
                "{alert} is held after {latest}s, {resolves} resolves after {earliest}s"
            );
            // Scrape and evaluation, two samples, the evaluation at which `for` is over, and Alertmanager.
            let again = 5 * INTERVAL + seconds(text(resolves, "for"));
            let kept = seconds(text(alert, "keep_firing_for"));
            assert!(again < kept, "{resolves} fires after {again}s, {alert} ends after {kept}s");
        }
    }
    // What decreases keeps firing; and a rule that decreases waits as long as the comment says.
    let explanation = explained(&sent_alerts());
    for rule in list(&table["rules"]).filter(|rule| rule["on_resolved"].is_object()) {
        assert!(seconds(text(&rule["on_resolved"], "stabilization_window")) >= 900, "{rule}");
        let taken = list(&explanation["alerts"]).filter(|alert| matched(alert).contains(&text(rule, "name")));
        for alert in taken {
            let name = text(&alert["labels"], "alertname");
            assert!(scaling.iter().any(|kept| text(kept, "alert") == name), "{name} has no keep_firing_for");
        }
    }
}
