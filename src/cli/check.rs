//! `scalebridge check`: every fault of a configuration at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::shell::{Config, FOUND, Format, Formatted, UNUSABLE, count, environment, print, print_json};
use crate::config::diagnostic::{Code, Diagnostic, Place, Severity};
use crate::config::{self, Diagnostics, Loaded, snippet};
use crate::telemetry;

/// Find every fault of configuration and rules in one run
///
/// Each finding has a place, what is wrong, how to mend it, and a code: `scalebridge explain CODE` shows its
/// page. Environment variables that begin with SCALEBRIDGE__ are read as `serve` would.
#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    config: Config,
    /// Also find what in this Alertmanager configuration would make the bridge blind
    #[arg(long, value_name = "FILE")]
    alertmanager: Option<PathBuf>,
    /// End with 1 for warnings too
    #[arg(long)]
    fatal_warnings: bool,
    #[command(flatten)]
    formatted: Formatted,
}

/// What `--format json` prints.
#[derive(Serialize)]
struct Report<'a> {
    errors: usize,
    warnings: usize,
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
        let Diagnostic { code, place, message, help } = diagnostic;
        let (file, line, column, variable) = match place {
            Place::Whole(file) => (Some(&**file), None, None, None),
            Place::File { file, line, column } => (Some(&**file), Some(*line), Some(*column), None),
            Place::Env(name) => (None, None, None, Some(&**name)),
            Place::Default => (None, None, None, None),
        };
        let severity = code.severity().to_string();
        Self { code: code.as_str(), severity, file, line, column, variable, message, help: help.as_deref() }
    }
}

impl Check {
    pub fn run(&self) -> ExitCode {
        let path = &self.config.config;
        let loaded = match &self.alertmanager {
            Some(sender) => config::load_with_sender(path, environment(), sender),
            None => config::load(path, environment()),
        };
        let fine = loaded.as_ref().ok().map(|Loaded { settings, .. }| {
            format!(
                "{}, {} and {}",
                count(settings.rules.rules().len(), "rule"),
                count(settings.sources.len(), "source"),
                count(settings.destinations.len(), "destination")
            )
        });
        let found = loaded.map_or_else(|faults| faults, |loaded| loaded.warnings);
        let of = |severity| found.iter().filter(|one| one.code.severity() == severity).count();
        let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
        match self.formatted.format {
            Format::Json => {
                print_json(&Report { errors, warnings, findings: found.iter().map(Finding::from).collect() });
            }
            Format::Text => {
                print(show(&found));
                match fine {
                    Some(what) if found.is_empty() => {
                        let sender = self
                            .alertmanager
                            .iter()
                            .map(|path| format!(", and {} reaches it", path.display()));
                        print(format!("{} is fine: {what}{}", path.display(), sender.collect::<String>()));
                    }
                    _ => print(format!(
                        "{}: {}, {}",
                        path.display(),
                        count(errors, "error"),
                        count(warnings, "warning")
                    )),
                }
                let is_error = |one: &&Diagnostic| one.code.severity() == Severity::Error;
                if let Some(first) = found.iter().find(is_error).or_else(|| found.iter().next()) {
                    telemetry::print_to_stderr(format_args!(
                        "`scalebridge explain {}` tells more",
                        first.code.as_str()
                    ));
                }
            }
        }
        let given = |place: &Place| matches!(place, Place::Whole(file) if file.as_ref() == path || self.alertmanager.as_deref() == Some(file));
        if found.iter().any(|one| one.code == Code::Unreadable && given(&one.place)) {
            ExitCode::from(UNUSABLE)
        } else if errors > 0 || (self.fatal_warnings && warnings > 0) {
            ExitCode::from(FOUND)
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// All findings with the lines that they are about.
pub fn show(found: &Diagnostics) -> String {
    let mut texts: BTreeMap<Arc<Path>, Option<String>> = BTreeMap::new();
    let shown = found.iter().map(|one| {
        let text = match &one.place {
            Place::File { file, .. } => {
                let read =
                    || std::fs::read(file).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                texts.entry(file.clone()).or_insert_with(read).as_deref()
            }
            _ => None,
        };
        format!("{}\n\n", snippet::render(one, text))
    });
    shown.collect()
}
