//! What was decided, and why. One list of words for the answer, the store, metrics and logs.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alert_key::AlertKey;
use super::event::Event;
use super::name::Name;
use super::phase::Phase;
use super::target::TargetKey;
use super::time::Time;

/// The outcome of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// An event was written, to be delivered.
    Emitted,
    /// An event that would have been sent, if the rule were not in `mode: shadow`.
    Shadowed,
    /// The same occurrence or the same end again.
    Duplicate,
    /// A resolve that is older than what is open.
    Stale,
    /// A firing that may be a twin's late copy; it opens when its window is over.
    Late,
    /// This alert resolved, others of the episode still fire.
    StillOpen,
    /// The rule has nothing to do here.
    NoAction,
    /// Capacity would be taken away, but nothing shows that it may be.
    NoEvidence,
    /// What was kept is not supported any more.
    Withdrawn,
    /// An event that was not sent yet, when one that adds capacity came after it.
    Superseded,
    /// No rule's matchers hold.
    Unmatched,
    /// Matchers held, but no `when` did.
    ConditionFalse,
    /// The alert, or what a rule makes of it, cannot be used.
    Invalid,
    /// The rule that takes it is disabled.
    Disabled,
    /// Not heard of for the source's `occurrence_ttl`.
    Expired,
    /// The alert is its source's heartbeat; rules do not see it.
    Heartbeat,
    /// A pause covers it.
    Paused,
    /// A hold covers it, or its source's heartbeat is not open.
    Held,
    /// It takes capacity away, and another rule has an episode open that added some.
    Outranked,
    /// Its stabilization window is not over.
    Stabilizing,
    /// An earlier emission about the target blocks it.
    CoolingDown,
    /// The rule has emitted as many events about the target as its budget allows, or the process as many
    /// as its limit.
    OverBudget,
}

impl Verdict {
    /// All of them, for documentation and tests.
    pub const ALL: [Self; 22] = [
        Self::Emitted,
        Self::Shadowed,
        Self::Duplicate,
        Self::Stale,
        Self::Late,
        Self::StillOpen,
        Self::NoAction,
        Self::NoEvidence,
        Self::Withdrawn,
        Self::Superseded,
        Self::Unmatched,
        Self::ConditionFalse,
        Self::Invalid,
        Self::Disabled,
        Self::Expired,
        Self::Heartbeat,
        Self::Paused,
        Self::Held,
        Self::Outranked,
        Self::Stabilizing,
        Self::CoolingDown,
        Self::OverBudget,
    ];

    /// Whether what gets it is kept and looked at again.
    pub const fn is_deferred(self) -> bool {
        match self {
            Self::Late
            | Self::Paused
            | Self::Held
            | Self::Outranked
            | Self::Stabilizing
            | Self::CoolingDown
            | Self::OverBudget => true,
            Self::Emitted
            | Self::Shadowed
            | Self::Duplicate
            | Self::Stale
            | Self::StillOpen
            | Self::NoAction
            | Self::NoEvidence
            | Self::Withdrawn
            | Self::Superseded
            | Self::Unmatched
            | Self::ConditionFalse
            | Self::Invalid
            | Self::Disabled
            | Self::Expired
            | Self::Heartbeat => false,
        }
    }

    /// Whether it says that nothing has changed: an alert was heard, and nothing acts or waits for it.
    pub const fn is_quiet(self) -> bool {
        matches!(
            self,
            Self::Duplicate
                | Self::StillOpen
                | Self::NoAction
                | Self::Stale
                | Self::Unmatched
                | Self::ConditionFalse
                | Self::Heartbeat
                | Self::Disabled
        )
    }

    /// The verdict of a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }

    /// The word in answers, records and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Emitted => "emitted",
            Self::Shadowed => "shadowed",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::Late => "late",
            Self::StillOpen => "still_open",
            Self::NoAction => "no_action",
            Self::NoEvidence => "no_evidence",
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
            Self::Unmatched => "unmatched",
            Self::ConditionFalse => "condition_false",
            Self::Invalid => "invalid",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::Heartbeat => "heartbeat",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Outranked => "outranked",
            Self::Stabilizing => "stabilizing",
            Self::CoolingDown => "cooling_down",
            Self::OverBudget => "over_budget",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was decided about some alerts of one rule and one target, at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The rule, unless none took the alert.
    pub rule: Option<Name>,
    /// The target, or what else has a key, unless it never came to one.
    pub target: Option<TargetKey>,
    /// Whether it answers what a notification says of these alerts; else it is about what waited, or came
    /// due.
    pub is_reply: bool,
    /// Which end of the episode it is about, where it is about one.
    pub phase: Option<Phase>,
    /// The episode's id, where there is one.
    pub episode: Option<Arc<str>>,
    /// The action that was asked for: `scale_out`, `scale_in`, `set_capacity` or `notify`.
    pub action: Option<&'static str>,
    /// The outcome.
    pub verdict: Verdict,
    /// Why, where the verdict alone does not say it.
    pub detail: Option<String>,
    /// When it will be looked at again.
    pub until: Option<Time>,
    /// The alerts that it is about.
    pub alerts: Vec<AlertKey>,
    /// What is sent, if anything.
    pub event: Option<Box<Event>>,
    /// What would have been sent, with [`Verdict::Shadowed`].
    pub shadow: Option<Box<Event>>,
}

impl Decision {
    /// A verdict on alerts, as a notification is answered with it; all else is not known of it.
    pub fn new(verdict: Verdict, alerts: Vec<AlertKey>) -> Self {
        Self {
            rule: None,
            target: None,
            is_reply: true,
            phase: None,
            episode: None,
            action: None,
            verdict,
            detail: None,
            until: None,
            alerts,
            event: None,
            shadow: None,
        }
    }
}
