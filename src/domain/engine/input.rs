//! What arrives, judged by the rules before any state is looked at.

use std::sync::Arc;

use super::{key_of, sorted};
use crate::domain::name::Name;
use crate::domain::notification::{Alert, InvalidAlert, Status};
use crate::domain::source::Source;
use crate::domain::state::{AlertKey, Cause};
use crate::domain::subject::Subject;
use crate::domain::table::{Judgement, RuleTable};
use crate::domain::target::TargetKey;

/// One notification, each alert already judged by the rules.
#[derive(Debug, Clone)]
pub struct Input {
    /// Who sent it.
    pub source: Arc<Source>,
    /// What it says about itself.
    pub cause: Arc<Cause>,
    /// Whether `max_alerts` left out alerts.
    pub truncated: bool,
    /// Its alerts in the order of the body.
    pub alerts: Vec<Judged>,
}

/// An alert and what the rules say.
#[derive(Debug, Clone)]
pub enum Judged {
    /// It fires.
    Firing(Alert, Judgement),
    /// It is over. Rules are not asked.
    Resolved(Alert),
    /// It is its source's heartbeat, firing or resolved. Rules are not asked.
    Heartbeat(Alert, Beat),
    /// It cannot be understood.
    Invalid(InvalidAlert),
}

/// What a heartbeat is about.
#[derive(Debug, Clone)]
pub struct Beat {
    /// The rule's name that its episode has.
    pub rule: Name,
    /// The heartbeat of its source.
    pub subject: Subject,
    /// The subject's key.
    pub key: TargetKey,
}

impl Judged {
    /// Judges an alert of `source`: the source's labels are laid over the alert's own, then the rules
    /// see it if it fires.
    pub fn new(rules: &RuleTable, source: &Source, alert: Result<Alert, InvalidAlert>) -> Self {
        match alert {
            Err(invalid) => Self::Invalid(invalid),
            Ok(mut alert) => {
                Arc::make_mut(&mut alert.labels).lay_over(&source.labels);
                if source.is_heartbeat(&alert.labels) {
                    let subject = Subject::Heartbeat(source.name.clone());
                    let key = subject.key();
                    return Self::Heartbeat(alert, Beat { rule: Name::heartbeat(), subject, key });
                }
                match alert.status {
                    Status::Resolved => Self::Resolved(alert),
                    Status::Firing => {
                        let judgement = rules.judge(source, &alert);
                        Self::Firing(alert, judgement)
                    }
                }
            }
        }
    }

    /// Who it is, as far as it can be understood.
    pub fn key(&self, source: &Name) -> Option<AlertKey> {
        match self {
            Self::Firing(alert, _) | Self::Resolved(alert) | Self::Heartbeat(alert, _) => {
                Some(key_of(source, &alert.fingerprint))
            }
            Self::Invalid(_) => None,
        }
    }

    /// The keys of what it is about: the targets that rules send it to, a hold, a heartbeat.
    pub fn targets(&self) -> impl Iterator<Item = &TargetKey> + Clone {
        let (taken, beat) = match self {
            Self::Firing(_, judgement) => (judgement.taken.as_slice(), None),
            Self::Heartbeat(_, beat) => (&[][..], Some(&beat.key)),
            Self::Resolved(_) | Self::Invalid(_) => (&[][..], None),
        };
        taken.iter().map(|taken| &taken.key).chain(beat)
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
        sorted(self.alerts.iter().filter_map(|alert| alert.key(&self.source.name)).collect())
    }

    /// The targets that [`States::targets`](super::States::targets) has to tell of, beside those that know an alert; each once.
    pub fn target_keys(&self) -> Vec<TargetKey> {
        sorted(self.alerts.iter().flat_map(Judged::targets).cloned().collect())
    }
}
