//! What was given up: `dead-letters`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{author, pages, query, rows, text};
use crate::cli::client::{Refused, Server};
use crate::cli::shell::{Format, Formatted, print, print_json, table};

/// Show, redrive or discard deliveries that were given up
#[derive(Debug, Args)]
pub struct DeadLetters {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
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
        formatted: Formatted,
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
        which: Which,
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
        formatted: Formatted,
    },
    /// Throw them away
    Discard {
        #[command(flatten)]
        server: Server,
        #[command(flatten)]
        which: Which,
        /// Who does it, for the log. Default: $USER
        #[arg(long)]
        author: Option<String>,
        #[command(flatten)]
        formatted: Formatted,
    },
}

/// Which dead letters: one by its id, or all that these flags describe.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Which {
    /// One, as `list` shows it
    #[arg(conflicts_with_all = ["destination", "rule", "action", "given_up_before", "all"])]
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
    #[arg(long, value_name = "TIME")]
    given_up_before: Option<String>,
    /// Every one
    #[arg(long, conflicts_with_all = ["destination", "rule", "action", "given_up_before"])]
    all: bool,
}

impl Which {
    fn filter(&self) -> Value {
        let keys = [
            ("destination", &self.destination),
            ("rule", &self.rule),
            ("action", &self.action),
            ("given_up_before", &self.given_up_before),
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
    pub fn run(&self) -> ExitCode {
        let done = match &self.act {
            Act::List { server, destination, limit, formatted } => {
                list(server, destination.clone(), *limit, *formatted)
            }
            Act::Show { server, id } => {
                server.get(&format!("/api/v1/dead-letters/{id}"), &[]).map(|one| print_json(&one))
            }
            Act::Redrive { server, which, valid_for, force, author: by, formatted } => {
                let how = json!({ "valid_for": valid_for, "force": force, "author": author(by.as_ref()) });
                match &which.id {
                    Some(id) => {
                        let done = server.post(
                            &format!("/api/v1/dead-letters/{id}/redrive"),
                            &[],
                            how.to_string().as_bytes(),
                        );
                        done.map(|_| print(format!("redrove {id}")))
                    }
                    None => {
                        let body = json!({ "which": which.filter(), "how": how });
                        let done =
                            server.post("/api/v1/dead-letters/redrive", &[], body.to_string().as_bytes());
                        done.map(|done| tell("redrove", &done, *formatted))
                    }
                }
            }
            Act::Discard { server, which, author: by, formatted } => match &which.id {
                Some(id) => {
                    let who = vec![("author", author(by.as_ref()))];
                    let done = server.delete(&format!("/api/v1/dead-letters/{id}"), &who);
                    done.map(|_| print(format!("discarded {id}")))
                }
                None => {
                    let body = json!({ "which": which.filter(), "author": author(by.as_ref()) });
                    let done = server.post("/api/v1/dead-letters/discard", &[], body.to_string().as_bytes());
                    done.map(|done| tell("discarded", &done, *formatted))
                }
            },
        };
        done.map_or_else(Refused::end, |()| ExitCode::SUCCESS)
    }
}

fn list(
    server: &Server,
    destination: Option<String>,
    limit: usize,
    formatted: Formatted,
) -> Result<(), Refused> {
    let query = query([("destination", destination)]);
    let letters = pages(server, "/api/v1/dead-letters", &query, "dead_letters", limit.max(1))?;
    match formatted.format {
        Format::Json => print_json(&letters),
        Format::Text => {
            let keys = ["id", "rule", "action", "subject", "given_up_at", "attempts", "error"];
            print(table(
                &["ID", "RULE", "ACTION", "TARGET", "GIVEN UP", "TRIED", "ERROR"],
                &rows(&letters, &keys),
            ));
        }
    }
    Ok(())
}

fn tell(word: &str, done: &Value, formatted: Formatted) {
    if formatted.format == Format::Json {
        return print_json(done);
    }
    let mut shown = format!("{word} {}; {} stay\n", done["done"], done["stay_total"]);
    for stays in done["stay"].as_array().into_iter().flatten() {
        shown += &format!("  {}: {}\n", text(stays, "id"), text(stays, "reason"));
    }
    print(shown);
}
