//! The structure of the Grafana dashboard.

use std::collections::BTreeSet;

use serde_json::Value;

use super::queries::{dashboard, list, read, text};
use crate::support::tools::tool;
use crate::support::{repository, run};

#[test]
fn the_dashboard_is_what_its_script_prints() {
    let script = repository("deploy/observability/dashboard.py");
    let printed = run(tool("venv/bin/python").arg("-B").arg(script));
    let file = read("deploy/observability/scalebridge.dashboard.json");
    assert!(
        printed == file,
        "run deploy/observability/dashboard.py > deploy/observability/scalebridge.dashboard.json"
    );
}

#[test]
fn every_panel_has_a_query_a_unit_and_a_description() {
    let dashboard = dashboard();
    let mut ids = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        let title = text(panel, "title");
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title} has the id of another panel");
        if panel["type"] == "row" {
            continue;
        }
        assert!(text(panel, "description").ends_with('.'), "{title}");
        assert!(!text(&panel["fieldConfig"]["defaults"], "unit").is_empty(), "{title}");
        assert!(!list(panel, "targets").is_empty(), "{title} has no query");
        let names: BTreeSet<&str> =
            list(panel, "targets").iter().map(|target| text(target, "refId")).collect();
        assert_eq!(names.len(), list(panel, "targets").len(), "{title}: two queries have one refId");
    }
    assert!(ids.len() > 40, "only {} panels", ids.len());
    assert!(dashboard["schemaVersion"].as_u64() >= Some(39), "Grafana 10.4");
}

/// Each object with the key `datasource`.
fn datasources<'v>(value: &'v Value, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("datasource"));
            fields.values().for_each(|value| datasources(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| datasources(value, found)),
        _ => {}
    }
}

#[test]
fn the_data_source_is_the_variable_everywhere() {
    let dashboard = dashboard();
    let mut found = Vec::new();
    datasources(&dashboard, &mut found);
    assert!(found.len() > 90, "only {} found", found.len());
    for datasource in found {
        assert_eq!(
            (&datasource["type"], &datasource["uid"]),
            (&"prometheus".into(), &"${datasource}".into())
        );
    }
    let first = &list(&dashboard["templating"], "list")[0];
    assert_eq!((&first["name"], &first["type"]), (&"datasource".into(), &"datasource".into()));
}

#[test]
fn every_variable_is_used() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].to_string();
    for variable in list(&dashboard["templating"], "list") {
        let name = text(variable, "name");
        let is_used = panels.contains(&format!("${name}")) || panels.contains(&format!("${{{name}}}"));
        assert!(is_used, "no query uses ${name}");
    }
}

/// Grafana would move panels that lie over each other.
#[test]
fn panels_do_not_overlap() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "panels") {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a number"));
        assert!(x + w <= 24, "{}", text(panel, "title"));
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies over another panel", text(panel, "title"));
        }
    }
}
