//! Decisions and their verdicts. The names are the same in answers, records, metrics and logs.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::alert_key::AlertKey;
use super::blocker::Blocker;
use super::event::Event;
use super::name::Name;
use super::phase::Phase;
use super::target::TargetKey;
use super::time::Time;

/// The outcome of a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// An event was committed for delivery.
    Emitted,
    /// An event would have been sent if the rule were not in `mode: shadow`.
    Shadowed,
    /// A repetition of a known firing or resolve.
    Duplicate,
    /// A resolve that is older than the open occurrence.
    Stale,
    /// A late firing; it opens when the late window has passed.
    Late,
    /// The alert resolved, but other alerts of the episode still fire.
    StillOpen,
    /// Nothing to do: no action is configured, or the episode has not grown, or the rule is a hold.
    NoAction,
    /// A decrease was requested, but there is no positive evidence that it is safe.
    NoEvidence,
    /// A deferred action was dropped because it is no longer justified.
    Withdrawn,
    /// An undelivered decrease was cancelled by a later increase.
    Superseded,
    /// No rule matched.
    Unmatched,
    /// The matchers of a rule matched, but no `when` was true.
    ConditionFalse,
    /// The alert, or a value rendered from it, is invalid.
    Invalid,
    /// The matching rule is disabled.
    Disabled,
    /// No notification has mentioned the alert for the source's `occurrence_ttl`.
    Expired,
    /// The alert is the heartbeat of its source; it is not matched against rules.
    Heartbeat,
    /// Blocked by a pause.
    Paused,
    /// Blocked by a hold, or by the source's missing heartbeat.
    Held,
    /// A decrease is blocked by the open episode of another rule that has increased capacity.
    Outranked,
    /// The stabilization window is not over.
    Stabilizing,
    /// Blocked by the cooldown after an earlier emission about the target.
    CoolingDown,
    /// The rule has used up its budget for the target, or the process its rate limit.
    OverBudget,
}

impl Verdict {
    /// All verdicts, for documentation and tests.
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

    /// Whether an action or alert with this verdict is deferred and rechecked.
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

    /// Whether a valid alert was received that led to no action, deferred or not.
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

    /// The verdict with this name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == word)
    }

    /// The name in answers, records and metrics.
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

/// The decision on some alerts of one rule and target at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The rule; `None` if no rule matched.
    pub rule: Option<Name>,
    /// The key of the target, hold or heartbeat; `None` if the alert never reached one.
    pub target: Option<TargetKey>,
    /// Whether the decision answers a notification about these alerts; otherwise it concerns a deferred
    /// action or something that became due.
    pub is_reply: bool,
    /// The end of the episode that the decision concerns, if any.
    pub phase: Option<Phase>,
    /// The id of the episode, if any.
    pub episode: Option<Arc<str>>,
    /// The requested action: `scale_out`, `scale_in`, `set_capacity` or `notify`.
    pub action: Option<&'static str>,
    /// The outcome.
    pub verdict: Verdict,
    /// An explanation, if the verdict alone is not sufficient.
    pub detail: Option<String>,
    /// What blocks the action. `detail` is its text.
    pub blocked_by: Option<Box<Blocker>>,
    /// The time of the next recheck.
    pub until: Option<Time>,
    /// The alerts that the decision concerns.
    pub alerts: Vec<AlertKey>,
    /// The emitted event.
    pub event: Option<Box<Event>>,
    /// The event that would have been sent, with [`Verdict::Shadowed`].
    pub shadow: Option<Box<Event>>,
}

impl Decision {
    /// A decision that answers a notification with a verdict and has no other fields set.
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
            blocked_by: None,
            until: None,
            alerts,
            event: None,
            shadow: None,
        }
    }
}
