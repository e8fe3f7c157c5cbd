//! The alert rules: valid, tested, with a severity and a runbook.

use std::collections::BTreeSet;

use serde_json::Value;

use super::queries::{RULES, list, read, rules, runbooks, text, yaml};
use crate::support::prometheus::Release;
use crate::support::{repository, run};

/// Their unit tests.
const TESTS: [&str; 2] = [
    "deploy/observability/scalebridge.rules.test.yml",
    "deploy/observability/scalebridge.rules.days.test.yml",
];
const RUNBOOK_URL: &str = "https://github.com/scalebridge/scalebridge/blob/main/docs/runbooks";

#[test]
fn promtool_accepts_the_rules_and_runs_their_tests() {
    for release in Release::ALL {
        let found = run(release.tool("promtool").args(["check", "rules"]).arg(repository(RULES)));
        assert!(found.contains(&format!("{} rules found", rules().len())), "{found}");
        run(release.tool("promtool").args(["test", "rules"]).args(TESTS.map(repository)));
    }
    let readme = read("deploy/observability/README.md");
    for shown in [format!("promtool check rules {RULES}"), format!("promtool test rules {}", TESTS.join(" "))]
    {
        assert!(readme.contains(&format!("\n{shown}\n")), "the README shows other commands than {shown}");
    }
    assert!(
        readme.contains(&format!(" {} rules in the groups", rules().len())),
        "README: the number of rules"
    );
}

#[test]
fn every_alert_says_how_urgent_it_is_what_has_happened_and_where_the_runbook_is() {
    let rules = rules();
    let mut names = BTreeSet::new();
    for rule in &rules {
        let (name, annotations) = (text(rule, "alert"), &rule["annotations"]);
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(["critical", "warning"].contains(&text(&rule["labels"], "severity")), "{name}");
        assert_eq!(text(annotations, "runbook_url"), format!("{RUNBOOK_URL}/{name}.md"));
        assert!(
            !text(annotations, "summary").contains("{{"),
            "{name}: a summary is the same for all of a group"
        );
        assert!(text(annotations, "description").contains("{{"), "{name}: a description has values");
        // One sample decides nothing: the condition lasts, or the expression looks back.
        assert!(rule["for"].is_string() || text(rule, "expr").contains("[1h]"), "{name}");
    }
    assert_eq!(names, runbooks(), "each alert has a runbook, and each runbook an alert");
}

/// How an alert is tested.
#[derive(Default, Debug, PartialEq)]
struct Coverage {
    fires: bool,
    does_not_fire: bool,
    with_several_instances: bool,
}

fn has_several_instances(test: &Value) -> bool {
    let series = list(test, "input_series").iter().map(|series| text(series, "series"));
    let instances: BTreeSet<&str> = series.filter_map(|series| series.split("instance=").nth(1)).collect();
    instances.len() > 1
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to_fire_with_one_replica_and_with_several() {
    for rule in rules() {
        let name = text(&rule, "alert");
        let mut found = Coverage::default();
        for file in TESTS.map(yaml) {
            for test in list(&file, "tests") {
                for check in list(test, "alert_rule_test").iter().filter(|check| check["alertname"] == name) {
                    let fires = !list(check, "exp_alerts").is_empty();
                    found.fires |= fires;
                    found.does_not_fire |= !fires;
                    found.with_several_instances |= has_several_instances(test);
                }
            }
        }
        let all = Coverage { fires: true, does_not_fire: true, with_several_instances: true };
        assert_eq!(found, all, "{name}");
    }
}
