//! `scalebridge pause` and `scalebridge resume`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{author, rows};
use crate::cli::client::{ClientError, Server};
use crate::cli::output::{Format, OutputArgs, print, print_json, table, usage_error};

/// Pause actions: all, or by rule, target and direction
///
/// Paused actions are deferred and re-evaluated when the pause ends. Without flags, lists the active pauses.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    server: Server,
    /// Pause all actions
    #[arg(long, conflicts_with_all = ["rule", "target", "direction"])]
    all: bool,
    /// Pause actions of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Pause actions for targets whose key matches this pattern, such as 'eks/*/prod-eu/*'; `*` matches any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Pause actions in this direction
    #[arg(long, value_parser = ["scale_out", "scale_in"])]
    direction: Option<String>,
    /// End the pause after this duration. Default: until `resume`
    #[arg(long = "for", value_name = "DURATION")]
    ends_after: Option<String>,
    /// Reason, for other operators
    #[arg(long)]
    reason: Option<String>,
    /// Operator name. Default: $USER
    #[arg(long)]
    author: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

const PAUSE_KEYS: [&str; 8] = ["id", "rule", "target", "direction", "since", "until", "author", "reason"];
const PAUSE_HEADERS: [&str; 8] = ["ID", "RULE", "TARGET", "DIRECTION", "SINCE", "UNTIL", "AUTHOR", "REASON"];

impl Pause {
    pub(crate) fn run(&self) -> ExitCode {
        let has_filter = self.rule.is_some() || self.target.is_some() || self.direction.is_some();
        let pauses = if has_filter || self.all {
            let Some(reason) = &self.reason else {
                return usage_error("--reason is required, for example --reason 'replacing the node image'");
            };
            let fields = [
                ("rule", &self.rule),
                ("target", &self.target),
                ("direction", &self.direction),
                ("ends_after", &self.ends_after),
            ];
            let mut body: Map<String, Value> = fields
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into())))
                .collect();
            body.insert("author".to_owned(), author(self.author.as_ref()).into());
            body.insert("reason".to_owned(), reason.as_str().into());
            let body = Value::Object(body).to_string();
            self.server.post("/api/v1/pauses", &[], body.as_bytes()).map(|pause| json!([pause]))
        } else if self.reason.is_some() || self.ends_after.is_some() {
            return usage_error("specify what to pause: --all, --rule, --target or --direction");
        } else {
            self.server.get("/api/v1/pauses", &[])
        };
        match (pauses, self.output.format) {
            (Ok(pauses), Format::Json) => print_json(&pauses),
            (Ok(pauses), Format::Text) => print(table(&PAUSE_HEADERS, &rows(&pauses, &PAUSE_KEYS))),
            (Err(error), _) => return error.report(),
        }
        ExitCode::SUCCESS
    }
}

/// End a pause; deferred actions are re-evaluated at once
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    server: Server,
    /// Number of the pause, as shown by `pause`
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<u64>,
    /// End all pauses
    #[arg(long)]
    all: bool,
    /// Operator name. Default: $USER
    #[arg(long)]
    author: Option<String>,
}

impl Resume {
    pub(crate) fn run(&self) -> ExitCode {
        let ids = match self.id {
            Some(id) => Ok(vec![id.to_string()]),
            None => self
                .server
                .get("/api/v1/pauses", &[])
                .map(|pauses| rows(&pauses, &["id"]).into_iter().flatten().collect()),
        };
        let end = |id: &String| {
            let author_query = vec![("author", author(self.author.as_ref()))];
            let ended = self.server.delete(&format!("/api/v1/pauses/{id}"), &author_query);
            ended.map(|_| print(format!("pause {id} ended")))
        };
        let ended = ids.and_then(|ids| ids.iter().try_for_each(end));
        ended.map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }
}
