//! Built-in defaults, the file and the environment, laid over each other by the `config` crate.
//!
//! `config` decides which layer wins and forgets where tables came from. So each winner is taken from
//! its own layer's tree again, which still knows its place.

use std::collections::BTreeMap;

use config::{ConfigError, Map, Source, Value, ValueKind};

use super::decode;
use super::diagnostic::{Code, Diagnostics, Place};
use super::unsupported;
use super::yaml::{self, Key, Kind, Node, Origin};

const PREFIX: &str = "SCALEBRIDGE";
const SEPARATOR: &str = "__";

/// Lays the three over each other. Without a `file` only the environment is looked at for faults.
pub(super) fn lay(
    file: Option<&Node>,
    environment: impl IntoIterator<Item = (String, String)>,
    faults: &mut Diagnostics,
) -> Option<Node> {
    let defaults = yaml::parse(include_str!("defaults.yaml"), &Origin::Defaults, faults)?;
    let variables = Variables::of(environment, &defaults, faults);
    let file = file?;
    decode::entries(file, faults)?;
    let environment = config::Environment::with_prefix(PREFIX).separator(SEPARATOR);
    let merged = config::Config::builder()
        .add_source(Layer::of(&defaults, None))
        .add_source(Layer::of(file, Some(&defaults)))
        .add_source(environment.source(Some(variables.values())))
        .build();
    match merged {
        Ok(merged) => Some(variables.placed("", &merged.cache, Some(file), Some(&defaults), faults)),
        Err(error) => {
            faults.add(Code::Value, &file.place, format!("the layers do not fit together: {error}"));
            None
        }
    }
}

/// A tree as the `config` crate takes it.
#[derive(Debug, Clone)]
struct Layer(Map<String, Value>);

impl Layer {
    /// `below` is the layer that this one lies over.
    fn of(node: &Node, below: Option<&Node>) -> Self {
        let Kind::Map(entries) = &node.kind else { return Self(Map::new()) };
        // `config` reads a key at the top as a path. Those that are none of ours stay out of its hands,
        // and are found in the file's own tree.
        let plain = |key: &str| !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let entries = entries.iter().filter(|(key, _)| plain(&key.name));
        Self(table(entries, below))
    }
}

fn table<'n>(entries: impl Iterator<Item = &'n (Key, Node)>, below: Option<&Node>) -> Map<String, Value> {
    let mut table = Map::new();
    for (key, node) in entries {
        let below = below.and_then(|below| below.get(&key.name));
        // A section with all its keys commented out leaves the defaults as they are.
        let empty = node.kind == Kind::Null && below.is_some_and(|below| matches!(below.kind, Kind::Map(_)));
        if !empty {
            table.insert(key.name.clone(), value(node, below));
        }
    }
    table
}

fn value(node: &Node, below: Option<&Node>) -> Value {
    let kind = match &node.kind {
        Kind::Null => ValueKind::Nil,
        Kind::Bool(flag) => ValueKind::Boolean(*flag),
        Kind::Int(number) => ValueKind::I64(*number),
        Kind::Float(number) => ValueKind::Float(*number),
        Kind::Text(text) => ValueKind::String(text.clone()),
        Kind::List(items) => ValueKind::Array(items.iter().map(|item| value(item, None)).collect()),
        Kind::Map(entries) => ValueKind::Table(table(entries.iter(), below)),
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

/// The variables that reach a setting: its path, and the variable's name and value.
struct Variables(BTreeMap<String, (String, String)>);

impl Variables {
    fn of(
        environment: impl IntoIterator<Item = (String, String)>,
        defaults: &Node,
        faults: &mut Diagnostics,
    ) -> Self {
        let mut reachable = Vec::new();
        scalars("", defaults, &mut reachable);
        let mut variables = BTreeMap::new();
        for (name, value) in environment {
            let upper = name.to_uppercase();
            let Some(rest) = upper.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix(SEPARATOR)) else {
                continue;
            };
            let path = rest.to_lowercase().replace(SEPARATOR, ".");
            if name == variable(&path) && (reachable.contains(&path) || unsupported::covers(&path)) {
                variables.insert(path, (name, value));
            } else {
                let known: Vec<String> = reachable.iter().map(|path| variable(path)).collect();
                unknown(&name, &known, faults);
            }
        }
        Self(variables)
    }

    /// As the environment of the `config` crate.
    fn values(&self) -> Map<String, String> {
        self.0.values().cloned().collect()
    }

    /// `merged` with the places of its layers.
    fn placed(
        &self,
        path: &str,
        merged: &Value,
        file: Option<&Node>,
        default: Option<&Node>,
        faults: &mut Diagnostics,
    ) -> Node {
        let ValueKind::Table(table) = &merged.kind else {
            let own = file.or(default).cloned();
            return self.text(path).or(own).unwrap_or(Node { place: Place::Default, kind: Kind::Null });
        };
        // The environment may have laid a table over what was none, and must not hide that.
        let written = file.and_then(|file| decode::entries(file, faults)).unwrap_or_default();
        let mut entries = Vec::with_capacity(table.len());
        for (key, node) in written {
            let below = default.and_then(|default| default.get(&key.name));
            let node = match table.get(&key.name) {
                Some(value) => self.placed(&join(path, &key.name), value, Some(node), below, faults),
                None => node.clone(),
            };
            entries.push((key.clone(), node));
        }
        let mut unwritten: Vec<_> =
            table.iter().filter(|(name, _)| written.iter().all(|(key, _)| key.name != **name)).collect();
        unwritten.sort_by_key(|(name, _)| *name);
        for (name, value) in unwritten {
            let below = default.and_then(|default| default.get(name));
            let node = self.placed(&join(path, name), value, None, below, faults);
            entries.push((Key { name: name.clone(), place: node.place.clone() }, node));
        }
        let place = file.map_or_else(|| self.place_of_table(path, default), |file| file.place.clone());
        Node { place, kind: Kind::Map(entries) }
    }

    fn text(&self, path: &str) -> Option<Node> {
        let (name, value) = self.0.get(path)?;
        Some(Node { place: Place::Env(name.as_str().into()), kind: Kind::Text(value.clone()) })
    }

    /// Of a table that the file does not have.
    fn place_of_table(&self, path: &str, default: Option<&Node>) -> Place {
        let inside = |known: &&String| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        match self.0.iter().find(|(known, _)| default.is_none() && inside(known)) {
            Some((_, (name, _))) => Place::Env(name.as_str().into()),
            None => Place::Default,
        }
    }
}

/// The paths of all scalars.
fn scalars(path: &str, node: &Node, paths: &mut Vec<String>) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, node) in entries {
                scalars(&join(path, &key.name), node, paths);
            }
        }
        _ => paths.push(path.to_owned()),
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn variable(path: &str) -> String {
    format!("{PREFIX}{SEPARATOR}{}", path.replace('.', SEPARATOR).to_uppercase())
}

fn unknown(name: &str, known: &[String], faults: &mut Diagnostics) {
    let place = Place::Env(name.into());
    let message = "this environment variable reaches no setting";
    let near = super::slip::nearest(&name.to_uppercase(), known.iter().map(String::as_str));
    let help = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "the environment reaches single values of server, admin, store, delivery, engine, retention \
                 and log; the rest belongs in the file"
            .to_owned(),
    };
    faults.help(Code::Environment, &place, message, help);
}
