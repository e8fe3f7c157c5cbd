//! The parts of the schema that depend on the kinds of destinations and sources.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::Duration;
use crate::config::kinds::{DestinationSettings, SourceKind};

/// A destination: the keys of all kinds, and one key for each kind.
pub(super) struct Destination<D>(PhantomData<D>);

/// The keys of all kinds.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct DeliveryKeys {
    /// Maximum number of concurrent calls.
    concurrency: Option<u16>,
    /// Timeout of one call. Default 30s.
    timeout: Option<Duration>,
    /// Maximum number of unsettled deliveries of this destination; further ones are dead-lettered
    /// immediately.
    max_backlog: Option<u64>,
    /// Overrides the value of `delivery`.
    initial_backoff: Option<Duration>,
    /// Overrides the value of `delivery`.
    max_backoff: Option<Duration>,
    /// Overrides the value of `delivery`.
    max_age: Option<Duration>,
    /// Overrides the value of `delivery`.
    scale_in_max_age: Option<Duration>,
}

impl<D: DestinationSettings> JsonSchema for Destination<D> {
    fn schema_name() -> Cow<'static, str> {
        "Destination".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        for kind in D::KINDS {
            let schema = (kind.schema)(generator);
            properties.insert(kind.key.to_owned(), with_description(schema, generator));
        }
        let mut destination = DeliveryKeys::json_schema(generator);
        let keys: Vec<&str> = D::KINDS.iter().map(|kind| kind.key).collect();
        let description =
            format!("A destination of events: exactly one of {}, and delivery settings.", listed(&keys));
        destination.insert("description".to_owned(), description.into());
        if let Some(Value::Object(common)) = destination.get_mut("properties") {
            if let Some(Value::Object(concurrency)) = common.get_mut("concurrency") {
                concurrency.insert("description".to_owned(), concurrency_description::<D>().into());
            }
            properties.append(common);
            *common = properties;
        }
        destination
    }
}

/// `Maximum number of concurrent calls. Default 8, for a file 1.`
fn concurrency_description<D: DestinationSettings>() -> String {
    let usual = D::KINDS.first().map_or(1, |kind| kind.default_concurrency);
    let others = D::KINDS.iter().filter(|kind| kind.default_concurrency != usual);
    let others = others.map(|kind| format!(", for a {} {}", kind.key, kind.default_concurrency));
    format!("Maximum number of concurrent calls. Default {usual}{}.", others.collect::<String>())
}

/// The schema of an optional value with the description of the value's own schema.
pub(super) fn with_description(mut schema: Schema, generator: &SchemaGenerator) -> Value {
    let name =
        schema.pointer("/anyOf/0/$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let definition = name.and_then(|name| generator.definitions().get(name));
    if let Some(description) = definition.and_then(|definition| definition.get("description")).cloned() {
        schema.insert("description".to_owned(), description);
    }
    schema.into()
}

/// `a, b and c`.
fn listed(words: &[&str]) -> String {
    match words {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        words => words.concat(),
    }
}

/// A value of `kind` in a source.
pub(super) struct KindName<S>(PhantomData<S>);

impl<S: SourceKind> JsonSchema for KindName<S> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SourceKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = S::KINDS.iter().map(|row| row.key).collect();
        json_schema!({ "type": "string", "enum": names })
    }
}
