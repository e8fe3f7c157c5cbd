//! `scalebridge check`: validates a configuration and reports all errors in one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::output::{
    ConfigArgs, EXIT_FAILED, EXIT_USAGE, Format, OutputArgs, environment, pluralize, print, print_json,
};
use crate::config::diagnostic::{Code, Diagnostic, Location, Severity};
use crate::config::{Diagnostics, snippet};
use crate::kinds::{self, Loaded};
use crate::telemetry;

/// Validate configuration and rules
///
/// Reports every error in one run: location, cause, fix, and a code (`scalebridge explain CODE` for details).
/// Environment variables that begin with SCALEBRIDGE__ override the configuration, as in `serve`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    config: ConfigArgs,
    /// Also check that this Alertmanager configuration sends the alerts that the rules need
    #[arg(long, value_name = "FILE")]
    alertmanager: Option<PathBuf>,
    /// Exit with 1 if there are warnings
    #[arg(long, alias = "fatal-warnings")]
    deny_warnings: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The document that `--format json` prints.
#[derive(Serialize)]
struct Report<'a> {
    errors: usize,
    warnings: usize,
    notes: usize,
    findings: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct Finding<'a> {
    code: &'static str,
    severity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variable: Option<&'a str>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'a str>,
}

impl<'a> From<&'a Diagnostic> for Finding<'a> {
    fn from(diagnostic: &'a Diagnostic) -> Self {
        let Diagnostic { code, location, message, help } = diagnostic;
        let (file, line, column, variable) = match location {
            Location::WholeFile(file) => (Some(&**file), None, None, None),
            Location::File { file, line, column } => (Some(&**file), Some(*line), Some(*column), None),
            Location::Env(name) => (None, None, None, Some(&**name)),
            Location::Default => (None, None, None, None),
        };
        let severity = code.severity().to_string();
        Self { code: code.as_str(), severity, file, line, column, variable, message, help: help.as_deref() }
    }
}

impl Check {
    pub(super) fn run(&self) -> ExitCode {
        let path = &self.config.config;
        let loaded = match &self.alertmanager {
            Some(alertmanager) => kinds::load_with_alertmanager(path, environment(), alertmanager),
            None => kinds::load(path, environment()),
        };
        let summary = loaded.as_ref().ok().map(|Loaded { settings, .. }| {
            format!(
                "{}, {} and {}",
                pluralize(settings.rules.rules().len(), "rule"),
                pluralize(settings.sources.len(), "source"),
                pluralize(settings.destinations.len(), "destination")
            )
        });
        let found = loaded.map_or_else(|diagnostics| diagnostics, |loaded| loaded.warnings);
        let count_severity = |severity| found.iter().filter(|one| one.code.severity() == severity).count();
        let [errors, warnings, notes] =
            [Severity::Error, Severity::Warning, Severity::Note].map(count_severity);
        match self.output.format {
            Format::Json => {
                let findings = found.iter().map(Finding::from).collect();
                print_json(&Report { errors, warnings, notes, findings });
            }
            Format::Text => {
                print(render_diagnostics(&found));
                match summary {
                    Some(summary) if found.is_empty() => {
                        let alertmanager =
                            self.alertmanager.iter().map(|path| format!("; {} is valid", path.display()));
                        let alertmanager = alertmanager.collect::<String>();
                        print(format!("{} is valid: {summary}{alertmanager}", path.display()));
                    }
                    _ => {
                        let mut counts = vec![pluralize(errors, "error"), pluralize(warnings, "warning")];
                        counts.extend((notes > 0).then(|| pluralize(notes, "note")));
                        print(format!("{}: {}", path.display(), counts.join(", ")));
                    }
                }
                let is_error = |one: &&Diagnostic| one.code.severity() == Severity::Error;
                if let Some(first) = found.iter().find(is_error).or_else(|| found.iter().next()) {
                    telemetry::print_to_stderr(format_args!(
                        "for details, run `scalebridge explain {}`",
                        first.code.as_str()
                    ));
                }
            }
        }
        let is_argument = |location: &Location| matches!(location, Location::WholeFile(file) if file.as_ref() == path || self.alertmanager.as_deref() == Some(file));
        if found.iter().any(|one| one.code == Code::Unreadable && is_argument(&one.location)) {
            ExitCode::from(EXIT_USAGE)
        } else if errors > 0 || (self.deny_warnings && warnings > 0) {
            ExitCode::from(EXIT_FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// Formats all diagnostics with the source lines they refer to.
pub(super) fn render_diagnostics(found: &Diagnostics) -> String {
    let mut texts: BTreeMap<Arc<Path>, Option<String>> = BTreeMap::new();
    let shown = found.iter().map(|one| {
        let text = match &one.location {
            Location::File { file, .. } => {
                let read = || match found.redacted(file) {
                    Some(text) => Some(text.to_owned()),
                    None => {
                        std::fs::read(file).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                    }
                };
                texts.entry(file.clone()).or_insert_with(read).as_deref()
            }
            _ => None,
        };
        format!("{}\n\n", snippet::render(one, text))
    });
    shown.collect()
}
