//! The input of a step: alerts, evaluated by the rule table before any state is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{alert_key, sorted_unique};
use crate::domain::alert_key::AlertKey;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::notification::{Alert, InvalidAlert, Status};
use crate::domain::source::Source;
use crate::domain::table::{Evaluation, RuleTable};
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::domain::trigger::Trigger;

/// One notification with its evaluated alerts.
#[derive(Debug, Clone)]
pub struct Input {
    /// The source that sent it.
    pub source: Arc<Source>,
    /// The metadata of the notification, which decisions and events refer to.
    pub trigger: Arc<Trigger>,
    /// Whether Alertmanager left out alerts (`max_alerts`).
    pub truncated: bool,
    /// When it was sent, by the wall clock of the queue that has delayed it; `None` if nothing can reorder it.
    pub sent_at: Option<Time>,
    /// The alerts in the order of the request body.
    pub alerts: Vec<EvaluatedAlert>,
}

/// An alert and the result of its evaluation.
#[derive(Debug, Clone)]
pub enum EvaluatedAlert {
    /// A firing alert and the rules that match it.
    Firing(Alert, Evaluation),
    /// A resolved alert. Rules are not evaluated.
    Resolved(Alert),
    /// The heartbeat of the source, firing or resolved. Rules are not evaluated.
    Heartbeat(Alert, HeartbeatAlert),
    /// An alert that cannot be parsed.
    Invalid(InvalidAlert),
}

/// The episode to which a heartbeat alert belongs.
#[derive(Debug, Clone)]
pub struct HeartbeatAlert {
    /// The reserved rule name of heartbeat episodes.
    pub rule: Name,
    /// [`EpisodeScope::Heartbeat`] of the alert.
    pub scope: EpisodeScope,
    /// The key of the scope.
    pub key: TargetKey,
}

impl EvaluatedAlert {
    /// Evaluates an alert of `source`. The labels of the source override those of the alert. Only firing
    /// alerts are evaluated by the rules.
    pub fn new(rules: &RuleTable, source: &Source, alert: Result<Alert, InvalidAlert>) -> Self {
        match alert {
            Err(invalid) => Self::Invalid(invalid),
            Ok(mut alert) => {
                Arc::make_mut(&mut alert.labels).overlay(&source.labels);
                if source.is_heartbeat(&alert.labels) {
                    let heartbeat = source.heartbeat_key(&alert.labels);
                    let scope = EpisodeScope::Heartbeat(heartbeat);
                    let key = scope.key();
                    return Self::Heartbeat(
                        alert,
                        HeartbeatAlert { rule: Name::for_heartbeat(), scope, key },
                    );
                }
                match alert.status {
                    Status::Resolved => Self::Resolved(alert),
                    Status::Firing => {
                        let evaluation = rules.evaluate_alert(source, &alert);
                        Self::Firing(alert, evaluation)
                    }
                }
            }
        }
    }

    /// The key of the alert; `None` if its fingerprint cannot be read.
    pub fn key(&self, source: &Name) -> Option<AlertKey> {
        match self {
            Self::Firing(alert, _) | Self::Resolved(alert) | Self::Heartbeat(alert, _) => {
                Some(alert_key(source, &alert.fingerprint))
            }
            Self::Invalid(invalid) => Some(alert_key(source, &invalid.fingerprint.as_deref()?.into())),
        }
    }

    /// The keys of the targets, holds or heartbeat that the alert is about.
    pub fn targets(&self) -> impl Iterator<Item = &TargetKey> + Clone {
        let (evaluation, heartbeat) = match self {
            Self::Firing(_, evaluation) => (Some(evaluation), None),
            Self::Heartbeat(_, heartbeat) => (None, Some(&heartbeat.key)),
            Self::Resolved(_) | Self::Invalid(_) => (None, None),
        };
        let matched = evaluation.into_iter().flat_map(|evaluation| &evaluation.matches);
        let unreadable = evaluation.into_iter().flat_map(|evaluation| &evaluation.unreadable);
        let keys = matched.map(|matched| &matched.key);
        keys.chain(unreadable.map(|unreadable| &unreadable.key)).chain(heartbeat)
    }

    /// The alert; `None` if it is invalid.
    pub fn alert(&self) -> Option<&Alert> {
        match self {
            Self::Firing(alert, _) | Self::Resolved(alert) | Self::Heartbeat(alert, _) => Some(alert),
            Self::Invalid(_) => None,
        }
    }
}

impl Input {
    /// When its sender said what it says, by the store's clock.
    pub(super) fn said_at(&self, clock: ClockReading) -> Time {
        self.sent_at.map_or(clock.now, |sent_at| clock.on_store(sent_at).min(clock.now))
    }

    /// Whether the end of an alert was applied that is later than what this notification says about it. Of an alert whose
    /// start cannot be read, nothing shows that it began after that end.
    pub(super) fn is_outdated(&self, starts_at: Option<Time>, last_end: Option<Time>) -> bool {
        self.sent_at
            .zip(last_end)
            .is_some_and(|(sent_at, end)| sent_at < end && starts_at.is_none_or(|starts_at| starts_at <= end))
    }

    /// The alerts that concern none of these targets and are none of these alerts.
    #[must_use]
    pub fn without(&self, targets: &BTreeSet<TargetKey>, alerts: &BTreeSet<AlertKey>) -> Self {
        let is_excluded = |alert: &EvaluatedAlert| {
            alert.key(&self.source.name).is_some_and(|key| alerts.contains(&key))
                || alert.targets().any(|target| targets.contains(target))
        };
        let rest = self.alerts.iter().filter(|alert| !is_excluded(alert)).cloned().collect();
        Self { alerts: rest, ..self.clone() }
    }

    /// The alerts that [`States::alerts`](super::States::alerts) has to cover, sorted and unique.
    pub fn alert_keys(&self) -> Vec<AlertKey> {
        sorted_unique(self.alerts.iter().filter_map(|alert| alert.key(&self.source.name)).collect())
    }

    /// The targets that [`States::targets`](super::States::targets) has to cover in addition to those that
    /// mention an alert; sorted and unique.
    pub fn target_keys(&self) -> Vec<TargetKey> {
        sorted_unique(self.alerts.iter().flat_map(EvaluatedAlert::targets).cloned().collect())
    }
}
