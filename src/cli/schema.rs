//! `scalebridge schema`: the JSON Schemas of configuration, source files, rules, tests and events.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::output::print_json;
use crate::config;
use crate::domain::event;
use crate::kinds;

/// Print a JSON Schema, draft 2020-12
///
/// For validation in an editor, put a line such as `# yaml-language-server: $schema=rules.schema.json` at the top
/// of a file.
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Document to describe
    #[arg(value_enum)]
    document: SchemaKind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaKind {
    /// Configuration file
    Config,
    /// Source file, one of `source_files` in the configuration
    Sources,
    /// Rules file
    Rules,
    /// Test file
    Tests,
    /// Event, as consumers receive it
    Event,
}

impl Schema {
    pub(super) fn run(&self) -> ExitCode {
        print_json(&match self.document {
            SchemaKind::Config => kinds::config_schema(),
            SchemaKind::Sources => kinds::sources_schema(),
            SchemaKind::Rules => config::schema::rules(),
            SchemaKind::Tests => kinds::tests_schema(),
            SchemaKind::Event => event::schema(),
        });
        ExitCode::SUCCESS
    }
}
