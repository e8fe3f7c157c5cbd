//! `scalebridge schema`: the documents that people and consumers read and write, as JSON Schema.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::output::print_json;
use crate::config;
use crate::domain::event;

/// Print a JSON Schema, draft 2020-12
///
/// For editors, put a line such as `# yaml-language-server: $schema=rules.schema.json` at the top of a file.
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Of which document
    #[arg(value_enum)]
    document: SchemaKind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SchemaKind {
    /// The configuration
    Config,
    /// A file of rules
    Rules,
    /// A file of tests
    Tests,
    /// What consumers get
    Event,
}

impl Schema {
    pub(super) fn run(&self) -> ExitCode {
        print_json(&match self.document {
            SchemaKind::Config => config::schema::config(),
            SchemaKind::Rules => config::schema::rules(),
            SchemaKind::Tests => config::schema::tests(),
            SchemaKind::Event => event::schema(),
        });
        ExitCode::SUCCESS
    }
}
