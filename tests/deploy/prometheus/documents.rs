//! The README of `deploy/prometheus` and the runbooks of its alerts: their commands run, and Prometheus can read their
//! queries.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{RULES, alerts, text, yaml};
use crate::support::bridge::{Bridge, CONFIG, program};
use crate::support::prometheus::Release;
use crate::support::tools::tool;
use crate::support::{repository, run};

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines of the code blocks of a language.
fn code<'a>(markdown: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("```{language}\n");
    let rests: Vec<&str> = markdown.split(fence.as_str()).skip(1).collect();
    rests.into_iter().flat_map(|rest| rest.split("\n```").next().unwrap_or_default().lines()).collect()
}

/// Runs a command of a document, with the programs under test.
fn run_command(command: &str, bridge: Option<&Bridge>) {
    let promtool = tool("new/promtool").get_program().to_owned();
    let tools = Path::new(&promtool).parent().expect("a directory").display().to_string();
    let command = match command.strip_prefix("scalebridge ") {
        Some(words) => format!("{} {words}", program().display()),
        None => format!("{tools}/{command}"),
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).current_dir(repository(""));
    if let Some(bridge) = bridge {
        shell.env("SCALEBRIDGE_URL", bridge.admin_url());
    }
    run(&mut shell);
}

#[test]
fn the_commands_of_the_readme_run() {
    let readme = read("deploy/prometheus/README.md");
    let commands = code(&readme, "bash");
    assert_eq!(commands.len(), 6);
    for command in commands {
        let is_unknown_to_old = command.starts_with("promtool check config") && Release::New.is_replaced();
        if !is_unknown_to_old {
            run_command(command, None);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_runbooks_run() {
    let mut bridge = Bridge::new(CONFIG, &read("config/rules.yaml"));
    bridge.run().await;
    for alert in alerts(&yaml(RULES)) {
        let page = read(&format!("docs/runbooks/{}.md", text(alert, "alert")));
        for command in code(&page, "bash") {
            run_command(command, Some(&bridge));
        }
    }
}

#[test]
fn prometheus_can_read_the_queries_of_the_runbooks() {
    let mut rules = "groups:\n- name: runbooks\n  rules:\n".to_owned();
    for (number, alert) in alerts(&yaml(RULES)).enumerate() {
        let page = read(&format!("docs/runbooks/{}.md", text(alert, "alert")));
        let queries = code(&page, "promql");
        assert!(!queries.is_empty(), "{}", text(alert, "alert"));
        for (line, query) in queries.iter().enumerate() {
            rules += &format!("  - {{ record: 'q{number}_{line}', expr: '{query}' }}\n");
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("queries.yml");
    fs::write(&file, rules).expect("a file");
    for release in Release::ALL {
        run(release.tool("promtool").args(["check", "rules"]).arg(&file));
    }
}

#[test]
fn each_alert_has_a_runbook_with_the_same_parts() {
    for alert in alerts(&yaml(RULES)) {
        let name = text(alert, "alert");
        let path = format!("docs/runbooks/{name}.md");
        let url = format!("https://github.com/scalebridge/scalebridge/blob/main/{path}");
        assert_eq!(text(&alert["annotations"], "runbook_url"), url);
        let page = read(&path);
        assert!(page.starts_with(&format!("# {name}\n")), "{name}: another title");
        for part in
            ["**Effect.** ", "## First look\n", "## What to do\n", "## When it is wrong\n", "## Escalate\n"]
        {
            assert!(page.contains(&format!("\n{part}")), "{name} has no {part:?}");
        }
        for link in page.split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            assert!(repository("docs/runbooks").join(target).exists(), "{name} links {target}");
        }
    }
}
