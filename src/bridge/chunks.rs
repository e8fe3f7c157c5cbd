//! Large notifications, decided in parts.
//!
//! What concerns one target has to be decided together: a pod that takes another's place in the same
//! notification is no growth. So a notification is split between targets, never inside one.

use std::collections::{BTreeMap, HashMap};

use crate::domain::engine::{Input, Judged};
use crate::domain::target::TargetKey;
use crate::store::{self, Store};

/// A notification of up to this many alerts is one transaction.
pub const AT_ONCE: usize = 1000;

/// The notification as it is, or in parts of about [`AT_ONCE`] alerts.
///
/// # Errors
/// The store could not say where alerts are open.
pub async fn split(store: &Store, input: Input) -> Result<Vec<Input>, store::Error> {
    if input.alerts.len() <= AT_ONCE {
        return Ok(vec![input]);
    }
    let known = store.locate(input.alert_keys()).await?;
    let mut groups = Groups::default();
    let sets_controls: Vec<bool> = input.alerts.iter().map(Judged::is_control).collect();
    for (at, judged) in input.alerts.iter().enumerate() {
        let key = judged.key(&input.source.name);
        let open = key.iter().filter_map(|key| known.get(key)).flatten();
        let own = key.iter().map(|key| TargetKey::of_stray_alert(key.source.as_str(), &key.fingerprint));
        groups.add(at, judged.targets().chain(open).cloned().chain(own));
    }
    let Input { source, cause, truncated, alerts } = input;
    let mut alerts: Vec<Option<Judged>> = alerts.into_iter().map(Some).collect();
    let mut parts: Vec<Input> = Vec::new();
    let mut groups: Vec<_> = groups.into_groups().collect();
    // What decisions about targets look at comes first, as it does within a part.
    groups.sort_by_key(|group| !group.iter().any(|&at| sets_controls[at]));
    for group in groups {
        let fits = parts.last().is_some_and(|part| part.alerts.len() + group.len() <= AT_ONCE);
        if !fits {
            let (source, cause) = (source.clone(), cause.clone());
            parts.push(Input { source, cause, truncated, alerts: Vec::new() });
        }
        if let Some(part) = parts.last_mut() {
            part.alerts.extend(group.into_iter().filter_map(|at| alerts[at].take()));
        }
    }
    Ok(parts)
}

/// Alerts that share a target, directly or by a third.
#[derive(Default)]
struct Groups {
    parents: Vec<usize>,
    by_target: HashMap<TargetKey, usize>,
}

impl Groups {
    fn add(&mut self, alert: usize, targets: impl Iterator<Item = TargetKey>) {
        debug_assert_eq!(alert, self.parents.len(), "alerts come in their order");
        self.parents.push(alert);
        for target in targets {
            let other = *self.by_target.entry(target).or_insert(alert);
            let (a, b) = (self.root(alert), self.root(other));
            // The earlier one leads, so groups come out in the order of their first alerts.
            self.parents[a.max(b)] = a.min(b);
        }
    }

    fn root(&mut self, mut alert: usize) -> usize {
        while self.parents[alert] != alert {
            self.parents[alert] = self.parents[self.parents[alert]];
            alert = self.parents[alert];
        }
        alert
    }

    fn into_groups(mut self) -> impl Iterator<Item = Vec<usize>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for alert in 0..self.parents.len() {
            groups.entry(self.root(alert)).or_default().push(alert);
        }
        groups.into_values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_that_share_a_target_stay_together() {
        let target = |name: &str| TargetKey::from_stored(name);
        let mut groups = Groups::default();
        groups.add(0, [target("a")].into_iter());
        groups.add(1, [target("b")].into_iter());
        groups.add(2, [target("c")].into_iter());
        groups.add(3, [target("c"), target("a")].into_iter());
        groups.add(4, std::iter::empty());
        assert_eq!(groups.into_groups().collect::<Vec<_>>(), [vec![0, 2, 3], vec![1], vec![4]]);
    }
}
