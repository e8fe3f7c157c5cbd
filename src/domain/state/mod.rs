//! The state of a target between notifications.
//!
//! The engine reads and returns it, and the store stores it: one JSON document per target, with field names,
//! so that later versions can add fields. Everything that has to be rechecked contains a time, and
//! [`TargetState::due`] returns the earliest.

mod deferred;
mod emission;
mod episode;
mod occurrence;
mod rule;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::deferred::{Deferred, DestinationWait, EmittedDecrease};
pub use self::emission::{Cooldowns, Emission, EmissionOutcome};
pub use self::episode::{ClosedEpisode, Episode, ExpiredEpisode};
pub use self::occurrence::{DoubtedEnd, InvalidFiring, LastResolve, LateFiring, Occurrence, Validity};
pub use self::rule::RuleState;
use super::alert_key::AlertKey;
use super::alert_map::AlertMap;
use super::episode_scope::EpisodeScope;
use super::name::Name;
use super::small_map::SmallMap;
use super::time::Time;
use super::verdict::Verdict;

/// The state of one target. The default is that of an unknown target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TargetState {
    /// The `sequence` of the last event about this target.
    #[serde(default)]
    pub sequence: u64,
    /// The state of each rule by name. Rules without state are absent.
    #[serde(default, skip_serializing_if = "SmallMap::is_empty")]
    pub rules: SmallMap<Name, RuleState>,
    /// The last resolve of each alert.
    #[serde(default, skip_serializing_if = "AlertMap::is_empty")]
    #[serde(rename = "ended")]
    pub last_resolves: AlertMap<LastResolve>,
    /// The emitted events that still matter, in the order of their emission.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emissions: Vec<Emission>,
    /// Cooldowns after events of earlier versions, which did not store emissions.
    #[serde(default, skip_serializing_if = "Cooldowns::is_empty")]
    pub cooldowns: Cooldowns,
    /// Ends that decreases have to wait after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm: Option<Calm>,
    /// Alerts about this target that fire, but cannot be read.
    #[serde(default, skip_serializing_if = "AlertMap::is_empty")]
    pub invalid: AlertMap<InvalidFiring>,
    /// When an earlier state was dropped because it could not be read. What was known before is lost, as with a lost
    /// store: occurrences that started before this time are adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_since: Option<Time>,
    /// The state of each rule in `mode: shadow`, as if it were the only rule with episodes and events of its own. Its
    /// `last_resolves` are those of the target.
    #[serde(default, skip_serializing_if = "SmallMap::is_empty")]
    pub shadows: SmallMap<Name, Box<TargetState>>,
}

/// Ends on a target after which a decrease has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calm {
    /// The last end of the need of an episode, of a late firing, or of an invalid firing. Stabilization windows count
    /// from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disturbed_at: Option<Time>,
    /// The last end of any of these, or of any episode. If the source has a heartbeat, its end may come up to
    /// `late_window` later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Time>,
    /// The time until which this is retained.
    pub until: Time,
}

impl TargetState {
    /// Whether the state can be deleted: it has nothing that decisions need, and none was dropped before it.
    pub fn is_empty(&self) -> bool {
        self.last_resolves.is_empty()
            && self.known_since.is_none()
            && self.emissions.is_empty()
            && self.cooldowns.is_empty()
            && self.calm.is_none()
            && self.invalid.is_empty()
            && self.rules.values().all(RuleState::is_empty)
            && self.shadows.values().all(|shadow| shadow.is_empty())
    }

    /// Removes all entries that have expired at `now`.
    pub fn prune(&mut self, now: Time) {
        let owes = self.emissions.iter().any(|emission| emission.is_owed);
        self.last_resolves.extract_if(|ended| ended.until <= now && !(owes && ended.was_open));
        self.cooldowns.prune(now);
        self.emissions.retain(|emission| emission.prune_at().is_none_or(|at| at > now));
        let emissions = &self.emissions;
        self.rules.retain(|name, rule| {
            rule.prune(now, owes || has_dead_letter(emissions, name));
            !rule.is_empty()
        });
        let is_quiet = self.rules.is_empty() && !owes;
        self.calm.take_if(|calm| calm.until <= now && is_quiet);
        self.shadows.retain(|_, shadow| {
            shadow.prune(now);
            !shadow.is_empty()
        });
    }

    /// The earliest time at which the target has to be processed; `None` if never.
    pub fn due(&self) -> Option<Time> {
        self.times().min()
    }

    /// The times at which something of the state ends or has to be done.
    fn times(&self) -> impl Iterator<Item = Time> {
        let owes = self.emissions.iter().any(|emission| emission.is_owed);
        let ended =
            self.last_resolves.iter().filter(move |ended| !(owes && ended.was_open)).map(|ended| ended.until);
        let is_quiet = self.rules.is_empty() && !owes;
        let calm = self.calm.iter().map(|calm| calm.until).filter(move |_| is_quiet);
        let rules = self
            .rules
            .iter()
            .flat_map(move |(name, rule)| rule.times(owes || has_dead_letter(&self.emissions, name)));
        rules
            .chain(ended)
            .chain(calm)
            .chain(self.emissions.iter().filter_map(Emission::prune_at))
            .chain(self.emissions.iter().filter_map(|emission| emission.recheck_at))
            .chain(self.cooldowns.after_increase)
            .chain(self.cooldowns.after_decrease)
            .chain(self.invalid.iter().map(|invalid| invalid.expires_at))
            .chain(self.absences())
            .chain(self.shadows.values().filter_map(|shadow| shadow.due()))
    }

    /// When each alert that a sender vouches for is absent, if that can take back a decrease.
    fn absences(&self) -> impl Iterator<Item = Time> {
        let is_unconfirmed = |rule: &RuleState| {
            let emitted = rule.emitted_decrease().filter(|emitted| !emitted.is_rejected);
            let emission = emitted.and_then(|emitted| self.emission(&emitted.event));
            emission.is_some_and(|emission| emission.delivered_at().is_none() && !emission.is_suspended)
        };
        let open = self.rules.values().flat_map(RuleState::occurrences);
        let mut absences = open.filter_map(|open| Some(open.validity.as_ref()?.absent_at)).peekable();
        let matters = absences.peek().is_some() && self.rules.values().any(is_unconfirmed);
        absences.filter(move |_| matters)
    }

    /// Whether a change of the controls can change something about an action: one that is blocked by a pause or hold,
    /// any decrease that is deferred or not delivered, or the episode of a hold or heartbeat.
    pub fn depends_on_controls(&self) -> bool {
        let is_control = |rule: &RuleState| {
            let scopes = rule.episode.iter().map(|episode| &episode.scope);
            let mut scopes = scopes.chain(rule.late.iter().map(|late| &late.scope));
            !rule.unreadable.is_empty() || scopes.any(|scope| scope.target().is_none())
        };
        self.deferred_actions().any(|deferred| {
            deferred.decreases || matches!(deferred.blocked_by, Some(Verdict::Paused | Verdict::Held))
        }) || self.rules.values().any(|rule| rule.emitted_decrease().is_some() || is_control(rule))
            || self.emissions.iter().any(|emission| emission.outcome == EmissionOutcome::DeadLetter)
    }

    /// The ids of the events whose delivery decisions still have to know.
    pub fn tracked_events(&self) -> impl Iterator<Item = &Arc<str>> {
        self.emissions.iter().filter(|emission| emission.is_tracked()).map(|emission| &emission.id)
    }

    /// Whether the target has to be processed when an event that it tracks is delivered. It always has to be when such
    /// an event is given up.
    pub fn awaits_delivery(&self) -> bool {
        self.rules.values().any(|rule| rule.emitted_decrease().is_some_and(|emitted| !emitted.is_rejected))
            || self.deferred_actions().any(Deferred::awaits_delivery)
            // Nothing else would remove the state.
            || (self.tracked_events().next().is_some() && self.times().next().is_none())
    }

    /// Whether the target has to be processed when calls to this destination succeed again.
    pub fn awaits_destination(&self, _destination: &Name) -> bool {
        self.deferred_actions().any(|deferred| deferred.wait.is_some())
    }

    /// When each wait of a deferred action for a destination has begun.
    pub fn destination_waits(&self) -> impl Iterator<Item = Time> {
        self.deferred_actions().filter_map(|deferred| deferred.wait).map(|wait| wait.since)
    }

    /// The rules with an open episode, except heartbeats.
    pub fn open_episodes(&self) -> impl Iterator<Item = &Name> {
        let open = self.all_rules().filter(|(_, rule)| {
            let episode = rule.episode.as_ref();
            episode.is_some_and(|episode| !matches!(episode.scope, EpisodeScope::Heartbeat(_)))
        });
        open.map(|(name, _)| name)
    }

    /// The blocking verdicts of the deferred actions, and `late` for each late firing.
    pub fn deferred_verdicts(&self) -> impl Iterator<Item = Verdict> {
        let late = self.all_rules().flat_map(|(_, rule)| rule.late.iter().map(|_| Verdict::Late));
        let blocked = self.all_rules().filter_map(|(_, rule)| rule.deferred()?.blocked_by);
        blocked.chain(late)
    }

    /// For each event that is owed, its rule.
    pub fn owing_rules(&self) -> impl Iterator<Item = &Name> {
        self.emissions.iter().filter(|emission| emission.is_owed).map(|emission| &emission.rule)
    }

    /// The rules with their states, those in `mode: shadow` included.
    pub fn all_rules(&self) -> impl Iterator<Item = (&Name, &RuleState)> {
        self.rules.iter().chain(self.shadows.values().flat_map(|shadow| shadow.rules.iter()))
    }

    fn deferred_actions(&self) -> impl Iterator<Item = &Deferred> {
        self.all_rules().filter_map(|(_, rule)| rule.deferred())
    }

    /// The occurrence of an alert that is open, late, or has closed an episode.
    pub fn occurrence(&self, alert: &AlertKey) -> Option<&Occurrence> {
        self.all_rules().find_map(|(_, rule)| {
            let open = rule.episode.as_ref().and_then(|episode| episode.open.get(alert));
            let late = || rule.late.get(alert).map(|late| &late.occurrence);
            let closed = || rule.closed.as_ref()?.closed.iter().find(|closed| closed.alert == *alert);
            open.or_else(late).or_else(closed)
        })
    }

    /// All alerts that are open, late, invalid, or have a stored resolve, possibly with duplicates.
    pub fn alerts(&self) -> impl Iterator<Item = &AlertKey> {
        let rules = self.all_rules().flat_map(|(_, rule)| {
            let late = rule.late.iter().map(|late| &late.occurrence.alert);
            rule.occurrences().map(|open| &open.alert).chain(late)
        });
        let of_holds = self.rules.values().flat_map(|rule| rule.unreadable.iter());
        let invalid = self.invalid.iter().chain(of_holds).map(|invalid| &invalid.alert);
        rules.chain(invalid).chain(self.last_resolves.iter().map(|ended| &ended.alert))
    }

    /// The last resolve of an alert, if it is stored.
    pub fn last_resolve(&self, alert: &AlertKey) -> Option<&LastResolve> {
        self.last_resolves.get(alert)
    }

    /// The emitted event with this id.
    pub fn emission(&self, id: &str) -> Option<&Emission> {
        self.emissions.iter().find(|emission| *emission.id == *id)
    }

    /// The acting destinations of these events; `None` if those of one of them are not known.
    pub fn acting_destinations(&self, events: &[Arc<str>]) -> Option<BTreeSet<&Name>> {
        let mut all = BTreeSet::new();
        for id in events {
            all.extend(&self.emission(id).filter(|emission| !emission.acting.is_empty())?.acting);
        }
        Some(all).filter(|all| !all.is_empty())
    }

    /// Records an end after which decreases have to wait. `is_disturbance` is whether stabilization windows count from
    /// it.
    pub fn record_end(&mut self, now: Time, is_disturbance: bool, retention: Duration) {
        let calm = self.calm.get_or_insert(Calm { disturbed_at: None, closed_at: None, until: now });
        calm.closed_at = calm.closed_at.max(Some(now));
        if is_disturbance {
            calm.disturbed_at = calm.disturbed_at.max(Some(now));
        }
        calm.until = calm.until.max(now.after(retention));
    }
}

/// Whether an event of the rule is a dead letter.
fn has_dead_letter(emissions: &[Emission], rule: &Name) -> bool {
    emissions.iter().any(|emission| emission.rule == *rule && emission.outcome == EmissionOutcome::DeadLetter)
}
