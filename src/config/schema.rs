//! JSON Schemas of the configuration, source files, rules and test files, for completion and validation in editors.
//!
//! The types describe the keys that the readers of this module accept; a test compares the two. Only `check`
//! validates what a schema cannot express, such as references to names and the syntax of templates.

#![expect(dead_code, reason = "the types only describe the schemas and are never constructed")]

mod access;
mod config_file;
mod kinds;
mod rules_file;
mod tests_file;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};

use super::kinds::{DestinationSettings, SourceKind};
#[cfg(feature = "server")]
pub(crate) use access::HttpClient;
use config_file::{ConfigFile, SourceFile};
use rules_file::RulesFile;
use tests_file::TestsFile;

/// The schema of the configuration file, `config/scalebridge.yaml`.
pub fn config<D: DestinationSettings, S: SourceKind>() -> Schema {
    root::<ConfigFile<D, S>>()
}

/// The schema of a source file, one of `source_files` in the configuration.
pub fn sources<S: SourceKind>() -> Schema {
    root::<SourceFile<S>>()
}

/// The schema of a rules file, `config/rules.yaml`.
pub fn rules() -> Schema {
    root::<RulesFile>()
}

/// The schema of a test file, `config/rules.test.yaml`.
pub fn tests<S: SourceKind>() -> Schema {
    root::<TestsFile<S>>()
}

fn root<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>()
}

/// A Prometheus duration such as 500ms, 90s, 1h30m or 7d; 0 needs no unit.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum Duration {
    Text(
        #[schemars(
            length(min = 1),
            regex(pattern = "^(0|([0-9]+y)?([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$")
        )]
        String,
    ),
    Number(#[schemars(extend("const" = 0))] u32),
}

/// A duration, or `off`.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum DurationOrOff {
    Duration(Duration),
    Off(#[schemars(extend("const" = "off"))] String),
}

/// The name of a source, a destination or a rule.
#[derive(JsonSchema)]
#[schemars(transparent)]
struct Name(#[schemars(regex(pattern = "^[a-z0-9][a-z0-9_-]{0,62}$"))] String);

/// A matcher in Alertmanager's syntax, such as `severity =~ "warning|critical"`.
type Matcher = String;
/// A template: text with `{{ … }}` expressions on labels, annotations, source and alert.
type Template = String;
