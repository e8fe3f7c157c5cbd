//! The destinations that are unavailable, with the reason, for `/-/ready` and the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Class, Failure};
use crate::domain::name::Name;
use crate::domain::time::Time;

/// The failure of each unavailable destination, set by the workers. Clones share the same map.
#[derive(Debug, Clone, Default)]
pub(crate) struct DestinationStatuses(Arc<Mutex<BTreeMap<Name, Unavailable>>>);

#[derive(Debug, Clone)]
struct Unavailable {
    failure: Failure,
    /// The store time of the last outcome of a delivery.
    settled_at: Option<Time>,
}

/// Whether a destination works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// As far as is known.
    Available,
    /// With the error of the last call.
    Failing(String),
    /// The last call failed, and everything was given up since. The next delivery will tell.
    Idle { since: Option<Time>, last_error: String },
}

impl Condition {
    /// The error of the last call, while there is something to deliver.
    pub(crate) fn failing(&self) -> Option<String> {
        match self {
            Self::Failing(error) => Some(error.clone()),
            Self::Available | Self::Idle { .. } => None,
        }
    }

    /// Since when there has been nothing to deliver after a failed call.
    pub(crate) fn idle_since(&self) -> Option<Time> {
        match self {
            Self::Idle { since, .. } => *since,
            Self::Available | Self::Failing(_) => None,
        }
    }

    /// The error of the last call, if it failed.
    pub(crate) fn last_error(&self) -> Option<String> {
        match self {
            Self::Failing(error) | Self::Idle { last_error: error, .. } => Some(error.clone()),
            Self::Available => None,
        }
    }
}

impl DestinationStatuses {
    /// Marks a destination as unavailable for the reason `failing`, or as available (`None`).
    pub(crate) fn set(&self, destination: &Name, failing: Option<&Failure>) {
        let mut unavailable = self.0.lock();
        match failing {
            Some(failure) => {
                let settled_at = unavailable.get(destination).and_then(|known| known.settled_at);
                let known = Unavailable { failure: failure.clone(), settled_at };
                unavailable.insert(destination.clone(), known);
            }
            None => drop(unavailable.remove(destination)),
        }
    }

    /// Records that a delivery was not delivered.
    pub(super) fn on_undelivered(&self, destination: &Name, at: Time) {
        if let Some(known) = self.0.lock().get_mut(destination) {
            known.settled_at = Some(at);
        }
    }

    /// The condition of a destination that has this number of undelivered events.
    pub(crate) fn condition(&self, destination: &Name, undelivered: u64) -> Condition {
        match self.0.lock().get(destination) {
            None => Condition::Available,
            Some(Unavailable { failure, .. }) if undelivered > 0 => {
                Condition::Failing(failure.message.clone())
            }
            Some(Unavailable { failure, settled_at }) => {
                Condition::Idle { since: *settled_at, last_error: failure.message.clone() }
            }
        }
    }

    /// Removes a destination that has no worker any more.
    pub(crate) fn remove(&self, destination: &Name) {
        self.0.lock().remove(destination);
    }

    /// One line per unavailable destination, ordered by name. `undelivered` is the number of its undelivered events.
    /// The content is that of the log: no body and no secret.
    pub(crate) fn failure_lines(&self, undelivered: impl Fn(&Name) -> u64) -> Vec<String> {
        let all = self.0.lock().clone();
        let line = |(name, Unavailable { failure, settled_at }): (&Name, &Unavailable)| {
            let words: Vec<&str> =
                failure.message.split(|c: char| c.is_control() || c.is_whitespace()).collect();
            let reason = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ");
            if undelivered(name) == 0 {
                let since =
                    settled_at.map_or_else(String::new, |at| format!(" since {}", at.to_millis_string()));
                return format!(
                    "destination {name} has nothing to deliver{since}; its last call failed: {reason}"
                );
            }
            let action_required =
                if failure.class == Class::Misconfigured { ", operator action required" } else { "" };
            format!("destination {name} unavailable{action_required}: {reason}")
        };
        all.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unavailable_destination_has_a_line_until_it_recovers() {
        let statuses = DestinationStatuses::default();
        let (queue, scaler) = (Name::new("queue").unwrap(), Name::new("scaler").unwrap());
        let lines = || statuses.failure_lines(|_| 1);
        assert!(lines().is_empty());
        statuses.set(&scaler, Some(&Failure::transient("reset\r\nby\u{7} peer")));
        statuses.set(&queue, Some(&Failure::transient("timeout")));
        statuses.set(&queue, Some(&Failure::new(Class::Misconfigured, "AccessDenied: no")));
        let expected = [
            "destination queue unavailable, operator action required: AccessDenied: no",
            "destination scaler unavailable: reset by peer",
        ];
        assert_eq!(lines(), expected);
        statuses.set(&queue, None);
        assert_eq!(lines(), expected[1..]);
    }

    #[test]
    fn a_destination_without_deliveries_is_not_said_to_fail() {
        let statuses = DestinationStatuses::default();
        let scaler = Name::new("scaler").unwrap();
        assert_eq!(statuses.condition(&scaler, 0), Condition::Available);
        statuses.on_undelivered(&scaler, Time::from_millis(1));
        statuses.set(&scaler, Some(&Failure::transient("refused")));
        let last_error = || "refused".to_owned();
        assert_eq!(statuses.condition(&scaler, 1), Condition::Failing(last_error()));
        assert_eq!(statuses.condition(&scaler, 0), Condition::Idle { since: None, last_error: last_error() });
        let at = Time::from_millis(1_800_000_000_000);
        let since = Some(at);
        statuses.on_undelivered(&scaler, at);
        statuses.set(&scaler, Some(&Failure::transient("refused")));
        assert_eq!(statuses.condition(&scaler, 0), Condition::Idle { since, last_error: last_error() });
        let line = "destination scaler has nothing to deliver since 2027-01-15T08:00:00.000Z; its last call failed: refused";
        assert_eq!(statuses.failure_lines(|_| 0), [line]);
        statuses.set(&scaler, None);
        assert_eq!(statuses.condition(&scaler, 0), Condition::Available);
    }
}
