//! `scalebridge test`: unit tests of rules.

mod junit;
mod matching;
pub mod run;

pub use matching::{Fault, faults};

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::check::show;
use super::shell::{FOUND, Format, Formatted, UNUSABLE, count, now, print, print_json, unusable};
use crate::config::cases;
use crate::telemetry;

/// Run unit tests of rules on a virtual clock
///
/// A test is a list of steps: what arrives at which time, and what has to be decided. The engine is the one
/// that `serve` runs; days pass in no time.
#[derive(Debug, Args)]
pub struct Test {
    /// Files of tests
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Also write the outcome as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    #[command(flatten)]
    formatted: Formatted,
}

/// What became of a test.
#[derive(Debug, Clone, Serialize)]
struct Outcome {
    file: String,
    name: String,
    /// None of a test that passed.
    failures: Vec<Told>,
}

#[derive(Debug, Clone, Serialize)]
struct Told {
    place: String,
    message: String,
}

impl Test {
    pub fn run(&self) -> ExitCode {
        let Some(runtime) = now() else { return ExitCode::FAILURE };
        let mut outcomes = Vec::new();
        let mut faulty = false;
        for file in &self.files {
            let cases = match cases::read(file) {
                Ok(cases) => cases,
                Err(faults) => {
                    telemetry::print_to_stderr(show(&faults).trim_end());
                    faulty = true;
                    continue;
                }
            };
            let wanted = |name: &str| self.only.as_deref().is_none_or(|only| name.contains(only));
            for test in cases.tests.iter().filter(|test| wanted(&test.name)) {
                let failures = match runtime.block_on(run::run(&cases, test)) {
                    Ok(failures) => failures
                        .into_iter()
                        .map(|failure| Told { place: failure.place.to_string(), message: failure.message })
                        .collect(),
                    Err(error) => vec![Told { place: test.place.to_string(), message: error.to_string() }],
                };
                outcomes.push(Outcome {
                    file: file.display().to_string(),
                    name: test.name.clone(),
                    failures,
                });
            }
        }
        if let Some(path) = &self.junit
            && let Err(error) = std::fs::write(path, junit::write(&outcomes))
        {
            return unusable(format_args!("cannot write {}: {error}", path.display()));
        }
        let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
        match self.formatted.format {
            Format::Json => print_json(&outcomes),
            Format::Text if outcomes.is_empty() => {}
            Format::Text => {
                print(text(&outcomes));
                print(format!("{} passed, {failed} failed", outcomes.len() - failed));
            }
        }
        if faulty {
            ExitCode::from(UNUSABLE)
        } else if outcomes.is_empty() {
            unusable(format_args!("no test of {} was run", count(self.files.len(), "file")))
        } else if failed > 0 {
            ExitCode::from(FOUND)
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
        for Told { place, message } in failures {
            text += &format!("  {place}: {}\n", message.replace('\n', "\n  "));
        }
    }
    text
}
