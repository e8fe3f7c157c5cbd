//! The log line of a decision: at INFO for what acts, waits or ends waiting, at DEBUG for the rest.

use std::sync::Arc;

use tracing::Level;

use crate::domain::name::Name;
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::{ClockReading, Time};
use crate::domain::verdict::{Decision, Verdict};

/// What is logged of a decision. Labels and annotations are not.
pub(super) struct DecisionLine {
    rule: Option<Name>,
    target: Option<TargetKey>,
    source: Option<Name>,
    verdict: Verdict,
    action: Option<&'static str>,
    amount: Option<String>,
    event: Option<Arc<str>>,
    until: Option<Time>,
    reason: Option<String>,
    is_block: bool,
    alerts: usize,
    level: Level,
}

/// The lines of decisions that are to be logged once these are committed.
pub(super) fn lines(decisions: &[Decision], clock: ClockReading) -> Vec<DecisionLine> {
    let logged = decisions.iter().filter(|decision| is_shown(decision) || tracing::enabled!(Level::DEBUG));
    logged.map(|decision| DecisionLine::new(decision, clock)).collect()
}

/// Whether a decision acts, waits or ends waiting, or a hold or heartbeat begins or ends.
fn is_shown(decision: &Decision) -> bool {
    let is_control = || {
        let kind = decision.target.as_ref().map(TargetKey::kind);
        kind.is_some_and(|kind| kind != KeyKind::Target) && decision.detail.is_some()
    };
    !decision.verdict.is_quiet() || is_control()
}

impl DecisionLine {
    fn new(decision: &Decision, clock: ClockReading) -> Self {
        let event = decision.event.as_deref();
        let adjustment = event.or(decision.shadow.as_deref()).and_then(|event| event.adjustment.as_ref());
        let source = decision.alerts.first().map(|alert| alert.source.clone());
        // What is invalid is described by a text that can contain values of labels.
        let has_outside_text = decision.verdict == Verdict::Invalid;
        Self {
            rule: decision.rule.clone(),
            target: decision.target.clone(),
            source: source.or_else(|| event.map(|event| event.trigger.source.clone())),
            verdict: decision.verdict,
            action: decision.action,
            amount: adjustment.map(crate::domain::event::Adjustment::to_short),
            event: event.map(|event| event.id.clone()),
            until: decision.until.map(|until| clock.on_wall(until)),
            reason: decision.detail.clone().filter(|_| !has_outside_text),
            is_block: decision.blocked_by.is_some(),
            alerts: decision.alerts.len(),
            level: if is_shown(decision) { Level::INFO } else { Level::DEBUG },
        }
    }

    pub(super) fn log(&self) {
        let Self { verdict, action, alerts, .. } = self;
        let (rule, target) =
            (self.rule.as_ref().map(Name::as_str), self.target.as_ref().map(TargetKey::as_str));
        let (source, event) = (self.source.as_ref().map(Name::as_str), self.event.as_deref());
        let (amount, until) = (self.amount.as_deref(), self.until.map(Time::to_millis_string));
        let blocked_by = self.reason.as_deref().filter(|_| self.is_block);
        let detail = self.reason.as_deref().filter(|_| !self.is_block);
        let verdict = verdict.as_str();
        macro_rules! line {
            ($log:ident) => {
                tracing::$log!(
                    verdict, rule, target, action, amount, event, blocked_by, until, detail, source, alerts,
                    "decision"
                )
            };
        }
        match self.level {
            Level::INFO => line!(info),
            _ => line!(debug),
        }
    }
}
