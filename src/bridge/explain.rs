//! Explains how a notification would be processed now: runs the engine's own step and discards the changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::decision_view::{self, ExplainedDecision};
use super::{Bridge, SourceHandle, Suppression, record};
use crate::domain::engine::{self, EvaluatedAlert, Input};
use crate::domain::notification::{Alert, Notification, Status};
use crate::domain::rate::Rates;
use crate::domain::size_limit::SizeLimit;
use crate::domain::source::Source;
use crate::domain::table::{MatchResult, RuleTable};
use crate::domain::target::PartialTarget;
use crate::domain::trigger::Trigger;
use crate::json::lenient;
use crate::store::{self, Changes, Keys, RecordCursor};

/// The maximum number of alerts that are explained in one request.
pub(crate) const MAX_ALERTS: usize = 1000;

/// How a notification would be processed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The source that would have sent the notification.
    pub source: String,
    /// When it was evaluated, RFC 3339.
    pub at: String,
    /// Whether Alertmanager left alerts out of the notification.
    pub truncated: bool,
    /// The alerts in the order of the body.
    pub alerts: Vec<ExplainedAlert>,
    /// The decisions that would be made, each with the whole event in place of its id.
    #[schemars(with = "Vec<Value>")]
    pub decisions: Vec<ExplainedDecision>,
}

/// The result of each rule for an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedAlert {
    /// Alertmanager's hash of the labels; empty if it is unreadable.
    pub fingerprint: String,
    /// `firing` or `resolved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The alert's labels, overridden by those of its source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Why no rule was evaluated: the alert is invalid, a heartbeat, or resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_reason: Option<String>,
    /// Why Alertmanager notifies nobody of the alert, as it has said last; only with a running bridge that asks it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suppressed_by: Vec<Suppression>,
    /// All rules in the order of the rule table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<ExplainedRule>,
}

/// The result of one rule for an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedRule {
    /// The rule's name.
    pub rule: String,
    /// Whether the rule matches the alert. Later rules are skipped unless it has `continue: true`.
    pub matched: bool,
    /// `matched`, `other_source`, `no_match`, `condition_false`, `invalid`, `disabled` or `skipped`.
    pub outcome: String,
    /// The reason for the outcome, as text.
    pub reason: String,
    /// The rendered target; for a `hold` rule, the targets that it covers.
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Option::is_none")]
    pub target: Option<PartialTarget>,
    /// The rendered parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The value of `metric`, which selects the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
}

impl Bridge {
    /// Explains how a notification of at most 1,000 alerts would be processed in the current state.
    /// Nothing is written.
    ///
    /// # Errors
    /// The store could not be read.
    pub async fn explain(
        &self,
        handle: &SourceHandle,
        notification: Notification,
    ) -> Result<Explanation, store::Error> {
        let SourceHandle { source, snapshot } = handle.clone();
        let Notification { envelope, truncated_alerts, alerts, sent_at } = notification;
        let evaluated: Vec<EvaluatedAlert> =
            alerts.into_iter().map(|alert| EvaluatedAlert::new(&snapshot.rules, &source, alert)).collect();
        let explain = |evaluated| {
            let explained = explain_alert(&snapshot.rules, &source, evaluated);
            let suppressed_by = self.suppressions(source.name.as_str(), &explained.fingerprint);
            ExplainedAlert { suppressed_by, ..explained }
        };
        let alerts = evaluated.iter().map(explain).collect();
        let input = Input {
            source: source.clone(),
            trigger: Arc::new(Trigger::new(&source.name, &envelope, None)),
            truncated: truncated_alerts > 0,
            sent_at,
            alerts: evaluated,
        };
        let keys = Keys { targets: input.target_keys(), alerts: input.alert_keys() };
        let (rates, gaps) = (self.0.rates.clone(), self.0.gaps.clone());
        let decided = self.0.store.transact(keys, move |view| {
            let rates = view.rates.clone().unwrap_or_else(|| Rates::clone(&rates.load()));
            let folded = gaps.fold(&view.controls, view.now);
            let controls = folded.as_ref().map_or(&*view.controls, |folded| &folded.controls);
            let context = snapshot.context(view, controls, &rates);
            let step = engine::process_notification(&context, &input, &view.states);
            let record = record::for_notification(view.clock(), &input, &view.states, &step.decisions);
            let event = |decision: &crate::domain::verdict::Decision| {
                let event = decision.event.as_deref()?;
                let limit =
                    snapshot.routes.get(&event.rule).map_or(SizeLimit::NONE, |route| route.size_limit);
                serde_json::from_str(&event.encode(limit)).ok()
            };
            let events: Vec<Option<Value>> = step.decisions.iter().map(event).collect();
            (Changes::default(), (view.wall, record, events))
        });
        let (wall, record, events) = decided.await?;
        let views = record
            .and_then(|record| decision_view::read(RecordCursor::BEFORE_ALL, &record.body).ok())
            .unwrap_or_default();
        let decisions = views.into_iter().zip(events).map(|(view, event)| view.with_event(event)).collect();
        let at = wall.to_millis_string();
        Ok(Explanation {
            source: source.name.to_string(),
            at,
            truncated: truncated_alerts > 0,
            alerts,
            decisions,
        })
    }
}

fn explain_alert(rules: &RuleTable, source: &Source, evaluated: &EvaluatedAlert) -> ExplainedAlert {
    let explained = |alert: &Alert| ExplainedAlert {
        fingerprint: alert.fingerprint.to_string(),
        status: Some(alert.status.as_str().to_owned()),
        labels: alert.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        skipped_reason: None,
        suppressed_by: Vec::new(),
        rules: Vec::new(),
    };
    let skipped = |alert: &Alert, reason: &str| ExplainedAlert {
        skipped_reason: Some(reason.to_owned()),
        ..explained(alert)
    };
    match evaluated {
        EvaluatedAlert::Invalid(invalid) => ExplainedAlert {
            fingerprint: invalid.fingerprint.clone().unwrap_or_default(),
            status: None,
            labels: BTreeMap::new(),
            skipped_reason: Some(format!("the alert is invalid: {}", invalid.error)),
            suppressed_by: Vec::new(),
            rules: Vec::new(),
        },
        EvaluatedAlert::Heartbeat(alert, _) => skipped(alert, "the alert is the heartbeat of its source"),
        EvaluatedAlert::Resolved(alert) => match &alert.absence {
            Some(reason) => {
                skipped(alert, &format!("{}; its open occurrences expire", engine::absence_detail(reason)))
            }
            None => skipped(alert, "the alert is resolved, which concerns only its open episodes"),
        },
        EvaluatedAlert::Firing(alert, _) => {
            debug_assert_eq!(alert.status, Status::Firing);
            let trace = rules.trace(source, alert);
            let rules = trace
                .into_iter()
                .map(|(rule, result)| explain_rule(rule.name.as_str(), result, alert, source));
            ExplainedAlert { rules: rules.collect(), ..explained(alert) }
        }
    }
}

fn explain_rule(rule: &str, result: MatchResult<'_>, alert: &Alert, source: &Source) -> ExplainedRule {
    let (outcome, reason) = match &result {
        MatchResult::OtherSource => {
            ("other_source", format!("the rule does not apply to source {}", source.name))
        }
        MatchResult::NotPermitted => {
            ("other_source", format!("`sources.{}.rules` does not list the rule", source.name))
        }
        MatchResult::NoMatch(matcher) => {
            let reason = match alert.labels.get(matcher.label()) {
                "" => format!("{matcher} does not match: the alert has no label {}", matcher.label()),
                value => format!("{matcher} does not match: the value is {value:?}"),
            };
            ("no_match", reason)
        }
        MatchResult::ConditionFalse => ("condition_false", "the matchers match, `when` is false".to_owned()),
        MatchResult::Invalid(error) => ("invalid", error.clone()),
        MatchResult::Disabled => ("disabled", "the matchers match, but the rule is disabled".to_owned()),
        MatchResult::Matched(_) => ("matched", "`sources`, matchers and `when` match".to_owned()),
        MatchResult::Skipped(rule) => {
            ("skipped", format!("the matchers match, but rule {rule} matched first"))
        }
    };
    let mut explained = ExplainedRule {
        rule: rule.to_owned(),
        matched: false,
        outcome: outcome.to_owned(),
        reason,
        target: None,
        parameters: BTreeMap::new(),
        metric: None,
    };
    if let MatchResult::Matched(rule_match) = result {
        explained.matched = true;
        explained.target = rule_match.key.fields();
        explained.parameters = rule_match.parameters;
        explained.metric = rule_match.metric;
    }
    explained
}
