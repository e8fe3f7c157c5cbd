//! Controls: pauses, holds and heartbeats, which can block actions on any target.
//!
//! Operators set pauses, alerts set holds through rules with `hold`, and sources have heartbeats. Every
//! decision reads all of them. They are stored as one JSON document with a version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::direction::Direction;
use super::heartbeat_key::HeartbeatKey;
use super::name::Name;
use super::rule::Change;
use super::source::Source;
use super::target::{PartialTarget, Target, TargetKey};
use super::target_pattern::TargetPattern;
use super::time::{ClockReading, Time};

/// All controls. The default has none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Controls {
    /// Increases with every change.
    #[serde(default)]
    pub version: u64,
    /// Increases with every change after which deferred actions have to be rechecked: they may be unblocked,
    /// or no longer justified.
    #[serde(default)]
    #[serde(rename = "wakes")]
    pub generation: u64,
    /// The id of the latest pause.
    #[serde(default)]
    next_pause: u64,
    /// Pauses by id. Expired ones may still be included.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pauses: BTreeMap<u64, Pause>,
    /// The open holds of each rule with `hold`, by the key of their episode.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    holds: BTreeMap<Name, BTreeMap<TargetKey, Hold>>,
    /// Recently expired holds: no notification mentioned their alerts any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(rename = "lapsed")]
    expired_holds: BTreeMap<Name, BTreeMap<TargetKey, ExpiredHold>>,
    /// The heartbeats that were received and are not [forgotten](Self::forget_heartbeats).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    heartbeats: BTreeMap<HeartbeatKey, Heartbeat>,
    /// The reception gaps of each source that ever had one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    gaps: BTreeMap<Name, ReceptionGaps>,
    /// The sources that were configured when the bridge last accepted notifications; `None` if an earlier version has
    /// written this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    receiving: Option<BTreeSet<Name>>,
    /// The receivers that notifications of a source have named, of the sources whose Alertmanager is asked what fires.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    receivers: BTreeMap<Name, BTreeSet<String>>,
}

/// A time in which the bridge could not accept the notifications of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredGap", into = "StoredGap")]
pub struct ReceptionGap {
    /// The beginning.
    pub from: Time,
    /// The end; the same as `from` for a single notification that was refused.
    pub until: Time,
    /// The cause.
    pub cause: GapCause,
}

/// The stored form of a gap. Versions that do not know a cause read another one and ignore the rest: replicas of two
/// versions can use one database.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct StoredGap {
    from: Time,
    until: Time,
    cause: GapCause,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    of_queue: bool,
}

impl From<ReceptionGap> for StoredGap {
    fn from(ReceptionGap { from, until, cause }: ReceptionGap) -> Self {
        let of_queue = cause == GapCause::Queue;
        Self { from, until, cause: if of_queue { GapCause::Refused } else { cause }, of_queue }
    }
}

impl From<StoredGap> for ReceptionGap {
    fn from(StoredGap { from, until, cause, of_queue }: StoredGap) -> Self {
        Self { from, until, cause: if of_queue { GapCause::Queue } else { cause } }
    }
}

/// The reception gaps of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceptionGaps {
    /// The one that ended last.
    pub last: ReceptionGap,
    /// The length of all of them.
    pub total: Duration,
    /// The last time at which everything that fired in the source's Alertmanager was open here: nothing that was to be
    /// sent before is missing, so decreases do not wait for gaps that had ended by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconciled_at: Option<Time>,
}

impl ReceptionGaps {
    /// Whether it is known that nothing of the last gap is missing any more.
    pub fn is_reconciled(&self) -> bool {
        self.reconciled_at.is_some_and(|at| at >= self.last.until)
    }
}

impl ReceptionGap {
    /// A gap with the same cause that begins at most this long after the end of another one continues it.
    pub const MAX_INTERRUPTION: Duration = Duration::from_mins(1);
    /// While notifications are refused at least this often, nothing can decrease between two of them, so decreases are
    /// not rechecked each time.
    const MAX_PAUSE: Duration = Duration::from_secs(2);

    /// Whether this gap continues `earlier`.
    pub fn continues(&self, earlier: &Self) -> bool {
        self.cause == earlier.cause
            && self.until >= earlier.until
            && self.from <= earlier.until.after(Self::MAX_INTERRUPTION)
    }
}

/// Why the bridge could not accept the notifications of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// The bridge was not running, or not ready.
    NotRunning,
    /// The process did not run for more than five seconds: it was stopped, or the machine was suspended.
    Suspended,
    /// The store could not be read or written.
    Store,
    /// The store came back behind what it had confirmed: a standby was promoted that lacks the last transactions, or a backup
    /// was restored.
    DataLoss,
    /// The backlog had reached its limit.
    Backlog,
    /// A notification was refused for another reason, by an answer other than 2xx.
    Refused,
    /// An alert had no usable fingerprint.
    NoFingerprint,
    /// The queue of the source could not be read, or not everything was read that was in it.
    Queue,
}

impl GapCause {
    /// All causes.
    pub const ALL: [Self; 8] = [
        Self::NotRunning,
        Self::Suspended,
        Self::Store,
        Self::DataLoss,
        Self::Backlog,
        Self::Refused,
        Self::NoFingerprint,
        Self::Queue,
    ];

    /// The name in metrics, decisions and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not_running",
            Self::Suspended => "suspended",
            Self::Store => "store",
            Self::DataLoss => "data_loss",
            Self::Backlog => "backlog",
            Self::Refused => "refused",
            Self::NoFingerprint => "no_fingerprint",
            Self::Queue => "queue",
        }
    }
}

impl fmt::Display for GapCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A pause set by an operator. It blocks the actions that match all given fields; without any, all actions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The id with which the pause is ended.
    pub id: u64,
    /// Limits the pause to actions of this rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Name>,
    /// Limits the pause to targets whose key matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetPattern>,
    /// Limits the pause to actions in this direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// The time at which the pause was set.
    pub since: Time,
    /// The time at which the pause expires; `None` if it lasts until it is resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// The operator who set the pause.
    pub author: String,
    /// The operator's reason.
    pub reason: String,
}

impl Pause {
    /// The pause with its times by the wall clock, to be shown.
    #[must_use]
    pub fn on_wall(self, clock: ClockReading) -> Self {
        let (since, until) = (clock.on_wall(self.since), self.until.map(|until| clock.on_wall(until)));
        Self { since, until, ..self }
    }
}

/// A hold: the targets that an open episode of a rule with `hold` covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The targets. Without any field it covers all targets.
    pub covers: PartialTarget,
    /// The time at which the episode opened.
    pub since: Time,
    /// Whether it blocks decreases only, whatever its rule says: the alert that it belongs to cannot be read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_unreadable: bool,
    /// The only targets that it covers: those that the sources of its unreadable alerts allow. `None` allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Vec<TargetPattern>>,
    /// When its `max_duration` is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

impl Hold {
    /// Whether the hold covers a target.
    pub fn covers(&self, target: &Target) -> bool {
        self.covers.covers(target) && is_within(self.within.as_deref(), target)
    }
}

fn is_within(patterns: Option<&[TargetPattern]>, target: &Target) -> bool {
    patterns.is_none_or(|patterns| {
        let key = target.key();
        patterns.iter().any(|pattern| pattern.covers(&key))
    })
}

/// A hold whose alerts expired, so that its actual end is unknown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredHold {
    /// The targets that the hold covered.
    pub covers: PartialTarget,
    /// See [`Hold::within`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Vec<TargetPattern>>,
    /// The time at which it expired.
    pub at: Time,
}

impl ExpiredHold {
    /// Whether the hold covered a target.
    fn covered(&self, target: &Target) -> bool {
        self.covers.covers(target) && is_within(self.within.as_deref(), target)
    }
}

/// The maximum number of receivers of a source that are known from its notifications.
pub const MAX_RECEIVERS: usize = 32;

/// How long expired holds are retained. Deferred actions are rechecked when a hold ends, so expired holds are
/// needed only until that recheck.
const EXPIRED_HOLD_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether the heartbeat of a source is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The time since which it is open; `None` if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_since: Option<Time>,
    /// The time at which it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "broke_at")]
    pub lost_at: Option<Time>,
}

impl Pause {
    /// Whether the pause blocks this change at `now`.
    pub fn covers(&self, rule: &Name, key: &TargetKey, change: &Change, now: Time) -> bool {
        self.is_active(now)
            && self.rule.as_ref().is_none_or(|own| own == rule)
            && self.direction.is_none_or(|direction| change.has_direction(direction))
            && self.target.as_ref().is_none_or(|pattern| pattern.covers(key))
    }

    /// Whether the pause has not expired.
    pub fn is_active(&self, now: Time) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl Controls {
    /// The pauses that have not expired, oldest first.
    pub fn pauses(&self, now: Time) -> impl Iterator<Item = &Pause> {
        self.pauses.values().filter(move |pause| pause.is_active(now))
    }

    /// Whether there is a pause, which may have expired, or a hold.
    pub fn has_pauses_or_holds(&self) -> bool {
        !self.pauses.is_empty() || !self.holds.is_empty()
    }

    /// Causes all deferred actions to be rechecked, because the rules have changed.
    pub fn bump_generation(&mut self) {
        self.version += 1;
        self.generation += 1;
    }

    /// Adds a pause and returns its new id. Removes expired pauses.
    pub fn pause(&mut self, pause: Pause) -> u64 {
        self.version += 1;
        self.generation += 1;
        self.next_pause += 1;
        let id = self.next_pause;
        self.pauses.retain(|_, known| known.is_active(pause.since));
        self.pauses.insert(id, Pause { id, ..pause });
        id
    }

    /// Ends a pause. Returns `None` if no pause has this id.
    pub fn resume(&mut self, id: u64) -> Option<Pause> {
        let pause = self.pauses.remove(&id)?;
        self.version += 1;
        self.generation += 1;
        Some(pause)
    }

    /// The open holds and their rules.
    pub fn holds(&self) -> impl Iterator<Item = (&Name, &Hold)> {
        self.holds.iter().flat_map(|(rule, holds)| holds.values().map(move |hold| (rule, hold)))
    }

    /// The open holds that cover a target, with their rules.
    pub fn holds_on(&self, target: &Target) -> impl Iterator<Item = (&Name, &Hold)> {
        self.holds().filter(|(_, hold)| hold.covers(target))
    }

    /// The open hold of a rule with this key.
    pub fn hold(&self, rule: &Name, key: &TargetKey) -> Option<&Hold> {
        self.holds.get(rule)?.get(key)
    }

    /// The expired holds that covered a target, with their rules and the times of the expiry.
    pub fn expired_holds_on(&self, target: &Target) -> impl Iterator<Item = (&Name, Time)> {
        self.expired_holds.iter().filter_map(move |(rule, holds)| {
            let covering = holds.values().filter(|expired_hold| expired_hold.covered(target));
            Some((rule, covering.map(|expired_hold| expired_hold.at).max()?))
        })
    }

    /// Adds the hold of an episode that has opened.
    pub fn open_hold(&mut self, rule: &Name, key: &TargetKey, hold: Hold) {
        self.version += 1;
        self.generation += 1;
        self.holds.entry(rule.clone()).or_default().insert(key.clone(), hold);
    }

    /// Removes the hold of an episode that has closed. `expired` is the time of the expiry, if the episode
    /// has closed because its alerts expired.
    pub fn end_hold(&mut self, rule: &Name, key: &TargetKey, expired: Option<Time>) {
        let Some(holds) = self.holds.get_mut(rule) else { return };
        let ended = holds.remove(key);
        if holds.is_empty() {
            self.holds.remove(rule);
        }
        let Some(hold) = ended else { return };
        self.version += 1;
        self.generation += 1;
        if let Some(at) = expired {
            self.record_expired_hold(rule, key, ExpiredHold { covers: hold.covers, within: hold.within, at });
        }
    }

    /// Stores an expired hold and removes those older than [`EXPIRED_HOLD_RETENTION`].
    fn record_expired_hold(&mut self, rule: &Name, key: &TargetKey, expired_hold: ExpiredHold) {
        self.expired_holds.retain(|_, holds| {
            holds.retain(|_, known| known.at.after(EXPIRED_HOLD_RETENTION) > expired_hold.at);
            !holds.is_empty()
        });
        self.expired_holds.entry(rule.clone()).or_default().insert(key.clone(), expired_hold);
    }

    /// The reception gaps of a source; `None` if it never had one.
    pub fn reception_gaps(&self, source: &Name) -> Option<&ReceptionGaps> {
        self.gaps.get(source)
    }

    /// Records a reception gap, or the continuation of the last one; what is recorded already changes nothing. Decreases
    /// are rechecked, unless the gap goes on: those that it blocks find its new end when they are due.
    pub fn record_gap(&mut self, source: &Name, gap: ReceptionGap) {
        let Some(known) = self.gaps.get_mut(source) else {
            let total = gap.until.since(gap.from);
            self.gaps.insert(source.clone(), ReceptionGaps { last: gap, total, reconciled_at: None });
            self.bump_generation();
            return;
        };
        let last = known.last;
        if gap.until <= last.until {
            return;
        }
        let from = if gap.continues(&last) { gap.from.min(last.from) } else { gap.from };
        known.total = known.total.saturating_add(gap.until.since(from.max(last.until)));
        known.last = ReceptionGap { from, ..gap };
        self.version += 1;
        if gap.until.since(last.until) > ReceptionGap::MAX_PAUSE {
            self.generation += 1;
        }
    }

    /// Ends the wait for what could not be sent in the reception gaps of a source, because nothing of it is missing. This was
    /// the case at `at`: a gap that ended later still counts. Returns the gap whose wait has ended.
    pub fn reconcile_gap(&mut self, source: &Name, at: Time) -> Option<ReceptionGap> {
        let known = self.gaps.get_mut(source)?;
        if known.last.until > at || known.is_reconciled() {
            return None;
        }
        known.reconciled_at = Some(at);
        let ended = known.last;
        self.bump_generation();
        Some(ended)
    }

    /// The receivers that notifications of a source have named.
    pub fn receivers(&self, source: &Name) -> Option<&BTreeSet<String>> {
        self.receivers.get(source)
    }

    /// Records that notifications of a source name these receivers. At most [`MAX_RECEIVERS`] are kept.
    pub fn add_receivers(&mut self, source: &Name, receivers: &BTreeSet<String>) {
        let known = self.receivers.entry(source.clone()).or_default();
        let before = known.len();
        for receiver in receivers {
            if known.len() < MAX_RECEIVERS {
                known.insert(receiver.clone());
            }
        }
        if known.len() != before {
            self.version += 1;
        }
        if known.is_empty() {
            self.receivers.remove(source);
        }
    }

    /// Whether the source was configured when the bridge last accepted notifications, as far as that is known.
    pub fn was_receiving(&self, source: &Name) -> bool {
        self.receiving.as_ref().is_none_or(|sources| sources.contains(source))
    }

    /// The sources that were configured when the bridge last accepted notifications.
    pub fn receiving(&self) -> impl Iterator<Item = &Name> {
        self.receiving.iter().flatten()
    }

    /// Sets the sources whose notifications are accepted.
    pub fn set_receiving<'a>(&mut self, sources: impl Iterator<Item = &'a Name> + Clone) {
        if !self.receiving.as_ref().is_some_and(|known| known.iter().eq(sources.clone())) {
            self.receiving = Some(sources.cloned().collect());
            self.version += 1;
        }
    }

    /// Forgets heartbeats that are not open and will probably never be again: for these values of `equal` none was open
    /// for the source's `occurrence_ttl`, or the configuration has none like it any more. One that is not known is not
    /// open, so this unblocks nothing.
    pub fn forget_heartbeats(&mut self, sources: &BTreeMap<Name, Arc<Source>>, now: Time) {
        let before = self.heartbeats.len();
        self.heartbeats.retain(|key, heartbeat| {
            let source = sources.get(key.source());
            let settings = source.and_then(|source| Some((source, source.heartbeat.as_ref()?)));
            let is_retired = settings.is_none_or(|(source, settings)| {
                let lost_at = heartbeat.lost_at.unwrap_or(now);
                let is_over = !settings.equal.is_empty() && lost_at.after(source.occurrence_ttl) <= now;
                is_over || settings.equal.len() != key.value_count()
            });
            heartbeat.open_since.is_some() || !is_retired
        });
        if self.heartbeats.len() != before {
            self.version += 1;
        }
    }

    /// A heartbeat; the default if it is not known.
    pub fn heartbeat(&self, key: &HeartbeatKey) -> Heartbeat {
        self.heartbeats.get(key).copied().unwrap_or_default()
    }

    /// All heartbeats of a source that are known.
    pub fn heartbeats_of(&self, source: &Name) -> impl Iterator<Item = (&HeartbeatKey, &Heartbeat)> {
        self.heartbeats.iter().filter(move |(key, _)| key.is_of(source))
    }

    /// The heartbeats of a source taken together: open if there are any, and all that are known are open.
    pub fn heartbeat_of_source(&self, source: &Name) -> Heartbeat {
        let known = || self.heartbeats_of(source).map(|(_, heartbeat)| heartbeat);
        let open_since = known().map(|heartbeat| heartbeat.open_since).min().flatten();
        let last_opened = known().filter_map(|heartbeat| heartbeat.open_since).max();
        let lost_at = known().filter_map(|heartbeat| heartbeat.lost_at).max();
        Heartbeat { open_since: open_since.and(last_opened), lost_at }
    }

    /// Opens a heartbeat.
    pub fn open_heartbeat(&mut self, key: &HeartbeatKey, now: Time) {
        let heartbeat = self.heartbeats.entry(key.clone()).or_default();
        if heartbeat.open_since.is_none() {
            heartbeat.open_since = Some(now);
            self.version += 1;
            self.generation += 1;
        }
    }

    /// Ends a heartbeat.
    pub fn end_heartbeat(&mut self, key: &HeartbeatKey, now: Time) {
        let Some(heartbeat) = self.heartbeats.get_mut(key) else { return };
        if heartbeat.open_since.take().is_some() {
            heartbeat.lost_at = Some(now);
            self.version += 1;
            self.generation += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::source::HeartbeatSettings;

    fn at(seconds: i64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    fn gap(from: i64, until: i64, cause: GapCause) -> ReceptionGap {
        ReceptionGap { from: at(from), until: at(until), cause }
    }

    /// The last gap and the total after these were recorded, each of them twice.
    fn record(gaps: &[ReceptionGap]) -> (ReceptionGap, u64) {
        let (mut controls, source) = (Controls::default(), Name::new("prod").unwrap());
        for gap in gaps.iter().flat_map(|gap| [gap, gap]) {
            controls.record_gap(&source, *gap);
        }
        let recorded = controls.reception_gaps(&source).unwrap();
        (recorded.last, recorded.total.as_secs())
    }

    #[test]
    fn a_gap_with_the_same_cause_continues_one_that_ended_less_than_a_minute_ago() {
        use GapCause::{NotRunning, Refused, Store};
        let first = gap(100, 110, Refused);
        assert_eq!(record(&[first]), (first, 10));
        assert_eq!(record(&[first, gap(150, 150, Refused)]), (gap(100, 150, Refused), 50));
        assert_eq!(record(&[first, gap(171, 180, Refused)]), (gap(171, 180, Refused), 19));
        assert_eq!(record(&[first, gap(150, 160, Store)]), (gap(150, 160, Store), 20));
        assert_eq!(
            record(&[gap(100, 200, NotRunning), first]),
            (gap(100, 200, NotRunning), 100),
            "an earlier one"
        );
        assert_eq!(record(&[first, gap(105, 130, Store)]), (gap(105, 130, Store), 30), "overlap counts once");
    }

    #[test]
    fn a_gap_is_reconciled_by_what_was_asked_after_its_end_and_a_later_gap_is_not() {
        let (mut controls, source) = (Controls::default(), Name::new("prod").unwrap());
        assert_eq!(controls.reconcile_gap(&source, at(50)), None, "no gap");
        let first = gap(100, 110, GapCause::Refused);
        controls.record_gap(&source, first);
        assert_eq!(controls.reconcile_gap(&source, at(109)), None, "asked before the end");
        let generation = controls.generation;
        assert_eq!(controls.reconcile_gap(&source, at(110)), Some(first));
        assert!(controls.generation > generation, "decreases are rechecked");
        assert_eq!(controls.reconcile_gap(&source, at(120)), None, "it has ended already");
        controls.record_gap(&source, gap(115, 115, GapCause::Refused));
        let gaps = *controls.reception_gaps(&source).unwrap();
        assert!(!gaps.is_reconciled(), "its continuation waits again");
        assert_eq!(controls.reconcile_gap(&source, at(114)), None);
        assert_eq!(controls.reconcile_gap(&source, at(200)), Some(gap(100, 115, GapCause::Refused)));
        let stored: Controls = serde_json::from_str(&serde_json::to_string(&controls).unwrap()).unwrap();
        assert_eq!(stored, controls);
    }

    #[test]
    fn the_receivers_of_a_source_are_limited() {
        let (mut controls, source) = (Controls::default(), Name::new("prod").unwrap());
        let named = |from: usize, to: usize| (from..to).map(|number| format!("{number:02}")).collect();
        controls.add_receivers(&source, &BTreeSet::new());
        assert_eq!(controls, Controls::default());
        controls.add_receivers(&source, &named(0, 2));
        let version = controls.version;
        controls.add_receivers(&source, &named(1, 2));
        assert_eq!(controls.version, version, "nothing is new");
        controls.add_receivers(&source, &named(0, 99));
        assert_eq!(controls.receivers(&source), Some(&named(0, MAX_RECEIVERS)));
    }

    #[test]
    fn versions_that_do_not_know_a_cause_can_read_the_gap() {
        let stored = |cause| serde_json::to_value(gap(1, 2, cause)).unwrap();
        let known = serde_json::json!({
            "from": at(1), "until": at(2), "cause": "refused",
        });
        assert_eq!(stored(GapCause::Refused), known);
        let mut of_queue = known;
        of_queue["of_queue"] = true.into();
        assert_eq!(stored(GapCause::Queue), of_queue, "an earlier version ignores the field");
        for cause in GapCause::ALL {
            assert_eq!(serde_json::from_value::<ReceptionGap>(stored(cause)).unwrap(), gap(1, 2, cause));
        }
    }

    #[test]
    fn heartbeats_that_are_not_open_for_occurrence_ttl_or_not_configured_any_more_are_forgotten() {
        let source = |equal: &[&str]| Source {
            name: Name::new("prod").unwrap(),
            labels: Arc::default(),
            late_window: Duration::ZERO,
            occurrence_ttl: Duration::from_secs(100),
            heartbeat: Some(HeartbeatSettings {
                equal: equal.iter().map(|&label| label.to_owned()).collect(),
                ..HeartbeatSettings::new(Vec::new())
            }),
            ignore_labels: Vec::new(),
            permissions: crate::domain::source::SourcePermissions::default(),
        };
        let by_cluster = source(&["cluster"]);
        let key = |cluster: &str| by_cluster.heartbeat_key(&[("cluster", cluster)].into_iter().collect());
        let mut controls = Controls::default();
        let whole = HeartbeatKey::for_source(&by_cluster.name);
        for heartbeat in [&key("a"), &key("b/c"), &whole] {
            controls.open_heartbeat(heartbeat, at(0));
        }
        controls.end_heartbeat(&key("b/c"), at(10));
        controls.end_heartbeat(&whole, at(10));
        let known = |controls: &mut Controls, source: Option<&Source>, now: i64| {
            let sources = source.map(|source| (source.name.clone(), Arc::new(source.clone())));
            controls.forget_heartbeats(&sources.into_iter().collect(), at(now));
            let keys = controls.heartbeats_of(&by_cluster.name).map(|(key, _)| key.as_str().to_owned());
            (keys.collect::<Vec<_>>(), controls.heartbeat_of_source(&by_cluster.name).open_since.is_some())
        };
        let all = |keys: &[&str]| keys.iter().map(|&key| key.to_owned()).collect::<Vec<_>>();
        let mut other = controls.clone();
        assert_eq!(
            known(&mut other, Some(&source(&[])), 9_999),
            (all(&["prod", "prod/a"]), false),
            "the only one stays"
        );
        let version = controls.version;
        assert_eq!(known(&mut controls, Some(&by_cluster), 109), (all(&["prod/a", "prod/b%2Fc"]), false));
        assert_eq!(
            known(&mut controls, Some(&by_cluster), 110),
            (all(&["prod/a"]), true),
            "all known ones are open"
        );
        assert_eq!(controls.version, version + 2);
        assert_eq!(known(&mut controls, None, 110), (all(&["prod/a"]), true), "its alert is open");
        controls.end_heartbeat(&key("a"), at(120));
        assert_eq!(known(&mut controls, None, 121), (all(&[]), false));
    }

    #[test]
    fn only_sources_that_were_configured_before_can_have_missed_a_notification() {
        let (mut controls, prod) = (Controls::default(), Name::new("prod").unwrap());
        assert!(controls.was_receiving(&prod), "written by an earlier version");
        controls.set_receiving([].iter());
        assert!(!controls.was_receiving(&prod));
        controls.set_receiving([&prod].into_iter());
        let version = controls.version;
        controls.set_receiving([&prod].into_iter());
        assert_eq!(controls.version, version, "nothing has changed");
        let read: Controls = serde_json::from_str(&serde_json::to_string(&controls).unwrap()).unwrap();
        assert!(read.was_receiving(&prod) && !read.was_receiving(&Name::new("new").unwrap()));
    }
}
