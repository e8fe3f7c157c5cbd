//! What people stop, and let go on: `pause`, `resume`.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{author, rows};
use crate::cli::client::{ClientError, Server};
use crate::cli::output::{Format, OutputArgs, print, print_json, table, usage_error};

/// Stop actions of a running bridge: all of them, or those of a rule, about a target, in a direction
///
/// What is stopped waits, and is decided again when the pause has ended. Without flags the pauses that are in
/// force are listed.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    #[command(flatten)]
    server: Server,
    /// Everything
    #[arg(long, conflicts_with_all = ["rule", "target", "direction"])]
    all: bool,
    /// Actions of this rule
    #[arg(long)]
    rule: Option<String>,
    /// Actions about targets with this key, such as 'eks/*/prod-eu/*'; `*` is any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Actions in this direction
    #[arg(long, value_parser = ["scale_out", "scale_in"])]
    direction: Option<String>,
    /// Ends by itself after this; without it the pause lasts until `resume`
    #[arg(long = "for", value_name = "DURATION")]
    ends_after: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// Who. Default: $USER
    #[arg(long)]
    author: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

const PAUSE_KEYS: [&str; 8] = ["id", "rule", "target", "direction", "since", "until", "author", "reason"];
const PAUSE_HEADERS: [&str; 8] = ["ID", "RULE", "TARGET", "DIRECTION", "SINCE", "UNTIL", "AUTHOR", "REASON"];

impl Pause {
    pub(crate) fn run(&self) -> ExitCode {
        let some = self.rule.is_some() || self.target.is_some() || self.direction.is_some();
        let shown = if some || self.all {
            let Some(reason) = &self.reason else {
                return usage_error("say why: --reason 'node image is being exchanged'");
            };
            let given = [
                ("rule", &self.rule),
                ("target", &self.target),
                ("direction", &self.direction),
                ("ends_after", &self.ends_after),
            ];
            let mut body: Map<String, Value> = given
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value.as_deref()?.into())))
                .collect();
            body.insert("author".to_owned(), author(self.author.as_ref()).into());
            body.insert("reason".to_owned(), reason.as_str().into());
            let body = Value::Object(body).to_string();
            self.server.post("/api/v1/pauses", &[], body.as_bytes()).map(|pause| json!([pause]))
        } else if self.reason.is_some() || self.ends_after.is_some() {
            return usage_error("say what to pause: --all, --rule, --target or --direction");
        } else {
            self.server.get("/api/v1/pauses", &[])
        };
        match (shown, self.output.format) {
            (Ok(pauses), Format::Json) => print_json(&pauses),
            (Ok(pauses), Format::Text) => print(table(&PAUSE_HEADERS, &rows(&pauses, &PAUSE_KEYS))),
            (Err(error), _) => return error.report(),
        }
        ExitCode::SUCCESS
    }
}

/// End a pause: what it has stopped is decided again at once
#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    server: Server,
    /// The pause's number, as `pause` shows it
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<u64>,
    /// Every pause
    #[arg(long)]
    all: bool,
    /// Who. Default: $USER
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
            ended.map(|_| print(format!("pause {id} has ended")))
        };
        let ended = ids.and_then(|ids| ids.iter().try_for_each(end));
        ended.map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }
}
