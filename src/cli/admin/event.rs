//! `scalebridge event`.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::cell;
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::decision::readable_amount;
use crate::cli::output::{OutputArgs, pluralize};
use crate::cli::style::{Style, Tone};
use crate::domain::event::Adjustment;
use crate::ops::api::{DeliveryView, EventView};

/// Show an event with its deliveries: when it arrived, after how many attempts, and what was answered
///
/// The bridge searches from the newest event backwards, in bounded steps and without an index: an old event among
/// millions takes longer. Events are kept for `retention.delivered`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Event {
    #[command(flatten)]
    server: Server,
    /// Id of the event, as shown by `decisions`
    id: String,
    #[command(flatten)]
    output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  Did the event reach the queue, when, with which message id, after how many attempts?
    scalebridge event b3f0c1d2e3f4a5b6c7d8e9f0a1b2c3d4
  The event as it is delivered
    scalebridge event b3f0c1d2e3f4a5b6c7d8e9f0a1b2c3d4 -o json

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input, also an unknown event";

impl Event {
    pub(crate) fn run(&self) -> ExitCode {
        let found = self.server.get::<Raw<EventView>>(&format!("/api/v1/events/{}", self.id), &());
        found.map_or_else(ClientError::report, |event| {
            self.output.print(&event, |style| text(style, &event.value));
            ExitCode::SUCCESS
        })
    }
}

fn text(style: &Style, view: &EventView) -> String {
    let id = string(&view.event, "/id");
    let mut shown = format!("{}\n", style.paint(Tone::Strong, &format!("event {id}")));
    shown += &style.fields(&event_fields(style, &view.event));
    shown += "\ndeliveries\n";
    for delivery in &view.deliveries {
        shown += &format!("{}\n", delivery_entry(style, delivery));
    }
    let has_dead = view.deliveries.iter().any(|delivery| delivery.state == "dead");
    let mut commands = Vec::new();
    if has_dead {
        commands.push(("scalebridge dead-letters list".to_owned(), "why it was given up, and its id"));
    }
    commands.push((format!("scalebridge event {id} -o json"), "the event as it is delivered"));
    shown + &helpful(&commands)
}

/// What an event says, as fields.
pub(super) fn event_fields(style: &Style, event: &Value) -> [(&'static str, String); 9] {
    let adjustment = event.pointer("/data/adjustment").cloned().unwrap_or_default();
    let amount = serde_json::from_value::<Adjustment>(adjustment);
    let amount =
        amount.map_or_else(|_| String::new(), |amount| format!(" {}", readable_amount(&amount.to_short())));
    let reverts = event.pointer("/data/reverts").and_then(Value::as_array).map_or(0, Vec::len);
    let answers = if reverts > 0 { pluralize(reverts, "earlier increase") } else { String::new() };
    [
        ("action", format!("{}{amount}", string(event, "/data/action"))),
        ("rule", string(event, "/data/rule")),
        ("target", string(event, "/subject")),
        ("reason", string(event, "/data/reason")),
        ("takes back", answers),
        ("source", string(event, "/data/notification/source")),
        ("emitted", time(style, event, "/time")),
        ("expires", time(style, event, "/expirytime")),
        ("episode", string(event, "/data/episode/id")),
    ]
}

fn string(event: &Value, path: &str) -> String {
    event.pointer(path).and_then(Value::as_str).map(cell).unwrap_or_default()
}

fn time(style: &Style, event: &Value, path: &str) -> String {
    event.pointer(path).and_then(Value::as_str).map(|time| style.time(time)).unwrap_or_default()
}

fn delivery_entry(style: &Style, delivery: &DeliveryView) -> String {
    let DeliveryView { destination, state, attempts, .. } = delivery;
    let tone = match &**state {
        "delivered" => Tone::Good,
        "pending" | "retrying" => Tone::Blocked,
        "dead" => Tone::Bad,
        _ => Tone::Plain,
    };
    let when = match (&delivery.delivered_at, &delivery.next_attempt_at) {
        (Some(at), _) => format!("{} {}", cell(state), style.time(at)),
        (None, Some(next)) => format!("{}, next attempt {}", cell(state), style.time(next)),
        (None, None) => cell(state),
    };
    let attempts = pluralize(*attempts as usize, "attempt");
    let optional = |name: &str, text: &Option<String>| {
        text.as_deref().map_or_else(String::new, |text| format!("{name}: {}", cell(text)))
    };
    let suspended = if delivery.suspended { "taken back until nothing blocks it" } else { "" };
    let uncertain = if delivery.uncertain { "a call may have arrived without an answer" } else { "" };
    let parts = [
        format!("  {}", cell(destination)),
        style.paint(tone, &when),
        attempts,
        optional("answer", &delivery.answer),
        optional("error", &delivery.error),
        suspended.to_owned(),
        uncertain.to_owned(),
        optional("waits for event", &delivery.blocked_by),
    ];
    style.entry(4, &parts)
}

/// Commands and what they do.
pub(super) fn helpful(commands: &[(String, &str)]) -> String {
    let mut shown = "\nwhat helps\n".to_owned();
    for (command, effect) in commands {
        shown += &format!("  {command}\n      {effect}\n");
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::style::tests::terminal;

    #[test]
    fn an_event_says_when_it_arrived_with_which_answer_and_after_how_many_attempts() {
        let view = json!({
            "emitted_at": "2026-11-29T00:10:00Z",
            "event": {
                "id": "05527f34f17c7c15de78327fa19e43ef", "subject": "eks/nodegroup/-/eu-west-1/prod-eu/-/workers",
                "time": "2026-11-29T00:10:00Z", "expirytime": "2026-11-29T01:10:00Z",
                "data": {
                    "rule": "pods", "action": "scale_out", "reason": "2 alerts firing: KubePodUnschedulable",
                    "adjustment": { "type": "ChangeInCapacity", "value": 2, "min_magnitude": null },
                    "notification": { "source": "prod-eu" }, "episode": { "id": "e1" }, "reverts": [],
                },
            },
            "deliveries": [
                { "destination": "queue", "state": "delivered", "attempts": 3, "delivered_at": "2026-11-29T00:10:04Z",
                  "answer": "MessageId 5f0c8a3e-0a6b-4b0e-9d3e-1f5f6f0a9d11" },
                { "destination": "audit", "state": "retrying", "attempts": 2, "error": "throttled",
                  "next_attempt_at": "2026-11-29T00:31:00Z" },
                { "destination": "old", "state": "dead", "attempts": 9, "error": "no such queue" },
            ],
        });
        insta::assert_snapshot!(text(&terminal(80), &serde_json::from_value(view).unwrap()), @r"
        event 05527f34f17c7c15de78327fa19e43ef
          action   scale_out +2
          rule     pods
          target   eks/nodegroup/-/eu-west-1/prod-eu/-/workers
          reason   2 alerts firing: KubePodUnschedulable
          source   prod-eu
          emitted  02:10:00 (20m ago)
          expires  03:10:00 (in 40m)
          episode  e1

        deliveries
          queue  delivered 02:10:04 (19m ago)  3 attempts
            answer: MessageId 5f0c8a3e-0a6b-4b0e-9d3e-1f5f6f0a9d11
          audit  retrying, next attempt 02:31:00 (in 1m)  2 attempts  error: throttled
          old  dead  9 attempts  error: no such queue

        what helps
          scalebridge dead-letters list
              why it was given up, and its id
          scalebridge event 05527f34f17c7c15de78327fa19e43ef -o json
              the event as it is delivered
        ");
    }
}
