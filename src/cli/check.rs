//! `scalebridge check`: validates a configuration and reports all errors in one run.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::output::{
    ConfigArgs, EXIT_FAILED, EXIT_USAGE, Format, OutputArgs, environment, pluralize, print, usage_error,
};
use crate::config::diagnostic::{Code, Diagnostic, Location, Severity};
use crate::config::{Diagnostics, snippet};
use crate::kinds::{self, Checked, Loaded};
use crate::telemetry;

/// Validate configuration and rules
///
/// Reports every error in one run: location, cause, fix, and a code (`scalebridge explain CODE` for details).
/// Environment variables that begin with SCALEBRIDGE__ override the configuration, as in `serve`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Is this configuration right, also as seen by Alertmanager?
    scalebridge check --config config/scalebridge.yaml --alertmanager alertmanager.yml
  Fail a pipeline also because of warnings
    scalebridge check --deny-warnings -o json

Exit codes: 0 valid, 1 an error was found (or a warning, with --deny-warnings), 2 a file cannot be read")]
pub(super) struct Check {
    /// Configurations or rules files to check instead of `--config`; `-` is standard input. A rules file by itself is
    /// checked without the names of sources and destinations
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
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
        let files = if self.files.is_empty() { vec![self.config.config.clone()] } else { self.files.clone() };
        let mut results = Vec::with_capacity(files.len());
        for path in &files {
            match self.check(path) {
                Ok(result) => results.push(result),
                Err(error) => return usage_error(format_args!("cannot read standard input: {error}")),
            }
        }
        let found = || results.iter().flat_map(|result| &result.found);
        let count_severity = |severity| found().filter(|one| one.code.severity() == severity).count();
        let [errors, warnings, notes] =
            [Severity::Error, Severity::Warning, Severity::Note].map(count_severity);
        match self.output.format {
            format @ (Format::Json | Format::Yaml) => {
                let findings = found().map(Finding::from).collect();
                format.print_data(&Report { errors, warnings, notes, findings });
            }
            Format::Text | Format::Wide => {
                results.iter().for_each(FileResult::print);
                let is_error = |one: &&Diagnostic| one.code.severity() == Severity::Error;
                if let Some(first) = found().find(is_error).or_else(|| found().next()) {
                    telemetry::print_to_stderr(format_args!(
                        "for details, run `scalebridge explain {}`",
                        first.code.as_str()
                    ));
                }
            }
        }
        let is_argument = |location: &Location| {
            let Location::WholeFile(file) = location else { return false };
            files.iter().chain(&self.alertmanager).any(|argument| argument == file.as_ref())
        };
        if found().any(|one| one.code == Code::Unreadable && is_argument(&one.location)) {
            ExitCode::from(EXIT_USAGE)
        } else if errors > 0 || (self.deny_warnings && warnings > 0) {
            ExitCode::from(EXIT_FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// Checks one file, or standard input.
    fn check(&self, path: &Path) -> std::io::Result<FileResult> {
        let text = if path.as_os_str() == "-" {
            let mut text = Vec::new();
            std::io::stdin().lock().read_to_end(&mut text)?;
            Some(text)
        } else {
            None
        };
        let path = if text.is_some() { Path::new(STDIN) } else { path };
        let stdin = text.as_ref().map(|text| String::from_utf8_lossy(text).into_owned());
        let alertmanager = self.alertmanager.as_deref();
        let (summary, found) = match kinds::check(path, text, environment(), alertmanager) {
            Ok(Checked::Config(loaded)) => {
                let Loaded { settings, warnings, .. } = *loaded;
                let alertmanager = alertmanager.map(|path| format!("; {} is valid", path.display()));
                let summary = format!(
                    "{}, {} and {}{}",
                    pluralize(settings.rules.rules().len(), "rule"),
                    pluralize(settings.sources.len(), "source"),
                    pluralize(settings.destinations.len(), "destination"),
                    alertmanager.unwrap_or_default()
                );
                (Some(summary), warnings)
            }
            Ok(Checked::Rules { count, warnings }) => {
                let summary = format!(
                    "{}; sources and destinations are not checked without the configuration",
                    pluralize(count, "rule")
                );
                (Some(summary), warnings)
            }
            Err(diagnostics) => (None, diagnostics),
        };
        Ok(FileResult { path: path.to_owned(), stdin, summary, found })
    }
}

/// How standard input is called in diagnostics.
const STDIN: &str = "<stdin>";

/// What was found in a file and in the files that it names.
struct FileResult {
    path: PathBuf,
    /// The text, if it was read from standard input.
    stdin: Option<String>,
    /// What the file contains, if it is valid.
    summary: Option<String>,
    found: Diagnostics,
}

impl FileResult {
    fn print(&self) {
        let Self { path, stdin, summary, found } = self;
        print(render(found, stdin.as_deref()));
        let path = path.display();
        match summary {
            Some(summary) if found.is_empty() => print(format!("{path} is valid: {summary}")),
            _ => {
                let count = |severity| found.iter().filter(|one| one.code.severity() == severity).count();
                let mut counts = vec![pluralize(found.errors(), "error")];
                counts.push(pluralize(count(Severity::Warning), "warning"));
                counts.extend(
                    Some(count(Severity::Note))
                        .filter(|notes| *notes > 0)
                        .map(|notes| pluralize(notes, "note")),
                );
                print(format!("{path}: {}", counts.join(", ")));
            }
        }
    }
}

/// Formats all diagnostics with the source lines they refer to.
pub(super) fn render_diagnostics(found: &Diagnostics) -> String {
    render(found, None)
}

/// Like [`render_diagnostics`]; `stdin` is the text of standard input.
fn render(found: &Diagnostics, stdin: Option<&str>) -> String {
    let mut texts: BTreeMap<Arc<Path>, Option<String>> = BTreeMap::new();
    let shown = found.iter().map(|one| {
        let text = match &one.location {
            Location::File { file, .. } => {
                let read =
                    || match found.redacted(file).or(stdin.filter(|_| file.as_ref() == Path::new(STDIN))) {
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
