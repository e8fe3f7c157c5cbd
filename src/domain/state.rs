//! The state of a target between notifications.
//!
//! The engine reads and returns it, and the store stores it: one JSON document per target, with field names,
//! so that later versions can add fields. Everything that has to be rechecked contains a time, and
//! [`TargetState::due`] returns the earliest.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::alert_key::AlertKey;
use super::alert_map::{AlertMap, HasAlertKey};
use super::direction::Direction;
use super::episode_scope::EpisodeScope;
use super::labels::Labels;
use super::name::Name;
use super::rate::Slot;
use super::rule::{Action, Change, Mode};
use super::small_map::SmallMap;
use super::time::{ClockReading, Time};
use super::trigger::Trigger;
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
    /// Cooldowns after earlier emissions.
    #[serde(default, skip_serializing_if = "Cooldowns::is_empty")]
    pub cooldowns: Cooldowns,
    /// When an earlier state was dropped because it could not be read. What was known before is lost, as with a lost
    /// store: occurrences that started before this time are adopted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_since: Option<Time>,
}

/// Until when emissions about a target block later ones: increases are blocked by increases only, decreases
/// by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cooldowns {
    /// The end of the cooldown after the last increase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "added")]
    pub after_increase: Option<Time>,
    /// The end of the cooldown after the last decrease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "taken")]
    pub after_decrease: Option<Time>,
}

/// The state of one rule for one target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RuleState {
    /// The open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<Box<Episode>>,
    /// Late firings, possibly the delayed copies of a second Alertmanager.
    #[serde(default, skip_serializing_if = "AlertMap::is_empty")]
    pub late: AlertMap<LateFiring>,
    /// The deferred action of the episode that closed last. Withdrawn when an alert opens on the target,
    /// unless only for other rules in `mode: shadow`; so a rule never has it together with an open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "closing")]
    pub pending_close: Option<Box<PendingClose>>,
    /// When each of the recent events stops counting against the rule's budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "spent")]
    pub budget_expiries: Vec<Time>,
    /// Cooldowns and budget of the events that the rule would have sent in `mode: shadow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Box<Shadow>>,
    /// The latest episode in which an alert expired. Its alerts may be received again without an end in
    /// between, and then open a different episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "lapsed")]
    pub expired_episode: Option<Box<ExpiredEpisode>>,
}

/// A closed episode in which an alert expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpiredEpisode {
    /// The id of the episode.
    pub episode: Arc<str>,
    /// The time until which this entry is retained.
    pub until: Time,
}

/// Cooldowns and budget of a rule in `mode: shadow`, which block only this rule.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shadow {
    /// As [`TargetState::cooldowns`].
    #[serde(default, skip_serializing_if = "Cooldowns::is_empty")]
    pub cooldowns: Cooldowns,
    /// As [`RuleState::budget_expiries`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "spent")]
    pub budget_expiries: Vec<Time>,
}

/// The deferred `on_resolved` action of a closed episode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingClose {
    /// The episode, without open occurrences.
    pub episode: Box<Episode>,
    /// The occurrences that closed it.
    pub closed: Vec<Occurrence>,
    /// The deferred action.
    #[serde(rename = "kept")]
    pub deferred: Deferred,
}

/// An action that a guard has blocked for a time, or that is to be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deferred {
    /// The time of the request.
    #[serde(rename = "since")]
    pub requested_at: Time,
    /// The time of the next recheck. `None` if the end of the block is unknown: a pause without an end, a
    /// hold, a missing heartbeat or the episode of another rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "due")]
    pub recheck_at: Option<Time>,
    /// The direction whose rate limit has blocked the action. `recheck_at` is then the time of its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "line")]
    pub limited_direction: Option<Direction>,
    /// The time at which the action is withdrawn at the latest. Only decreases have a deadline.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "give_up")]
    pub deadline: Option<Time>,
    /// Whether the action is requested by `repeat: while_firing`: it is then justified as long as the episode
    /// is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "by_clock")]
    pub is_repeat: bool,
    /// The blocking verdict; `None` for a repetition that has not been blocked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "stopped_by")]
    pub blocked_by: Option<Verdict>,
    /// The alerts that the action concerns.
    pub alerts: Vec<AlertKey>,
    /// The notification that caused the action.
    #[serde(rename = "cause")]
    pub trigger: Arc<Trigger>,
}

/// The time from the first occurrence that opens to the last that resolves. At least one occurrence is open,
/// except within a [`PendingClose`].
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
    /// The growth mark: the largest number of alerts that were open at any of these emissions.
    pub most_open: u32,
    /// The same for events that `mode: shadow` would have sent.
    #[serde(default, skip_serializing_if = "EmissionStats::is_empty")]
    pub shadowed: EmissionStats,
    /// The sources of all its occurrences, including resolved ones, without duplicates. A list, since there
    /// is almost always only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Name>,
    /// Whether one of its occurrences started before this store was created, or before an earlier state of the target
    /// was dropped. Such an episode cannot decrease
    /// capacity.
    #[serde(default)]
    pub adopted: bool,
    /// Whether one of its occurrences expired, so that its end is unknown. Such an episode cannot decrease
    /// capacity.
    #[serde(default)]
    pub expired: bool,
    /// The deferred or repeated `on_firing` action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "kept")]
    pub deferred: Option<Deferred>,
    /// The rule's parameters, as rendered from the alert that opened last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// Emissions of an episode, actual or in `mode: shadow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EmissionStats {
    /// The number of `on_firing` events.
    pub emissions: u32,
    /// The growth mark: the largest number of alerts that were open at any of them.
    pub most_open: u32,
}

/// One alert from a firing to its resolve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Occurrence {
    /// The identity of the alert.
    pub alert: AlertKey,
    /// The start of the alert by Prometheus' clock.
    pub starts_at: Time,
    /// The store time at which it was last received firing.
    pub heard_at: Time,
    /// The time at which it expires unless it is received again.
    pub expires_at: Time,
    /// The metric for step adjustments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// The labels; those of the source take precedence.
    pub labels: Arc<Labels>,
    /// The latest annotations.
    pub annotations: Arc<Labels>,
    /// The URL of the alert's expression in Prometheus.
    #[serde(default)]
    pub generator_url: Arc<str>,
}

/// A firing that started before the last known end of the same alert. It opens at `opens_at` unless its
/// resolve arrives first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateFiring {
    /// The occurrence that would open.
    pub occurrence: Occurrence,
    /// The scope of the episode in which it would open.
    #[serde(rename = "target")]
    pub scope: EpisodeScope,
    /// The rendered parameters of the rule.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The notification that contained the firing.
    #[serde(rename = "cause")]
    pub trigger: Arc<Trigger>,
    /// Whether every notification that contained the firing was truncated. The occurrence then cannot
    /// decrease capacity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The known end of the alert, which is not before this start.
    pub previous_end: Time,
    /// The time at which it opens.
    #[serde(rename = "due")]
    pub opens_at: Time,
}

/// The last resolve of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastResolve {
    /// The identity of the alert.
    pub alert: AlertKey,
    /// The end of the alert according to Alertmanager.
    pub ends_at: Time,
    /// Whether the alert was open; otherwise its firing was never received.
    pub was_open: bool,
    /// The time until which this entry is retained.
    pub until: Time,
}

impl Occurrence {
    /// Whether a firing with this start belongs to a newer occurrence of the same alert, so that the end of
    /// this one was missed. `starts_at` is compared too, because Prometheus' clock may be ahead of the wall
    /// clock.
    pub fn is_replaced_by(&self, starts_at: Time, clock: ClockReading) -> bool {
        starts_at > clock.on_wall(self.heard_at) && starts_at > self.starts_at
    }
}

impl HasAlertKey for Occurrence {
    fn alert(&self) -> &AlertKey {
        &self.alert
    }
}

impl HasAlertKey for LateFiring {
    fn alert(&self) -> &AlertKey {
        &self.occurrence.alert
    }
}

impl HasAlertKey for LastResolve {
    fn alert(&self) -> &AlertKey {
        &self.alert
    }
}

impl TargetState {
    /// Whether the state can be deleted: it has no rule state, resolve or cooldown, and none was dropped before it.
    pub fn is_empty(&self) -> bool {
        self.last_resolves.is_empty()
            && self.known_since.is_none()
            && self.cooldowns.is_empty()
            && self.rules.values().all(RuleState::is_empty)
    }

    /// Removes all entries that have expired at `now`.
    pub fn prune(&mut self, now: Time) {
        self.last_resolves.extract_if(|ended| ended.until <= now);
        self.cooldowns.prune(now);
        self.rules.retain(|_, rule| {
            rule.budget_expiries.retain(|free| *free > now);
            rule.shadow.take_if(|shadow| !shadow.prune(now));
            rule.expired_episode.take_if(|expired_episode| expired_episode.until <= now);
            !rule.is_empty()
        });
    }

    /// The earliest time at which the target has to be processed; `None` if never.
    pub fn due(&self) -> Option<Time> {
        let rules = self.rules.values().flat_map(|rule| {
            let expiry = rule.occurrences().map(|open| open.expires_at);
            let deferred = rule.episode.iter().filter_map(|episode| episode.deferred.as_ref());
            let deferred =
                deferred.chain(rule.pending_close.iter().map(|pending_close| &pending_close.deferred));
            let deferred =
                deferred.flat_map(|deferred| deferred.recheck_at.into_iter().chain(deferred.deadline));
            let late = rule.late.iter().map(|late| late.opens_at);
            let shadow = rule.shadow.iter().flat_map(|shadow| shadow.expiry_times());
            let expired_episode = rule.expired_episode.iter().map(|expired_episode| expired_episode.until);
            expiry
                .chain(late)
                .chain(deferred)
                .chain(rule.budget_expiries.iter().copied())
                .chain(shadow)
                .chain(expired_episode)
        });
        let ended = self.last_resolves.iter().map(|ended| ended.until);
        rules.chain(ended).chain(self.cooldowns.after_increase).chain(self.cooldowns.after_decrease).min()
    }

    /// Whether a change of the controls can unblock or invalidate a deferred action: one that is blocked by a
    /// pause or hold, or any decrease.
    pub fn depends_on_controls(&self) -> bool {
        self.deferred_actions().any(|deferred| {
            deferred.deadline.is_some()
                || matches!(deferred.blocked_by, Some(Verdict::Paused | Verdict::Held))
        })
    }

    /// The ids of the events whose delivery decisions still have to know.
    pub fn tracked_events(&self) -> impl Iterator<Item = &Arc<str>> {
        std::iter::empty()
    }

    /// Whether the target has to be processed when an event that it tracks is delivered. It always has to be when such
    /// an event is given up.
    pub fn awaits_delivery(&self) -> bool {
        false
    }

    /// Whether the target has to be processed when calls to this destination succeed again.
    pub fn awaits_destination(&self, _destination: &Name) -> bool {
        false
    }

    /// The rules with an open episode, except heartbeats.
    pub fn open_episodes(&self) -> impl Iterator<Item = &Name> {
        let open = self.rules.iter().filter(|(_, rule)| {
            rule.episode.as_ref().is_some_and(|episode| !matches!(episode.scope, EpisodeScope::Heartbeat(_)))
        });
        open.map(|(name, _)| name)
    }

    /// The blocking verdicts of the deferred actions, and `late` for each late firing.
    pub fn deferred_verdicts(&self) -> impl Iterator<Item = Verdict> {
        let late = self.rules.values().flat_map(|rule| rule.late.iter().map(|_| Verdict::Late));
        self.deferred_actions().filter_map(|deferred| deferred.blocked_by).chain(late)
    }

    fn deferred_actions(&self) -> impl Iterator<Item = &Deferred> {
        self.rules.values().filter_map(RuleState::deferred)
    }

    /// The occurrence of an alert that is open, late, or part of a pending close.
    pub fn occurrence(&self, alert: &AlertKey) -> Option<&Occurrence> {
        self.rules.values().find_map(|rule| {
            let open = rule.episode.as_ref().and_then(|episode| episode.open.get(alert));
            let late = || rule.late.get(alert).map(|late| &late.occurrence);
            let closed = || {
                let pending_close = rule.pending_close.as_ref()?;
                pending_close.closed.iter().find(|closed| closed.alert == *alert)
            };
            open.or_else(late).or_else(closed)
        })
    }

    /// All alerts that are open, late or have a stored resolve, possibly with duplicates.
    pub fn alerts(&self) -> impl Iterator<Item = &AlertKey> {
        let rules = self.rules.values().flat_map(|rule| {
            rule.occurrences()
                .map(|open| &open.alert)
                .chain(rule.late.iter().map(|late| &late.occurrence.alert))
        });
        rules.chain(self.last_resolves.iter().map(|ended| &ended.alert))
    }

    /// The last resolve of an alert, if it is stored.
    pub fn last_resolve(&self, alert: &AlertKey) -> Option<&LastResolve> {
        self.last_resolves.get(alert)
    }
}

impl Cooldowns {
    /// Whether there are no cooldowns.
    pub fn is_empty(&self) -> bool {
        self.after_increase.is_none() && self.after_decrease.is_none()
    }

    /// The time until which a change is blocked; `None` if it is not. `notify` is never blocked.
    pub fn blocked_until(&self, change: &Change, now: Time) -> Option<Time> {
        let until = match change {
            Change::Notify => None,
            Change::ScaleOut(_) | Change::SetCapacity { allow_decrease: false, .. } => self.after_increase,
            Change::ScaleIn(_) | Change::Revert | Change::SetCapacity { allow_decrease: true, .. } => {
                self.after_increase.max(self.after_decrease)
            }
        };
        until.filter(|until| *until > now)
    }

    /// Records an emission. A `set_capacity` counts in both directions.
    pub fn record_emission(&mut self, action: &Action, now: Time) {
        let until = Some(now.after(action.cooldown)).filter(|until| *until > now);
        if action.change.increases_capacity() {
            self.after_increase = self.after_increase.max(until);
        }
        if action.change.decreases_capacity() {
            self.after_decrease = self.after_decrease.max(until);
        }
    }

    /// Removes cooldowns that are over.
    pub fn prune(&mut self, now: Time) {
        self.after_increase = self.after_increase.filter(|until| *until > now);
        self.after_decrease = self.after_decrease.filter(|until| *until > now);
    }
}

impl Episode {
    /// The number of open alerts.
    pub fn open_count(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// Whether more alerts are open than at any emission so far in this mode.
    pub fn has_grown(&self, mode: Mode) -> bool {
        self.open_count() > self.emission_stats(mode).most_open
    }

    /// The emissions in this mode.
    pub fn emission_stats(&self, mode: Mode) -> EmissionStats {
        match mode {
            Mode::Shadow => self.shadowed,
            Mode::Active | Mode::Disabled => {
                EmissionStats { emissions: self.emissions, most_open: self.most_open }
            }
        }
    }

    /// Records an emission in this mode with the current number of open alerts.
    pub fn record_emission(&mut self, mode: Mode) {
        let EmissionStats { emissions, most_open } = self.emission_stats(mode);
        let most_open = most_open.max(self.open_count());
        let stats = EmissionStats { emissions: emissions.saturating_add(1), most_open };
        match mode {
            Mode::Shadow => self.shadowed = stats,
            Mode::Active | Mode::Disabled => {
                (self.emissions, self.most_open) = (stats.emissions, stats.most_open);
            }
        }
    }
}

impl EmissionStats {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Shadow {
    fn expiry_times(&self) -> impl Iterator<Item = Time> {
        let cooldowns = self.cooldowns.after_increase.into_iter().chain(self.cooldowns.after_decrease);
        cooldowns.chain(self.budget_expiries.iter().copied())
    }

    /// Removes what is over. Returns whether anything remains.
    pub fn prune(&mut self, now: Time) -> bool {
        self.cooldowns.prune(now);
        self.budget_expiries.retain(|free| *free > now);
        self.expiry_times().next().is_some()
    }
}

impl Deferred {
    /// The slot that the action has reserved in the rate limits.
    pub fn slot(&self) -> Option<Slot> {
        self.limited_direction.zip(self.recheck_at).map(|(direction, at)| Slot { direction, at })
    }

    /// Whether the recheck or the deadline is due.
    pub fn is_due(&self, now: Time) -> bool {
        self.recheck_at.into_iter().chain(self.deadline).any(|due| due <= now)
    }
}

impl RuleState {
    /// Whether the rule has no state for the target.
    pub fn is_empty(&self) -> bool {
        self.episode.is_none()
            && self.late.is_empty()
            && self.pending_close.is_none()
            && self.budget_expiries.is_empty()
            && self.shadow.is_none()
            && self.expired_episode.is_none()
    }

    /// The deferred action; there is at most one.
    pub fn deferred(&self) -> Option<&Deferred> {
        let firing = self.episode.as_ref().and_then(|episode| episode.deferred.as_ref());
        firing.or(self.pending_close.as_ref().map(|pending_close| &pending_close.deferred))
    }

    fn occurrences(&self) -> impl Iterator<Item = &Occurrence> {
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
