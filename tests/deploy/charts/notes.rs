//! NOTES.txt: what it tells an operator to type works.

use std::process::Command;

use super::configuration::{scaler_program, start, with_own_paths};
use super::rendering::{chart_directory, helm, rendering, values_arguments};
use crate::support::bridge::program;
use crate::support::run;

fn notes(values: &[&str]) -> String {
    let mut install = helm();
    install.args(["install", "scalebridge"]).arg(chart_directory());
    install.args(["--namespace", "scalebridge", "--dry-run=client"]).args(values_arguments(values));
    run(&mut install).split_once("\nNOTES:\n").expect("notes").1.to_owned()
}

/// The commands of a program in the notes, in words.
fn commands(notes: &str, name: &str) -> Vec<Vec<String>> {
    let of_program = |line: &str| Some(line.split_once(&format!(" -- {name} "))?.1.to_owned());
    notes.lines().filter_map(of_program).map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

#[tokio::test]
async fn the_commands_of_the_notes_run_in_the_pod() {
    let objects = rendering("chart-default");
    let bridge = start(objects).await;
    let (_, pod) = objects.pods().next().expect("a bridge");
    let commands = commands(&notes(&[]), "scalebridge");
    assert!(commands.len() >= 5, "{commands:?}");
    // `healthcheck` has tests of its own, and asks at the ports of the pod.
    for words in commands.iter().filter(|words| words[0] != "healthcheck") {
        let mut command = Command::new(program());
        // The first pause.
        let words = words.iter().map(|word| if word == "ID" { "1" } else { word });
        command.args(words).env_clear().current_dir(bridge.dir());
        for variable in pod["spec"]["containers"][0]["env"].as_array().expect("variables") {
            let text = |key: &str| variable[key].as_str().expect("a text");
            let value = with_own_paths(text("value"), bridge.dir());
            let value = value.replace("http://localhost:9097", &bridge.admin_url());
            command.env(text("name"), value);
        }
        run(&mut command);
    }
}

#[test]
fn the_commands_for_the_scaler_exist() {
    let commands = commands(&notes(&["scaler.yaml"]), "scalebridge-scaler");
    assert!(!commands.is_empty());
    for words in commands {
        run(Command::new(scaler_program()).args(words).arg("--help"));
    }
}

#[test]
fn the_notes_warn_of_what_is_missing() {
    let plain = notes(&[]);
    for warning in
        ["without a registry", "on the nodes that it scales", "in plain text", "no labels cluster and region"]
    {
        assert!(plain.contains(warning), "{warning}");
    }
    let all = notes(&[
        "scaler.yaml",
        "prometheus-operator.yaml",
        "replicas-postgres.yaml",
        "tests/deploy/charts/everything.yaml",
    ]);
    assert!(!all.contains("WARNING"), "{all}");
    assert!(all.contains("alertmanagerConfigMatcherStrategy"), "{all}");
}
