//! Sets of alerts. For each label there is a finite list of values, on which all matchers of a configuration are tried:
//! the values that they name, examples of their regular expressions, a value that is none of them, and no value. A set
//! of alerts is a set of values for each label, so it can be cut by matchers, and every set has an alert to show.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::domain::labels::Labels;
use crate::domain::matcher::Matcher;

/// The maximum number of examples of a label that are joined in pairs.
const MAX_JOINED: usize = 8;
/// The maximum number of values that a description lists.
const MAX_LISTED: usize = 4;

/// The values of all labels.
pub(super) struct Space {
    labels: Vec<Domain>,
    index: HashMap<String, usize>,
}

struct Domain {
    name: String,
    /// Those that matchers name, then another one, then the empty value, which is an absent label.
    values: Vec<String>,
}

impl Domain {
    /// The value that no matcher names.
    fn other(&self) -> usize {
        self.values.len() - 2
    }
}

/// A set of alerts: the possible values of labels, none of them empty. A label that is not listed has any value.
pub(super) type Region = BTreeMap<usize, Values>;

/// A set of values of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Values(Vec<u64>);

impl Values {
    fn from_iter(matches: impl Iterator<Item = bool>) -> Self {
        let mut words = Vec::new();
        for (at, is_in) in matches.enumerate() {
            if at % 64 == 0 {
                words.push(0);
            }
            words[at / 64] |= u64::from(is_in) << (at % 64);
        }
        Self(words)
    }

    fn combine(&self, other: &Self, with: impl Fn(u64, u64) -> u64) -> Option<Self> {
        let words: Vec<u64> = self.0.iter().zip(&other.0).map(|(left, right)| with(*left, *right)).collect();
        words.iter().any(|word| *word != 0).then_some(Self(words))
    }

    fn and(&self, other: &Self) -> Option<Self> {
        self.combine(other, |left, right| left & right)
    }

    fn without(&self, other: &Self) -> Option<Self> {
        self.combine(other, |left, right| left & !right)
    }

    fn is_disjoint(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(left, right)| left & right == 0)
    }

    fn contains(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }
}

impl Space {
    /// The values that `matchers` can tell apart.
    pub(super) fn new<'m>(matchers: impl Iterator<Item = &'m Matcher>) -> Self {
        let mut labels: Vec<Domain> = Vec::new();
        let mut index = HashMap::new();
        let mut known = HashSet::new();
        let mut joined: HashMap<usize, Vec<String>> = HashMap::new();
        for matcher in matchers {
            let label = *index.entry(matcher.label().to_owned()).or_insert_with(|| {
                labels.push(Domain { name: matcher.label().to_owned(), values: Vec::new() });
                labels.len() - 1
            });
            let examples = matcher.examples();
            if matcher.one_of().is_none() {
                joined.entry(label).or_default().extend(examples.iter().cloned());
            }
            for value in examples.into_iter().filter(|value| !value.is_empty()) {
                if known.insert((label, value.clone())) {
                    labels[label].values.push(value);
                }
            }
        }
        for (label, domain) in labels.iter_mut().enumerate() {
            // A value that two expressions match is often one that begins like the first and ends like the second.
            let mut parts = joined.remove(&label).unwrap_or_default();
            parts.truncate(MAX_JOINED);
            for value in parts.iter().flat_map(|start| parts.iter().map(move |end| format!("{start}{end}"))) {
                if !value.is_empty() && known.insert((label, value.clone())) {
                    domain.values.push(value);
                }
            }
            let mut other = "other".to_owned();
            while known.contains(&(label, other.clone())) {
                other.push('-');
            }
            domain.values.extend([other, String::new()]);
        }
        Self { labels, index }
    }

    /// The alerts that match all of `matchers`; `None` if there are none.
    pub(super) fn region<'m>(&self, matchers: impl IntoIterator<Item = &'m Matcher>) -> Option<Region> {
        let mut region = Region::new();
        for matcher in matchers {
            let Some(&label) = self.index.get(matcher.label()) else { continue };
            let values = self.labels[label].values.iter();
            let allowed = Values::from_iter(values.map(|value| matcher.matches_value(value)));
            let all = Values::from_iter(self.labels[label].values.iter().map(|_| true));
            let before = region.get(&label).unwrap_or(&all);
            region.insert(label, before.and(&allowed)?);
        }
        Some(region)
    }

    /// The alerts of `region` in which these labels are present.
    pub(super) fn with_label(&self, mut region: Region, label: &str) -> Option<Region> {
        let Some(&label) = self.index.get(label) else { return Some(region) };
        let values = &self.labels[label].values;
        let present = Values::from_iter(values.iter().map(|value| !value.is_empty()));
        let left = region.get(&label).map_or(Some(present.clone()), |before| before.and(&present))?;
        region.insert(label, left);
        Some(region)
    }

    /// The alerts of `region` that are not in `other`, in disjoint parts.
    pub(super) fn without(&self, region: &Region, other: &Region) -> Vec<Region> {
        let mut parts = Vec::new();
        let mut rest = region.clone();
        for (label, wanted) in other {
            let all = || Values::from_iter(self.labels[*label].values.iter().map(|_| true));
            let before = rest.get(label).cloned().unwrap_or_else(all);
            if let Some(outside) = before.without(wanted) {
                let mut part = rest.clone();
                part.insert(*label, outside);
                parts.push(part);
            }
            let Some(inside) = before.and(wanted) else { break };
            rest.insert(*label, inside);
        }
        parts
    }

    /// Whether an alert of each of two sets can have the same value of a label.
    pub(super) fn can_agree(&self, label: &str, left: &Region, right: &Region) -> bool {
        let Some(label) = self.index.get(label) else { return true };
        match (left.get(label), right.get(label)) {
            (Some(left), Some(right)) => left.and(right).is_some(),
            _ => true,
        }
    }

    /// An alert of the set.
    pub(super) fn example(&self, region: &Region) -> Labels {
        let mut labels = Labels::default();
        for (label, allowed) in region {
            let Domain { name, values } = &self.labels[*label];
            let value = values.iter().enumerate().find(|(at, _)| allowed.contains(*at));
            if let Some((_, value)) = value.filter(|(_, value)| !value.is_empty()) {
                labels.set(name, value);
            }
        }
        labels
    }

    /// Whether the alerts of `region` have a label that other alerts of `all` need not have.
    pub(super) fn requires_label(&self, region: &Region, all: &Region) -> bool {
        region.iter().any(|(label, values)| {
            let absent = self.labels[*label].values.len() - 1;
            let can_be_absent = all.get(label).is_none_or(|values| values.contains(absent));
            can_be_absent && !values.contains(absent)
        })
    }

    /// What distinguishes the alerts of `region` among those of `all`, as matchers; empty if nothing does.
    pub(super) fn describe(&self, region: &Region, all: &Region) -> String {
        let differing = region.iter().filter(|(label, values)| all.get(label) != Some(values));
        let matchers = differing.map(|(label, allowed)| {
            let domain = &self.labels[*label];
            let is_in_all = |at: usize| all.get(label).is_none_or(|values| values.contains(at));
            let is_allowed = |at: &usize| allowed.contains(*at);
            let (inside, outside): (Vec<usize>, Vec<usize>) =
                (0..domain.values.len()).filter(|at| is_in_all(*at)).partition(is_allowed);
            // What is not listed is described by what it is not.
            let is_negated = allowed.contains(domain.other()) || outside.len() < inside.len();
            let listed = if is_negated { outside } else { inside };
            let listed: Vec<&str> = listed.into_iter().map(|at| domain.values[at].as_str()).collect();
            let rest = if listed.len() > MAX_LISTED { "|…" } else { "" };
            let operator = match (is_negated, listed.len()) {
                (true, 1) => "!=",
                (true, _) => "!~",
                (false, 1) => "=",
                (false, _) => "=~",
            };
            let values = listed[..listed.len().min(MAX_LISTED)].join("|");
            format!("{}{operator}\"{values}{rest}\"", domain.name)
        });
        matchers.collect::<Vec<_>>().join(", ")
    }
}

/// The alerts in both sets; `None` if there are none.
pub(super) fn intersect(left: &Region, right: &Region) -> Option<Region> {
    // Most routes are about other alerts, and nothing is copied for them.
    let is_disjoint =
        |(label, values): (&usize, &Values)| left.get(label).is_some_and(|own| own.is_disjoint(values));
    if right.iter().any(is_disjoint) {
        return None;
    }
    let mut both = left.clone();
    for (label, values) in right {
        let common = both.get(label).map_or(Some(values.clone()), |before| before.and(values))?;
        both.insert(*label, common);
    }
    Some(both)
}
