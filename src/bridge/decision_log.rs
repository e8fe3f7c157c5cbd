//! The log lines of decisions: at INFO for what acts, waits or ends waiting, at DEBUG for the rest.

use std::sync::Arc;

use tracing::Level;

use crate::domain::delivery::{DeliveryChange, DeliveryChangeKind};
use crate::domain::engine::Step;
use crate::domain::name::Name;
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::{ClockReading, Time};
use crate::domain::verdict::{Decision, Verdict};
use crate::telemetry;

/// The maximum number of characters of the error of an invalid decision.
const MAX_ERROR: usize = 256;

/// The text of a decision, which is logged under the name of its kind.
enum Reason {
    BlockedBy(String),
    Detail(String),
    /// Why an alert is invalid: the text can quote the value that is wrong, so it is cut and escaped.
    Error(String),
}

impl Reason {
    fn of(decision: &Decision) -> Option<Self> {
        let text = decision.detail.as_deref()?;
        Some(match decision.blocked_by {
            _ if decision.verdict == Verdict::Invalid => Self::Error(cut_and_escaped(text)),
            Some(_) => Self::BlockedBy(text.to_owned()),
            None => Self::Detail(text.to_owned()),
        })
    }
}

/// The beginning of a text, in one line. Characters that are invisible or move others are escaped.
fn cut_and_escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().to_string(),
    };
    let mut cut: String = text.chars().take(MAX_ERROR).map(escape).collect();
    if text.chars().nth(MAX_ERROR).is_some() {
        cut.push('…');
    }
    cut
}

/// What is logged of a decision. Labels and annotations are not, but for a value that makes it invalid.
struct DecisionLine {
    rule: Option<Name>,
    target: Option<TargetKey>,
    source: Option<Name>,
    verdict: Verdict,
    action: Option<&'static str>,
    amount: Option<String>,
    event: Option<Arc<str>>,
    until: Option<Time>,
    reason: Option<Reason>,
    alerts: usize,
    level: Level,
}

/// What is logged of an event that was given up because of its age, and is sent again since its episode is open.
struct RenewalLine {
    target: TargetKey,
    event: Arc<str>,
    until: Time,
}

/// The lines of a step.
pub(super) struct Lines {
    decisions: Vec<DecisionLine>,
    renewals: Vec<RenewalLine>,
}

/// The lines of a step, which are to be logged once it is committed.
pub(super) fn lines(step: &Step, clock: ClockReading) -> Lines {
    let is_logged = |decision: &&Decision| is_shown(decision) || tracing::enabled!(Level::DEBUG);
    let decisions = step.decisions.iter().filter(is_logged);
    let renewal = |change: &DeliveryChange| match change.kind {
        DeliveryChangeKind::Renew { expires_after } => Some(RenewalLine {
            target: change.target.clone(),
            event: change.event.clone(),
            until: clock.wall.after(expires_after),
        }),
        _ => None,
    };
    Lines {
        decisions: decisions.map(|decision| DecisionLine::new(decision, clock)).collect(),
        renewals: step.delivery_changes.iter().filter_map(renewal).collect(),
    }
}

impl Lines {
    pub(super) fn log(&self) {
        telemetry::log_in_one_write(|| {
            self.decisions.iter().for_each(DecisionLine::log);
            self.renewals.iter().for_each(RenewalLine::log);
        });
    }
}

impl RenewalLine {
    fn log(&self) {
        let Self { target, event, until } = self;
        let (target, until) = (target.as_str(), until.to_millis_string());
        tracing::info!(target, event = &**event, until, "delivery renewed");
    }
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
        Self {
            rule: decision.rule.clone(),
            target: decision.target.clone(),
            source: source.or_else(|| event.map(|event| event.trigger.source.clone())),
            verdict: decision.verdict,
            action: decision.action,
            amount: adjustment.map(crate::domain::event::Adjustment::to_short),
            event: event.map(|event| event.id.clone()),
            until: decision.until.map(|until| clock.on_wall(until)),
            reason: Reason::of(decision),
            alerts: decision.alerts.len(),
            level: if is_shown(decision) { Level::INFO } else { Level::DEBUG },
        }
    }

    fn log(&self) {
        let Self { verdict, action, alerts, .. } = self;
        let (rule, target) =
            (self.rule.as_ref().map(Name::as_str), self.target.as_ref().map(TargetKey::as_str));
        let (source, event) = (self.source.as_ref().map(Name::as_str), self.event.as_deref());
        let (amount, until) = (self.amount.as_deref(), self.until.map(Time::to_millis_string));
        let (blocked_by, detail, error) = match &self.reason {
            Some(Reason::BlockedBy(text)) => (Some(text.as_str()), None, None),
            Some(Reason::Detail(text)) => (None, Some(text.as_str()), None),
            Some(Reason::Error(text)) => (None, None, Some(text.as_str())),
            None => (None, None, None),
        };
        let verdict = verdict.as_str();
        macro_rules! line {
            ($log:ident) => {
                tracing::$log!(
                    verdict, rule, target, action, amount, event, blocked_by, until, detail, error, source,
                    alerts, "decision"
                )
            };
        }
        match self.level {
            Level::INFO => line!(info),
            _ => line!(debug),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_short_line_that_shows_what_it_is() {
        assert_eq!(
            cut_and_escaped("no label \"zone\"\n\u{1b}[2J\u{202e}é"),
            r#"no label "zone"\n\u{1b}[2J\u{202e}é"#
        );
        let long = cut_and_escaped(&"ä".repeat(1 << 20));
        assert_eq!(long, "ä".repeat(MAX_ERROR) + "…");
    }
}
