//! What arrives, judged by the rules before any state is looked at.

use std::sync::Arc;

use super::{alert_key, sorted_unique};
use crate::domain::alert_key::AlertKey;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::name::Name;
use crate::domain::notification::{Alert, InvalidAlert, Status};
use crate::domain::source::Source;
use crate::domain::table::{Evaluation, RuleTable};
use crate::domain::target::TargetKey;
use crate::domain::trigger::Trigger;

/// One notification, each alert already judged by the rules.
#[derive(Debug, Clone)]
pub struct Input {
    /// Who sent it.
    pub source: Arc<Source>,
    /// What it says about itself.
    pub trigger: Arc<Trigger>,
    /// Whether `max_alerts` left out alerts.
    pub truncated: bool,
    /// Its alerts in the order of the body.
    pub alerts: Vec<EvaluatedAlert>,
}

/// An alert and what the rules say.
#[derive(Debug, Clone)]
pub enum EvaluatedAlert {
    /// It fires.
    Firing(Alert, Evaluation),
    /// It is over. Rules are not asked.
    Resolved(Alert),
    /// It is its source's heartbeat, firing or resolved. Rules are not asked.
    Heartbeat(Alert, HeartbeatAlert),
    /// It cannot be understood.
    Invalid(InvalidAlert),
}

/// What a heartbeat is about.
#[derive(Debug, Clone)]
pub struct HeartbeatAlert {
    /// The rule's name that its episode has.
    pub rule: Name,
    /// The heartbeat of its source.
    pub scope: EpisodeScope,
    /// The subject's key.
    pub key: TargetKey,
}

impl EvaluatedAlert {
    /// Judges an alert of `source`: the source's labels are laid over the alert's own, then the rules
    /// see it if it fires.
    pub fn new(rules: &RuleTable, source: &Source, alert: Result<Alert, InvalidAlert>) -> Self {
        match alert {
            Err(invalid) => Self::Invalid(invalid),
            Ok(mut alert) => {
                Arc::make_mut(&mut alert.labels).overlay(&source.labels);
                if source.is_heartbeat(&alert.labels) {
                    let scope = EpisodeScope::Heartbeat(source.name.clone());
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

    /// Who it is, as far as it can be understood.
    pub fn key(&self, source: &Name) -> Option<AlertKey> {
        match self {
            Self::Firing(alert, _) | Self::Resolved(alert) | Self::Heartbeat(alert, _) => {
                Some(alert_key(source, &alert.fingerprint))
            }
            Self::Invalid(_) => None,
        }
    }

    /// The keys of what it is about: the targets that rules send it to, a hold, a heartbeat.
    pub fn targets(&self) -> impl Iterator<Item = &TargetKey> + Clone {
        let (matched, heartbeat) = match self {
            Self::Firing(_, evaluation) => (evaluation.matches.as_slice(), None),
            Self::Heartbeat(_, heartbeat) => (&[][..], Some(&heartbeat.key)),
            Self::Resolved(_) | Self::Invalid(_) => (&[][..], None),
        };
        matched.iter().map(|matched| &matched.key).chain(heartbeat)
    }

    /// The alert, if it can be understood.
    pub fn alert(&self) -> Option<&Alert> {
        match self {
            Self::Firing(alert, _) | Self::Resolved(alert) | Self::Heartbeat(alert, _) => Some(alert),
            Self::Invalid(_) => None,
        }
    }
}

impl Input {
    /// The alerts that [`States::alerts`](super::States::alerts) has to tell of, each once.
    pub fn alert_keys(&self) -> Vec<AlertKey> {
        sorted_unique(self.alerts.iter().filter_map(|alert| alert.key(&self.source.name)).collect())
    }

    /// The targets that [`States::targets`](super::States::targets) has to tell of, beside those that know an alert; each once.
    pub fn target_keys(&self) -> Vec<TargetKey> {
        sorted_unique(self.alerts.iter().flat_map(EvaluatedAlert::targets).cloned().collect())
    }
}
