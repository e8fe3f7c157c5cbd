//! `deploy/nomad`: jobs in valid HCL, with the blocks and settings that Nomad has, that keep the store safe.
//!
//! There is no program of Nomad here: the syntax is checked by a parser of HCL, names by the list below.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::support::bridge::program;
use crate::support::scaler::scaler_program;
use crate::support::tools::tool;
use crate::support::{assert_checked, copy_with_rules, repository, run};

/// The settings and blocks of each block, from Nomad's job specification.
const SETTINGS: [(&str, &str); 16] = [
    ("", "variable job"),
    ("variable", "type default description"),
    ("job", "datacenters type priority group namespace region constraint"),
    ("group", "count volume update disconnect restart network service task constraint reschedule"),
    ("volume", "type source read_only access_mode attachment_mode per_alloc sticky"),
    (
        "update",
        "max_parallel canary health_check min_healthy_time healthy_deadline progress_deadline auto_revert auto_promote \
         stagger",
    ),
    ("disconnect", "lost_after replace reconcile stop_on_client_after"),
    ("restart", "attempts interval delay mode"),
    ("network", "mode port"),
    ("port", "static to host_network"),
    ("service", "name port provider tags address_mode check"),
    ("check", "name type path protocol interval timeout tls_skip_verify check_restart"),
    ("check_restart", "limit grace ignore_warnings"),
    ("task", "driver user kill_timeout kill_signal config volume_mount template resources env identity"),
    ("volume_mount", "volume destination read_only"),
    ("resources", "cpu memory memory_max cores"),
];
const TEMPLATE: &str =
    "data destination change_mode change_signal perms uid gid left_delimiter right_delimiter source";
/// Of the driver `docker`, which has its own.
const CONFIG: &str = "image ports args readonly_rootfs cap_drop security_opt";

const JOBS: [&str; 2] = ["scalebridge", "scalebridge-scaler"];

const PARSE: &str = "
import hcl2, json, sys
options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True)
print(json.dumps(hcl2.load(open(sys.argv[1]), serialization_options=options)))
";

/// The jobs. The parser is slow, so that it runs once for all tests.
static PARSED: LazyLock<BTreeMap<&str, Value>> = LazyLock::new(|| {
    let parse = |name: &str| {
        let file = repository(&format!("deploy/nomad/{name}.nomad.hcl"));
        let printed = run(tool("deploy/bin/python").args(["-c", PARSE]).arg(file));
        serde_json::from_str(&printed).expect("JSON")
    };
    JOBS.into_iter().map(|name| (name, parse(name))).collect()
});

fn parse(name: &str) -> &Value {
    &PARSED[name]
}

/// Blocks by name: without a label as they are, with one inside an object whose key is the label.
fn check_names(block: &str, content: &Value, names: &BTreeMap<&str, &str>) {
    let known: Vec<&str> = names[block].split_whitespace().collect();
    for (key, value) in content.as_object().expect("a block") {
        if key == "__is_block__" {
            continue;
        }
        assert!(known.contains(&key.as_str()), "`{block}` has no `{key}`");
        for inner in value.as_array().into_iter().flatten().filter(|inner| inner.is_object()) {
            match inner.get("__is_block__") {
                Some(_) => check_names(key, inner, names),
                None => inner
                    .as_object()
                    .expect("a label")
                    .values()
                    .for_each(|inner| check_names(key, inner, names)),
            }
        }
    }
}

/// The only block of this name, with its label if it has one.
fn only<'v>(content: &'v Value, block: &str) -> &'v Value {
    let blocks = content[block].as_array().unwrap_or_else(|| panic!("no `{block}`"));
    assert_eq!(blocks.len(), 1, "{block}");
    match blocks[0].get("__is_block__") {
        Some(_) => &blocks[0],
        None => blocks[0].as_object().and_then(|labelled| labelled.values().next()).expect("a label"),
    }
}

fn group(job: &Value) -> &Value {
    only(only(job, "job"), "group")
}

fn seconds(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.strip_suffix('s')).expect("seconds");
    text.parse().expect("a number")
}

#[test]
fn the_jobs_are_valid_hcl_with_names_that_nomad_has() {
    let names = SETTINGS.into_iter().chain([("template", TEMPLATE), ("config", CONFIG)]).collect();
    for name in JOBS {
        check_names("", parse(name), &names);
    }
}

#[test]
fn two_allocations_never_share_the_store() {
    let job = parse("scalebridge");
    let group = group(job);
    assert_eq!(group["count"], 1);
    let update = only(group, "update");
    assert_eq!(
        (&update["max_parallel"], &update["canary"]),
        (&json!(1), &json!(0)),
        "the old one stops first"
    );
    assert_eq!(only(group, "disconnect")["replace"], false, "a node that is not heard may still run it");
    assert_eq!(only(group, "volume")["type"], "host");
    let mounted = only(only(group, "task"), "volume_mount");
    assert_eq!(mounted["destination"], "/var/lib/scalebridge");
    let config = fs::read_to_string(repository("deploy/nomad/scalebridge.yaml")).expect("a configuration");
    assert!(config.contains("sqlite: { path: /var/lib/scalebridge/"), "on the volume");
}

#[test]
fn a_check_of_readiness_restarts_nothing_and_tasks_may_finish() {
    for name in JOBS {
        let job = parse(name);
        let services = group(job)["service"].as_array().expect("services").clone();
        let restarts: BTreeMap<&str, bool> = services[0]["check"]
            .as_array()
            .expect("checks")
            .iter()
            .map(|check| (check["path"].as_str().expect("a path"), check.get("check_restart").is_some()))
            .collect();
        assert_eq!(restarts, BTreeMap::from([("/-/healthy", true), ("/-/ready", false)]), "{name}");
        let task = only(group(job), "task");
        assert_eq!(
            (&task["user"], &only(task, "config")["readonly_rootfs"]),
            (&json!("65532:65532"), &json!(true))
        );
        // Above the drain of 25 seconds, and not above what clients allow unless they are configured.
        assert!((26..=30).contains(&seconds(&task["kill_timeout"])), "{name}");
    }
    let config = fs::read_to_string(repository("deploy/nomad/scalebridge.yaml")).expect("a configuration");
    assert!(config.contains("drain_timeout: 25s"));
}

#[test]
fn the_programs_understand_the_arguments_and_the_configuration() {
    for (name, program) in [("scalebridge", program()), ("scalebridge-scaler", scaler_program())] {
        let job = parse(name);
        let args = only(only(group(job), "task"), "config")["args"].clone();
        let args: Vec<&str> = args.as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        let at = args.iter().position(|word| *word == "--drain-timeout");
        assert_eq!(at.map(|at| args[at + 1]), (name == "scalebridge-scaler").then_some("25"));
        // An unknown option is an error, also before --help.
        run(Command::new(program).args(args).arg("--help"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    let config = fs::read_to_string(repository("deploy/nomad/scalebridge.yaml")).expect("a configuration");
    let job = parse("scalebridge");
    let templates = only(group(job), "task")["template"].as_array().expect("templates").clone();
    let destinations: Vec<&str> = templates
        .iter()
        .filter_map(|template| template["destination"].as_str()?.strip_prefix("secrets/"))
        .collect();
    for secret in &destinations {
        assert!(config.contains(&format!("/secrets/{secret}")), "the configuration does not use {secret}");
        fs::write(at(secret), format!("the-token-{secret}-{}", std::process::id())).expect("a secret");
        fs::set_permissions(at(secret), Permissions::from_mode(0o600)).expect("its mode");
    }
    assert_eq!(config.matches("/secrets/").count(), destinations.len(), "the job writes all of them");
    let copy = copy_with_rules("nomad", directory.path());
    let config = config.replace("/secrets", &directory.path().display().to_string());
    fs::write(copy.join("scalebridge.yaml"), config).expect("a file");
    assert_checked(&copy.join("scalebridge.yaml"));
}
