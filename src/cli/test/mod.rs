//! `scalebridge test`: unit tests of rules.

mod junit;
mod matching;
pub(super) mod run;

pub(super) use matching::{FieldMismatch, mismatches};

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::check::render_diagnostics;
use super::output::{
    EXIT_FAILED, EXIT_USAGE, Format, OutputArgs, current_thread_runtime, pluralize, print, usage_error,
};
use crate::kinds;
use crate::telemetry;

/// Run unit tests of rules on a virtual clock
///
/// A test is a list of steps: which notifications arrive at which time, and which decisions are expected. Tests run
/// the same engine as `serve`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  Run the tests of one rule
    scalebridge test config/rules.test.yaml --filter unschedulable

Exit codes: 0 all tests pass, 1 a test fails, 2 a file cannot be used")]
pub(super) struct Test {
    /// Test files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Run only tests whose name contains this text
    #[arg(long, alias = "only", value_name = "TEXT")]
    filter: Option<String>,
    /// Also write a JUnit XML report
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

/// The result of a test.
#[derive(Debug, Clone, Serialize)]
struct Outcome {
    file: String,
    name: String,
    /// Empty if the test passed.
    failures: Vec<FailureReport>,
}

#[derive(Debug, Clone, Serialize)]
struct FailureReport {
    #[serde(rename = "place")]
    location: String,
    message: String,
}

impl Test {
    pub(super) fn run(&self) -> ExitCode {
        let Some(runtime) = current_thread_runtime() else { return ExitCode::FAILURE };
        let mut outcomes = Vec::new();
        let mut has_invalid_file = false;
        for file in &self.files {
            let test_file = match kinds::read_tests(file) {
                Ok(test_file) => test_file,
                Err(diagnostics) => {
                    telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
                    has_invalid_file = true;
                    continue;
                }
            };
            let is_selected = |name: &str| self.filter.as_deref().is_none_or(|text| name.contains(text));
            for test in test_file.tests.iter().filter(|test| is_selected(&test.name)) {
                let failures = match runtime.block_on(run::run(&test_file, test)) {
                    Ok(failures) => failures
                        .into_iter()
                        .map(|failure| FailureReport {
                            location: failure.location.to_string(),
                            message: failure.message,
                        })
                        .collect(),
                    Err(error) => vec![FailureReport {
                        location: test.location.to_string(),
                        message: error.to_string(),
                    }],
                };
                outcomes.push(Outcome {
                    file: file.display().to_string(),
                    name: test.name.clone(),
                    failures,
                });
            }
        }
        if let Some(path) = &self.junit
            && let Err(error) = std::fs::write(path, junit::to_xml(&outcomes))
        {
            return usage_error(format_args!("cannot write {}: {error}", path.display()));
        }
        let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
        match self.output.format {
            Format::Json | Format::Yaml => self.output.format.print_data(&outcomes),
            Format::Text | Format::Wide if outcomes.is_empty() => {}
            Format::Text | Format::Wide => {
                print(text(&outcomes));
                print(format!("{} passed, {failed} failed", outcomes.len() - failed));
            }
        }
        if has_invalid_file {
            ExitCode::from(EXIT_USAGE)
        } else if outcomes.is_empty() {
            usage_error(format_args!("no tests to run in {}", pluralize(self.files.len(), "file")))
        } else if failed > 0 {
            ExitCode::from(EXIT_FAILED)
        } else {
            ExitCode::SUCCESS
        }
    }
}

fn text(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for Outcome { file, name, failures } in outcomes {
        let word = if failures.is_empty() { "ok  " } else { "FAIL" };
        text += &format!("{word} {file}: {name}\n");
        for FailureReport { location, message } in failures {
            text += &format!("  {location}: {}\n", message.replace('\n', "\n  "));
        }
    }
    text
}
