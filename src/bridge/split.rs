//! Splits large notifications into several transactions.
//!
//! All alerts of a target are processed in one transaction, since a pod that replaces another one in the same
//! notification does not grow the episode. A notification is split between targets, never within one.

use std::collections::{BTreeMap, HashMap};

use crate::domain::alert_key::AlertKey;
use crate::domain::engine::{EvaluatedAlert, Input};
use crate::domain::target::{KeyKind, TargetKey};
use crate::store::{self, Store};

/// A notification of up to this many alerts is one transaction; larger ones are split.
pub(super) const MAX_ALERTS_PER_TRANSACTION: usize = 1000;

/// Returns the notification unchanged, or in parts of at most [`MAX_ALERTS_PER_TRANSACTION`] alerts; alerts
/// that share a target are one part even if they are more.
///
/// # Errors
/// The store could not be read to find the targets at which alerts are open.
pub(super) async fn split(store: &Store, input: Input) -> Result<Vec<Input>, store::Error> {
    if input.alerts.len() <= MAX_ALERTS_PER_TRANSACTION {
        return Ok(vec![input]);
    }
    let known = store.locate(input.alert_keys()).await?;
    Ok(partition(input, &known))
}

/// The parts; `known` has the targets at which each alert is known.
fn partition(input: Input, known: &BTreeMap<AlertKey, Vec<TargetKey>>) -> Vec<Input> {
    let mut groups = DisjointSets::default();
    let mut sets_controls = Vec::with_capacity(input.alerts.len());
    for (at, evaluated) in input.alerts.iter().enumerate() {
        let key = evaluated.key(&input.source.name);
        let open = key.iter().filter_map(|key| known.get(key)).flatten();
        let own = key.iter().map(|key| TargetKey::for_stray_alert(key.source.as_str(), &key.fingerprint));
        // A resolved alert concerns the targets and holds at which it is known.
        let about = evaluated.targets().chain(open);
        sets_controls.push(about.clone().any(|target| target.kind() != KeyKind::Target));
        groups.add(at, about.cloned().chain(own));
    }
    let Input { source, trigger, truncated, sent_at, alerts } = input;
    let mut alerts: Vec<Option<EvaluatedAlert>> = alerts.into_iter().map(Some).collect();
    let mut parts: Vec<Input> = Vec::new();
    let mut groups: Vec<_> = groups.into_groups().collect();
    // Holds and heartbeats first, as within a part: decisions about targets read the controls.
    groups.sort_by_key(|group| !group.iter().any(|&at| sets_controls[at]));
    for group in groups {
        let fits =
            parts.last().is_some_and(|part| part.alerts.len() + group.len() <= MAX_ALERTS_PER_TRANSACTION);
        if !fits {
            let (source, trigger) = (source.clone(), trigger.clone());
            parts.push(Input { source, trigger, truncated, sent_at, alerts: Vec::new() });
        }
        if let Some(part) = parts.last_mut() {
            part.alerts.extend(group.into_iter().filter_map(|at| alerts[at].take()));
        }
    }
    parts
}

/// Disjoint sets (union-find) of alerts that share a target, directly or through other alerts.
#[derive(Default)]
struct DisjointSets {
    parents: Vec<usize>,
    by_target: HashMap<TargetKey, usize>,
}

impl DisjointSets {
    fn add(&mut self, alert: usize, targets: impl Iterator<Item = TargetKey>) {
        debug_assert_eq!(alert, self.parents.len(), "alerts are added in order");
        self.parents.push(alert);
        for target in targets {
            let other = *self.by_target.entry(target).or_insert(alert);
            let (a, b) = (self.root(alert), self.root(other));
            // The earlier alert is the root, so groups are ordered by their first alerts.
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
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::domain::name::Name;
    use crate::domain::notification::{Alert, Envelope, Status};
    use crate::domain::source::Source;
    use crate::domain::target::PartialTarget;
    use crate::domain::time::Time;
    use crate::domain::trigger::Trigger;

    #[test]
    fn alerts_that_share_a_target_stay_together() {
        let target = |name: &str| TargetKey::from_stored(name);
        let mut groups = DisjointSets::default();
        groups.add(0, [target("a")].into_iter());
        groups.add(1, [target("b")].into_iter());
        groups.add(2, [target("c")].into_iter());
        groups.add(3, [target("c"), target("a")].into_iter());
        groups.add(4, std::iter::empty());
        assert_eq!(groups.into_groups().collect::<Vec<_>>(), [vec![0, 2, 3], vec![1], vec![4]]);
    }

    fn resolved(number: usize) -> EvaluatedAlert {
        EvaluatedAlert::Resolved(Alert {
            status: Status::Resolved,
            labels: Arc::default(),
            annotations: Arc::default(),
            starts_at: Time::from_millis(0),
            ends_at: Some(Time::from_millis(1)),
            valid_until: None,
            absence: None,
            generator_url: "".into(),
            fingerprint: format!("fp-{number}").into(),
        })
    }

    /// As within one transaction; otherwise actions would be recorded as blocked by a hold that ends in the same
    /// notification.
    #[test]
    fn the_end_of_a_hold_is_decided_before_the_actions_it_blocks_also_when_split() {
        let source = Source {
            name: Name::new("prod").unwrap(),
            labels: Arc::default(),
            late_window: Duration::ZERO,
            occurrence_ttl: Duration::ZERO,
            heartbeat: None,
            ignore_labels: Vec::new(),
            permissions: crate::domain::source::SourcePermissions::default(),
        };
        let key = |number: usize| AlertKey {
            source: source.name.clone(),
            fingerprint: format!("fp-{number}").into(),
        };
        let hold = PartialTarget::default().key();
        let target = |number: usize| TargetKey::from_stored(&format!("eks/nodegroup/-/-/-/-/{number}"));
        let last = 2 * MAX_ALERTS_PER_TRANSACTION;
        let mut known: BTreeMap<_, _> = (0..last).map(|number| (key(number), vec![target(number)])).collect();
        known.insert(key(last), vec![hold]);
        let input = Input {
            trigger: Arc::new(Trigger::new(&source.name, &Envelope::default(), None)),
            source: Arc::new(source.clone()),
            truncated: false,
            sent_at: None,
            alerts: (0..=last).map(resolved).collect(),
        };
        let parts = partition(input, &known);
        let sizes: Vec<usize> = parts.iter().map(|part| part.alerts.len()).collect();
        assert_eq!(sizes, [MAX_ALERTS_PER_TRANSACTION, MAX_ALERTS_PER_TRANSACTION, 1]);
        assert_eq!(parts[0].alerts[0].key(&source.name), Some(key(last)));
    }
}
