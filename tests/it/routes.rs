//! Alertmanager's route trees lead where `check` says: compared with `amtool config routes test`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::seed;
use crate::support::tools::tool;

const LABELS: [(&str, [&str; 4]); 3] = [
    ("alertname", ["A", "AB", "BA", "C"]),
    ("severity", ["", "warning", "critical", "info"]),
    ("team", ["", "a", "b", "ab"]),
];

/// Trees that are compared.
const TREES: usize = 8;

type Alert = BTreeMap<&'static str, &'static str>;

/// All combinations of the values of all labels.
fn alerts() -> Vec<Alert> {
    let mut all = vec![Alert::new()];
    for (label, values) in LABELS {
        let with = |alert: &Alert, value| {
            let mut alert = alert.clone();
            alert.insert(label, value);
            alert
        };
        all = all.iter().flat_map(|alert| values.map(|value| with(alert, value))).collect();
    }
    all
}

/// A matcher in one of the ways in which it can be written.
fn matcher(random: &mut fastrand::Rng) -> String {
    let (label, values) = *random.choice(&LABELS).expect("a label");
    let value = random.choice(values).expect("a value");
    let other = random.choice(values).expect("a value");
    match random.u8(0..8) {
        0..3 => format!("{label}={value}"),
        3 => format!("{label} != \"{value}\""),
        4 => format!("{label}=~{value}|{other}"),
        5 => format!("{label} !~ \"{value}|{other}\""),
        6 => format!("{label}=~\".*{value}\""),
        _ => format!("{label}=~\"{value}.+\""),
    }
}

/// A generated tree.
struct Tree {
    text: String,
    /// The lines on which routes begin, with their receivers.
    lines: BTreeMap<u64, String>,
}

/// Writes a route and its children. Every third receiver is the bridge.
fn write_route(tree: &mut Tree, random: &mut fastrand::Rng, indent: usize, depth: usize) {
    let line = tree.text.lines().count() as u64 + 1;
    let receiver = format!("{}{}", if random.u8(0..3) == 0 { "bridge" } else { "r" }, tree.lines.len());
    let start = if depth == 0 { "route:\n  " } else { "- " };
    let space = " ".repeat(indent);
    let _ = writeln!(
        tree.text,
        "{}{start}receiver: {receiver}",
        if depth == 0 { "" } else { &space[..indent - 2] }
    );
    tree.lines.insert(line + u64::from(depth == 0), receiver);
    if depth > 0 {
        let matchers: Vec<String> =
            (0..random.usize(0..3)).map(|_| format!("'{}'", matcher(random))).collect();
        let continues = random.choice(["yes", "no", "true", "off"]).expect("a word");
        let _ =
            writeln!(tree.text, "{space}matchers: [{}]\n{space}continue: {continues}", matchers.join(", "));
    }
    let children = if depth < 3 { random.usize(0..4 - depth) + usize::from(depth == 0) } else { 0 };
    if children > 0 {
        let _ = writeln!(tree.text, "{space}routes:");
    }
    for _ in 0..children {
        write_route(tree, random, indent + 4, depth + 1);
    }
}

fn generate(random: &mut fastrand::Rng) -> Tree {
    let mut tree = Tree { text: String::new(), lines: BTreeMap::new() };
    write_route(&mut tree, random, 2, 0);
    let mut receivers = "receivers:\n".to_owned();
    for receiver in tree.lines.values() {
        let _ = writeln!(receivers, "- name: {receiver}");
        if receiver.starts_with("bridge") {
            receivers += "  webhook_configs: [{ url: 'http://bridge:9096/webhook/main' }]\n";
        }
    }
    tree.text += &receivers;
    tree
}

/// A rule for each alert, and one for each label without any matcher of it.
fn rules(alerts: &[Alert]) -> BTreeMap<String, Alert> {
    let mut rules = BTreeMap::new();
    for (index, alert) in alerts.iter().enumerate() {
        rules.insert(format!("exact-{index}"), alert.clone());
        for (label, _) in LABELS {
            let mut open = alert.clone();
            open.remove(label);
            rules.insert(format!("any-{label}-{index}"), open);
        }
    }
    rules
}

fn write_bridge(directory: &Path, rules: &BTreeMap<String, Alert>) {
    let config =
        "sources: { main: {} }\ndestinations: { journal: { file: { path: '-' } } }\nrules: [rules.yaml]\n";
    fs::write(directory.join("scalebridge.yaml"), config).expect("a file");
    let mut text = "rules:\n".to_owned();
    for (name, labels) in rules {
        let matchers: Vec<String> =
            labels.iter().map(|(label, value)| format!("'{label} = \"{value}\"'")).collect();
        let _ = writeln!(
            text,
            "- {{ name: {name}, matchers: [{}], continue: true, send_to: [journal], on_firing: {{ notify: {{}} }}, \
             target: {{ platform: custom, kind: x, name: x }} }}",
            matchers.join(", ")
        );
    }
    fs::write(directory.join("rules.yaml"), text).expect("a file");
}

/// What `check` reports: for each rule, the lines of the routes, and whether all of its alerts take them.
fn reported(directory: &Path) -> BTreeMap<String, (BTreeSet<u64>, bool)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scalebridge"));
    command.args([
        "check",
        "--format",
        "json",
        "--config",
        "scalebridge.yaml",
        "--alertmanager",
        "alertmanager.yml",
    ]);
    let output = command.current_dir(directory).output().expect("scalebridge");
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let mut found: BTreeMap<String, (BTreeSet<u64>, bool)> = BTreeMap::new();
    for finding in report["findings"].as_array().expect("a list") {
        let message = finding["message"].as_str().expect("a text");
        if finding["code"] == "W012" {
            let rule = message.split('`').nth(1).expect("a rule").to_owned();
            let (lines, is_whole) = found.entry(rule).or_default();
            lines.insert(finding["line"].as_u64().expect("a line"));
            *is_whole |= message.starts_with("no route");
        } else if finding["code"] == "E021" {
            found.insert(String::new(), (BTreeSet::new(), true));
        }
    }
    found
}

/// The receivers of an alert.
fn receivers(directory: &Path, alert: &Alert) -> Vec<String> {
    let mut amtool = tool("bin/amtool");
    amtool.args(["config", "routes", "test", "--config.file=alertmanager.yml"]).current_dir(directory);
    amtool.args(alert.iter().map(|(label, value)| format!("{label}=\"{value}\"")));
    let output = amtool.output().expect("amtool");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    // Warnings about matchers come before the receivers.
    let receivers = text.trim().lines().last().unwrap_or_default();
    receivers.split(',').map(str::to_owned).collect()
}

/// Compares what `check` reports about each rule with the routes of the alerts that it matches.
#[test]
fn alerts_take_the_routes_that_amtool_says() {
    let mut random = fastrand::Rng::with_seed(seed());
    let alerts = alerts();
    let rules = rules(&alerts);
    let (mut whole, mut partial) = (0, 0);
    for _ in 0..TREES {
        let directory = tempfile::tempdir().expect("a directory");
        let tree = generate(&mut random);
        fs::write(directory.path().join("alertmanager.yml"), &tree.text).expect("a file");
        write_bridge(directory.path(), &rules);
        let found = reported(directory.path());
        let taken: Vec<Vec<String>> = alerts.iter().map(|alert| receivers(directory.path(), alert)).collect();
        let reaches = |index: &usize| taken[*index].iter().any(|receiver| receiver.starts_with("bridge"));
        if found.contains_key("") {
            assert!(
                (0..alerts.len()).all(|index| !reaches(&index)),
                "E021, but alerts arrive:\n{}",
                tree.text
            );
            continue;
        }
        for (rule, labels) in &rules {
            let matches = |alert: &Alert| labels.iter().all(|(label, value)| alert[label] == *value);
            let own: Vec<usize> = (0..alerts.len()).filter(|index| matches(&alerts[*index])).collect();
            let lost: Vec<usize> = own.iter().copied().filter(|index| !reaches(index)).collect();
            let (lines, is_whole) = found.get(rule).cloned().unwrap_or_default();
            let context = || format!("{rule} ({labels:?}), reported {lines:?}, {taken:?}:\n{}", tree.text);
            // A rule without a matcher of a label also takes alerts with other values than those here.
            let is_exact = labels.len() == LABELS.len();
            assert!(lost.is_empty() || !lines.is_empty(), "nothing is reported about {}", context());
            assert!(
                !is_exact || lines.is_empty() || !lost.is_empty(),
                "reported without cause: {}",
                context()
            );
            assert!(!is_whole || lost.len() == own.len(), "some arrive: {}", context());
            assert!(is_whole || !is_exact || lines.is_empty(), "all of them are lost: {}", context());
            if is_exact && let [index] = lost[..] {
                let last = taken[index].last();
                assert!(
                    lines.iter().all(|line| tree.lines.get(line) == last),
                    "another route: {}",
                    context()
                );
            }
            whole += usize::from(is_whole);
            partial += usize::from(!is_whole && !lines.is_empty());
        }
    }
    assert!(whole > 20 && partial > 20, "the trees are too simple: {whole} and {partial} findings");
}
