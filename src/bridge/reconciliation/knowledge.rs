//! What the Alertmanagers of each source have said last, in memory: it is asked for again after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::control::MAX_RECEIVERS;
use crate::domain::labels::Labels;
use crate::domain::name::Name;
use crate::domain::reported::{Report, ReportedState, Silence, SuppressedBy};
use crate::domain::time::Time;

/// Suppressed alerts of a source that are kept.
pub(super) const MAX_SUPPRESSED: usize = 1000;
/// Longer names of receivers are not learned.
const MAX_RECEIVER_BYTES: usize = 256;

/// The sources that have Alertmanagers to ask, and what these have said.
#[derive(Default)]
pub(in crate::bridge) struct Reconciliations(Mutex<BTreeMap<Name, Source>>);

#[derive(Default)]
struct Source {
    knowledge: Arc<Knowledge>,
    /// The receivers that notifications have named and that are not committed yet.
    new_receivers: BTreeSet<String>,
    /// Those that are.
    receivers: BTreeSet<String>,
}

/// What the Alertmanagers of a source have said last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Knowledge {
    /// When an Alertmanager has answered last, by the wall clock.
    pub answered_at: Option<Time>,
    /// Why one of them did not answer when they were asked last, or the store could not take over what they said.
    pub last_error: Option<String>,
    /// The alerts for this source of which they notify nobody, by fingerprint; at most 1,000.
    pub suppressed: Arc<BTreeMap<Arc<str>, SuppressedAlert>>,
    /// The number of all of them.
    pub suppressed_total: usize,
}

/// An alert that fires, and of which Alertmanager notifies nobody.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SuppressedAlert {
    /// Its labels.
    pub labels: Arc<Labels>,
    /// When it started.
    pub starts_at: Time,
    /// Why; not empty.
    pub by: Vec<Suppression>,
}

/// Why Alertmanager notifies nobody of an alert that fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Suppression {
    /// A silence.
    Silence {
        /// Its id.
        id: String,
        /// Who made it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        created_by: Option<String>,
        /// The comment.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
        /// When it ends, RFC 3339.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<String>,
    },
    /// An inhibition: another alert fires.
    Inhibition {
        /// The fingerprint of the other alert.
        fingerprint: String,
    },
    /// A time interval of its route.
    TimeInterval {
        /// Its name.
        name: String,
    },
    /// A reason that Alertmanager does not name.
    Unknown,
}

impl std::fmt::Display for Suppression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Silence { id, created_by, comment, until } => {
                match created_by.as_deref().filter(|name| !name.is_empty()) {
                    Some(name) => write!(f, "silenced by {name}")?,
                    None => write!(f, "silenced by silence {id}")?,
                }
                if let Some(until) = until {
                    write!(f, " until {until}")?;
                }
                match comment.as_deref().filter(|comment| !comment.is_empty()) {
                    Some(comment) => write!(f, " ({comment})"),
                    None => Ok(()),
                }
            }
            Self::Inhibition { fingerprint } => write!(f, "inhibited by alert {fingerprint}"),
            Self::TimeInterval { name } => write!(f, "muted by the time interval {name}"),
            Self::Unknown => f.write_str("suppressed"),
        }
    }
}

impl Reconciliations {
    /// Replaces the sources that have Alertmanagers; what is known of those that stay is kept.
    pub(super) fn set_sources(&self, names: &BTreeSet<Name>) {
        let mut sources = self.0.lock();
        sources.retain(|name, _| names.contains(name));
        for name in names {
            sources.entry(name.clone()).or_default();
        }
    }

    /// What the Alertmanagers of a source have said; `None` if it has none.
    pub(super) fn knowledge(&self, source: &str) -> Option<Arc<Knowledge>> {
        Some(self.0.lock().get(source)?.knowledge.clone())
    }

    /// Changes what is known, unless the source has lost its Alertmanagers meanwhile.
    pub(super) fn update(&self, source: &Name, change: impl FnOnce(&mut Knowledge)) {
        if let Some(source) = self.0.lock().get_mut(source) {
            change(Arc::make_mut(&mut source.knowledge));
        }
    }

    /// A notification of the source names this receiver.
    pub(in crate::bridge) fn learn_receiver(&self, source: &Name, receiver: &str) {
        let mut sources = self.0.lock();
        let Some(Source { new_receivers, receivers, .. }) = sources.get_mut(source) else { return };
        let is_usable = !receiver.is_empty() && receiver.len() <= MAX_RECEIVER_BYTES;
        let is_full = new_receivers.len() + receivers.len() >= MAX_RECEIVERS;
        if is_usable && !is_full && !receivers.contains(receiver) && !new_receivers.contains(receiver) {
            new_receivers.insert(receiver.to_owned());
        }
    }

    /// The receivers that notifications of a source have named to this process.
    pub(super) fn learned(&self, source: &Name) -> BTreeSet<String> {
        let sources = self.0.lock();
        let known = sources.get(source);
        known.into_iter().flat_map(|known| known.new_receivers.union(&known.receivers).cloned()).collect()
    }

    /// What is learned and not committed.
    pub(in crate::bridge) fn new_receivers(&self) -> Vec<(Name, BTreeSet<String>)> {
        let sources = self.0.lock();
        let new = sources.iter().filter(|(_, source)| !source.new_receivers.is_empty());
        new.map(|(name, source)| (name.clone(), source.new_receivers.clone())).collect()
    }

    /// These are committed.
    pub(in crate::bridge) fn receivers_committed(&self, committed: Vec<(Name, BTreeSet<String>)>) {
        let mut sources = self.0.lock();
        for (name, receivers) in committed {
            let Some(source) = sources.get_mut(&name) else { continue };
            source.new_receivers.retain(|receiver| !receivers.contains(receiver));
            source.receivers.extend(receivers);
        }
    }
}

/// The alerts for these receivers of which some Alertmanager notifies nobody: all of them, counted, and the first of them.
pub(super) fn suppressed(
    reports: &[Report],
    receivers: &BTreeSet<String>,
) -> (usize, BTreeMap<Arc<str>, SuppressedAlert>) {
    // They are the same everywhere, but one peer may not have answered.
    let silences: BTreeMap<Arc<str>, Silence> =
        reports.iter().flat_map(|report| report.silences.clone()).collect();
    let mut found: BTreeMap<Arc<str>, SuppressedAlert> = BTreeMap::new();
    for report in reports {
        for reported in &report.alerts {
            let is_ours = reported.receivers.iter().any(|receiver| receivers.contains(&**receiver));
            if !is_ours || reported.state != ReportedState::Suppressed {
                continue;
            }
            let alert = &reported.alert;
            let entry = found.entry(alert.fingerprint.clone()).or_insert_with(|| SuppressedAlert {
                labels: alert.labels.clone(),
                starts_at: alert.starts_at,
                by: Vec::new(),
            });
            for by in &reported.suppressed_by {
                let by = suppression(by, &silences);
                if !entry.by.contains(&by) {
                    entry.by.push(by);
                }
            }
        }
    }
    for alert in found.values_mut().filter(|alert| alert.by.is_empty()) {
        alert.by.push(Suppression::Unknown);
    }
    let total = found.len();
    (total, found.into_iter().take(MAX_SUPPRESSED).collect())
}

fn suppression(by: &SuppressedBy, silences: &BTreeMap<Arc<str>, Silence>) -> Suppression {
    match by {
        SuppressedBy::Silence(id) => {
            let known = silences.get(id);
            Suppression::Silence {
                id: id.to_string(),
                created_by: known.map(|silence| silence.created_by.clone()),
                comment: known.map(|silence| silence.comment.clone()),
                until: known.map(|silence| silence.ends_at.to_millis_string()),
            }
        }
        SuppressedBy::Inhibition(fingerprint) => {
            Suppression::Inhibition { fingerprint: fingerprint.to_string() }
        }
        SuppressedBy::TimeInterval(name) => Suppression::TimeInterval { name: name.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn receivers_are_learned_for_sources_with_alertmanagers_until_there_are_too_many() {
        let known = Reconciliations::default();
        known.set_sources(&BTreeSet::from([name("prod")]));
        for receiver in ["scaling", "scaling", "", &"r".repeat(MAX_RECEIVER_BYTES + 1)] {
            known.learn_receiver(&name("prod"), receiver);
        }
        known.learn_receiver(&name("lab"), "scaling");
        assert_eq!(known.new_receivers(), [(name("prod"), set(&["scaling"]))]);
        known.receivers_committed(known.new_receivers());
        known.learn_receiver(&name("prod"), "scaling");
        assert!(known.new_receivers().is_empty());
        (0..99).for_each(|number| known.learn_receiver(&name("prod"), &number.to_string()));
        assert_eq!(known.learned(&name("prod")).len(), MAX_RECEIVERS);
        known.set_sources(&BTreeSet::from([name("prod"), name("lab")]));
        assert_eq!(known.learned(&name("prod")).len(), MAX_RECEIVERS, "a reload forgets nothing");
    }

    #[test]
    fn a_suppression_says_by_whom_and_until_when() {
        let silence = Silence {
            created_by: "alice".to_owned(),
            comment: "upgrade".to_owned(),
            ends_at: Time::parse("2026-12-01T10:00:00Z").unwrap(),
        };
        let silences = BTreeMap::from([("1".into(), silence)]);
        let text = |by| suppression(&by, &silences).to_string();
        assert_eq!(
            text(SuppressedBy::Silence("1".into())),
            "silenced by alice until 2026-12-01T10:00:00.000Z (upgrade)"
        );
        assert_eq!(
            text(SuppressedBy::Silence("2".into())),
            "silenced by silence 2",
            "its details are not known"
        );
        assert_eq!(text(SuppressedBy::Inhibition("f00".into())), "inhibited by alert f00");
        assert_eq!(text(SuppressedBy::TimeInterval("nights".into())), "muted by the time interval nights");
    }
}
