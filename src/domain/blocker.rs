//! What blocks an action: for logs, decision records, the API and the command line.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::control::GapCause;
use super::direction::Direction;

/// What blocks an action. A newer version may have more kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Blocker {
    /// A pause; if several cover the action, the one that ends last.
    Pause {
        /// Its number.
        id: u64,
        /// Who set it.
        author: String,
        /// The reason that was given.
        reason: String,
        /// The numbers of the other pauses that cover the action.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        others: Vec<u64>,
    },
    /// An open episode of a hold.
    Hold {
        /// The rule with the hold.
        rule: String,
    },
    /// A heartbeat that is not open.
    Heartbeat {
        /// The source, with the values of its `equal` labels.
        source: String,
    },
    /// An open episode of another rule that increases capacity.
    Episode {
        /// The other rule.
        rule: String,
    },
    /// The cooldown of an earlier event.
    Cooldown {
        /// The event's id.
        event: String,
        /// The rule that emitted it.
        rule: String,
    },
    /// An earlier event of the rule that is not delivered, or not to all its destinations.
    Undelivered {
        /// The event's id.
        event: String,
        /// Whether one of its acting destinations has it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        partly: bool,
    },
    /// The action's stabilization window.
    StabilizationWindow {
        /// Its length.
        length: String,
    },
    /// A destination that has not accepted anything since an earlier event of the action was given up.
    Destination,
    /// A firing that is late, and may be out of date.
    LateFiring,
    /// A firing alert that its sender has not sent again in the time for which it vouched.
    AbsentAlert {
        /// The alert's fingerprint.
        fingerprint: String,
    },
    /// A firing that cannot be read.
    InvalidFiring {
        /// The alert's fingerprint.
        fingerprint: String,
    },
    /// A reception gap.
    ReceptionGap {
        /// The source whose notifications could not be received.
        source: String,
        /// The cause.
        cause: GapCause,
    },
    /// The heartbeat of a source may end later than its alerts.
    HeartbeatMayEnd {
        /// The source.
        source: String,
    },
    /// The heartbeat of a source has not been open for long enough.
    HeartbeatOpened {
        /// The source.
        source: String,
    },
    /// The rule's budget for the target is used up.
    Budget,
    /// A rate limit of the bridge is reached.
    RateLimit {
        /// The direction that is limited.
        direction: Direction,
    },
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause { id, author, reason, others } => {
                write!(f, "pause {id} by {author}: {reason}")?;
                if others.is_empty() {
                    return Ok(());
                }
                let others: Vec<String> = others.iter().map(u64::to_string).collect();
                write!(f, " (covered by pause {} too)", others.join(", "))
            }
            Self::Hold { rule } => write!(f, "held by rule {rule}"),
            Self::Heartbeat { source } => write!(f, "the heartbeat of source {source} is not open"),
            Self::Episode { rule } => {
                write!(f, "rule {rule} has an open episode on the target that increases capacity")
            }
            Self::Cooldown { event, rule } => write!(f, "cooldown of event {event} of rule {rule}"),
            Self::Undelivered { event, partly: true } => {
                write!(f, "event {event} of the rule is not delivered everywhere yet")
            }
            Self::Undelivered { event, partly: false } => {
                write!(f, "event {event} of the rule is not delivered yet")
            }
            Self::StabilizationWindow { length } => write!(f, "the stabilization window of {length}"),
            Self::Destination => {
                f.write_str("an earlier event of this action was given up; it waits for a call that succeeds")
            }
            Self::LateFiring => f.write_str("a late firing about the target waits for its resolve"),
            Self::AbsentAlert { fingerprint } => {
                write!(
                    f,
                    "alert {fingerprint} about the target is absent: its sender has not sent it again in time"
                )
            }
            Self::InvalidFiring { fingerprint } => {
                write!(f, "alert {fingerprint} about the target fires and cannot be read")
            }
            Self::ReceptionGap { source, cause } => {
                write!(f, "notifications of source {source} could not be received ({cause})")
            }
            Self::HeartbeatMayEnd { source } => {
                write!(f, "the heartbeat of source {source} may end later than its alerts")
            }
            Self::HeartbeatOpened { source } => {
                write!(f, "the heartbeat of source {source} has not been open for long enough")
            }
            Self::Budget => f.write_str("the rule's budget for this target is used up"),
            Self::RateLimit { direction } => {
                write!(f, "this process has reached engine.{direction}_per_minute")
            }
        }
    }
}
