//! `scalebridge send`: a notification as Alertmanager would send it, to try a running bridge.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::client;
use super::output::{EXIT_FAILED, print, usage_error};
use crate::app::wall_clock;
use crate::domain::fingerprint;
use crate::telemetry;

/// Send a notification in Alertmanager's format, to try a running bridge
///
/// The same labels are the same alert: send it with --firing first, and later with --resolved.
#[derive(Debug, Args)]
pub(super) struct Send {
    /// The webhook, for example http://127.0.0.1:9096/webhook/local
    #[arg(long, value_name = "URL")]
    url: String,
    /// The alert fires (the default)
    #[arg(long, conflicts_with = "resolved")]
    firing: bool,
    /// The alert has resolved
    #[arg(long)]
    resolved: bool,
    /// An annotation of the alert
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = parse_pair)]
    annotations: Vec<(String, String)>,
    /// A file with the source's bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Labels of the alert, alertname among them
    #[arg(value_name = "LABEL=VALUE", required = true, value_parser = parse_pair)]
    labels: Vec<(String, String)>,
}

fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

impl Send {
    pub(super) fn run(&self) -> ExitCode {
        let (labels, annotations): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (self.labels.iter().cloned().collect(), self.annotations.iter().cloned().collect());
        let token = match self.token_file.as_ref().map(std::fs::read_to_string).transpose() {
            Ok(token) => token,
            Err(error) => return usage_error(format_args!("cannot read the token: {error}")),
        };
        if !self.url.starts_with("http://") {
            let why = "is no http:// address of a webhook, for example http://127.0.0.1:9096/webhook/local";
            return usage_error(format_args!("--url {} {why}", self.url));
        }
        let now = wall_clock().to_string();
        let status = if self.resolved { "resolved" } else { "firing" };
        let ends_at = if self.resolved { now.as_str() } else { "0001-01-01T00:00:00Z" };
        let pairs = labels.iter().map(|(name, value): (&String, &String)| (name.as_str(), value.as_str()));
        let body = json!({
            "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": status, "receiver": "scalebridge-send",
            "groupLabels": {}, "commonLabels": labels, "commonAnnotations": annotations,
            "externalURL": "http://scalebridge-send",
            "alerts": [{
                "status": status, "labels": labels, "annotations": annotations, "startsAt": now, "endsAt": ends_at,
                "generatorURL": "", "fingerprint": fingerprint::from_labels(pairs),
            }],
        });
        match client::send_notification(
            &self.url,
            token.as_deref().map(str::trim),
            body.to_string().as_bytes(),
        ) {
            Ok((200, answer)) => {
                print(answer);
                ExitCode::SUCCESS
            }
            Ok((status, answer)) => {
                telemetry::print_to_stderr(format_args!(
                    "scalebridge: {} answers {status}: {}",
                    self.url,
                    answer.trim()
                ));
                ExitCode::from(EXIT_FAILED)
            }
            Err(error) => error.report(),
        }
    }
}
