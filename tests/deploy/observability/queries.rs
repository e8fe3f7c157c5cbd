//! All queries: of the alert rules, of the dashboard and of the runbooks.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::support::prometheus::Release;
use crate::support::{repository, run};

/// The files of alert rules.
pub(super) const RULES: &str = "deploy/observability/scalebridge.rules.yml";

/// A query, with the place where it stands.
#[derive(Debug)]
pub(super) struct Query {
    pub place: String,
    pub text: String,
}

pub(super) fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(super) fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(super) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no text `{key}` in {value:#}"))
}

/// All alert rules.
pub(super) fn rules() -> Vec<Value> {
    let file = yaml(RULES);
    list(&file, "groups").iter().flat_map(|group| list(group, "rules")).cloned().collect()
}

pub(super) fn of_rules() -> Vec<Query> {
    let query =
        |rule: &Value| Query { place: text(rule, "alert").to_owned(), text: text(rule, "expr").to_owned() };
    rules().iter().map(query).collect()
}

pub(super) fn dashboard() -> Value {
    let text = read("deploy/observability/scalebridge.dashboard.json");
    serde_json::from_str(&text).expect("JSON")
}

/// The replicas of the bridge in the tests.
pub(super) const REPLICAS: [&str; 2] = ["bridge-0", "bridge-1"];

/// What Grafana puts in the place of a variable if all values are chosen: `allValue`, else all of them.
fn all_values(variable: &Value) -> (&str, String) {
    let name = text(variable, "name");
    let all = match (variable["allValue"].as_str(), name) {
        (Some(all), _) => all.to_owned(),
        (None, "job") => "(scalebridge)".to_owned(),
        (None, "scaler_job") => "(scalebridge-scaler)".to_owned(),
        (None, "instance") => format!("({})", REPLICAS.join("|")),
        (None, "datasource") => String::new(),
        (None, other) => panic!("no values of ${other}"),
    };
    (name, all)
}

/// The dashboard's, as Grafana sends them if all values of all variables are chosen.
pub(super) fn of_dashboard() -> Vec<Query> {
    let dashboard = dashboard();
    let mut variables: Vec<_> = list(&dashboard["templating"], "list").iter().map(all_values).collect();
    // A name may begin with another one.
    variables.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut found = Vec::new();
    for panel in list(&dashboard, "panels") {
        for target in list(panel, "targets") {
            let mut query = text(target, "expr").replace("$__rate_interval", "1m");
            for (name, all) in &variables {
                query = query.replace(&format!("${name}"), all);
            }
            assert!(!query.contains('$'), "a variable that is not defined: {query}");
            found.push(Query { place: text(panel, "title").to_owned(), text: query });
        }
    }
    found
}

/// The contents of the fenced code blocks of a language.
pub(super) fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// The names of the runbooks of these alerts. Those of the alerts on capacity have other names.
pub(super) fn runbooks() -> BTreeSet<String> {
    let files = fs::read_dir(repository("docs/runbooks")).expect("a directory");
    let names = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
    let names = names.filter_map(|name| name.strip_suffix(".md").map(str::to_owned));
    names.filter(|name| name.starts_with("Scalebridge")).collect()
}

pub(super) fn runbook(name: &str) -> String {
    read(&format!("docs/runbooks/{name}.md"))
}

/// The runbooks': each line of a block is one.
pub(super) fn of_runbooks() -> Vec<Query> {
    let mut found = Vec::new();
    for name in runbooks() {
        for block in blocks(&runbook(&name), "promql") {
            let queries = block.lines().map(|line| Query { place: name.clone(), text: line.to_owned() });
            found.extend(queries);
        }
    }
    found
}

/// Prometheus of both releases can parse every query. A file of recording rules has them all.
#[test]
fn every_query_of_dashboard_and_runbooks_is_promql() {
    let queries: Vec<_> = of_dashboard().into_iter().chain(of_runbooks()).collect();
    assert!(queries.len() > 100, "only {} queries found", queries.len());
    let rules: Vec<Value> = queries
        .iter()
        .enumerate()
        .map(|(at, query)| serde_json::json!({ "record": format!("query_{at}"), "expr": query.text, "labels": { "place": query.place } }))
        .collect();
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("queries.yml");
    // JSON is YAML.
    let groups = serde_json::json!({ "groups": [{ "name": "queries", "rules": rules }] });
    fs::write(&file, groups.to_string()).expect("a file");
    for release in Release::ALL {
        let said = run(release.tool("promtool").args(["check", "rules"]).arg(&file));
        assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");
    }
}
