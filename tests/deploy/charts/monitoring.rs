//! The objects of prometheus-operator lead to the right Prometheus jobs, rules and routes.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Output};

use regex::Regex;
use serde_json::{Value, json};

use super::configuration::{files_with, with_own_paths, write_secrets};
use super::rendering::{Objects, charts, rendering};
use crate::support::bridge::program;
use crate::support::tools::tool;
use crate::support::{repository, run};

#[test]
fn each_service_monitor_selects_one_service_and_gives_it_the_name_of_its_job() {
    for (name, monitor, job) in [
        ("chart-prometheus-operator", "scalebridge", "scalebridge"),
        ("chart-everything", "scalebridge", "scalebridge"),
        ("chart-everything", "scalebridge-scaler", "scalebridge-scaler"),
        ("all-components", "scalebridge-scaler", "scalebridge-scaler"),
    ] {
        let objects = rendering(name);
        let spec = &objects.find("ServiceMonitor", monitor).expect("a ServiceMonitor")["spec"];
        let wanted = spec["selector"]["matchLabels"].as_object().expect("labels");
        let is_selected = |service: &&Value| {
            wanted.iter().all(|(label, value)| service["metadata"]["labels"][label] == *value)
        };
        let services: Vec<&Value> = objects.of_kind("Service").filter(is_selected).collect();
        assert_eq!(services.len(), 1, "{name} {monitor}");
        let label = spec["jobLabel"].as_str().expect("a label");
        assert_eq!(services[0]["metadata"]["labels"][label], job, "{name} {monitor}");
        assert_eq!(services[0]["spec"]["ports"][0]["name"], spec["endpoints"][0]["port"], "{name} {monitor}");
    }
}

#[test]
fn prometheus_scrapes_with_a_token_that_the_bridge_knows() {
    for name in ["chart-prometheus-operator", "chart-everything", "all-components"] {
        let objects = rendering(name);
        let monitor = objects.find("ServiceMonitor", "scalebridge").expect("a ServiceMonitor");
        let credentials = &monitor["spec"]["endpoints"][0]["authorization"]["credentials"];
        assert_token(objects, name, credentials, "token_file: ");
        let config = objects.find("AlertmanagerConfig", "scalebridge").expect("an AlertmanagerConfig");
        let webhook = &config["spec"]["receivers"][0]["webhookConfigs"][0];
        assert_token(objects, name, &webhook["httpConfig"]["authorization"]["credentials"], "- ");
    }
}

/// The key of the Secret is a file in the pod, which the configuration names.
fn assert_token(objects: &Objects, name: &str, credentials: &Value, before: &str) {
    let mut pods = objects.pods().filter(|(workload, _)| workload.ends_with("/scalebridge"));
    let spec = &pods.next().expect("a bridge").1["spec"];
    let volume =
        list_of(spec, "volumes").find(|volume| volume["secret"]["secretName"] == credentials["name"]);
    let volume = volume.unwrap_or_else(|| panic!("{name}: no volume has the Secret of {credentials}"));
    let mount = list_of(&spec["containers"][0], "volumeMounts").find(|mount| mount["name"] == volume["name"]);
    let directory = mount.expect("a mount")["mountPath"].as_str().expect("a path");
    let line = format!("{before}{directory}/{}", credentials["key"].as_str().expect("a key"));
    let config = files_with(objects, "scalebridge.yaml")["scalebridge.yaml"].as_str().expect("a text");
    assert!(config.contains(&line), "{name}: {line:?} is not in {config}");
}

fn list_of<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().expect("a list").iter()
}

/// The names of the groups of capacity alerts.
fn capacity_groups(objects: &Objects) -> BTreeSet<&str> {
    let groups = objects.of_kind("PrometheusRule").flat_map(|rule| list_of(&rule["spec"], "groups"));
    groups.filter_map(|group| group["name"].as_str()).filter(|name| name.starts_with("capacity-")).collect()
}

#[test]
fn alerts_on_capacity_are_installed_without_those_of_further_exporters_unless_they_are_named() {
    let operator = rendering("chart-prometheus-operator");
    let usual = BTreeSet::from(["capacity-watchdog", "capacity-eks-pods", "capacity-eks-nodes"]);
    assert_eq!(capacity_groups(operator), usual);
    // Each cluster with kube-state-metrics and node_exporter has these metrics, so no hold lasts for ever.
    let further = Regex::new(r"\b(aws_|awscni_|nomad_)").expect("a pattern");
    for rule in operator.of_kind("PrometheusRule") {
        assert!(!further.is_match(&rule["spec"].to_string()), "{rule}");
    }
    let named = BTreeSet::from(["capacity-watchdog", "capacity-ecs"]);
    assert_eq!(capacity_groups(rendering("chart-everything")), named);
    let none = ["[]", "false"].map(|none| format!("prometheusRule.capacity={none}"));
    let none = none.each_ref().map(|none| ["--set-json", none.as_str()]);
    let none: Vec<&[&str]> = none.iter().map(<[&str; 2]>::as_slice).collect();
    for objects in charts(&["prometheus-operator.yaml"], &none) {
        assert_eq!(capacity_groups(&objects), BTreeSet::new());
        assert!(objects.of_kind("PrometheusRule").next().is_some(), "the alerts on the bridge stay");
    }
    let file = fs::read_to_string(repository("deploy/prometheus/capacity.rules.yml")).expect("rules");
    let all: BTreeSet<&str> = file.lines().filter_map(|line| line.strip_prefix("  - name: ")).collect();
    assert_eq!(capacity_groups(rendering("all-components")), all, "each group is a component");
}

#[test]
fn promtool_accepts_the_rules() {
    for rule in rendering("all-components").of_kind("PrometheusRule") {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("rules.yml");
        fs::write(&file, rule["spec"].to_string()).expect("a file");
        run(tool("new/promtool").args(["check", "rules"]).arg(file));
    }
}

/// The routes that prometheus-operator makes of the object for Alertmanager, with a matcher for its namespace if wanted.
fn alertmanager_file(objects: &Objects, has_namespace_matcher: bool) -> Value {
    let config = objects.find("AlertmanagerConfig", "scalebridge").expect("an AlertmanagerConfig");
    let mut route = route(&config["spec"]["route"]);
    if has_namespace_matcher {
        let namespace = config["metadata"]["namespace"].as_str().expect("a namespace");
        let matchers = route["matchers"].as_array_mut().expect("matchers");
        matchers.push(format!("namespace=\"{namespace}\"").into());
    }
    let webhook = &config["spec"]["receivers"][0]["webhookConfigs"][0];
    let receiver = json!({ "name": "scalebridge", "webhook_configs": [{
        "url": webhook["url"],
        "send_resolved": webhook["sendResolved"],
        "http_config": { "authorization": { "credentials_file": "/etc/token" } },
    }] });
    json!({ "route": { "receiver": "none", "routes": [route] }, "receivers": [{ "name": "none" }, receiver] })
}

fn route(route: &Value) -> Value {
    let matcher = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        format!("{}{}\"{}\"", text("name"), text("matchType"), text("value"))
    };
    let matchers: Vec<String> = route["matchers"].as_array().into_iter().flatten().map(matcher).collect();
    let routes: Vec<Value> = route["routes"].as_array().into_iter().flatten().map(self::route).collect();
    let mut file = json!({ "receiver": route["receiver"], "matchers": matchers, "routes": routes });
    for (from, to) in [
        ("groupBy", "group_by"),
        ("groupWait", "group_wait"),
        ("groupInterval", "group_interval"),
        ("repeatInterval", "repeat_interval"),
    ] {
        if !route[from].is_null() {
            file[to] = route[from].clone();
        }
    }
    file
}

/// `scalebridge check --alertmanager` on the bridge and the routes of a rendering.
fn check(objects: &Objects, has_namespace_matcher: bool) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, text) in files_with(objects, "scalebridge.yaml") {
        let text = text.as_str().expect("a text");
        write_secrets(text, dir.path());
        fs::write(dir.path().join(name), with_own_paths(text, dir.path())).expect("a file");
    }
    let routes = alertmanager_file(objects, has_namespace_matcher).to_string();
    fs::write(dir.path().join("alertmanager.yml"), routes).expect("a file");
    let mut check = Command::new(program());
    check.args(["check", "--output", "json", "--config", "scalebridge.yaml"]);
    check.args(["--alertmanager", "alertmanager.yml"]).current_dir(dir.path());
    check.output().expect("the bridge")
}

fn findings(done: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&done.stdout).expect("a report");
    let findings = report["findings"].as_array().expect("a list");
    let is_about_routes =
        |one: &&Value| one["file"].as_str().is_some_and(|file| file.contains("alertmanager"));
    findings.iter().filter(is_about_routes).cloned().collect()
}

#[test]
fn the_routes_suit_the_bridge_and_a_matcher_of_the_namespace_does_not() {
    for name in ["chart-prometheus-operator", "all-components"] {
        let done = check(rendering(name), false);
        assert!(done.status.success() && findings(&done).is_empty(), "{name}: {:#?}", findings(&done));
        let limited = findings(&check(rendering(name), true));
        let is_of_heartbeat =
            |one: &Value| one["message"].as_str().is_some_and(|text| text.contains("heartbeat"));
        assert!(limited.iter().any(is_of_heartbeat), "{name}: {limited:#?}");
    }
}
