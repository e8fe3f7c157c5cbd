//! The state of one rule for one target.

use serde::{Deserialize, Serialize};

use super::deferred::{Deferred, EmittedDecrease};
use super::episode::{ClosedEpisode, Episode, ExpiredEpisode};
use super::occurrence::{InvalidFiring, LateFiring, Occurrence};
use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::AlertMap;
use crate::domain::phase::Phase;
use crate::domain::time::Time;

/// The state of one rule for one target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RuleState {
    /// The open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<Box<Episode>>,
    /// Late firings, possibly the delayed copies of a second Alertmanager.
    #[serde(default, skip_serializing_if = "AlertMap::is_empty")]
    pub late: AlertMap<LateFiring>,
    /// The episode that closed last, until its action has ended and no late firing can continue it. A rule never has
    /// it together with an open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "closing")]
    pub closed: Option<Box<ClosedEpisode>>,
    /// When each of the recent events stops counting against the rule's budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "spent")]
    pub budget_expiries: Vec<Time>,
    /// The latest episode in which an alert expired. Its alerts may be received again without an end in
    /// between, and then open a different episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "lapsed")]
    pub expired_episode: Option<Box<ExpiredEpisode>>,
    /// For a hold: alerts that fire and cannot be read. It blocks decreases meanwhile.
    #[serde(default, skip_serializing_if = "AlertMap::is_empty")]
    pub unreadable: AlertMap<InvalidFiring>,
    /// For a hold: when its `max_duration` is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until: Option<Time>,
    /// When what the rule owes is forgotten: `retention.owed` after its last close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owed_until: Option<Time>,
}

impl RuleState {
    /// Whether the rule has no state for the target.
    pub fn is_empty(&self) -> bool {
        self.episode.is_none()
            && self.late.is_empty()
            && self.closed.is_none()
            && self.budget_expiries.is_empty()
            && self.expired_episode.is_none()
            && self.owed_until.is_none()
            && self.unreadable.is_empty()
    }

    /// The deferred action; there is at most one.
    pub fn deferred(&self) -> Option<&Deferred> {
        let firing = self.episode.as_ref().and_then(|episode| episode.deferred.as_ref());
        firing.or_else(|| self.closed.as_ref()?.deferred.as_ref())
    }

    /// Stores a deferred action, if its episode still exists.
    pub fn defer(&mut self, phase: Phase, deferred: Deferred) {
        match phase {
            Phase::Firing => {
                if let Some(episode) = &mut self.episode {
                    episode.deferred = Some(deferred);
                }
            }
            Phase::Resolved => {
                if let Some(closed) = &mut self.closed {
                    closed.deferred = Some(deferred);
                }
            }
        }
    }

    /// Removes the deferred action of a phase.
    pub fn take_deferred(&mut self, phase: Phase) -> Option<Deferred> {
        match phase {
            Phase::Firing => self.episode.as_mut()?.deferred.take(),
            Phase::Resolved => self.closed.as_mut()?.deferred.take(),
        }
    }

    /// The emitted decrease whose delivery is not known; there is at most one.
    pub fn emitted_decrease(&self) -> Option<&EmittedDecrease> {
        let firing = self.episode.as_ref().and_then(|episode| episode.emitted.as_ref());
        firing.or_else(|| self.closed.as_ref()?.emitted.as_ref())
    }

    /// Like [`Self::emitted_decrease`].
    pub fn emitted_decrease_mut(&mut self) -> Option<&mut EmittedDecrease> {
        let firing = self.episode.as_mut().and_then(|episode| episode.emitted.as_mut());
        firing.or_else(|| self.closed.as_mut()?.emitted.as_mut())
    }

    /// Removes the emitted decrease.
    pub fn take_emitted_decrease(&mut self) -> Option<EmittedDecrease> {
        let firing = self.episode.as_mut().and_then(|episode| episode.emitted.take());
        firing.or_else(|| self.closed.as_mut()?.emitted.take())
    }

    /// The open episode, or else the one that closed last.
    pub fn last_episode(&self) -> Option<&Episode> {
        self.episode.as_deref().or_else(|| Some(&*self.closed.as_ref()?.episode))
    }

    /// Like [`Self::last_episode`].
    pub fn last_episode_mut(&mut self) -> Option<&mut Episode> {
        self.episode.as_deref_mut().or_else(|| Some(&mut *self.closed.as_mut()?.episode))
    }

    /// A closed episode is retained while one of its events is a dead letter, which can be redriven, and while anything is
    /// owed on the target: the ends of its alerts are retained too then, so that a late firing can continue it.
    pub(super) fn prune(&mut self, now: Time, is_needed: bool) {
        self.budget_expiries.retain(|free| *free > now);
        self.expired_episode.take_if(|expired_episode| expired_episode.until <= now);
        let is_needed = is_needed || self.owed_until.is_some();
        self.closed.take_if(|closed| !is_needed && closed.prune_at().is_some_and(|at| at <= now));
    }

    pub(super) fn times(&self, is_needed: bool) -> impl Iterator<Item = Time> {
        let expiry = self.occurrences().map(|open| open.expires_at);
        let late = self.late.iter().map(|late| late.opens_at);
        let deferred = self.deferred().into_iter().flat_map(Deferred::times);
        let suspended = self.emitted_decrease().and_then(|emitted| emitted.recheck_at);
        let is_needed = is_needed || self.owed_until.is_some();
        let closed = self.closed.iter().filter_map(|closed| closed.prune_at()).filter(move |_| !is_needed);
        let expired_episode = self.expired_episode.iter().map(|expired_episode| expired_episode.until);
        let unreadable = self.unreadable.iter().map(|unreadable| unreadable.expires_at);
        let silence = self.episode.iter().filter_map(|episode| episode.silent_at());
        let rest = closed
            .chain(silence)
            .chain(expired_episode)
            .chain(self.owed_until)
            .chain(self.hold_until)
            .chain(unreadable);
        expiry
            .chain(late)
            .chain(deferred)
            .chain(suspended)
            .chain(self.budget_expiries.iter().copied())
            .chain(rest)
    }

    /// The open occurrences.
    pub fn occurrences(&self) -> impl Iterator<Item = &Occurrence> {
        self.episode.iter().flat_map(|episode| episode.open.iter())
    }

    /// Whether the alert is open.
    pub fn is_open(&self, alert: &AlertKey) -> bool {
        self.episode.as_ref().is_some_and(|episode| episode.open.contains(alert))
    }

    /// Whether the alert is open or late.
    pub fn is_tracked(&self, alert: &AlertKey) -> bool {
        self.is_open(alert) || self.late.contains(alert)
    }
}
