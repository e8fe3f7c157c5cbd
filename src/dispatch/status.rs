//! The destinations that are unavailable, with the reason, for `/-/ready` and the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Class, Failure};
use crate::domain::name::Name;

/// The failure of each unavailable destination, set by the workers. Clones share the same map.
#[derive(Debug, Clone, Default)]
pub(crate) struct DestinationStatuses(Arc<Mutex<BTreeMap<Name, Failure>>>);

impl DestinationStatuses {
    /// Marks a destination as unavailable for the reason `failing`, or as available (`None`).
    pub(crate) fn set(&self, destination: &Name, failing: Option<&Failure>) {
        let mut failures = self.0.lock();
        match failing {
            Some(failure) => failures.insert(destination.clone(), failure.clone()),
            None => failures.remove(destination),
        };
    }

    /// Why a destination is unavailable. None if it is available.
    pub(crate) fn failure_of(&self, destination: &Name) -> Option<String> {
        let failures = self.0.lock();
        failures.get(destination).map(|failure| failure.message.clone())
    }

    /// Removes a destination that has no worker any more.
    pub(crate) fn remove(&self, destination: &Name) {
        self.0.lock().remove(destination);
    }

    /// One line per unavailable destination, ordered by name. The content is that of the log: no body
    /// and no secret.
    pub(crate) fn failure_lines(&self) -> Vec<String> {
        let failures = self.0.lock();
        let line = |(name, failure): (&Name, &Failure)| {
            let action_required =
                if failure.class == Class::Misconfigured { ", operator action required" } else { "" };
            let words: Vec<&str> =
                failure.message.split(|c: char| c.is_control() || c.is_whitespace()).collect();
            let reason = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ");
            format!("destination {name} unavailable{action_required}: {reason}")
        };
        failures.iter().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unavailable_destination_has_a_line_until_it_recovers() {
        let statuses = DestinationStatuses::default();
        let (queue, scaler) = (Name::new("queue").unwrap(), Name::new("scaler").unwrap());
        assert!(statuses.failure_lines().is_empty());
        statuses.set(&scaler, Some(&Failure::transient("reset\r\nby\u{7} peer")));
        statuses.set(&queue, Some(&Failure::transient("timeout")));
        statuses.set(&queue, Some(&Failure::new(Class::Misconfigured, "AccessDenied: no")));
        let expected = [
            "destination queue unavailable, operator action required: AccessDenied: no",
            "destination scaler unavailable: reset by peer",
        ];
        assert_eq!(statuses.failure_lines(), expected);
        statuses.set(&queue, None);
        assert_eq!(statuses.failure_lines(), expected[1..]);
    }
}
