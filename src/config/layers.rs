//! Merges built-in defaults, the configuration file and the environment with the `config` crate.
//!
//! `config` decides which layer wins, but drops the locations of tables. So each merged value is looked up
//! in the tree of its layer, which has the location.

use std::collections::BTreeMap;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::decode;
use super::diagnostic::{Code, Diagnostics, Location};
use super::unsupported;
use super::yaml::{self, Key, Kind, Node, Origin};

const PREFIX: &str = "SCALEBRIDGE";
const SEPARATOR: &str = "__";

/// Scalars without a default that the environment reaches too.
const WITHOUT_DEFAULT: [&str; 20] = [
    "server.web_config_file",
    "server.tls.cert_file",
    "server.tls.key_file",
    "server.tls.client_auth_type",
    "server.tls.client_ca_file",
    "server.tls.min_version",
    "server.tls.max_version",
    "admin.web_config_file",
    "admin.tls.cert_file",
    "admin.tls.key_file",
    "admin.tls.client_auth_type",
    "admin.tls.client_ca_file",
    "admin.tls.min_version",
    "admin.tls.max_version",
    "admin.users_file",
    "admin.external_url",
    "store.postgres.url_file",
    "store.postgres.max_connections",
    "store.postgres.iam",
    "store.postgres.notify",
];

/// Merges the three layers. Without a `file` only the environment is checked.
pub(super) fn merge(
    file: Option<&Node>,
    environment: impl IntoIterator<Item = (String, String)>,
    diagnostics: &mut Diagnostics,
) -> Option<Node> {
    let defaults = defaults(diagnostics)?;
    let variables = Variables::from_environment(environment, &defaults, diagnostics);
    let file = file?;
    decode::entries(file, diagnostics)?;
    let environment = config::Environment::with_prefix(PREFIX).separator(SEPARATOR);
    let merged = config::Config::builder()
        .add_source(Layer::from_node(&defaults, None))
        .add_source(Layer::from_node(file, Some(&defaults)))
        .add_source(environment.source(Some(variables.values())))
        .build();
    match merged {
        Ok(merged) => {
            Some(variables.with_locations("", &merged.cache, Some(file), Some(&defaults), diagnostics))
        }
        Err(error) => {
            diagnostics.add(
                Code::Value,
                &file.location,
                format!(
                    "cannot merge defaults, file and environment: \
                                                                  {error}"
                ),
            );
            None
        }
    }
}

/// The built-in defaults of the sections that the environment reaches.
pub(super) fn defaults(diagnostics: &mut Diagnostics) -> Option<Node> {
    yaml::parse(include_str!("defaults.yaml"), &Origin::Defaults, diagnostics)
}

/// A tree as a source of the `config` crate.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Layer {
    /// `defaults` is the layer below this one.
    fn from_node(node: &Node, defaults: Option<&Node>) -> Self {
        let Kind::Map(entries) = &node.kind else { return Self(Map::new()) };
        // `config` parses top-level keys as paths. Keys that cannot be settings are not passed to it; they
        // remain in the file's own tree, where they are reported.
        let is_setting_key =
            |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let entries = entries.iter().filter(|(key, _)| is_setting_key(&key.name));
        Self(table(entries, defaults))
    }
}

fn table<'n>(entries: impl Iterator<Item = &'n (Key, Node)>, defaults: Option<&Node>) -> Map<String, Value> {
    let mut table = Map::new();
    for (key, node) in entries {
        let defaults = defaults.and_then(|defaults| defaults.get(&key.name));
        // A section with all its keys commented out keeps the defaults.
        let empty =
            node.kind == Kind::Null && defaults.is_some_and(|defaults| matches!(defaults.kind, Kind::Map(_)));
        if !empty {
            table.insert(key.name.clone(), value(node, defaults));
        }
    }
    table
}

fn value(node: &Node, defaults: Option<&Node>) -> Value {
    let kind = match &node.kind {
        Kind::Null => ValueKind::Nil,
        Kind::Bool(flag) => ValueKind::Boolean(*flag),
        Kind::Int(number) => ValueKind::I64(*number),
        Kind::Float(number) => ValueKind::Float(*number),
        Kind::Text(text) => ValueKind::String(text.clone()),
        Kind::List(items) => ValueKind::Array(items.iter().map(|item| value(item, None)).collect()),
        Kind::Map(entries) => ValueKind::Table(table(entries.iter(), defaults)),
    };
    Value::new(None, kind)
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

/// The variables that match a setting: name and value by the path of the setting.
struct Variables(BTreeMap<String, (String, String)>);

impl Variables {
    fn from_environment(
        environment: impl IntoIterator<Item = (String, String)>,
        defaults: &Node,
        diagnostics: &mut Diagnostics,
    ) -> Self {
        let mut reachable = Vec::new();
        collect_scalar_paths("", defaults, &mut reachable);
        reachable.extend(WITHOUT_DEFAULT.map(str::to_owned));
        let mut variables = BTreeMap::new();
        for (name, value) in environment {
            let uppercase = name.to_uppercase();
            let Some(rest) = uppercase.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(SEPARATOR))
            else {
                continue;
            };
            let path = rest.to_lowercase().replace(SEPARATOR, ".");
            if name == variable_name(&path)
                && (reachable.contains(&path) || unsupported::is_unsupported_path(&path))
            {
                variables.insert(path, (name, value));
            } else {
                let known: Vec<String> = reachable.iter().map(|path| variable_name(path)).collect();
                report_unknown_variable(&name, &known, diagnostics);
            }
        }
        Self(variables)
    }

    /// Names and values for the environment source of the `config` crate.
    fn values(&self) -> Map<String, String> {
        self.0.values().cloned().collect()
    }

    /// Converts `merged` to a tree with the locations of its layers.
    fn with_locations(
        &self,
        path: &str,
        merged: &Value,
        file: Option<&Node>,
        default: Option<&Node>,
        diagnostics: &mut Diagnostics,
    ) -> Node {
        let ValueKind::Table(table) = &merged.kind else {
            let own = file.or(default).cloned();
            return self.text(path).or(own).unwrap_or(Node { location: Location::Default, kind: Kind::Null });
        };
        // The environment may have replaced a value of the wrong type by a table; this still reports it.
        let from_file = file.and_then(|file| decode::entries(file, diagnostics)).unwrap_or_default();
        let mut entries = Vec::with_capacity(table.len());
        for (key, node) in from_file {
            let defaults = default.and_then(|default| default.get(&key.name));
            let node = match table.get(&key.name) {
                Some(value) => {
                    self.with_locations(&join(path, &key.name), value, Some(node), defaults, diagnostics)
                }
                None => node.clone(),
            };
            entries.push((key.clone(), node));
        }
        let mut not_in_file: Vec<_> =
            table.iter().filter(|(name, _)| from_file.iter().all(|(key, _)| key.name != **name)).collect();
        not_in_file.sort_by_key(|(name, _)| *name);
        for (name, value) in not_in_file {
            let defaults = default.and_then(|default| default.get(name));
            let node = self.with_locations(&join(path, name), value, None, defaults, diagnostics);
            entries.push((Key { name: name.clone(), location: node.location.clone() }, node));
        }
        let location =
            file.map_or_else(|| self.location_of_table(path, default), |file| file.location.clone());
        Node { location, kind: Kind::Map(entries) }
    }

    fn text(&self, path: &str) -> Option<Node> {
        let (name, value) = self.0.get(path)?;
        Some(Node { location: Location::Env(name.as_str().into()), kind: Kind::Text(value.clone()) })
    }

    /// The location of a table that is not in the file.
    fn location_of_table(&self, path: &str, default: Option<&Node>) -> Location {
        let inside = |known: &&String| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        match self.0.iter().find(|(known, _)| default.is_none() && inside(known)) {
            Some((_, (name, _))) => Location::Env(name.as_str().into()),
            None => Location::Default,
        }
    }
}

/// Collects the paths of all scalars.
fn collect_scalar_paths(path: &str, node: &Node, paths: &mut Vec<String>) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, node) in entries {
                collect_scalar_paths(&join(path, &key.name), node, paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn variable_name(path: &str) -> String {
    format!("{PREFIX}{SEPARATOR}{}", path.replace('.', SEPARATOR).to_uppercase())
}

fn report_unknown_variable(name: &str, known: &[String], diagnostics: &mut Diagnostics) {
    let location = Location::Env(name.into());
    let message = "environment variable does not match any setting";
    let near = super::suggest::nearest(&name.to_uppercase(), known.iter().map(String::as_str));
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "environment variables set single values of server, admin, store, delivery, engine, retention and \
                 log; set everything else in the configuration file"
            .to_owned(),
    };
    diagnostics.add_with_help(Code::Environment, &location, message, help);
}
