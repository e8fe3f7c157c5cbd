//! The published schemas have the same keys as the readers, and accept valid documents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::config::decode::known_keys;
use crate::config::diagnostic::Diagnostics;
use crate::config::{file, schema};
use crate::kinds::{config_schema, load, read_tests, sources_schema, tests_schema};

type MakeSchema = fn() -> schemars::Schema;

/// Each map that a reader reads, with its schema and the definition in it.
const MAPS: [(&str, MakeSchema, &str); 56] = [
    ("", config_schema, ""),
    ("server", config_schema, "Server"),
    ("admin", config_schema, "Admin"),
    ("store", config_schema, "Store"),
    ("store.sqlite", config_schema, "Sqlite"),
    ("store.postgres", config_schema, "Postgres"),
    ("source_files.*", sources_schema, ""),
    ("sources.*", config_schema, "Source"),
    ("sources.*.alertmanager", config_schema, "AlertmanagerApi"),
    ("sources.*.auth", config_schema, "SourceAuth"),
    ("sources.*.auth.client_cert", config_schema, "ClientCert"),
    ("sources.*.auth.jwt", config_schema, "Jwt"),
    ("sources.*.auth.hmac", config_schema, "Hmac"),
    ("sources.*.heartbeat", config_schema, "Heartbeat"),
    ("sources.*.sqs", config_schema, "SourceQueue"),
    ("admin.tokens.*", config_schema, "AdminToken"),
    ("admin.users.*", config_schema, "AdminUser"),
    ("admin.client_certs.*", config_schema, "AdminClientCert"),
    ("admin.jwt.*", config_schema, "AdminJwt"),
    ("tls", config_schema, "Tls"),
    ("http", config_schema, "HttpClient"),
    ("http.authorization", config_schema, "HttpAuthorization"),
    ("http.basic_auth", config_schema, "HttpBasicAuth"),
    ("http.tls_config", config_schema, "HttpTls"),
    ("destinations.*", config_schema, "Destination"),
    ("destinations.*.sqs", config_schema, "Sqs"),
    ("destinations.*.lambda", config_schema, "Lambda"),
    ("destinations.*.eventbridge", config_schema, "Eventbridge"),
    ("destinations.*.sns", config_schema, "Sns"),
    ("destinations.*.step_functions", config_schema, "StepFunctions"),
    ("destinations.*.http", config_schema, "Http"),
    ("destinations.*.file", config_schema, "File"),
    ("delivery", config_schema, "Delivery"),
    ("engine", config_schema, "Engine"),
    ("retention", config_schema, "Retention"),
    ("log", config_schema, "Log"),
    ("rules", schema::rules, ""),
    ("rules.defaults", schema::rules, "Defaults"),
    ("rules.*", schema::rules, "Rule"),
    ("rules.*.target", schema::rules, "Target"),
    ("rules.*.on_firing", schema::rules, "OnFiring"),
    ("rules.*.on_firing.hold", schema::rules, "Hold"),
    ("rules.*.on_resolved", schema::rules, "OnResolved"),
    ("rules.*.amount", schema::rules, "Amount"),
    ("rules.*.step", schema::rules, "Step"),
    ("rules.*.set_capacity", schema::rules, "SetCapacity"),
    ("rules.*.notify", schema::rules, "Notify"),
    ("rules.*.limits", schema::rules, "Limits"),
    ("rules.*.budget", schema::rules, "Budget"),
    ("tests", tests_schema, ""),
    ("tests.*", tests_schema, "Test"),
    ("tests.*.steps.*", tests_schema, "TestStep"),
    ("tests.*.pause", tests_schema, "TestPause"),
    ("tests.*.resume", tests_schema, "TestResume"),
    ("tests.*.notify", tests_schema, "TestNotification"),
    ("tests.*.alert", tests_schema, "TestAlert"),
];

fn document(path: &Path) -> Value {
    let mut diagnostics = Diagnostics::default();
    let node = file::read(path, None, &mut diagnostics);
    assert!(diagnostics.is_empty(), "{diagnostics}");
    Value::from(&node.unwrap().0)
}

fn properties(schema: &Value, definition: &str) -> BTreeSet<String> {
    let pointer = if definition.is_empty() {
        "/properties".to_owned()
    } else {
        format!("/$defs/{definition}/properties")
    };
    let found = schema.pointer(&pointer).and_then(Value::as_object);
    // A map without keys has no properties.
    found.map(|found| found.keys().cloned().collect()).unwrap_or_default()
}

#[test]
fn schemas_and_readers_have_the_same_keys() {
    known_keys::take();
    let all = tempfile::tempdir().unwrap();
    let rules = all.path().join("all.rules.yaml");
    // Keys that the good configurations do not use.
    let text = "defaults: { budget: { events: 1, per: 1h } }\nrules:\n  - name: a\n    target: { platform: eks, kind: k, \
                name: n }\n    on_firing: { notify: {} }\n    send_to: [x]\n";
    std::fs::write(&rules, text).unwrap();
    let tests = "rules: [all.rules.yaml]\ntests:\n  - name: t\n    steps:\n      - at: 0s\n        notify: { source: s, \
                 alerts: [{ status: firing, labels: {} }] }\n        pause: {}\n        resume: {}\n        expect: []\n";
    std::fs::write(all.path().join("all.test.yaml"), tests).unwrap();
    read_tests(&all.path().join("all.test.yaml")).unwrap();
    let full = Path::new("tests/config/good/full.yaml");
    load(full, super::environment(full)).unwrap();
    load(Path::new("tests/config/good/postgres.yaml"), []).unwrap();
    let read_keys = known_keys::take();
    let described: BTreeMap<&str, BTreeSet<String>> = MAPS
        .iter()
        .map(|(at, schema, definition)| {
            (*at, properties(&serde_json::to_value(schema()).unwrap(), definition))
        })
        .collect();
    let known: BTreeMap<&str, BTreeSet<String>> = read_keys
        .iter()
        // The web configuration has Prometheus' format.
        .filter(|(at, _)| **at != "tests.*.expect" && !at.starts_with("web_config"))
        .map(|(at, known)| (*at, known.iter().map(|key| (*key).to_owned()).collect()))
        .collect();
    assert_eq!(described, known, "schemas on the left, readers on the right");
}

#[test]
fn valid_documents_match_their_schema() {
    let validators = [config_schema(), schema::rules(), tests_schema()]
        .map(|schema| jsonschema::validator_for(&serde_json::to_value(schema).unwrap()).unwrap());
    let [config, rules, tests] = &validators;
    for (validator, path) in [
        (config, "config/scalebridge.yaml"),
        (config, "config/demo/scalebridge.yaml"),
        (config, "tests/config/good/full.yaml"),
        (config, "tests/config/good/least.yaml"),
        (config, "tests/config/good/postgres.yaml"),
        (rules, "config/rules.yaml"),
        (rules, "config/demo/rules.yaml"),
        (rules, "tests/config/good/full.rules.yaml"),
        (rules, "tests/config/good/least.rules.yaml"),
        (tests, "config/rules.test.yaml"),
        (tests, "config/demo/rules.test.yaml"),
    ] {
        let document = document(Path::new(path));
        let diagnostics: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(diagnostics.is_empty(), "{path}: {diagnostics:#?}");
    }
}

#[test]
fn schemas_reject_invalid_documents() {
    let rules = jsonschema::validator_for(&serde_json::to_value(schema::rules()).unwrap()).unwrap();
    for text in [
        r#"{ "rules": [{ "name": "Not A Name" }] }"#,
        r#"{ "rules": [{ "name": "a", "cooldwn": "5m" }] }"#,
        r#"{ "rules": [{ "name": "a", "on_firing": { "cooldown": "5 minutes" } }] }"#,
        r#"{ "rules": [{ "name": "a", "on_firing": { "scale_out": { "by": 0 } } }] }"#,
    ] {
        assert!(!rules.is_valid(&serde_json::from_str(text).unwrap()), "{text}");
    }
}
