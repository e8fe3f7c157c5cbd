//! Episodes, open and closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::deferred::{Deferred, EmittedDecrease};
use super::occurrence::Occurrence;
use crate::domain::alert_map::AlertMap;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::heartbeat_key::HeartbeatKey;
use crate::domain::name::Name;
use crate::domain::time::Time;

/// The time from the first occurrence that opens to the last that resolves. At least one occurrence is open,
/// except within a [`ClosedEpisode`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// A hash of rule, target and opening occurrences.
    pub id: Arc<str>,
    /// The scope, as rendered when the episode opened.
    #[serde(rename = "target")]
    pub scope: EpisodeScope,
    /// The store time at which the episode opened.
    pub opened_at: Time,
    /// The open occurrences.
    pub open: AlertMap<Occurrence>,
    /// The number of emitted `on_firing` events.
    pub emissions: u32,
    /// The number of emitted `on_resolved` events. Above one if a decrease was taken back, or could not take back all
    /// that is owed.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub resolved_emissions: u32,
    /// The number of `on_firing` events that no acting destination has got or will get.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub undelivered_emissions: u32,
    /// The growth mark: the largest number of alerts that were open at any of these emissions.
    pub most_open: u32,
    /// The sources of all its occurrences, including resolved ones, without duplicates. A list, since there
    /// is almost always only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Name>,
    /// The heartbeats of all its occurrences whose source has `heartbeat: { equal: … }`, without duplicates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub heartbeats: Vec<HeartbeatKey>,
    /// Whether one of its occurrences started before this store was created, or before an earlier state of the target
    /// was dropped. Such an episode cannot decrease
    /// capacity.
    #[serde(default)]
    pub adopted: bool,
    /// Whether one of its occurrences expired, so that its end is unknown. Such an episode cannot decrease
    /// capacity.
    #[serde(default)]
    pub expired: bool,
    /// Whether a truncated notification closed one of its occurrences. Such an episode closes without action.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// For a hold that has ended because of `max_duration`: it does not begin again before a new occurrence.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold_over: bool,
    /// For a heartbeat that is not open although it has not resolved: all its alerts are absent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "silent")]
    pub is_silent: bool,
    /// The deferred or repeated `on_firing` action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "kept")]
    pub deferred: Option<Deferred>,
    /// The emitted `on_firing` decrease, until its delivery is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emitted: Option<EmittedDecrease>,
    /// The rule's parameters, as rendered from the alert that opened last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// A closed episode and its `on_resolved` action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClosedEpisode {
    /// The episode, without open occurrences.
    pub episode: Box<Episode>,
    /// The occurrences that closed it.
    pub closed: Vec<Occurrence>,
    /// The deferred action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "kept")]
    pub deferred: Option<Deferred>,
    /// The decrease for which nothing is owed (any more). It is deferred if an increase that was given up is redriven
    /// and delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unneeded: Option<Deferred>,
    /// Whether its decrease was delivered, so that no late firing continues it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "answered")]
    pub is_answered: bool,
    /// The emitted decrease, until its delivery is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emitted: Option<EmittedDecrease>,
    /// The time until which a late firing can continue the episode, if no action keeps it longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A closed episode in which an alert expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpiredEpisode {
    /// The id of the episode.
    pub episode: Arc<str>,
    /// The time until which this entry is retained.
    pub until: Time,
}

impl Episode {
    /// The number of open alerts; those that differ only in labels that their source ignores count as one.
    pub fn open_count(&self) -> u32 {
        let copies: BTreeSet<&str> = self.open.iter().filter_map(|open| open.growth_key.as_deref()).collect();
        let others = self.open.iter().filter(|open| open.growth_key.is_none()).count();
        u32::try_from(others + copies.len()).unwrap_or(u32::MAX)
    }

    /// Whether more alerts are open than at any emission so far.
    pub fn has_grown(&self) -> bool {
        self.open_count() > self.most_open
    }

    /// Whether no sender vouches for any of its alerts any more.
    pub fn is_absent(&self, now: Time) -> bool {
        !self.open.is_empty() && self.open.iter().all(|open| open.is_absent(now))
    }

    /// For a heartbeat that is open: when the last of its alerts is absent, so that it is not open any more.
    pub(super) fn silent_at(&self) -> Option<Time> {
        let is_open = matches!(self.scope, EpisodeScope::Heartbeat(_)) && !self.is_silent;
        let mut times =
            self.open.iter().map(|open| open.validity.as_ref().map(|validity| validity.absent_at));
        let last = times.try_fold(None, |last: Option<Time>, at| Some(last.max(Some(at?))));
        last.flatten().filter(|_| is_open)
    }

    /// Records an emission with the current number of open alerts.
    pub fn record_emission(&mut self) {
        self.most_open = self.most_open.max(self.open_count());
        self.emissions = self.emissions.saturating_add(1);
    }
}

impl ClosedEpisode {
    /// When it can be removed; `None` while its action has not ended. One without an end is from an earlier version.
    pub(super) fn prune_at(&self) -> Option<Time> {
        let has_ended = self.deferred.is_none() && self.emitted.is_none();
        has_ended.then(|| self.until.unwrap_or(self.episode.opened_at))
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}
