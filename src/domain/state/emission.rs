//! Emitted events, for as long as decisions need them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::Change;
use crate::domain::time::Time;

/// An emitted event, for as long as decisions need it: until its delivery is known, its cooldown is over, and what it
/// has added is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emission {
    /// The event's id.
    pub id: Arc<str>,
    /// The rule that emitted it.
    pub rule: Name,
    /// The phase of its episode.
    pub phase: Phase,
    /// The store time of the emission.
    #[serde(rename = "at")]
    pub emitted_at: Time,
    /// Whether it can increase capacity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub increases: bool,
    /// Whether it can decrease capacity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decreases: bool,
    /// The cooldown of its action, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cooldown_ms: u64,
    /// The value of a `ChangeInCapacity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// Whether the rule owes a decrease for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "owed")]
    pub is_owed: bool,
    /// For an `on_resolved` decrease: it takes back what its rule has added until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "pays")]
    pub takes_back_until: Option<Time>,
    /// For a `revert`: the events that it takes back. All until then if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "reverts")]
    pub takes_back: Vec<Arc<str>>,
    /// Its acting destinations, if a decrease is owed for it: that goes to them, also after `send_to` was changed. Empty
    /// in a state of an earlier version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "to")]
    pub acting: Vec<Name>,
    /// What is known about its delivery.
    #[serde(default, skip_serializing_if = "EmissionOutcome::is_pending")]
    pub outcome: EmissionOutcome,
    /// For a dead letter of an open episode: when a pause ends that keeps it from being tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "due")]
    pub recheck_at: Option<Time>,
    /// Whether it was delivered at one acting destination, and can still be delivered at another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "pending")]
    pub is_pending_elsewhere: bool,
    /// Whether its calls are suspended: something blocks it, and the outcome of an earlier call is unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "suspended")]
    pub is_suspended: bool,
    /// Whether it became too old while a pause or hold withheld it and its episode was open: it is tried again when that
    /// ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "withheld")]
    pub is_withheld: bool,
}

/// What is known about the delivery of an event to its acting destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmissionOutcome {
    /// It is not known to be delivered, nor that it will not be.
    #[default]
    Pending,
    /// The time of the first delivery.
    Delivered(Time),
    /// It is a dead letter.
    DeadLetter,
}

/// Until when emissions of earlier versions block later ones: increases are blocked by increases only, decreases by
/// both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cooldowns {
    /// The end of the cooldown after the last increase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "added")]
    pub after_increase: Option<Time>,
    /// The end of the cooldown after the last decrease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "taken")]
    pub after_decrease: Option<Time>,
}

impl EmissionOutcome {
    fn is_pending(&self) -> bool {
        *self == Self::Pending
    }
}

impl Emission {
    /// The cooldown of its action.
    pub const fn cooldown(&self) -> Duration {
        Duration::from_millis(self.cooldown_ms)
    }

    /// When the event was delivered, if it is known.
    pub const fn delivered_at(&self) -> Option<Time> {
        match self.outcome {
            EmissionOutcome::Delivered(at) => Some(at),
            EmissionOutcome::Pending | EmissionOutcome::DeadLetter => None,
        }
    }

    /// Whether its delivery has to be looked up.
    pub(super) fn is_tracked(&self) -> bool {
        self.delivered_at().is_none() || self.is_pending_elsewhere
    }

    /// When it can be removed; `None` if it is needed until something else happens.
    pub(super) fn prune_at(&self) -> Option<Time> {
        self.delivered_at().filter(|_| !self.is_owed).map(|at| at.after(self.cooldown()))
    }
}

impl Cooldowns {
    /// Whether there are no cooldowns.
    pub fn is_empty(&self) -> bool {
        self.after_increase.is_none() && self.after_decrease.is_none()
    }

    /// The time until which a change is blocked; `None` if it is not. `notify` is never blocked.
    pub fn blocked_until(&self, change: &Change, now: Time) -> Option<Time> {
        let until = match (change.increases_capacity(), change.decreases_capacity()) {
            (false, false) => None,
            (true, false) => self.after_increase,
            (_, true) => self.after_increase.max(self.after_decrease),
        };
        until.filter(|until| *until > now)
    }

    /// Removes cooldowns that are over.
    pub fn prune(&mut self, now: Time) {
        self.after_increase = self.after_increase.filter(|until| *until > now);
        self.after_decrease = self.after_decrease.filter(|until| *until > now);
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
