//! The command line: one file a verb. Data goes to stdout, all else to stderr.

mod admin;
mod capture;
mod check;
mod client;
mod completions;
mod decision;
mod explain;
mod iam;
mod output;
mod replay;
mod schema;
mod send;
mod serve;
mod test;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Turns Prometheus alerts into scaling events that are delivered once, in order, and can be explained.
#[derive(Debug, Parser)]
#[command(name = "scalebridge", version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
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
    Pause(admin::Pause),
    Resume(admin::Resume),
    Reload(admin::Reload),
    Schema(schema::Schema),
    IamPolicy(iam::IamPolicy),
    Send(send::Send),
    Completions(completions::Completions),
    Man(completions::Man),
}

/// Runs the verb that the command line asks for.
///
/// Exit codes: 0 fine, 1 it could not go on or found something, 2 usage or unusable input.
pub fn run() -> ExitCode {
    // clap itself exits with 2 on bad usage and with 0 on --help.
    match Cli::parse().verb {
        Verb::Serve(serve) => serve.run(),
        Verb::Check(check) => check.run(),
        Verb::Test(test) => test.run(),
        Verb::Explain(explain) => explain.run(),
        Verb::Replay(replay) => replay.run(),
        Verb::Status(status) => status.run(),
        Verb::Decisions(decisions) => decisions.run(),
        Verb::Event(event) => event.run(),
        Verb::Episodes(episodes) => episodes.run(),
        Verb::DeadLetters(dead_letters) => dead_letters.run(),
        Verb::Pause(pause) => pause.run(),
        Verb::Resume(resume) => resume.run(),
        Verb::Reload(reload) => reload.run(),
        Verb::Schema(schema) => schema.run(),
        Verb::IamPolicy(policy) => policy.run(),
        Verb::Send(send) => send.run(),
        Verb::Completions(completions) => completions.run(Cli::command()),
        Verb::Man(man) => man.run(Cli::command()),
    }
}
