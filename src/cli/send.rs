//! `scalebridge send`: sends a test notification in Alertmanager's format, or in that of Prometheus.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::capture::{self, parse_pair};
use super::client::{self, Credentials};
use super::output::{EXIT_FAILED, print};
use crate::app::wall_clock;
use crate::domain::notification::Status;
use crate::telemetry;
use clap::Args;

/// Send a test notification
///
/// Labels identify an alert: send it with --firing first, and later with the same labels and --resolved. The notification
/// has Alertmanager's format, or, if the URL ends in /api/v2/alerts, that of Prometheus.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  An alert fires, and resolves
    scalebridge send --url http://127.0.0.1:9096/webhook/local --firing alertname=Disk instance=a
    scalebridge send --url http://127.0.0.1:9096/webhook/local --resolved alertname=Disk instance=a
  The same of a source of kind prometheus
    scalebridge send --url http://127.0.0.1:9096/prometheus/local/api/v2/alerts alertname=Disk instance=a

Exit codes: 0 the notification was accepted, 1 it was not, 2 unusable input")]
pub(super) struct Send {
    /// URL of the webhook, for example http://127.0.0.1:9096/webhook/local
    #[arg(long, value_name = "URL")]
    url: String,
    /// Send a firing alert (default)
    #[arg(long, conflicts_with = "resolved")]
    firing: bool,
    /// Send a resolved alert
    #[arg(long)]
    resolved: bool,
    /// Annotation of the alert; can be repeated
    #[arg(long = "annotation", value_name = "NAME=VALUE", value_parser = parse_pair)]
    annotations: Vec<(String, String)>,
    #[command(flatten)]
    credentials: Credentials,
    /// Labels of the alert, including alertname
    #[arg(value_name = "LABEL=VALUE", required = true, value_parser = parse_pair)]
    labels: Vec<(String, String)>,
}

impl Send {
    pub(super) fn run(&self) -> ExitCode {
        let (labels, annotations): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (self.labels.iter().cloned().collect(), self.annotations.iter().cloned().collect());
        let status = if self.resolved { Status::Resolved } else { Status::Firing };
        let body_of = match self.url.trim_end_matches('/').ends_with("/api/v2/alerts") {
            true => capture::prometheus_body_of,
            false => capture::body_of,
        };
        let body = body_of(&labels, &annotations, status, wall_clock());
        match client::send_notification(&self.url, &self.credentials, &body) {
            Ok((200, body)) => {
                print(body);
                ExitCode::SUCCESS
            }
            Ok((status, body)) => {
                telemetry::print_to_stderr(format_args!(
                    "scalebridge: {} returned {status}: {}",
                    self.url,
                    body.trim()
                ));
                ExitCode::from(EXIT_FAILED)
            }
            Err(error) => error.report(),
        }
    }
}
