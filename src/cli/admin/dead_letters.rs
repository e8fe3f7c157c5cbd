//! `scalebridge dead-letters`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{author, fetch_pages, query_params, rows, text};
use crate::cli::client::{ClientError, Server};
use crate::cli::output::{Format, OutputArgs, print, print_json, table};

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
        /// Also redrive events that decrease capacity
        #[arg(long)]
        force: bool,
        /// Operator name for the log. Default: $USER
        #[arg(long)]
        author: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Discard dead letters
    Discard {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        selector: DeadLetterSelector,
        /// Operator name for the log. Default: $USER
        #[arg(long)]
        author: Option<String>,
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
    fn filter(&self) -> Value {
        let keys = [
            ("destination", &self.destination),
            ("rule", &self.rule),
            ("action", &self.action),
            ("given_up_before", &self.dead_before),
        ];
        let mut filter: Map<String, Value> = keys
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into())))
            .collect();
        if self.all {
            filter.insert("all".to_owned(), true.into());
        }
        Value::Object(filter)
    }
}

impl DeadLetters {
    pub(crate) fn run(&self) -> ExitCode {
        let result = match &self.command {
            DeadLetterCommand::List { server, destination, limit, output } => {
                list(server, destination.clone(), *limit, *output)
            }
            DeadLetterCommand::Show { server, id } => server
                .get(&format!("/api/v1/dead-letters/{id}"), &[])
                .map(|dead_letter| print_json(&dead_letter)),
            DeadLetterCommand::Redrive { server, selector, valid_for, force, author: operator, output } => {
                let options =
                    json!({ "valid_for": valid_for, "force": force, "author": author(operator.as_ref()) });
                match &selector.id {
                    Some(id) => {
                        let result = server.post(
                            &format!("/api/v1/dead-letters/{id}/redrive"),
                            &[],
                            options.to_string().as_bytes(),
                        );
                        result.map(|_| print(format!("redriven {id}")))
                    }
                    None => {
                        let body = json!({ "selector": selector.filter(), "options": options });
                        let result =
                            server.post("/api/v1/dead-letters/redrive", &[], body.to_string().as_bytes());
                        result.map(|result| print_bulk_result("redriven", &result, *output))
                    }
                }
            }
            DeadLetterCommand::Discard { server, selector, author: operator, output } => match &selector.id {
                Some(id) => {
                    let author_query = vec![("author", author(operator.as_ref()))];
                    let result = server.delete(&format!("/api/v1/dead-letters/{id}"), &author_query);
                    result.map(|_| print(format!("discarded {id}")))
                }
                None => {
                    let body = json!({ "selector": selector.filter(), "author": author(operator.as_ref()) });
                    let result =
                        server.post("/api/v1/dead-letters/discard", &[], body.to_string().as_bytes());
                    result.map(|result| print_bulk_result("discarded", &result, *output))
                }
            },
        };
        result.map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }
}

fn list(
    server: &Server,
    destination: Option<String>,
    limit: usize,
    output: OutputArgs,
) -> Result<(), ClientError> {
    let query = query_params([("destination", destination)]);
    let dead_letters = fetch_pages(server, "/api/v1/dead-letters", &query, "dead_letters", limit.max(1))?;
    match output.format {
        Format::Json => print_json(&dead_letters),
        Format::Text => {
            let keys = ["id", "rule", "action", "subject", "given_up_at", "attempts", "error"];
            print(table(
                &["ID", "RULE", "ACTION", "TARGET", "GIVEN UP", "ATTEMPTS", "ERROR"],
                &rows(&dead_letters, &keys),
            ));
        }
    }
    Ok(())
}

fn print_bulk_result(word: &str, result: &Value, output: OutputArgs) {
    if output.format == Format::Json {
        return print_json(result);
    }
    let mut shown = format!("{word}: {}, failed: {}\n", result["succeeded"], result["failed_total"]);
    for failure in result["failed"].as_array().into_iter().flatten() {
        shown += &format!("  {}: {}\n", text(failure, "id"), text(failure, "reason"));
    }
    print(shown);
}
