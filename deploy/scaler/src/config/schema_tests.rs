//! The schema accepts what the reader accepts, and has the words that an editor shows.

use serde_json::{Value, json};

use super::{Config, schema};

const EXAMPLE: &str = include_str!("../../../../config/scaler.yaml");

fn schema_json() -> Value {
    serde_json::to_value(schema()).unwrap()
}

/// What is wrong with a configuration according to the schema.
fn errors(text: &str) -> Vec<String> {
    let document: Value = serde_saphyr::from_str(text).unwrap();
    let validator = jsonschema::validator_for(&schema_json()).unwrap();
    validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

/// Every key below `properties`, with what describes it.
fn keys<'s>(schema: &'s Value, found: &mut Vec<(String, &'s Value)>) {
    match schema {
        Value::Object(map) => {
            if let Some(properties) = map.get("properties").and_then(Value::as_object) {
                found.extend(properties.iter().map(|(name, value)| (name.clone(), value)));
            }
            map.values().for_each(|value| keys(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_example_is_valid_and_has_every_key() {
    Config::read(EXAMPLE).unwrap();
    assert_eq!(errors(EXAMPLE), Vec::<String>::new());
    let schema = schema_json();
    let mut found = Vec::new();
    keys(&schema, &mut found);
    assert!(found.len() > 30, "{found:?}");
    for (key, _) in &found {
        let mut lines = EXAMPLE.lines().map(|line| line.trim_start_matches([' ', '-', '#']));
        assert!(lines.any(|line| line.starts_with(&format!("{key}:"))), "`{key}` is not in the example");
    }
}

#[test]
fn every_key_is_described() {
    let schema = schema_json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    let mut found = Vec::new();
    keys(&schema, &mut found);
    for (key, value) in found {
        let description = value["description"].as_str().unwrap_or_default();
        assert!(description.len() > 10 && description.ends_with('.'), "{key}: {value}");
    }
}

#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    for text in [
        super::tests::WHOLE,
        "ledger: { sqlite: { path: x } }\ntargets: [{ match: 'kubernetes/*' }]",
        "ledger: { dynamodb: { table: x } }\ntargets: [{ match: 'ecs/*', max_decrease: 100% }]",
    ] {
        Config::read(text).unwrap();
        assert_eq!(errors(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn the_schema_rejects_what_the_reader_rejects() {
    let valid = super::tests::WHOLE;
    for (from, to) in [
        ("queue: {", "quue: {"),
        ("concurrency: 4", "concurrency: 0"),
        ("concurrency: 4", "concurrency: 257"),
        ("concurrency: 4", "concurency: 4"),
        ("region: eu-west-1 } }", "region: eu-west-1 }, sqlite: { path: x } }"),
        ("dynamodb: { table: scalebridge-scaler, region: eu-west-1 }", ""),
        ("table: scalebridge-scaler, ", ""),
        ("222233334444\": {", "22223333\": {"),
        ("here: { in_cluster: true }", "here: {}"),
        ("ca_file: ca.pem", "ca: ca.pem"),
        ("http: { tls_config: { ca_file: ca.pem }", "http: { follow_redirects: true"),
        ("match: \"kubernetes/*\"", "match: \"\""),
        ("managed_by: cluster-autoscaler", "managed_by: somebody"),
        ("max_decrease: 20%", "max_decrease: 200%"),
        ("max_decrease: 20%", "max_decrease: 0%"),
        ("max_capacity: 40", "max_capacity: -1"),
        ("dry_run: true", "dry: true"),
        ("max_decrease: 3", "max_decrease: 0"),
        ("region: eu-west-1 } }", "region: evil.example/x } }"),
        ("table: scalebridge-scaler", "table: ''"),
        ("external_id: x", "external_id: ''"),
        ("kubeconfig: /etc/kube/config", "kubeconfig: ''"),
        ("https://nomad:4646", "https://"),
        ("https://nomad:4646", "https://me:s3cr3t@nomad"),
    ] {
        assert!(valid.contains(from), "{from}");
        let text = valid.replacen(from, to, 1);
        assert!(Config::read(&text).is_err(), "{to}");
        assert!(!errors(&text).is_empty(), "{to}");
    }
    let document = json!({ "ledger": { "sqlite": { "path": "x" } }, "targets": [] });
    assert!(!jsonschema::validator_for(&schema_json()).unwrap().is_valid(&document));
}
