//! The examples in the documents of chart and manifests are valid, and their commands run.

use std::fs;
use std::process::Command;

use super::rendering::{chart_with, kustomize_with};
use crate::support::bridge::program;
use crate::support::{repository, run};

fn document(path: &str) -> String {
    fs::read_to_string(repository(path)).expect("a document")
}

/// The first block of a language after a text.
fn block<'a>(document: &'a str, after: &str, language: &str) -> &'a str {
    let (_, rest) = document.split_once(after).unwrap_or_else(|| panic!("the document has no {after:?}"));
    let (_, rest) = rest.split_once(&format!("```{language}\n")).expect("a block");
    rest.split("```").next().unwrap_or_default()
}

#[test]
fn the_values_of_the_readme_are_accepted() {
    let readme = document("deploy/helm/README.md");
    let values = block(&readme, "A small `values.yaml`", "yaml");
    let dir = tempfile::tempdir().expect("a directory");
    let (file, rules) = (dir.path().join("values.yaml"), dir.path().join("rules.yaml"));
    fs::write(&file, values).expect("a file");
    fs::create_dir(dir.path().join("config")).expect("a directory");
    fs::copy(repository("config/rules.yaml"), dir.path().join("config/rules.yaml")).expect("the rules");
    let step = readme.lines().find(|line| line.starts_with("sed ")).expect("a step for the rules");
    run(Command::new("sh").args(["-ec", step]).current_dir(dir.path()));
    let objects = chart_with(&file, &format!("rules.rules\\.yaml={}", rules.display()));
    super::configuration::assert_accepted("README", &objects);
    // Step 1 creates the Secrets.
    let (_, pod) = objects.pods().next().expect("a bridge");
    let secrets = pod["spec"]["volumes"].as_array().expect("volumes").iter();
    for secret in secrets.filter_map(|volume| volume["secret"]["secretName"].as_str()) {
        assert!(readme.contains(&format!("create secret generic {secret} ")), "{secret} is missing");
    }
}

/// A source of one cluster of several can be about what has no cluster, with the patterns of its comment.
#[test]
fn alerts_on_what_has_no_cluster_need_the_patterns_of_the_comment() {
    let dir = tempfile::tempdir().expect("a directory");
    let overlay = repository("deploy/kubernetes/overlays/several-clusters/config");
    run(Command::new("cp").arg("-r").arg(overlay).arg(dir.path()));
    let source = dir.path().join("config/source-prod-eu.yaml");
    let text = fs::read_to_string(&source).expect("a source");
    let patterns = text.lines().find_map(|line| line.trim().strip_prefix("#   \"")).expect("patterns");
    let explain = |labels: &str| {
        let mut explain = Command::new(program());
        explain
            .args(["explain", "--source", "prod-eu", "--config"])
            .arg(dir.path().join("config/scalebridge.yaml"));
        run(explain.args(labels.split(' '))).contains("beyond")
    };
    let alerts = [
        "alertname=AutoScalingGroupCpuHigh asg=a",
        "alertname=AutoScalingGroupMetricsMissing platform=ec2",
        "alertname=EcsServiceCpuHigh ecs_cluster=platform service=a",
        "alertname=EcsServiceMetricsMissing platform=ecs",
        "alertname=SubnetAddressesLow subnet_id=a",
        "alertname=SubnetMetricsMissing platform=custom",
    ];
    for alert in alerts {
        assert!(explain(alert), "{alert}");
    }
    fs::write(&source, text.replace("prod-eu/*/*\"]", &format!("prod-eu/*/*\", \"{patterns}]")))
        .expect("a source");
    for alert in alerts.into_iter().chain(["alertname=KubePodUnschedulable nodegroup=a"]) {
        assert!(!explain(alert), "{alert}");
    }
}

#[test]
fn the_overlay_of_the_readme_is_valid() {
    let readme = document("deploy/kubernetes/README.md");
    let overlay = block(&readme, "## Install", "yaml");
    // A copy, instead of a checkout by git.
    let overlay = overlay.replace("github.com/scalebridge/scalebridge/deploy/kubernetes/", "../");
    let overlay = overlay.replace("?ref=v0.1.0", "");
    let files = ["scalebridge.yaml", "rules.yaml"];
    let objects =
        kustomize_with(&overlay, &files.map(|name| (name, format!("overlays/eks-irsa/config/{name}"))));
    super::configuration::assert_accepted("README", &objects);
    let (_, pod) = objects.pods().next().expect("a bridge");
    let image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/scalebridge:0.1.0";
    assert_eq!(pod["spec"]["containers"][0]["image"], image);
}

#[test]
fn the_commands_of_the_readme_run() {
    let readme = document("deploy/kubernetes/README.md");
    let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("scalebridge ")).collect();
    assert_eq!(commands.len(), 2);
    for command in commands {
        run(Command::new(program()).args(command.split(' ')).current_dir(repository("")));
    }
}
