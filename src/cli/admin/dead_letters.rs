//! What was given up: `dead-letters`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{author, fetch_pages, query_params, rows, text};
use crate::cli::client::{ClientError, Server};
use crate::cli::output::{Format, OutputArgs, print, print_json, table};

/// Show, redrive or discard deliveries that were given up
#[derive(Debug, Args)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

#[derive(Debug, Subcommand)]
enum DeadLetterCommand {
    /// List them, the oldest event first
    List {
        #[command(flatten)]
        server: Server,
        /// Of this destination
        #[arg(long)]
        destination: Option<String>,
        /// How many at most
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show one with its event
    Show {
        #[command(flatten)]
        server: Server,
        /// As `list` shows it
        id: String,
    },
    /// Send them once more: the same events with their ids
    Redrive {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        selector: DeadLetterSelector,
        /// Consumers may act on them for so long from now. Without it one that has expired stays where it is
        #[arg(long, value_name = "DURATION")]
        valid_for: Option<String>,
        /// Also what takes capacity away
        #[arg(long)]
        force: bool,
        /// Who does it, for the log. Default: $USER
        #[arg(long)]
        author: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Throw them away
    Discard {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        selector: DeadLetterSelector,
        /// Who does it, for the log. Default: $USER
        #[arg(long)]
        author: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Which dead letters: one by its id, or all that these flags describe.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct DeadLetterSelector {
    /// One, as `list` shows it
    #[arg(conflicts_with_all = ["destination", "rule", "action", "dead_before", "all"])]
    id: Option<String>,
    /// All of this destination
    #[arg(long)]
    destination: Option<String>,
    /// All of this rule
    #[arg(long)]
    rule: Option<String>,
    /// All with this action
    #[arg(long)]
    action: Option<String>,
    /// All that were given up before: RFC 3339, or how long ago
    #[arg(long, alias = "given-up-before", value_name = "TIME")]
    dead_before: Option<String>,
    /// Every one
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
            DeadLetterCommand::Show { server, id } => {
                server.get(&format!("/api/v1/dead-letters/{id}"), &[]).map(|one| print_json(&one))
            }
            DeadLetterCommand::Redrive { server, selector, valid_for, force, author: by, output } => {
                let options =
                    json!({ "valid_for": valid_for, "force": force, "author": author(by.as_ref()) });
                match &selector.id {
                    Some(id) => {
                        let result = server.post(
                            &format!("/api/v1/dead-letters/{id}/redrive"),
                            &[],
                            options.to_string().as_bytes(),
                        );
                        result.map(|_| print(format!("redrove {id}")))
                    }
                    None => {
                        let body = json!({ "which": selector.filter(), "how": options });
                        let result =
                            server.post("/api/v1/dead-letters/redrive", &[], body.to_string().as_bytes());
                        result.map(|result| print_bulk_result("redrove", &result, *output))
                    }
                }
            }
            DeadLetterCommand::Discard { server, selector, author: by, output } => match &selector.id {
                Some(id) => {
                    let author_query = vec![("author", author(by.as_ref()))];
                    let result = server.delete(&format!("/api/v1/dead-letters/{id}"), &author_query);
                    result.map(|_| print(format!("discarded {id}")))
                }
                None => {
                    let body = json!({ "which": selector.filter(), "author": author(by.as_ref()) });
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
                &["ID", "RULE", "ACTION", "TARGET", "GIVEN UP", "TRIED", "ERROR"],
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
    let mut shown = format!("{word} {}; {} stay\n", result["done"], result["stay_total"]);
    for failure in result["stay"].as_array().into_iter().flatten() {
        shown += &format!("  {}: {}\n", text(failure, "id"), text(failure, "reason"));
    }
    print(shown);
}
