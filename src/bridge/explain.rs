//! What would be decided about a notification now, and why: the engine's own step, of which nothing is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Bridge, SourceHandle, decision_view, record};
use crate::domain::engine::{self, EvaluatedAlert, Input};
use crate::domain::notification::{Alert, Notification, Status};
use crate::domain::source::Source;
use crate::domain::table::{MatchResult, RuleTable};
use crate::domain::target::PartialTarget;
use crate::domain::trigger::Trigger;
use crate::store::{self, Changes, Keys};

/// More alerts than this are not explained at once.
pub(crate) const MAX_ALERTS: usize = 1000;

/// What would be decided about a notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// The source that it would come from.
    pub source: String,
    /// The time for which this holds, RFC 3339.
    pub at: String,
    /// Whether the notification left alerts out.
    pub truncated: bool,
    /// Its alerts in the order of the body.
    pub alerts: Vec<ExplainedAlert>,
    /// What would be decided, each with the whole event that would be sent, in the place of its id.
    pub decisions: Vec<Value>,
}

/// What each rule says of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedAlert {
    /// Alertmanager's hash of its labels; empty where it could not be read.
    pub fingerprint: String,
    /// `firing` or `resolved`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// With those of the source laid over them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Why rules are not asked, where they are not: it is invalid, a heartbeat, or has resolved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_reason: Option<String>,
    /// Each rule in the order of the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<ExplainedRule>,
}

/// What one rule says of an alert, and the first thing that made it so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExplainedRule {
    /// The rule.
    pub rule: String,
    /// Whether it takes the alert.
    pub matched: bool,
    /// `takes`, `other_source`, `no_match`, `condition_false`, `invalid`, `disabled` or `not_asked`.
    pub outcome: String,
    /// The first thing that decided it, for people.
    pub reason: String,
    /// The rendered target, or what is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PartialTarget>,
    /// The rendered parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The number that chooses the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
}

impl Bridge {
    /// What would be decided about a notification of at most [`MAX_ALERTS`] alerts, given the state as it is.
    /// Nothing is written.
    ///
    /// # Errors
    /// The store could not be asked.
    pub async fn explain(
        &self,
        handle: &SourceHandle,
        notification: Notification,
    ) -> Result<Explanation, store::Error> {
        let SourceHandle { source, snapshot } = handle.clone();
        let Notification { envelope, truncated_alerts, alerts } = notification;
        let evaluated: Vec<EvaluatedAlert> =
            alerts.into_iter().map(|alert| EvaluatedAlert::new(&snapshot.rules, &source, alert)).collect();
        let alerts =
            evaluated.iter().map(|evaluated| explain_alert(&snapshot.rules, &source, evaluated)).collect();
        let input = Input {
            source: source.clone(),
            trigger: Arc::new(Trigger::new(&source.name, &envelope, None)),
            truncated: truncated_alerts > 0,
            alerts: evaluated,
        };
        let keys = Keys { targets: input.target_keys(), alerts: input.alert_keys() };
        let decided = self.0.store.transact(keys, move |view| {
            let mut rates = snapshot.rates.lock().clone();
            let step =
                engine::process_notification(&snapshot.context(view), &input, &view.states, &mut rates);
            let record = record::for_notification(view.now, &input, &view.states, &step.decisions);
            let event = |decision: &crate::domain::verdict::Decision| {
                let event = decision.event.as_deref()?;
                let max_bytes =
                    snapshot.routes.get(&event.rule).map_or(usize::MAX, |(_, max_bytes)| *max_bytes);
                serde_json::from_str(&event.encode(max_bytes)).ok()
            };
            let events: Vec<Option<Value>> = step.decisions.iter().map(event).collect();
            (Changes::default(), (view.now, record, events))
        });
        let (now, record, events) = decided.await?;
        let told = record.and_then(|record| decision_view::read(0, &record.body).ok()).unwrap_or_default();
        let decisions = told.into_iter().zip(events).map(|(told, event)| told.with_event(event)).collect();
        let at = now.to_millis_string();
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
    let told = |alert: &Alert| ExplainedAlert {
        fingerprint: alert.fingerprint.to_string(),
        status: Some(alert.status.as_str().to_owned()),
        labels: alert.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        skipped_reason: None,
        rules: Vec::new(),
    };
    let not_asked =
        |alert: &Alert, why: &str| ExplainedAlert { skipped_reason: Some(why.to_owned()), ..told(alert) };
    match evaluated {
        EvaluatedAlert::Invalid(invalid) => ExplainedAlert {
            fingerprint: invalid.fingerprint.clone().unwrap_or_default(),
            status: None,
            labels: BTreeMap::new(),
            skipped_reason: Some(format!("it is invalid: {}", invalid.error)),
            rules: Vec::new(),
        },
        EvaluatedAlert::Heartbeat(alert, _) => not_asked(alert, "it is the heartbeat of its source"),
        EvaluatedAlert::Resolved(alert) => {
            not_asked(alert, "it has resolved, which concerns the episodes that it is open in")
        }
        EvaluatedAlert::Firing(alert, _) => {
            debug_assert_eq!(alert.status, Status::Firing);
            let trace = rules.trace(source, alert);
            let rules = trace
                .into_iter()
                .map(|(rule, result)| explain_rule(rule.name.as_str(), result, alert, source));
            ExplainedAlert { rules: rules.collect(), ..told(alert) }
        }
    }
}

fn explain_rule(rule: &str, result: MatchResult<'_>, alert: &Alert, source: &Source) -> ExplainedRule {
    let (outcome, because) = match &result {
        MatchResult::OtherSource => ("other_source", format!("it does not listen to source {}", source.name)),
        MatchResult::NoMatch(matcher) => {
            let because = match alert.labels.get(matcher.label()) {
                "" => format!("{matcher} does not hold: the alert has no {}", matcher.label()),
                value => format!("{matcher} does not hold: it is {value:?}"),
            };
            ("no_match", because)
        }
        MatchResult::ConditionFalse => {
            ("condition_false", "its matchers hold, its `when` does not".to_owned())
        }
        MatchResult::Invalid(error) => ("invalid", error.clone()),
        MatchResult::Disabled => ("disabled", "its matchers hold, and it is disabled".to_owned()),
        MatchResult::Matched(_) => ("takes", "its sources, its matchers and its `when` hold".to_owned()),
        MatchResult::Skipped(by) => ("not_asked", format!("rule {by} has taken the alert")),
    };
    let mut told = ExplainedRule {
        rule: rule.to_owned(),
        matched: false,
        outcome: outcome.to_owned(),
        reason: because,
        target: None,
        parameters: BTreeMap::new(),
        metric: None,
    };
    if let MatchResult::Matched(rule_match) = result {
        told.matched = true;
        told.target = rule_match.key.fields();
        told.parameters = rule_match.parameters;
        told.metric = rule_match.metric;
    }
    told
}
