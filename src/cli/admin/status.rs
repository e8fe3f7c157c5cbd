//! `scalebridge status`, `scalebridge episodes` and `scalebridge reload`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::{Watch, fetch_pages, query_params, rows, text};
use crate::cli::client::Server;
use crate::cli::output::{Format, OutputArgs, print, print_json, table};

/// Show the status of a running bridge
#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    output: OutputArgs,
}

impl Status {
    pub(crate) fn run(&self) -> ExitCode {
        let format = self.output.format;
        self.watch.show(format, || {
            let status = self.server.get("/api/v1/status", &[])?;
            let destinations = self.server.get("/api/v1/destinations", &[])?;
            let sources = self.server.get("/api/v1/sources", &[])?;
            if format == Format::Json {
                print_json(&json!({ "status": status, "destinations": destinations, "sources": sources }));
                return Ok(());
            }
            let mut shown = format!(
                "scalebridge {} is {}: {} rules, {} sources, {} destinations; configuration loaded at {}\n",
                text(&status, "version"),
                text(&status, "phase"),
                status["rules"],
                status["sources"],
                status["destinations"],
                text(&status["configuration"], "loaded_at"),
            );
            if let Some(error) = status["configuration"]["last_error"].as_str() {
                shown += &format!(
                    "The last reload was REJECTED, the running configuration stays active:\n{error}\n"
                );
            }
            if status["configuration"]["needs_restart"].is_array() {
                shown += &format!(
                    "Restart needed to apply changes to: {}\n",
                    text(&status["configuration"], "needs_restart")
                );
            }
            let counts = |key: &str| {
                let counts = status[key].as_object().map(|map| map.iter()).into_iter().flatten();
                let counts: Vec<String> = counts.map(|(name, count)| format!("{name} {count}")).collect();
                if counts.is_empty() { "none".to_owned() } else { counts.join(", ") }
            };
            shown += &format!("pauses: {}\n", status["pauses"]);
            shown += &format!("open episodes: {}\n", counts("open_episodes"));
            shown += &format!("deferred: {}\n\n", counts("deferred"));
            let keys = ["name", "kind", "pending", "retrying", "dead_letters", "oldest_seconds", "failing"];
            let headers = ["DESTINATION", "KIND", "PENDING", "RETRYING", "DEAD", "OLDEST (S)", "FAILING"];
            shown += &table(&headers, &rows(&destinations, &keys));
            shown.push('\n');
            let keys = ["name", "heartbeat", "heartbeat_open_since"];
            shown += &table(&["SOURCE", "HEARTBEAT", "OPEN SINCE"], &rows(&sources, &keys));
            print(shown);
            Ok(())
        })
    }
}

/// Show open episodes and deferred actions
#[derive(Debug, Args)]
pub(crate) struct Episodes {
    #[command(flatten)]
    server: Server,
    /// Filter by rule
    #[arg(long)]
    rule: Option<String>,
    /// Filter by target key pattern; `*` matches any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Maximum number of results
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
    #[command(flatten)]
    output: OutputArgs,
}

impl Episodes {
    pub(crate) fn run(&self) -> ExitCode {
        let format = self.output.format;
        let query = query_params([("rule", self.rule.clone()), ("target", self.target.clone())]);
        self.watch.show(format, || {
            let episodes =
                fetch_pages(&self.server, "/api/v1/episodes", &query, "episodes", self.limit.max(1))?;
            if format == Format::Json {
                print_json(&episodes);
                return Ok(());
            }
            let row = |episode: &Value| {
                let alerts = episode["alerts"].as_array().map_or(0, Vec::len);
                let mut row =
                    ["rule", "subject", "phase", "opened_at"].map(|key| text(episode, key)).to_vec();
                row.push(alerts.to_string());
                row.push(text(episode, "emissions"));
                row.push(match &episode["deferred"] {
                    Value::Null => "-".to_owned(),
                    deferred => format!("{} until {}", text(deferred, "verdict"), text(deferred, "until")),
                });
                row
            };
            let rows: Vec<Vec<String>> = episodes.as_array().into_iter().flatten().map(row).collect();
            print(table(&["RULE", "TARGET", "PHASE", "OPENED", "ALERTS", "EVENTS", "DEFERRED"], &rows));
            Ok(())
        })
    }
}

/// Reload the configuration of a running bridge (atomic)
#[derive(Debug, Args)]
pub(crate) struct Reload {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    output: OutputArgs,
}

impl Reload {
    pub(crate) fn run(&self) -> ExitCode {
        match (self.server.post("/-/reload", &[], b""), self.output.format) {
            (Ok(report), Format::Json) => print_json(&report),
            (Ok(report), Format::Text) => {
                let lines = |key: &str| report[key].as_array().cloned().unwrap_or_default();
                let mut shown = String::new();
                for changed in lines("changed") {
                    shown += &format!("{}\n", changed.as_str().unwrap_or_default());
                }
                if shown.is_empty() {
                    shown += "no changes\n";
                }
                for key in lines("needs_restart") {
                    shown += &format!("{} changed, restart needed\n", key.as_str().unwrap_or_default());
                }
                for warning in lines("warnings") {
                    shown += &format!("{}\n", warning.as_str().unwrap_or_default());
                }
                print(shown);
            }
            (Err(error), _) => return error.report(),
        }
        ExitCode::SUCCESS
    }
}
