//! Which destinations fail, for whoever asks.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Class, Failure};
use crate::domain::name::Name;

/// Shared by the workers, which know, and whoever asks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct DestinationStatuses(Arc<Mutex<BTreeMap<Name, Failure>>>);

impl DestinationStatuses {
    /// A destination fails for this reason, or works.
    pub(crate) fn set(&self, destination: &Name, failing: Option<&Failure>) {
        let mut failures = self.0.lock();
        match failing {
            Some(failure) => failures.insert(destination.clone(), failure.clone()),
            None => failures.remove(destination),
        };
    }

    /// Why one fails, if it does.
    pub(crate) fn failure_of(&self, destination: &Name) -> Option<String> {
        let failures = self.0.lock();
        failures.get(destination).map(|failure| failure.message.clone())
    }

    /// Nobody delivers there any more.
    pub(crate) fn remove(&self, destination: &Name) {
        self.0.lock().remove(destination);
    }

    /// One line for each destination that fails, in the order of their names. It holds what the log
    /// holds too: no body and no secret.
    pub(crate) fn failure_lines(&self) -> Vec<String> {
        let failures = self.0.lock();
        let line = |(name, failure): (&Name, &Failure)| {
            let action_required =
                if failure.class == Class::Misconfigured { " until somebody mends it" } else { "" };
            let words: Vec<&str> =
                failure.message.split(|c: char| c.is_control() || c.is_whitespace()).collect();
            let why = words.iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ");
            format!("destination {name} fails{action_required}: {why}")
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
            "destination queue fails until somebody mends it: AccessDenied: no",
            "destination scaler fails: reset by peer",
        ];
        assert_eq!(statuses.failure_lines(), expected);
        statuses.set(&queue, None);
        assert_eq!(statuses.failure_lines(), expected[1..]);
    }
}
