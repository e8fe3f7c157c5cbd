//! The state of a target between notifications.
//!
//! The engine reads and returns it, and the store stores it: one JSON document per target, with field names,
//! so that later versions can add fields. Everything that has to be rechecked contains a time, and
//! [`TargetState::due`] returns the earliest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::alert_key::AlertKey;
use super::alert_map::{AlertMap, HasAlertKey};
use super::direction::Direction;
use super::episode_scope::EpisodeScope;
use super::heartbeat_key::HeartbeatKey;
use super::labels::Labels;
use super::name::Name;
use super::phase::Phase;
use super::rate::Slot;
use super::rule::Change;
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

/// Until when emissions of earlier versions block later ones: increases are blocked by increases only, decreases by
/// both.
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

/// An emitted event, for as long as decisions need it: until its delivery is known, its cooldown is over, and what it
/// has added is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Emission {
    /// The event's id.
    pub id: Arc<str>,
    /// The rule that emitted it.
    pub rule: Name,
    /// The phase of its episode.
    pub phase: Phase,
    /// The store time of the emission.
    #[serde(rename = "at")]
    pub emitted_at: Time,
    /// Whether it can increase capacity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub increases: bool,
    /// Whether it can decrease capacity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decreases: bool,
    /// The cooldown of its action, in milliseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cooldown_ms: u64,
    /// The value of a `ChangeInCapacity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<i64>,
    /// Whether the rule owes a decrease for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "owed")]
    pub is_owed: bool,
    /// For an `on_resolved` decrease: it takes back what its rule has added until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "pays")]
    pub takes_back_until: Option<Time>,
    /// For a `revert`: the events that it takes back. All until then if it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "reverts")]
    pub takes_back: Vec<Arc<str>>,
    /// What is known about its delivery.
    #[serde(default, skip_serializing_if = "EmissionOutcome::is_pending")]
    pub outcome: EmissionOutcome,
    /// Whether it was delivered at one acting destination, and can still be delivered at another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "pending")]
    pub is_pending_elsewhere: bool,
    /// Whether its calls are suspended: something blocks it, and the outcome of an earlier call is unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "suspended")]
    pub is_suspended: bool,
}

/// What is known about the delivery of an event to its acting destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EmissionOutcome {
    /// It is not known to be delivered, nor that it will not be.
    #[default]
    Pending,
    /// The time of the first delivery.
    Delivered(Time),
    /// It is a dead letter.
    DeadLetter,
}

impl EmissionOutcome {
    fn is_pending(&self) -> bool {
        *self == Self::Pending
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
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

/// An alert that fires, but cannot be read: the alert itself is invalid, or a template of the rule that matches it
/// fails. Nothing is decreased meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidFiring {
    /// The identity of the alert.
    pub alert: AlertKey,
    /// The start of the alert, if it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<Time>,
    /// The time at which it expires unless it is received again.
    pub expires_at: Time,
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

/// A closed episode in which an alert expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpiredEpisode {
    /// The id of the episode.
    pub episode: Arc<str>,
    /// The time until which this entry is retained.
    pub until: Time,
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
    /// The decrease that was requested when nothing was owed. It is deferred if an increase that was given up is redriven
    /// and delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unneeded: Option<Deferred>,
    /// The emitted decrease, until its delivery is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emitted: Option<EmittedDecrease>,
    /// The time until which a late firing can continue the episode, if no action keeps it longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// An emitted decrease whose delivery is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmittedDecrease {
    /// The event's id.
    pub event: Arc<str>,
    /// The request, in case it has to be deferred again.
    pub request: Deferred,
    /// Whether the event is a dead letter that an operator has to redrive or discard.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_rejected: bool,
    /// When it is rechecked, if its calls are suspended until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "due")]
    pub recheck_at: Option<Time>,
}

/// An action that a guard has blocked for a time, or that is to be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deferred {
    /// The time of the request.
    #[serde(rename = "since")]
    pub requested_at: Time,
    /// The time of the next recheck. `None` if the end of the block is unknown: a pause without an end, a
    /// hold, a missing heartbeat, the episode of another rule, or a delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "due")]
    pub recheck_at: Option<Time>,
    /// The direction whose rate limit has blocked the action. `recheck_at` is then the time of its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "line")]
    pub limited_direction: Option<Direction>,
    /// Whether the action decreases capacity.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub decreases: bool,
    /// Whether the action is requested by `repeat: while_firing`: it is then justified as long as the episode
    /// is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "by_clock")]
    pub is_repeat: bool,
    /// Whether the action was emitted before, but not delivered: it is then justified as long as the episode is open.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_retry: bool,
    /// Set after an emission was given up because of its age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<DestinationWait>,
    /// The blocking verdict; `None` for an action that no guard has blocked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "stopped_by")]
    pub blocked_by: Option<Verdict>,
    /// The alerts that the action concerns.
    pub alerts: Vec<AlertKey>,
    /// The notification that caused the action.
    #[serde(rename = "cause")]
    pub trigger: Arc<Trigger>,
}

/// A decrease that was given up because of its age waits until its destination works again, or for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DestinationWait {
    /// When the earlier emission was given up. A call that succeeds later ends the wait.
    pub since: Time,
    /// When the wait ends at the latest.
    pub until: Time,
    /// Whether the action was rechecked after that, and something else blocks it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "over")]
    pub is_over: bool,
}

impl DestinationWait {
    /// The longest wait.
    pub const MAX: Duration = Duration::from_hours(24);
}

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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero_u32(number: &u32) -> bool {
    *number == 0
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
    /// Shared by the alerts that count as one for growth, if the source has `ignore_labels`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growth_key: Option<Arc<str>>,
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

impl HasAlertKey for InvalidFiring {
    fn alert(&self) -> &AlertKey {
        &self.alert
    }
}

impl HasAlertKey for LastResolve {
    fn alert(&self) -> &AlertKey {
        &self.alert
    }
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
        self.last_resolves.extract_if(|ended| ended.until <= now && !owes);
        self.cooldowns.prune(now);
        self.emissions.retain(|emission| emission.prune_at().is_none_or(|at| at > now));
        let emissions = &self.emissions;
        self.rules.retain(|name, rule| {
            rule.prune(now, has_dead_letter(emissions, name));
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
        let owes = self.emissions.iter().any(|emission| emission.is_owed);
        let ended = self.last_resolves.iter().map(|ended| ended.until).filter(|_| !owes);
        let is_quiet = self.rules.is_empty() && !owes;
        let calm = self.calm.iter().map(|calm| calm.until).filter(|_| is_quiet);
        let rules =
            self.rules.iter().flat_map(|(name, rule)| rule.times(has_dead_letter(&self.emissions, name)));
        rules
            .chain(ended)
            .chain(calm)
            .chain(self.emissions.iter().filter_map(Emission::prune_at))
            .chain(self.cooldowns.after_increase)
            .chain(self.cooldowns.after_decrease)
            .chain(self.invalid.iter().map(|invalid| invalid.expires_at))
            .chain(self.shadows.values().filter_map(|shadow| shadow.due()))
            .min()
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
            || (self.tracked_events().next().is_some() && self.due().is_none())
    }

    /// Whether the target has to be processed when calls to this destination succeed again.
    pub fn awaits_destination(&self, _destination: &Name) -> bool {
        self.deferred_actions().any(|deferred| deferred.wait.is_some())
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

impl Cooldowns {
    /// Whether there are no cooldowns.
    pub fn is_empty(&self) -> bool {
        self.after_increase.is_none() && self.after_decrease.is_none()
    }

    /// The time until which a change is blocked; `None` if it is not. `notify` is never blocked.
    pub fn blocked_until(&self, change: &Change, now: Time) -> Option<Time> {
        let until = match (change.increases_capacity(), change.decreases_capacity()) {
            (false, false) => None,
            (true, false) => self.after_increase,
            (_, true) => self.after_increase.max(self.after_decrease),
        };
        until.filter(|until| *until > now)
    }

    /// Removes cooldowns that are over.
    pub fn prune(&mut self, now: Time) {
        self.after_increase = self.after_increase.filter(|until| *until > now);
        self.after_decrease = self.after_decrease.filter(|until| *until > now);
    }
}

/// Whether an event of the rule is a dead letter.
fn has_dead_letter(emissions: &[Emission], rule: &Name) -> bool {
    emissions.iter().any(|emission| emission.rule == *rule && emission.outcome == EmissionOutcome::DeadLetter)
}

impl Emission {
    /// The cooldown of its action.
    pub const fn cooldown(&self) -> Duration {
        Duration::from_millis(self.cooldown_ms)
    }

    /// When the event was delivered, if it is known.
    pub const fn delivered_at(&self) -> Option<Time> {
        match self.outcome {
            EmissionOutcome::Delivered(at) => Some(at),
            EmissionOutcome::Pending | EmissionOutcome::DeadLetter => None,
        }
    }

    /// Whether its delivery has to be looked up.
    fn is_tracked(&self) -> bool {
        self.delivered_at().is_none() || self.is_pending_elsewhere
    }

    /// When it can be removed; `None` if it is needed until something else happens.
    fn prune_at(&self) -> Option<Time> {
        self.delivered_at().filter(|_| !self.is_owed).map(|at| at.after(self.cooldown()))
    }
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

    /// Records an emission with the current number of open alerts.
    pub fn record_emission(&mut self) {
        self.most_open = self.most_open.max(self.open_count());
        self.emissions = self.emissions.saturating_add(1);
    }
}

impl Deferred {
    /// The slot that the action has reserved in the rate limits.
    pub fn slot(&self) -> Option<Slot> {
        self.limited_direction.zip(self.recheck_at).map(|(direction, at)| Slot { direction, at })
    }

    /// Whether the recheck is due.
    pub fn is_due(&self, now: Time) -> bool {
        self.times().any(|due| due <= now)
    }

    fn times(&self) -> impl Iterator<Item = Time> {
        let wait = self.wait.filter(|wait| self.recheck_at.is_none() && !wait.is_over);
        let wait = wait.map(|wait| wait.until);
        self.recheck_at.into_iter().chain(wait)
    }

    /// Whether a delivery ends the block.
    fn awaits_delivery(&self) -> bool {
        self.recheck_at.is_none() && self.blocked_by == Some(Verdict::CoolingDown)
    }
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

    /// A closed episode is retained while one of its events is a dead letter, which can be redriven.
    fn prune(&mut self, now: Time, has_dead_letter: bool) {
        self.budget_expiries.retain(|free| *free > now);
        self.expired_episode.take_if(|expired_episode| expired_episode.until <= now);
        let is_needed = has_dead_letter || self.owed_until.is_some();
        self.closed.take_if(|closed| !is_needed && closed.prune_at().is_some_and(|at| at <= now));
    }

    fn times(&self, has_dead_letter: bool) -> impl Iterator<Item = Time> {
        let expiry = self.occurrences().map(|open| open.expires_at);
        let late = self.late.iter().map(|late| late.opens_at);
        let deferred = self.deferred().into_iter().flat_map(Deferred::times);
        let suspended = self.emitted_decrease().and_then(|emitted| emitted.recheck_at);
        let is_needed = has_dead_letter || self.owed_until.is_some();
        let closed = self.closed.iter().filter_map(|closed| closed.prune_at()).filter(move |_| !is_needed);
        let expired_episode = self.expired_episode.iter().map(|expired_episode| expired_episode.until);
        let unreadable = self.unreadable.iter().map(|unreadable| unreadable.expires_at);
        let rest =
            closed.chain(expired_episode).chain(self.owed_until).chain(self.hold_until).chain(unreadable);
        expiry
            .chain(late)
            .chain(deferred)
            .chain(suspended)
            .chain(self.budget_expiries.iter().copied())
            .chain(rest)
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

impl ClosedEpisode {
    /// When it can be removed; `None` while its action has not ended. One without an end is from an earlier version.
    fn prune_at(&self) -> Option<Time> {
        let has_ended = self.deferred.is_none() && self.emitted.is_none();
        has_ended.then(|| self.until.unwrap_or(self.episode.opened_at))
    }
}
