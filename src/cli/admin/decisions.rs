//! `scalebridge decisions`.

use std::io::BufRead as _;
use std::process::ExitCode;

use clap::Args;

use super::{PagedItems, fetch_counted, targets};
use crate::cli::client::{ClientError, Raw, Server};
use crate::cli::decision;
use crate::cli::output::{OutputArgs, print, print_note};
use crate::cli::style::Style;
use crate::cli::when::{self, Calendar, When};
use crate::ops::api::{DecisionPage, DecisionView, ListDecisionsParams};

/// Show decisions and their reasons, newest first
///
/// One entry for each decision: when, the verdict, the action and its amount, the rule, the target, the alerts and their
/// source, the event's id, and what blocks it until when. Exits with 0 also if nothing is found.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Decisions {
    #[command(flatten)]
    server: Server,
    /// Filter by the labels of an alert, in Alertmanager's syntax, such as alertname=Disk or 'pod=~"web-.*"'
    #[arg(value_name = "MATCHER")]
    alert: Vec<String>,
    /// Filter by rule
    #[arg(long)]
    rule: Option<String>,
    /// Filter by source
    #[arg(long)]
    source: Option<String>,
    /// Filter by action (scale_out, scale_in, set_capacity, notify); separate several with commas
    #[arg(long)]
    action: Option<String>,
    /// Filter by target: its name, or a pattern of its key such as 'eks/nodegroup/*/workers'; `*` matches any text
    #[arg(long, value_name = "PATTERN")]
    target: Option<String>,
    /// Filter by verdict; separate several with commas
    #[arg(long)]
    verdict: Option<String>,
    /// Filter by the fingerprint of an alert
    #[arg(long)]
    fingerprint: Option<String>,
    /// Earliest time: 1h (ago), 02:10 (the last one), today, 2026-11-29, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = when::parse)]
    since: Option<When>,
    /// Latest time, in the same forms; a time of the day is the first one after --since
    #[arg(long, value_name = "TIME", value_parser = when::parse, conflicts_with = "watch")]
    until: Option<When>,
    /// Maximum number of results
    #[arg(long, default_value_t = 50, conflicts_with = "watch")]
    limit: usize,
    /// Print new decisions as they are made, until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  What scaled today, by which rule and by how much?
    scalebridge decisions --verdict emitted --since today
  Why did a node group not scale out at 02:10?
    scalebridge decisions --target '*/workers' --since 02:00 --until 02:20
  Which rule took this alert, and what came of it?
    scalebridge decisions alertname=KubePodUnschedulable pod=web-0
  Which alerts does no rule take?
    scalebridge decisions --verdict unmatched -o wide

Exit codes: 0 success, 1 no answer from the bridge, 2 unusable input";

impl Decisions {
    pub(crate) fn run(&self) -> ExitCode {
        let shown = if self.watch { self.follow() } else { self.list() };
        shown.map_or_else(ClientError::report, |()| ExitCode::SUCCESS)
    }

    fn filter(&self) -> ListDecisionsParams {
        let (since, until) = Calendar::new(self.output.utc).range(self.since.as_ref(), self.until.as_ref());
        ListDecisionsParams {
            rule: self.rule.clone(),
            target: self.target.clone(),
            verdict: self.verdict.clone(),
            fingerprint: self.fingerprint.clone(),
            alert: (!self.alert.is_empty()).then(|| self.alert.join(", ")),
            source: self.source.clone(),
            action: self.action.clone(),
            since,
            until,
            ..ListDecisionsParams::default()
        }
    }

    fn list(&self) -> Result<(), ClientError> {
        if self.output.format.is_text() {
            targets::note_covered(&self.server, self.target.as_ref())?;
        }
        let filter = self.filter();
        let found = fetch_counted(
            self.limit,
            |limit, cursor| {
                let params = ListDecisionsParams { limit: Some(limit), cursor, ..filter.clone() };
                let page: DecisionPage<Raw<DecisionView>> = self.server.get("/api/v1/decisions", &params)?;
                Ok((page.decisions, page.next))
            },
            || {
                let params = ListDecisionsParams { limit: Some(1), count: Some(true), ..filter.clone() };
                let page: DecisionPage<Raw<DecisionView>> = self.server.get("/api/v1/decisions", &params)?;
                Ok(page.total.map(|total| (total, page.total_is_partial)))
            },
        )?;
        self.output.print(&found.items, |style| entries(style, &found.items));
        if self.output.format.is_text() {
            note(&found, "no decisions found");
        }
        Ok(())
    }

    fn follow(&self) -> Result<(), ClientError> {
        let lines = self.server.stream("/api/v1/decisions/stream", &self.filter())?.lines();
        for event in lines {
            let event = event.map_err(|error| {
                ClientError::RequestFailed(format!("the stream was interrupted: {error}"))
            })?;
            let Some(data) = event.strip_prefix("data:").map(str::trim_start) else { continue };
            match (self.output.format.is_text(), serde_json::from_str::<Raw<DecisionView>>(data)) {
                // One line each, for programs that read lines.
                (false, _) if self.output.format == crate::cli::output::Format::Json => print(data),
                (_, Ok(decision)) => {
                    self.output.print(&[&decision], |style| entries(style, std::slice::from_ref(&decision)));
                }
                (_, Err(_)) => {}
            }
        }
        Err(ClientError::RequestFailed("the stream has ended: the bridge is stopping".to_owned()))
    }
}

fn entries(style: &Style, decisions: &[Raw<DecisionView>]) -> String {
    decisions.iter().map(|raw| decision::entry(style, &raw.value) + "\n").collect()
}

/// What a list does not show.
pub(super) fn note<I>(found: &PagedItems<I>, nothing: &str) {
    let shown = found.items.len();
    match found.total {
        _ if shown == 0 => print_note(nothing),
        Some((total, is_partial)) if total > shown as u64 => {
            let least = if is_partial { "at least " } else { "" };
            print_note(format_args!("{shown} of {least}{total} shown; --limit shows more"));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::style::tests::{pipe, terminal};

    fn decisions() -> Vec<Raw<DecisionView>> {
        let alert = |name: &str| json!({ "fingerprint": "f", "status": "firing", "source": "prod-eu", "labels": { "alertname": name, "pod": "a" } });
        let workers = "eks/nodegroup/-/eu-west-1/prod-eu/-/workers";
        let list = json!([
            { "id": "9.0", "at": "2026-11-29T00:20:00Z", "rule": "pods", "verdict": "paused", "action": "scale_in",
              "subject": workers, "detail": "pause 2 by ann: change freeze", "until": "2026-11-29T04:00:00Z",
              "blocked_by": { "kind": "pause", "id": 2, "author": "ann", "reason": "change freeze" },
              "alerts": [alert("KubePodUnschedulable"), alert("KubePodUnschedulable")] },
            { "id": "8.0", "at": "2026-11-29T00:10:05Z", "rule": "pods", "verdict": "held", "action": "scale_out",
              "subject": workers, "detail": "held by rule deploy-freeze",
              "blocked_by": { "kind": "hold", "rule": "deploy-freeze" }, "alerts": [alert("KubePodUnschedulable")] },
            { "id": "7.0", "at": "2026-11-29T00:10:00Z", "rule": "deploy-freeze", "verdict": "no_action",
              "subject": "hold/-/-/-/-/prod-eu/-/-", "target": { "cluster": "prod-eu" }, "detail": "the hold begins",
              "alerts": [alert("DeployInProgress")] },
            { "id": "6.0", "at": "2026-11-29T00:09:00Z", "verdict": "unmatched", "alerts": [alert("Other")] },
            { "id": "5.0", "at": "2026-11-28T23:09:00Z", "rule": "api", "verdict": "emitted", "action": "set_capacity",
              "amount": "=10", "subject": "ecs/service/-/-/-/-/api", "event": "05527f34f17c7c15de78327fa19e43ef",
              "alerts": [alert("ApiLoad")] },
        ]);
        serde_json::from_value(list).unwrap()
    }

    #[test]
    fn decisions_are_readable_at_80_columns() {
        insta::assert_snapshot!(entries(&terminal(80), &decisions()), @r#"
        02:20:00  paused           scale_in  pods
                  eks/nodegroup/-/eu-west-1/prod-eu/-/workers
                  KubePodUnschedulable (2 alerts) from prod-eu
                  pause 2 by ann: change freeze, until 06:00:00 (in 3h 30m)
        02:10:05  held             scale_out  pods
                  eks/nodegroup/-/eu-west-1/prod-eu/-/workers
                  KubePodUnschedulable from prod-eu
                  held by rule deploy-freeze, until the hold ends
        02:10:00  no_action        deploy-freeze  hold on cluster=prod-eu
                  DeployInProgress from prod-eu  the hold begins
        02:09:00  unmatched        Other{pod="a"} from prod-eu
        01:09:00  emitted          set_capacity → 10  api  ecs/service/-/-/-/-/api
                  ApiLoad from prod-eu  event 05527f34f17c7c15de78327fa19e43ef
        "#);
    }

    #[test]
    fn decisions_are_readable_at_140_columns() {
        insta::assert_snapshot!(entries(&terminal(140), &decisions()), @r#"
        02:20:00  paused           scale_in  pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodUnschedulable (2 alerts) from prod-eu
                  pause 2 by ann: change freeze, until 06:00:00 (in 3h 30m)
        02:10:05  held             scale_out  pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodUnschedulable from prod-eu
                  held by rule deploy-freeze, until the hold ends
        02:10:00  no_action        deploy-freeze  hold on cluster=prod-eu  DeployInProgress from prod-eu  the hold begins
        02:09:00  unmatched        Other{pod="a"} from prod-eu
        01:09:00  emitted          set_capacity → 10  api  ecs/service/-/-/-/-/api  ApiLoad from prod-eu  event 05527f34f17c7c15de78327fa19e43ef
        "#);
    }

    #[test]
    fn a_program_reads_one_line_for_each_decision() {
        insta::assert_snapshot!(entries(&pipe(), &decisions()), @r#"
        2026-11-29T00:20:00Z  paused           scale_in  pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodUnschedulable (2 alerts) from prod-eu  pause 2 by ann: change freeze, until 2026-11-29T04:00:00Z
        2026-11-29T00:10:05Z  held             scale_out  pods  eks/nodegroup/-/eu-west-1/prod-eu/-/workers  KubePodUnschedulable from prod-eu  held by rule deploy-freeze, until the hold ends
        2026-11-29T00:10:00Z  no_action        deploy-freeze  hold on cluster=prod-eu  DeployInProgress from prod-eu  the hold begins
        2026-11-29T00:09:00Z  unmatched        Other{pod="a"} from prod-eu
        2026-11-28T23:09:00Z  emitted          set_capacity → 10  api  ecs/service/-/-/-/-/api  ApiLoad from prod-eu  event 05527f34f17c7c15de78327fa19e43ef
        "#);
    }
}
