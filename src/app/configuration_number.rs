//! By which number replicas know whether they have the same rules and destinations.

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::domain::name::Name;
use crate::kinds::Settings;

/// The number of a configuration: of the names of its rules and destinations.
pub(super) fn configuration_number(settings: &Settings) -> i64 {
    let rules = settings.rules.rules().iter().map(|rule| &rule.name);
    number(rules, settings.destinations.keys())
}

fn number<'a>(rules: impl Iterator<Item = &'a Name>, destinations: impl Iterator<Item = &'a Name>) -> i64 {
    let mut digest = Sha256::new();
    for rule in rules.collect::<BTreeSet<_>>() {
        digest.update(format!("rule {rule}\n"));
    }
    for destination in destinations.collect::<BTreeSet<_>>() {
        digest.update(format!("destination {destination}\n"));
    }
    let mut number = [0; 8];
    number.copy_from_slice(&digest.finalize()[..8]);
    // Positive: 0 stands for none.
    (i64::from_be_bytes(number) & i64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_the_number_of_its_names_whatever_their_order_and_what_they_stand_for() {
        let names = |names: &[&str]| names.iter().map(|name| Name::new(name).unwrap()).collect::<Vec<_>>();
        let of =
            |rules: &[&str], destinations: &[&str]| number(names(rules).iter(), names(destinations).iter());
        assert_eq!(of(&["a", "b"], &["c"]), of(&["b", "a"], &["c"]));
        for (rules, destinations) in [(["a", "c"], ["b"]), (["a", "b"], ["d"])] {
            assert_ne!(of(&["a", "b"], &["c"]), of(&rules, &destinations));
        }
        assert_ne!(of(&["a", "b"], &[]), of(&["a"], &["b"]));
    }
}
