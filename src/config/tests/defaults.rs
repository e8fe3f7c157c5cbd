//! Each default has one owner. What schemas and annotated files state is what the loader yields.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::name;
use crate::config::access::{HttpAuthorization, JwksLocation};
use crate::config::diagnostic::{Code, Diagnostics};
use crate::config::{PostgresStore, Store, layers, schema};
use crate::dispatch::DestinationSettings;
use crate::domain::duration::{self, format};
use crate::domain::rule::{Action, Change, Mode, Repeat, Rule, RuleTarget};
use crate::kinds::{Loaded, config_schema, load, read_tests, tests_schema};

/// Definition of the schema and key, with the default as text.
type Values = BTreeMap<(String, String), String>;

const CONFIG: &str = "server: { tls: { cert_file: server.crt, key_file: server.key } }
sources:
  local:
    heartbeat: [alertname = Watchdog]
    auth: { hmac: { key_files: [rules.yaml], timestamp_header: X-Time } }
admin:
  jwt:
    - issuer: a
      audience: b
      scope: read
      jwks_url: https://idp.example/keys
      http: { authorization: { credentials_file: rules.yaml } }
destinations:
  queue: { sqs: { queue_url: \"https://sqs.eu-west-1.amazonaws.com/123456789012/scaling\" } }
  function: { lambda: { function: scaler } }
  bus: { eventbridge: { bus: scaling } }
  topic: { sns: { topic_arn: \"arn:aws:sns:eu-west-1:123456789012:scaling\" } }
  service: { http: { url: \"http://127.0.0.1:9\" } }
rules: [rules.yaml]
";

const RULES: &str = "rules:
  - name: one
    matchers: [alertname = One]
    target: { platform: eks, kind: nodegroup, name: one }
    on_firing: { scale_in: { by: 1 } }
    send_to: [queue]
  - name: two
    matchers: [alertname = Two]
    target: { platform: eks, kind: nodegroup, name: two }
    on_firing: { set_capacity: { to: 2 }, repeat: while_firing }
    on_resolved: { scale_in: { by: 1 } }
    send_to: [function]
  - name: three
    matchers: [alertname = Three]
    target: { platform: eks, kind: nodegroup, name: three }
    on_firing: { notify: {} }
    send_to: [bus, topic]
  - name: held
    target: { platform: eks }
    on_firing: { hold: {} }
";

const TESTS: &str = "rules: [rules.yaml]\ntests: [{ name: t, steps: [{ at: 0s, expect: [] }] }]\n";

/// What the loader yields for a key that is not set.
fn effective() -> Values {
    let directory = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| std::fs::write(directory.path().join(file), text).unwrap();
    write("scalebridge.yaml", CONFIG);
    write("rules.yaml", RULES);
    write("rules.test.yaml", TESTS);
    let loaded = load(&directory.path().join("scalebridge.yaml"), [])
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let tests = read_tests(&directory.path().join("rules.test.yaml"))
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(tests.policy, loaded.settings.policy(), "rules are tested with the default policy");
    let start = tests.tests[0].start.to_string();
    write("postgres.yaml", &format!("{CONFIG}store: {{ postgres: {{ url_file: missing }} }}\n"));
    let postgres = load(&directory.path().join("postgres.yaml"), []);
    let postgres = postgres.unwrap_or_else(|diagnostics| panic!("{diagnostics}")).settings.store;
    let items =
        items(&loaded).into_iter().chain(rules(&loaded)).chain(access(&loaded)).chain(database(&postgres));
    let items = items.chain([("Test", "start", start)]);
    let items = items.map(|(definition, key, value)| ((definition.to_owned(), key.to_owned()), value));
    sections().into_iter().chain(items).collect()
}

/// The defaults of the sections, which are in a file.
fn sections() -> Values {
    let mut diagnostics = Diagnostics::default();
    let Value::Object(sections) = Value::from(&layers::defaults(&mut diagnostics).unwrap()) else { panic!() };
    let mut values = Values::new();
    for (section, keys) in &sections {
        let (definition, keys) = match keys.get("sqlite") {
            Some(sqlite) => ("Sqlite".to_owned(), sqlite),
            None => (section[..1].to_uppercase() + &section[1..], keys),
        };
        for (key, value) in keys.as_object().unwrap() {
            let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
            values.insert((definition.clone(), key.clone()), normalized(&text));
        }
    }
    values
}

/// The defaults of sources and destinations.
fn items(loaded: &Loaded) -> Vec<(&'static str, &'static str, String)> {
    let settings = &loaded.settings;
    let source = &settings.sources[&name("local")];
    let kind = settings.source_kinds[&name("local")].key();
    let (queue, function) =
        (&settings.destinations[&name("queue")], &settings.destinations[&name("function")]);
    let DestinationSettings::Sqs(sqs) = &queue.settings else { panic!("{queue:?}") };
    let DestinationSettings::Lambda(lambda) = &function.settings else { panic!("{function:?}") };
    let (bus, topic) = (&settings.destinations[&name("bus")], &settings.destinations[&name("topic")]);
    let DestinationSettings::Eventbridge(bus) = &bus.settings else { panic!("{bus:?}") };
    let DestinationSettings::Sns(topic) = &topic.settings else { panic!("{topic:?}") };
    let DestinationSettings::Http(http) = &settings.destinations[&name("service")].settings else { panic!() };
    // The key has no other effect than this warning.
    let ordered = loaded.warnings.iter().any(|warning| warning.code == Code::OrderNotGuaranteed);
    vec![
        ("Source", "kind", kind.to_owned()),
        ("Source", "late_window", format(source.late_window)),
        ("Source", "occurrence_ttl", format(source.occurrence_ttl)),
        ("Source", "heartbeat_grace", format(source.heartbeat.as_ref().unwrap().grace)),
        ("Destination", "concurrency", queue.concurrency.to_string()),
        ("Destination", "timeout", format(queue.timeout)),
        ("Sqs", "max_message_bytes", sqs.max_message_bytes.to_string()),
        ("Lambda", "invocation_type", format!("{:?}", lambda.invocation_type).to_lowercase()),
        ("Lambda", "per_target_order", ordered.to_string()),
        ("Lambda", "max_events", lambda.max_events.to_string()),
        ("Lambda", "durable", lambda.durable.to_string()),
        ("Eventbridge", "max_entry_bytes", bus.max_entry_bytes.to_string()),
        ("Sns", "max_message_bytes", topic.max_message_bytes.to_string()),
        ("Http", "allow_link_local", http.allow_link_local.to_string()),
        ("Http", "max_event_bytes", http.max_event_bytes.to_string()),
    ]
}

/// The defaults of a PostgreSQL store.
fn database(store: &Store) -> Vec<(&'static str, &'static str, String)> {
    let Store::Postgres(PostgresStore { url_file: _, max_connections, iam, notify }) = store else {
        panic!()
    };
    vec![
        ("Postgres", "max_connections", max_connections.to_string()),
        ("Postgres", "iam", iam.to_string()),
        ("Postgres", "notify", notify.to_string()),
    ]
}

/// The defaults of credentials.
fn access(loaded: &Loaded) -> Vec<(&'static str, &'static str, String)> {
    let [jwt] = &loaded.settings.admin.auth.jwt[..] else { panic!("{loaded:?}") };
    let JwksLocation::Url { http, .. } = &jwt.token.keys else { panic!("{jwt:?}") };
    let Some(HttpAuthorization::Credentials { kind, .. }) = &http.authorization else { panic!("{http:?}") };
    let tls = loaded.settings.server.access.tls.as_ref().unwrap();
    let version = |version| format!("{version:?}").to_uppercase();
    let hmac = loaded.settings.source_auth[&name("local")].hmac.as_ref().unwrap();
    vec![
        ("Tls", "client_auth_type", format!("{:?}", tls.client_auth)),
        ("Tls", "min_version", version(tls.min_version)),
        ("Tls", "max_version", version(tls.max_version)),
        ("AdminJwt", "name_claim", jwt.name_claim.clone()),
        ("AdminJwt", "header", jwt.header.clone()),
        ("HttpAuthorization", "type", kind.clone()),
        ("Hmac", "header", hmac.header.clone()),
        ("Hmac", "tolerance", format(hmac.timestamp.as_ref().unwrap().tolerance)),
    ]
}

/// The defaults of rules.
fn rules(loaded: &Loaded) -> Vec<(&'static str, &'static str, String)> {
    let rule = |rule: &str| -> &Rule { loaded.settings.rules.rule(&name(rule)).unwrap() };
    let (one, two) = (rule("one"), rule("two"));
    let guards = |action: &Action| (format(action.cooldown), format(action.stabilization_window));
    let (firing, resolved) = (one.on_firing.as_ref().unwrap(), two.on_resolved.as_ref().unwrap());
    let (firing_guards, resolved_guards) = (guards(&firing.action), guards(&resolved.action));
    let repeated = two.on_firing.as_ref().unwrap();
    let Repeat::WhileFiring { max_emissions } = repeated.repeat else { panic!("{repeated:?}") };
    let Change::SetCapacity { allow_decrease, .. } = repeated.action.change else { panic!("{repeated:?}") };
    let RuleTarget::Hold(hold) = &rule("held").target else { panic!("not a hold") };
    let mode = if one.mode == Mode::Active { "active" } else { "another one" };
    let repeat = if firing.repeat == Repeat::OnGrowth { "on_growth" } else { "another one" };
    vec![
        ("Rule", "expires_after", format(one.expires_after)),
        ("Rule", "mode", mode.to_owned()),
        ("Rule", "continue", one.continues.to_string()),
        ("OnFiring", "cooldown", firing_guards.0),
        ("OnFiring", "stabilization_window", firing_guards.1),
        ("OnFiring", "repeat", repeat.to_owned()),
        ("OnFiring", "max_emissions", max_emissions.to_string()),
        ("OnResolved", "cooldown", resolved_guards.0),
        ("OnResolved", "stabilization_window", resolved_guards.1),
        ("SetCapacity", "allow_decrease", allow_decrease.to_string()),
        ("Hold", "all", hold.covers.is_empty().to_string()),
    ]
}

/// The value of a statement such as `Default 5m if it can decrease capacity, otherwise 0.`
fn stated(description: &str) -> Option<String> {
    let text = description.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, after) = text.split_once("Default ")?;
    let ends = [". ", ", ", " (", " if "].into_iter().filter_map(|end| after.find(end));
    let value = &after[..ends.min().unwrap_or(after.len())];
    Some(normalized(value.trim_end_matches('.')))
}

/// Equal durations as equal texts.
fn normalized(text: &str) -> String {
    match duration::parse(text) {
        Ok(length) if text.ends_with(|c: char| c.is_ascii_alphabetic()) => duration::format(length),
        _ => text.to_owned(),
    }
}

#[test]
fn schemas_state_the_defaults_of_the_loader() {
    let mut found = Values::new();
    for schema in [config_schema(), schema::rules(), tests_schema()] {
        let schema = serde_json::to_value(schema).unwrap();
        for (definition, body) in schema["$defs"].as_object().unwrap() {
            for (key, property) in body["properties"].as_object().into_iter().flatten() {
                if let Some(value) = property["description"].as_str().and_then(stated) {
                    found.insert((definition.clone(), key.clone()), value);
                }
            }
        }
    }
    assert_eq!(found, effective(), "schemas on the left, the loader on the right");
}

/// What `config/scalebridge.yaml` shows for one destination, instead of the default.
const EXAMPLES: [(&str, &str); 2] = [("max_age", "30m"), ("max_backlog", "100000")];

/// The value of `key: value   # Comment`, and the comment.
fn annotated(line: &str) -> Option<(&str, &str, &str)> {
    let line = line.trim_start().trim_start_matches('#').trim_start();
    let (key, rest) = line.split_once(": ")?;
    let (value, comment) = rest.split_once(" #").unwrap_or((rest, ""));
    Some((key, value.trim(), comment.trim()))
}

#[test]
fn annotated_files_state_the_defaults_of_the_loader() {
    let mut defaults: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ((_, key), value) in effective() {
        defaults.entry(key).or_default().insert(value);
    }
    let mut wrong = Vec::new();
    let mut checked = BTreeSet::new();
    for file in ["config/scalebridge.yaml", "config/rules.yaml"] {
        let text = std::fs::read_to_string(Path::new(file)).unwrap();
        for (number, line) in text.lines().enumerate() {
            let Some((key, value, comment)) = annotated(line) else { continue };
            let Some(defaults) = defaults.get(key) else { continue };
            // A value that is set in a rule or as an example can differ; then the comment states the default.
            // A destination can have a `path` as well, which has no default.
            let is_example = key == "path" || EXAMPLES.contains(&(key, value));
            let is_rule = file == "config/rules.yaml" && !line.trim_start().starts_with('#');
            let value = match comment.strip_prefix("Default: ") {
                Some(stated) => stated.split([' ', ',']).next().unwrap_or_default().trim_end_matches('.'),
                None if is_example || is_rule => continue,
                None => value.trim_matches('"'),
            };
            checked.insert(key.to_owned());
            if !defaults.contains(&normalized(value)) {
                wrong.push(format!("{file}:{}: {key} is {value}, not {defaults:?}", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked.len() > 30, "the files are not read any more: {checked:?}");
}
