//! The command line, one file per command. Data is printed to stdout, everything else to stderr.

mod admin;
mod capture;
mod check;
mod client;
mod completions;
mod copy;
mod decision;
mod escape;
mod explain;
mod healthcheck;
mod iam;
mod output;
mod replay;
mod schema;
mod send;
mod serve;
mod style;
mod test;
mod when;
mod yaml;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// The command line. `about` is the description of the package.
#[derive(Debug, Parser)]
#[command(name = "scalebridge", version, about, arg_required_else_help = true, max_term_width = 100, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Run the bridge until SIGTERM or SIGINT
    Serve(serve::Serve),
    Check(check::Check),
    Test(test::Test),
    Explain(explain::Explain),
    Replay(replay::Replay),
    Status(admin::Status),
    Decisions(admin::Decisions),
    Event(admin::Event),
    Episodes(admin::Episodes),
    DeadLetters(admin::DeadLetters),
    Forgive(admin::Forgive),
    Rules(admin::Rules),
    Sources(admin::Sources),
    Destinations(admin::Destinations),
    Pause(admin::Pause),
    Resume(admin::Resume),
    Audit(admin::Audit),
    Store(admin::Store),
    Reload(admin::Reload),
    Schema(schema::Schema),
    IamPolicy(iam::IamPolicy),
    Send(send::Send),
    Healthcheck(healthcheck::Healthcheck),
    Completions(completions::Completions),
    Man(completions::Man),
}

const EXIT_CODES: &str = "\
Environment:
  SCALEBRIDGE_CONFIG      the configuration file, if --config is not given
  SCALEBRIDGE_URL         the admin listener of the bridge, if --url is not given
  SCALEBRIDGE_TOKEN_FILE, SCALEBRIDGE_CA_FILE, SCALEBRIDGE_CERT_FILE, SCALEBRIDGE_KEY_FILE
                          the same for --token-file, --ca-file, --cert-file and --key-file
  NO_COLOR                no colours

Exit codes: 0 success, 1 a check or test found something, or a failure, 2 invalid usage or unusable input";

/// Parses the command line and runs the command.
///
/// Exit codes: 0 success, 1 failure or findings, 2 invalid arguments or unusable input.
pub fn run() -> ExitCode {
    // clap itself exits with 2 on bad usage and with 0 on --help.
    match Cli::parse().command {
        CliCommand::Serve(serve) => serve.run(),
        CliCommand::Check(check) => check.run(),
        CliCommand::Test(test) => test.run(),
        CliCommand::Explain(explain) => explain.run(),
        CliCommand::Replay(replay) => replay.run(),
        CliCommand::Status(status) => status.run(),
        CliCommand::Decisions(decisions) => decisions.run(),
        CliCommand::Event(event) => event.run(),
        CliCommand::Episodes(episodes) => episodes.run(),
        CliCommand::DeadLetters(dead_letters) => dead_letters.run(),
        CliCommand::Forgive(forgive) => forgive.run(),
        CliCommand::Rules(rules) => rules.run(),
        CliCommand::Sources(sources) => sources.run(),
        CliCommand::Destinations(destinations) => destinations.run(),
        CliCommand::Pause(pause) => pause.run(),
        CliCommand::Resume(resume) => resume.run(),
        CliCommand::Audit(audit) => audit.run(),
        CliCommand::Store(store) => store.run(),
        CliCommand::Reload(reload) => reload.run(),
        CliCommand::Schema(schema) => schema.run(),
        CliCommand::IamPolicy(policy) => policy.run(),
        CliCommand::Send(send) => send.run(),
        CliCommand::Healthcheck(healthcheck) => healthcheck.run(),
        CliCommand::Completions(completions) => completions.run(Cli::command()),
        CliCommand::Man(man) => man.run(Cli::command()),
    }
}
