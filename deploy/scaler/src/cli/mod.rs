//! The command line. Exit 0 success, 1 a check or plan found something, 2 usage or unusable input.

mod freeze;
mod healthcheck;
mod iam;
mod plan;
mod schema;
mod serve;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::Config;

/// Applies the scaling events of scalebridge to capacity.
#[derive(Parser)]
#[command(name = "scalebridge-scaler", version, max_term_width = 100)]
struct Cli {
    /// The configuration. Without it: the text of SCALEBRIDGE_SCALER_CONFIG, or config/scaler.yaml.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Apply the events of a queue.
    Worker(serve::WorkerArguments),
    /// Ask a worker on this machine whether it is healthy, for the health check of a container. Reads no configuration.
    Healthcheck(healthcheck::Arguments),
    /// Report every error in the configuration.
    Check,
    /// Show what would be done for an event, and why. Changes nothing.
    Plan(plan::Arguments),
    /// Print what the scaler needs to be granted: policies of IAM, access entries of EKS, RBAC of Kubernetes.
    IamPolicy(iam::Arguments),
    /// Print the JSON Schema of the configuration, draft 2020-12.
    ///
    /// For validation in an editor, put `# yaml-language-server: $schema=scaler.schema.json` at the top of the file.
    Schema,
    /// Stop increases, decreases or both, also of events that are already in the queue.
    Freeze(freeze::FreezeArguments),
    /// Let increases, decreases or both go on.
    Unfreeze(freeze::UnfreezeArguments),
}

/// The environment variable with the text of the configuration.
const CONFIG_VARIABLE: &str = "SCALEBRIDGE_SCALER_CONFIG";
const DEFAULT_CONFIG: &str = "config/scaler.yaml";

/// The bridge knows only what a function has answered to it.
const OVERTAKEN_NOTE: &str = "note: from a queue, a decrease that a later event of its target has overtaken is skipped; if \
                              the bridge invokes a function with `invocation_type: request_response`, it is decided again";

/// What a command reads and writes, so that tests can supply it.
pub struct Io<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
    /// The value of `SCALEBRIDGE_SCALER_CONFIG`.
    pub config_text: Option<String>,
    /// The user of the operating system.
    pub user: Option<String>,
    /// Milliseconds since 1970.
    pub now_millis: i64,
    /// Whether the program is the bootstrap of a Lambda function.
    pub is_function: bool,
}

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Success,
    Found,
    Unusable,
}

/// Runs a command line. The first argument is the name of the program.
pub fn run(arguments: impl IntoIterator<Item = OsString>, io: &mut Io<'_>) -> ExitCode {
    ExitCode::from(run_to(arguments, io))
}

fn run_to(arguments: impl IntoIterator<Item = OsString>, io: &mut Io<'_>) -> u8 {
    let mut out = Output { inner: &mut *io.out, error: None };
    let code = run_verb(
        arguments,
        &mut Io {
            out: &mut out,
            err: &mut *io.err,
            config_text: io.config_text.take(),
            user: io.user.take(),
            now_millis: io.now_millis,
            is_function: io.is_function,
        },
    );
    let flushed = out.flush();
    match out.error.or(flushed.err()) {
        // Who has closed it, as `head` does, has read enough.
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            drop(writeln!(io.err, "error: the output cannot be written: {error}"));
            Exit::Unusable.code()
        }
        _ => code,
    }
}

/// Keeps the first error, so that commands need not look at each.
struct Output<'a> {
    inner: &'a mut dyn Write,
    error: Option<io::Error>,
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes);
        self.keep(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.inner.flush();
        self.keep(flushed)
    }
}

impl Output<'_> {
    fn keep<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != ErrorKind::Interrupted
            && self.error.is_none()
        {
            self.error = Some(io::Error::new(error.kind(), error.to_string()));
        }
        result
    }
}

fn run_verb(arguments: impl IntoIterator<Item = OsString>, io: &mut Io<'_>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            drop(write!(io.err, "{}", error.render()));
            return 2;
        }
        Err(help) => {
            drop(write!(io.out, "{}", help.render()));
            return 0;
        }
    };
    let Some(verb) = cli.verb else {
        return no_verb(cli.config.as_deref(), io);
    };
    let exit = match verb {
        Verb::Worker(arguments) => serve::worker(&arguments, cli.config.as_deref(), io),
        Verb::Healthcheck(arguments) => healthcheck::run(&arguments, io),
        Verb::Check => check(cli.config.as_deref(), io),
        Verb::Plan(arguments) => plan::run(&arguments, cli.config.as_deref(), io),
        Verb::IamPolicy(arguments) => iam::run(&arguments, cli.config.as_deref(), io),
        Verb::Schema => schema::run(io),
        Verb::Freeze(arguments) => freeze::freeze(&arguments, cli.config.as_deref(), io),
        Verb::Unfreeze(arguments) => freeze::unfreeze(&arguments, cli.config.as_deref(), io),
    };
    exit.code()
}

/// As a function: Lambda starts the program without arguments. Otherwise a person does, who wants to know which there
/// are.
fn no_verb(config: Option<&Path>, io: &mut Io<'_>) -> u8 {
    if io.is_function {
        return serve::function(config, io).code();
    }
    drop(write!(io.err, "{}", Cli::command().render_help()));
    Exit::Unusable.code()
}

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Found => 1,
            Self::Unusable => 2,
        }
    }
}

/// The configuration; after an error, which is written, how the command ends.
fn load(file: Option<&Path>, io: &mut Io<'_>) -> Result<(String, Config), Exit> {
    let (name, text) = match (file, io.config_text.take()) {
        (None, Some(text)) => (format!("${CONFIG_VARIABLE}"), text),
        (file, _) => {
            let file = file.unwrap_or(Path::new(DEFAULT_CONFIG));
            match std::fs::read_to_string(file) {
                Ok(text) => (file.display().to_string(), text),
                Err(error) => {
                    let hint = "pass the configuration with --config";
                    drop(writeln!(io.err, "error: {} cannot be read: {error}; {hint}", file.display()));
                    return Err(Exit::Unusable);
                }
            }
        }
    };
    match Config::read(&text) {
        Ok(config) => Ok((name, config)),
        Err(errors) => {
            for error in &errors {
                let separator = if error.line > 0 { ":" } else { ": " };
                drop(writeln!(io.err, "{name}{separator}{error}"));
            }
            Err(Exit::Found)
        }
    }
}

fn check(file: Option<&Path>, io: &mut Io<'_>) -> Exit {
    match load(file, io) {
        Ok((name, config)) => {
            drop(writeln!(io.out, "{name}: {} patterns of targets, no errors", config.targets.len()));
            for note in config.notes() {
                drop(writeln!(io.out, "note: {note}"));
            }
            if config.queue.is_some() {
                drop(writeln!(io.out, "{OVERTAKEN_NOTE}"));
            }
            Exit::Success
        }
        Err(exit) => exit,
    }
}
