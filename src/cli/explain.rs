//! `scalebridge explain`: explains a captured notification, or prints the page of a diagnostic code.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::check::render_diagnostics;
use super::client::{Credentials, Raw, Server};
use super::escape::{escape_control_chars, escape_json};
use super::output::{
    ConfigArgs, EXIT_USAGE, OutputArgs, current_thread_runtime, environment, print, usage_error,
};
use super::{capture, decision};
use crate::bridge::Simulator;
use crate::config::diagnostic::Code;
use crate::domain::time::Time;
use crate::kinds;
use crate::ops::api::{ExplainParams, Explanation};
use crate::telemetry;

/// Explain how an alert or a captured notification would be processed, or describe a diagnostic code
///
/// For each alert, lists each rule and why it matched or not, then the decisions with their events. Nothing is
/// written. With --url, the notification is evaluated against the state of the running bridge; without it,
/// against an empty state.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  What if this alert fired now?
    scalebridge explain alertname=KubePodUnschedulable nodegroup=workers --url http://127.0.0.1:9097
  Which rule takes this alert, and why not that one?
    scalebridge explain alertname=KubePodUnschedulable nodegroup=workers
  What does a finding of `check` mean?
    scalebridge explain E012

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input")]
pub(super) struct Explain {
    /// Labels of a firing alert, the body of a notification as JSON, in the format of any kind of source (`-` for standard
    /// input), or a code such as E012
    #[arg(value_name = "LABEL=VALUE|BODY.json|CODE", required = true)]
    subject: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
    /// Source of the notification; required if several are configured
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// URL of a running bridge's admin listener
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    output: OutputArgs,
}

impl Explain {
    pub(super) fn run(&self) -> ExitCode {
        let body = match self.subject.as_slice() {
            [only] if Path::new(only).exists() || !only.contains('=') => {
                if let Some(shown) = code_page(only) {
                    return shown;
                }
                capture::read(Path::new(only))
            }
            labels => {
                let labels: Result<Vec<_>, _> = labels.iter().map(|text| capture::parse_pair(text)).collect();
                labels
                    .map_err(|error| format!("{error}, or one file"))
                    .and_then(|labels| capture::firing(&labels))
            }
        };
        let body = match body {
            Ok(body) => body,
            Err(error) => return usage_error(error),
        };
        let explained: Result<Raw<Explanation>, String> = match &self.url {
            Some(url) => {
                let server = Server::new(url.clone(), self.credentials.clone());
                let received_at = body.received_at.map(|at| at.to_string());
                let params = ExplainParams { source: self.source.clone(), received_at };
                match server.post("/api/v1/explain", &params, &body.bytes) {
                    Ok(explained) => Ok(explained),
                    Err(error) => return error.report(),
                }
            }
            None => {
                let settings = match kinds::load(&self.config.config, environment()) {
                    Ok(loaded) => loaded.settings,
                    Err(diagnostics) => {
                        telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
                        return ExitCode::from(EXIT_USAGE);
                    }
                };
                let source = match capture::select_source(&settings, self.source.as_deref()) {
                    Ok(source) => source,
                    Err(error) => return usage_error(error),
                };
                let Some(runtime) = current_thread_runtime() else { return ExitCode::FAILURE };
                let (first, last) =
                    capture::time_range(&body).unwrap_or((Time::from_nanos(0), Time::from_nanos(0)));
                let policy = settings.policy();
                let rules = settings.rules;
                let mut simulator = Simulator::new(rules, settings.sources, policy, first);
                let explained = runtime.block_on(async {
                    simulator.advance_to(last).await?;
                    simulator.explain(&source, body.notification).await
                });
                explained
                    .map(|explained| {
                        let json = serde_json::to_value(&explained).unwrap_or_default();
                        Raw::new(explained, json)
                    })
                    .map_err(|error| error.to_string())
            }
        };
        match (explained, self.output.format) {
            (Ok(explained), format) if format.is_text() => print(text(&explained.value)),
            (Ok(explained), format) => format.print_data(&explained),
            (Err(error), _) => return usage_error(error),
        }
        ExitCode::SUCCESS
    }
}

/// Prints the page of a diagnostic code. `None` if the text is not a code, or is the name of a file.
fn code_page(text: &str) -> Option<ExitCode> {
    if Path::new(text).exists() {
        return None;
    }
    if let Some(code) = Code::parse(text) {
        print(code.page());
        return Some(ExitCode::SUCCESS);
    }
    looks_like_code(text).then(|| {
        let known: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        usage_error(format_args!("unknown code {text}; known codes: {}", known.join(" ")))
    })
}

fn looks_like_code(text: &str) -> bool {
    let digits = text.strip_prefix(['E', 'W', 'N', 'e', 'w', 'n']);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn text(explained: &Explanation) -> String {
    let mut text = String::new();
    for (at, alert) in explained.alerts.iter().enumerate() {
        let labels: Vec<String> =
            alert.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let status = alert.status.as_deref().unwrap_or("unreadable");
        text += &format!("alert {} of {}, {status}: {}\n", at + 1, explained.alerts.len(), labels.join(" "));
        if let Some(why) = &alert.skipped_reason {
            text += &format!("  rules not evaluated: {}\n", escape_control_chars(why));
        }
        for suppression in &alert.suppressed_by {
            text += &format!(
                "  Alertmanager notifies nobody of it: {}\n",
                escape_control_chars(&suppression.to_string())
            );
        }
        let width = alert.rules.iter().map(|rule| rule.rule.len()).max().unwrap_or_default();
        for rule in &alert.rules {
            let word = if rule.matched { "yes" } else { "no " };
            text += &format!("  {word} {:width$}  {}\n", rule.rule, escape_control_chars(&rule.reason));
            if let Some(target) = &rule.target {
                let target = escape_json(&serde_json::to_string(target).unwrap_or_default());
                text += &format!("      {:width$}  target {target}\n", "");
            }
            if !rule.parameters.is_empty() {
                let parameters = escape_json(&serde_json::to_string(&rule.parameters).unwrap_or_default());
                text += &format!("      {:width$}  parameters {parameters}\n", "");
            }
            if let Some(metric) = rule.metric {
                text += &format!("      {:width$}  metric {metric}\n", "");
            }
        }
        text.push('\n');
    }
    text += &format!("decisions at {}:\n", explained.at);
    for decision in &explained.decisions {
        text += &format!("  {}\n", decision::explained_line(decision));
        if let Some(event @ Value::Object(_)) = &decision.event {
            let event = escape_json(&serde_json::to_string_pretty(event).unwrap_or_default());
            text += &format!("    {}\n", event.replace('\n', "\n    "));
        }
    }
    text
}
