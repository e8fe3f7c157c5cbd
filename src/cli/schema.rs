//! `scalebridge schema`: the documents that people and consumers read and write, as JSON Schema.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::shell::print_json;
use crate::config;
use crate::domain::event;

/// Print a JSON Schema, draft 2020-12
///
/// For editors, put a line such as `# yaml-language-server: $schema=rules.schema.json` at the top of a file.
#[derive(Debug, Args)]
pub struct Schema {
    /// Of which document
    #[arg(value_enum)]
    document: Document,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Document {
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
    pub fn run(&self) -> ExitCode {
        print_json(&match self.document {
            Document::Config => config::schema::config(),
            Document::Rules => config::schema::rules(),
            Document::Tests => config::schema::tests(),
            Document::Event => event::schema(),
        });
        ExitCode::SUCCESS
    }
}
