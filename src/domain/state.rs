//! What is remembered of a target between notifications.
//!
//! This is what the engine reads and gives back, and what the store keeps: one document a target,
//! written with field names, so that a later version can add to it. Everything that has to be looked
//! at again by itself has a time in it, and [`TargetState::due`] is the earliest.

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
use super::time::Time;
use super::trigger::Trigger;
use super::verdict::Verdict;

/// The state of one target; the default is a target never heard of.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TargetState {
    /// The `sequence` of the last event about this target.
    #[serde(default)]
    pub sequence: u64,
    /// Each rule's part, by the rule's name. A rule without an episode has none.
    #[serde(default, skip_serializing_if = "SmallMap::is_empty")]
    pub rules: SmallMap<Name, RuleState>,
    /// Alerts that are over.
    #[serde(default, skip_serializing_if = "AlertMap::is_empty")]
    #[serde(rename = "ended")]
    pub last_resolves: AlertMap<LastResolve>,
    /// What earlier emissions block.
    #[serde(default, skip_serializing_if = "Cooldowns::is_empty")]
    pub cooldowns: Cooldowns,
}

/// Until when emissions about a target block later ones: those that add capacity look at those that
/// added, those that take it away look at both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cooldowns {
    /// By what added capacity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "added")]
    pub after_increase: Option<Time>,
    /// By what took it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "taken")]
    pub after_decrease: Option<Time>,
}

/// What one rule has going on at one target.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RuleState {
    /// The open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub episode: Option<Box<Episode>>,
    /// Firings that may be the late half of a pair of Alertmanagers.
    #[serde(default, skip_serializing_if = "AlertMap::is_empty")]
    pub late: AlertMap<LateFiring>,
    /// What is to be done about the episode that closed last. Withdrawn when anything opens on the
    /// target, so never there beside an open episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "closing")]
    pub pending_close: Option<Box<PendingClose>>,
    /// When each of the rule's latest events frees its part of the rule's budget.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "spent")]
    pub budget_expiries: Vec<Time>,
    /// What the events that the rule only would have sent block, in `mode: shadow`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Box<Shadow>>,
    /// The latest episode of which an alert expired. Its alerts may be heard again as they were, with no end
    /// between, and what they open then is another episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "lapsed")]
    pub expired_episode: Option<Box<ExpiredEpisode>>,
}

/// An episode that ended without the ends of all its alerts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExpiredEpisode {
    /// Its id.
    pub episode: Arc<str>,
    /// Until when this has to be remembered.
    pub until: Time,
}

/// What a rule in `mode: shadow` blocks for itself, and for nobody else.
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

/// The `on_resolved` action of a closed episode, stopped by a guard for a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingClose {
    /// The episode; nothing of it is open any more.
    pub episode: Box<Episode>,
    /// The occurrences with which it closed.
    pub closed: Vec<Occurrence>,
    /// Since when, and until when.
    #[serde(rename = "kept")]
    pub deferred: Deferred,
}

/// An action that a guard has stopped for a time, or that is to be repeated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deferred {
    /// When it was asked for.
    #[serde(rename = "since")]
    pub requested_at: Time,
    /// When it is looked at again; `None` when what stops it has no end that is known, so that the end of
    /// another episode is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "due")]
    pub recheck_at: Option<Time>,
    /// Where a limit of the process has stopped it: the direction that had no room. `due` is its turn then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "line")]
    pub limited_direction: Option<Direction>,
    /// When it is withdrawn at the latest; only what takes capacity away has such a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "give_up")]
    pub deadline: Option<Time>,
    /// Whether `repeat: while_firing` asks for it: then an open episode is all the support it needs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[serde(rename = "by_clock")]
    pub is_repeat: bool,
    /// What stops it; `None` for a repetition that nothing has stopped yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "stopped_by")]
    pub blocked_by: Option<Verdict>,
    /// The alerts that it is about.
    pub alerts: Vec<AlertKey>,
    /// The notification that it goes back to.
    #[serde(rename = "cause")]
    pub trigger: Arc<Trigger>,
}

/// From the first occurrence that opens to the last that resolves. Never without one that is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Episode {
    /// Hash of rule, target and opening occurrences.
    pub id: Arc<str>,
    /// What it is about, as it was rendered when the episode opened.
    #[serde(rename = "target")]
    pub scope: EpisodeScope,
    /// The store's time at which it opened.
    pub opened_at: Time,
    /// The open occurrences.
    pub open: AlertMap<Occurrence>,
    /// How many `on_firing` events it has emitted.
    pub emissions: u32,
    /// The most alerts that were open at one of these emissions.
    pub most_open: u32,
    /// The same of what `mode: shadow` only would have sent.
    #[serde(default, skip_serializing_if = "EmissionStats::is_empty")]
    pub shadowed: EmissionStats,
    /// The sources of all its occurrences, also of those that are over; each once. A list, since there is
    /// nearly always one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Name>,
    /// Whether one of its occurrences began before this store was created: it takes nothing away.
    #[serde(default)]
    pub adopted: bool,
    /// Whether one of its occurrences expired, so that nobody knows its end: it takes nothing away.
    #[serde(default)]
    pub expired: bool,
    /// The `on_firing` action that a guard has stopped for a time, or that is to be repeated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "kept")]
    pub deferred: Option<Deferred>,
    /// The rule's parameters, as rendered from the alert that opened last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// What an episode has emitted, or in `mode: shadow` would have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EmissionStats {
    /// How many `on_firing` events.
    pub emissions: u32,
    /// The most alerts that were open at one of them.
    pub most_open: u32,
}

/// One alert while it fires.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Occurrence {
    /// Which alert.
    pub alert: AlertKey,
    /// When it began, by Prometheus.
    pub starts_at: Time,
    /// When it was last heard firing, by the store's clock.
    pub heard_at: Time,
    /// When it expires, unless it is heard again.
    pub expires_at: Time,
    /// The number that step adjustments look at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<f64>,
    /// Labels, the source's laid over them.
    pub labels: Arc<Labels>,
    /// The latest annotations.
    pub annotations: Arc<Labels>,
    /// The page of the expression.
    #[serde(default)]
    pub generator_url: Arc<str>,
}

/// A firing that began before the last known end of the same alert. It opens at `due`, unless its
/// resolve arrives before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LateFiring {
    /// What would open.
    pub occurrence: Occurrence,
    /// Where.
    #[serde(rename = "target")]
    pub scope: EpisodeScope,
    /// With which parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The notification that brought it.
    #[serde(rename = "cause")]
    pub trigger: Arc<Trigger>,
    /// Whether no notification that spoke of it was whole: it takes nothing away then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The end that it began before.
    pub previous_end: Time,
    /// When it opens.
    #[serde(rename = "due")]
    pub opens_at: Time,
}

/// The last end of an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastResolve {
    /// Which alert.
    pub alert: AlertKey,
    /// Its end, by Alertmanager.
    pub ends_at: Time,
    /// Whether it had been open here; else its firing never reached us.
    pub was_open: bool,
    /// Until when this has to be remembered.
    pub until: Time,
}

impl Occurrence {
    /// Whether a start of the same alert is that of another occurrence, so that this one has ended unheard.
    /// Where Prometheus' clock is ahead of ours, its own start may lie after we heard of it.
    pub fn is_replaced_by(&self, starts_at: Time) -> bool {
        starts_at > self.heard_at && starts_at > self.starts_at
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
    /// Whether there is nothing to remember: no open, late or kept thing, no end, no cooldown.
    pub fn is_empty(&self) -> bool {
        self.last_resolves.is_empty()
            && self.cooldowns.is_empty()
            && self.rules.values().all(RuleState::is_empty)
    }

    /// Forgets ends that need not be remembered, and what blocked later emissions and is over.
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

    /// The earliest time at which something here has to be looked at again; `None` if never.
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

    /// Whether something here may be free, or have lost its support, by a change of the controls: what a
    /// pause or a hold has stopped, and whatever would take capacity away and waits.
    pub fn depends_on_controls(&self) -> bool {
        self.deferred_actions().any(|deferred| {
            deferred.deadline.is_some()
                || matches!(deferred.blocked_by, Some(Verdict::Paused | Verdict::Held))
        })
    }

    /// The rules that have an episode open here.
    pub fn open_episodes(&self) -> impl Iterator<Item = &Name> {
        let open = self.rules.iter().filter(|(_, rule)| {
            rule.episode.as_ref().is_some_and(|episode| !matches!(episode.scope, EpisodeScope::Heartbeat(_)))
        });
        open.map(|(name, _)| name)
    }

    /// The verdicts of all that waits here, one for each action and each late alert.
    pub fn deferred_verdicts(&self) -> impl Iterator<Item = Verdict> {
        let late = self.rules.values().flat_map(|rule| rule.late.iter().map(|_| Verdict::Late));
        self.deferred_actions().filter_map(|deferred| deferred.blocked_by).chain(late)
    }

    fn deferred_actions(&self) -> impl Iterator<Item = &Deferred> {
        self.rules.values().filter_map(RuleState::deferred)
    }

    /// What is known of an alert that is open, late, or waits with a closed episode here.
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

    /// Every alert that is open, late or remembered here; one may come more than once.
    pub fn alerts(&self) -> impl Iterator<Item = &AlertKey> {
        let rules = self.rules.values().flat_map(|rule| {
            rule.occurrences()
                .map(|open| &open.alert)
                .chain(rule.late.iter().map(|late| &late.occurrence.alert))
        });
        rules.chain(self.last_resolves.iter().map(|ended| &ended.alert))
    }

    /// The last known end of an alert.
    pub fn last_resolve(&self, alert: &AlertKey) -> Option<&LastResolve> {
        self.last_resolves.get(alert)
    }
}

impl Cooldowns {
    /// Whether nothing is blocked.
    pub fn is_empty(&self) -> bool {
        self.after_increase.is_none() && self.after_decrease.is_none()
    }

    /// Until when this change is blocked, if it is. A change that is none looks at nothing.
    pub fn blocked_until(&self, change: &Change, now: Time) -> Option<Time> {
        let until = match change {
            Change::Notify => None,
            Change::ScaleOut(_) => self.after_increase,
            Change::ScaleIn(_) | Change::SetCapacity { .. } => self.after_increase.max(self.after_decrease),
        };
        until.filter(|until| *until > now)
    }

    /// Notes an emission. A `set_capacity` counts in both directions.
    pub fn record_emission(&mut self, action: &Action, now: Time) {
        let until = Some(now.after(action.cooldown)).filter(|until| *until > now);
        if action.change.increases_capacity() {
            self.after_increase = self.after_increase.max(until);
        }
        if action.change.decreases_capacity() {
            self.after_decrease = self.after_decrease.max(until);
        }
    }

    /// Forgets what is over.
    pub fn prune(&mut self, now: Time) {
        self.after_increase = self.after_increase.filter(|until| *until > now);
        self.after_decrease = self.after_decrease.filter(|until| *until > now);
    }
}

impl Episode {
    /// How many alerts are open.
    pub fn open_count(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// Whether more alerts are open than at any emission so far, of those that a rule in this mode makes.
    pub fn has_grown(&self, mode: Mode) -> bool {
        self.open_count() > self.emission_stats(mode).most_open
    }

    /// What a rule in this mode has emitted.
    pub fn emission_stats(&self, mode: Mode) -> EmissionStats {
        match mode {
            Mode::Shadow => self.shadowed,
            Mode::Active | Mode::Disabled => {
                EmissionStats { emissions: self.emissions, most_open: self.most_open }
            }
        }
    }

    /// Notes an emission of a rule in this mode, of all that is open.
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

    /// Forgets what is over. Whether anything is left.
    pub fn prune(&mut self, now: Time) -> bool {
        self.cooldowns.prune(now);
        self.budget_expiries.retain(|free| *free > now);
        self.expiry_times().next().is_some()
    }
}

impl Deferred {
    /// The place that the process's limits gave it.
    pub fn slot(&self) -> Option<Slot> {
        self.limited_direction.zip(self.recheck_at).map(|(direction, at)| Slot { direction, at })
    }

    /// Whether its time has come.
    pub fn is_due(&self, now: Time) -> bool {
        self.recheck_at.into_iter().chain(self.deadline).any(|due| due <= now)
    }
}

impl RuleState {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.episode.is_none()
            && self.late.is_empty()
            && self.pending_close.is_none()
            && self.budget_expiries.is_empty()
            && self.shadow.is_none()
            && self.expired_episode.is_none()
    }

    /// The action that a guard has stopped; there is one at the most.
    pub fn deferred(&self) -> Option<&Deferred> {
        let firing = self.episode.as_ref().and_then(|episode| episode.deferred.as_ref());
        firing.or(self.pending_close.as_ref().map(|pending_close| &pending_close.deferred))
    }

    fn occurrences(&self) -> impl Iterator<Item = &Occurrence> {
        self.episode.iter().flat_map(|episode| episode.open.iter())
    }

    /// Whether this alert is open here.
    pub fn is_open(&self, alert: &AlertKey) -> bool {
        self.episode.as_ref().is_some_and(|episode| episode.open.contains(alert))
    }

    /// Whether this alert is open or late here.
    pub fn is_tracked(&self, alert: &AlertKey) -> bool {
        self.is_open(alert) || self.late.contains(alert)
    }
}
