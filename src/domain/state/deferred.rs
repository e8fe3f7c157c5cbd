//! Actions that are deferred, and decreases that are emitted and that no answer has confirmed.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::alert_key::AlertKey;
use crate::domain::direction::Direction;
use crate::domain::rate::Slot;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Verdict;

/// An action that a guard has blocked for a time, or that is to be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deferred {
    /// The time of the request.
    #[serde(rename = "since")]
    pub requested_at: Time,
    /// When its stabilization window started, if not with the request: that of a repetition starts with the emission
    /// before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "stable")]
    pub stable_since: Option<Time>,
    /// The time of the next recheck. `None` if the end of the block is unknown: a pause without an end, a
    /// hold, a missing heartbeat, the episode of another rule, or a delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "due")]
    pub recheck_at: Option<Time>,
    /// The direction whose rate limit has blocked the action. `recheck_at` is then the time of its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "line")]
    pub limited_direction: Option<Direction>,
    /// Whether the action decreases capacity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decreases: bool,
    /// Whether the action is requested by `repeat: while_firing`: it is then justified as long as the episode
    /// is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "by_clock")]
    pub is_repeat: bool,
    /// Whether the action was emitted before, but not delivered: it is then justified as long as the episode is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_retry: bool,
    /// Set after an emission was given up because of its age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<DestinationWait>,
    /// The blocking verdict; `None` for an action that no guard has blocked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "stopped_by")]
    pub blocked_by: Option<Verdict>,
    /// The alerts that the action concerns.
    pub alerts: Vec<AlertKey>,
    /// The notification that caused the action.
    #[serde(rename = "cause")]
    pub trigger: Arc<Trigger>,
}

/// A decrease that was given up because of its age waits until its destination works again, or for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationWait {
    /// When the state heard that the earlier emission was given up, or before that when a later call succeeded. A call
    /// that succeeds then or later ends the wait: of two things at the same time, the success counts as the later one.
    pub since: Time,
    /// When the wait ends at the latest.
    pub until: Time,
    /// Whether the action was rechecked after that, and something else blocks it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "over")]
    pub is_over: bool,
}

/// An emitted decrease whose delivery is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmittedDecrease {
    /// The event's id.
    pub event: Arc<str>,
    /// The request, in case it has to be deferred again.
    pub request: Deferred,
    /// Whether the event is a dead letter that an operator has to redrive or discard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rejected: bool,
    /// When it is rechecked, if its calls are suspended until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "due")]
    pub recheck_at: Option<Time>,
}

impl DestinationWait {
    /// The longest wait.
    pub const MAX: Duration = Duration::from_hours(24);
}

impl Deferred {
    /// The slot that the action has reserved in the rate limits.
    pub fn slot(&self) -> Option<Slot> {
        self.limited_direction.zip(self.recheck_at).map(|(direction, at)| Slot { direction, at })
    }

    /// When its stabilization window starts, if nothing disturbs it later.
    pub fn stable_since(&self) -> Time {
        self.stable_since.unwrap_or(self.requested_at)
    }

    /// Whether the recheck is due.
    pub fn is_due(&self, now: Time) -> bool {
        self.times().any(|due| due <= now)
    }

    pub(super) fn times(&self) -> impl Iterator<Item = Time> {
        let wait = self.wait.filter(|wait| self.recheck_at.is_none() && !wait.is_over);
        let wait = wait.map(|wait| wait.until);
        self.recheck_at.into_iter().chain(wait)
    }

    /// Whether a delivery ends the block.
    pub(super) fn awaits_delivery(&self) -> bool {
        self.recheck_at.is_none() && self.blocked_by == Some(Verdict::CoolingDown)
    }
}
