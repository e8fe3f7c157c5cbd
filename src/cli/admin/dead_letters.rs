//! `scalebridge dead-letters`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{InitiatorArgs, cell, fetch_pages};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::output::{Format, OutputArgs, print, print_json, table};
use crate::ops::api::{
    self, BulkDiscard, BulkRedrive, BulkResult, DeadLetterPage, DeadLetterView, InitiatorParams,
    ListDeadLettersParams, RedriveOptions,
};

/// Show, redrive or discard dead letters (deliveries that were given up)
#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// List dead letters, oldest first
    List {
        #[command(flatten)]
        server: Server,
        /// Filter by destination
        #[arg(long)]
        destination: Option<String>,
        /// Maximum number of results
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a dead letter with its event
    Show {
        #[command(flatten)]
        server: Server,
        /// Id of the dead letter, as shown by `list`
        id: String,
    },
    /// Send dead letters again: the same events with the same ids
    Redrive {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        selector: DeadLetterSelector,
        /// Set the expiry of the events to this duration from now; without it, expired events are not redriven
        #[arg(long, value_name = "DURATION")]
        valid_for: Option<String>,
        /// Also redrive increases whose episode is over, and decreases while something fires on their target
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        initiator: InitiatorArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Discard dead letters
    Discard {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        selector: DeadLetterSelector,
        #[command(flatten)]
        initiator: InitiatorArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Selects one dead letter by its id, or all that match the filters.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct DeadLetterSelector {
    /// Select one by its id, as shown by `list`
    #[arg(conflicts_with_all = ["destination", "rule", "action", "dead_before", "all"])]
    id: Option<String>,
    /// Select by destination
    #[arg(long)]
    destination: Option<String>,
    /// Select by rule
    #[arg(long)]
    rule: Option<String>,
    /// Select by action
    #[arg(long)]
    action: Option<String>,
    /// Select those given up before this time: RFC 3339, or a duration before now such as 90m
    #[arg(long, alias = "given-up-before", value_name = "TIME")]
    dead_before: Option<String>,
    /// Select all dead letters
    #[arg(long, conflicts_with_all = ["destination", "rule", "action", "dead_before"])]
    all: bool,
}

impl DeadLetterSelector {
    fn filter(&self) -> api::DeadLetterSelector {
        api::DeadLetterSelector {
            destination: self.destination.clone(),
            rule: self.rule.clone(),
            action: self.action.clone(),
            given_up_before: self.dead_before.clone(),
            all: self.all,
        }
    }
}

impl DeadLetters {
    pub(crate) fn run(&self) -> ExitCode {
        let result = match &self.command {
            DeadLetterCommand::List { server, destination, limit, output } => {
                list(server, destination.as_ref(), *limit, *output)
            }
            DeadLetterCommand::Show { server, id } => server
                .get::<Raw<DeadLetterView>>(&format!("/api/v1/dead-letters/{id}"), &())
                .map(|dead_letter| print_json(&dead_letter)),
            DeadLetterCommand::Redrive { server, selector, valid_for, force, initiator, output } => {
                let InitiatorParams { author, reason } = initiator.params();
                let options = RedriveOptions { valid_for: valid_for.clone(), force: *force, author, reason };
                redrive(server, selector, options, *output)
            }
            DeadLetterCommand::Discard { server, selector, initiator, output } => {
                discard(server, selector, initiator.params(), *output)
            }
        };
        result.map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }
}

fn redrive(
    server: &Server,
    selector: &DeadLetterSelector,
    options: RedriveOptions,
    output: OutputArgs,
) -> Result<(), ClientError> {
    if let Some(id) = &selector.id {
        server.post_json::<()>(&format!("/api/v1/dead-letters/{id}/redrive"), &options)?;
        print(format!("redriven {id}"));
        return Ok(());
    }
    let body = BulkRedrive { selector: selector.filter(), options };
    let result = server.post_json("/api/v1/dead-letters/redrive", &body)?;
    print_bulk_result("redriven", &result, output);
    Ok(())
}

fn discard(
    server: &Server,
    selector: &DeadLetterSelector,
    by: InitiatorParams,
    output: OutputArgs,
) -> Result<(), ClientError> {
    if let Some(id) = &selector.id {
        server.delete::<()>(&format!("/api/v1/dead-letters/{id}"), &by)?;
        print(format!("discarded {id}"));
        return Ok(());
    }
    let InitiatorParams { author, reason } = by;
    let body = BulkDiscard { selector: selector.filter(), author, reason };
    let result = server.post_json("/api/v1/dead-letters/discard", &body)?;
    print_bulk_result("discarded", &result, output);
    Ok(())
}

fn list(
    server: &Server,
    destination: Option<&String>,
    limit: usize,
    output: OutputArgs,
) -> Result<(), ClientError> {
    let dead_letters = fetch_pages(limit, |limit, cursor| {
        let params = ListDeadLettersParams { destination: destination.cloned(), limit: Some(limit), cursor };
        let page: DeadLetterPage<Raw<DeadLetterView>> = server.get("/api/v1/dead-letters", &params)?;
        Ok((page.dead_letters, page.next))
    })?;
    match output.format {
        Format::Json => print_json(&dead_letters),
        Format::Text => {
            let headers = ["ID", "RULE", "ACTION", "TARGET", "GIVEN UP", "ATTEMPTS", "ERROR"];
            let rows: Vec<Vec<String>> = dead_letters.iter().map(|raw| row(&raw.value)).collect();
            print(table(&headers, &rows));
        }
    }
    Ok(())
}

fn row(dead_letter: &DeadLetterView) -> Vec<String> {
    let DeadLetterView { id, rule, action, subject, given_up_at, attempts, error, .. } = dead_letter;
    let attempts = attempts.to_string();
    [id, rule, action, subject, given_up_at, &attempts, error].map(|text| cell(text)).into()
}

fn print_bulk_result(word: &str, result: &Raw<BulkResult>, output: OutputArgs) {
    if output.format == Format::Json {
        return print_json(result);
    }
    let BulkResult { succeeded, failed, failed_total } = &result.value;
    let mut shown = format!("{word}: {succeeded}, failed: {failed_total}\n");
    for failure in failed {
        shown += &format!("  {}: {}\n", cell(&failure.id), cell(&failure.reason));
    }
    print(shown);
}
