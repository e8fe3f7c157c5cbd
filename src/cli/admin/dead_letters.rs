//! `scalebridge dead-letters`.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::event::{event_fields, helpful};
use super::{InitiatorArgs, cell, fetch_pages};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::output::{OutputArgs, print, print_note};
use crate::cli::style::{Style, Tone};
use crate::ops::api::{
    self, BulkDiscard, BulkRedrive, BulkResult, DeadLetterPage, DeadLetterView, InitiatorParams,
    ListDeadLettersParams, RedriveOptions,
};

/// Show, redrive or discard dead letters (deliveries that were given up)
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct DeadLetters {
    #[command(subcommand)]
    command: DeadLetterCommand,
}

const EXAMPLES: &str = "\
Examples:
  Why is this dead, and what can I do?
    scalebridge dead-letters show 17-scaling-queue
  A queue works again: send everything again that is still valid
    scalebridge dead-letters redrive --destination scaling-queue

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input, also an unknown id";

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
    /// Show why a dead letter was given up, its event, and what can be done
    Show {
        #[command(flatten)]
        server: Server,
        /// Id of the dead letter, as shown by `list`
        id: String,
        #[command(flatten)]
        output: OutputArgs,
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
            DeadLetterCommand::Show { server, id, output } => server
                .get::<Raw<DeadLetterView>>(&format!("/api/v1/dead-letters/{id}"), &())
                .map(|dead_letter| output.print(&dead_letter, |style| text(style, &dead_letter.value))),
            DeadLetterCommand::Redrive { server, selector, valid_for, force, initiator, output } => {
                let InitiatorParams { author, reason } = initiator.params(server);
                let options = RedriveOptions { valid_for: valid_for.clone(), force: *force, author, reason };
                redrive(server, selector, options, *output)
            }
            DeadLetterCommand::Discard { server, selector, initiator, output } => {
                discard(server, selector, initiator.params(server), *output)
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
    output.print(&dead_letters, |style| {
        if dead_letters.is_empty() {
            print_note("no dead letters found");
            return String::new();
        }
        let headers = ["ID", "RULE", "ACTION", "TARGET", "GIVEN UP", "ATTEMPTS", "ERROR"];
        let rows: Vec<Vec<String>> = dead_letters.iter().map(|raw| row(style, &raw.value)).collect();
        style.table(&headers, &rows)
    });
    Ok(())
}

fn row(style: &Style, dead_letter: &DeadLetterView) -> Vec<String> {
    let DeadLetterView { id, rule, action, subject, given_up_at, attempts, error, .. } = dead_letter;
    let (given_up_at, attempts) = (style.clock(given_up_at), attempts.to_string());
    [id, rule, action, subject, &given_up_at, &attempts, error].map(|text| cell(text)).into()
}

/// Why a delivery was given up, its event, and what can be done.
fn text(style: &Style, dead_letter: &DeadLetterView) -> String {
    let DeadLetterView { id, destination, event_id, given_up_at, attempts, error, event, .. } = dead_letter;
    let mut shown = format!("{}\n", style.paint(Tone::Strong, &format!("dead letter {}", cell(id))));
    let mut fields = vec![
        ("given up", style.time(given_up_at)),
        ("why", cell(error)),
        ("destination", cell(destination)),
        ("attempts", attempts.to_string()),
        ("event", cell(event_id)),
    ];
    fields.extend(event.iter().flat_map(|event| event_fields(style, event)));
    shown += &style.fields(&fields);
    shown + &helpful(&commands(style, dead_letter))
}

/// What can be done with a dead letter, the likeliest first.
fn commands(style: &Style, dead_letter: &DeadLetterView) -> Vec<(String, &'static str)> {
    let DeadLetterView { id, event_id, expires_at, decreases_capacity, .. } = dead_letter;
    let (id, event_id) = (cell(id), cell(event_id));
    let is_expired = expires_at.as_deref().is_none_or(|at| style.is_past(at));
    let redrive = match is_expired {
        true => format!("scalebridge dead-letters redrive {id} --valid-for 15m"),
        false => format!("scalebridge dead-letters redrive {id}"),
    };
    let effect = match (is_expired, decreases_capacity) {
        (false, false) => "sends it again with the same id; with --force if its episode is over",
        (true, false) => "sends it again with a new expiry; with --force if its episode is over",
        (false, true) => "sends it again; with --force if something fires on its target",
        (true, true) => "sends it again with a new expiry; --force if something fires on its target",
    };
    vec![
        (redrive, effect),
        (format!("scalebridge dead-letters discard {id} --reason TEXT"), "gives it up for good"),
        (format!("scalebridge event {event_id}"), "whether it reached other destinations"),
        ("scalebridge destinations".to_owned(), "whether the destination works now"),
        (
            format!("scalebridge decisions --target '{}' --since 1h", cell(&dead_letter.subject)),
            "what has happened on the target since",
        ),
    ]
}

fn print_bulk_result(word: &str, result: &Raw<BulkResult>, output: OutputArgs) {
    if !output.format.is_text() {
        return output.format.print_data(result);
    }
    let BulkResult { succeeded, failed, failed_total } = &result.value;
    let mut shown = format!("{word}: {succeeded}, failed: {failed_total}\n");
    for failure in failed {
        shown += &format!("  {}: {}\n", cell(&failure.id), cell(&failure.reason));
    }
    print(shown);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::style::tests::terminal;

    fn shown(expires_at: &str, decreases_capacity: bool) -> String {
        let dead_letter = json!({
            "id": "17-queue", "destination": "queue", "event_id": "05527f34f17c7c15de78327fa19e43ef", "rule": "pods",
            "subject": "ecs/service/-/-/-/-/api", "action": "scale_out", "takes_away": decreases_capacity,
            "emitted_at": "2026-11-28T23:10:00Z", "expires_at": expires_at, "given_up_at": "2026-11-29T00:10:00Z",
            "attempts": 12, "error": "AccessDenied: not authorized to perform sqs:SendMessage",
            "event": {
                "id": "05527f34f17c7c15de78327fa19e43ef", "subject": "ecs/service/-/-/-/-/api",
                "data": { "rule": "pods", "action": "scale_out", "reason": "1 alert firing: ApiLoad" },
            },
        });
        text(&terminal(80), &serde_json::from_value(dead_letter).unwrap())
    }

    #[test]
    fn a_dead_letter_says_why_it_is_dead_and_what_can_be_done() {
        insta::assert_snapshot!(shown("2026-11-29T00:00:00Z", false), @r"
        dead letter 17-queue
          given up     02:10:00 (20m ago)
          why          AccessDenied: not authorized to perform sqs:SendMessage
          destination  queue
          attempts     12
          event        05527f34f17c7c15de78327fa19e43ef
          action       scale_out
          rule         pods
          target       ecs/service/-/-/-/-/api
          reason       1 alert firing: ApiLoad

        what helps
          scalebridge dead-letters redrive 17-queue --valid-for 15m
              sends it again with a new expiry; with --force if its episode is over
          scalebridge dead-letters discard 17-queue --reason TEXT
              gives it up for good
          scalebridge event 05527f34f17c7c15de78327fa19e43ef
              whether it reached other destinations
          scalebridge destinations
              whether the destination works now
          scalebridge decisions --target 'ecs/service/-/-/-/-/api' --since 1h
              what has happened on the target since
        ");
    }

    #[test]
    fn a_redrive_is_proposed_as_it_will_be_accepted() {
        let expired = shown("2026-11-29T00:00:00Z", true);
        assert!(
            expired.contains("redrive 17-queue --valid-for 15m\n") && expired.contains("--force"),
            "{expired}"
        );
        let valid = shown("2026-11-29T02:00:00Z", false);
        assert!(valid.contains("redrive 17-queue\n") && valid.contains("if its episode is over"), "{valid}");
    }
}
