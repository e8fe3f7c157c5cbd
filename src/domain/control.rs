//! Controls: what stops actions whatever target they are about.
//!
//! Pauses, which people set; holds, which alerts set by rules with `hold`; and the heartbeats of sources.
//! Together they are one small whole that every decision reads. It is written as one JSON document, with
//! a version.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::direction::Direction;
use super::name::Name;
use super::rule::Change;
use super::target::{PartialTarget, Target, TargetKey};
use super::time::Time;

/// All controls; the default is none.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Controls {
    /// Rises with every change.
    #[serde(default)]
    pub version: u64,
    /// Rises with every change after which something that waits has to be looked at again: it may be
    /// free, or have lost its support.
    #[serde(default)]
    #[serde(rename = "wakes")]
    pub generation: u64,
    /// The number that the next pause gets.
    #[serde(default)]
    next_pause: u64,
    /// Pauses by their numbers. One that is over may still be here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pauses: BTreeMap<u64, Pause>,
    /// The open holds of each rule with `hold`, by the key of their episode.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    holds: BTreeMap<Name, BTreeMap<TargetKey, Hold>>,
    /// The holds that have ended lately because nobody spoke of them any more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[serde(rename = "lapsed")]
    expired_holds: BTreeMap<Name, BTreeMap<TargetKey, ExpiredHold>>,
    /// Each source's heartbeat, as far as one was ever heard.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    heartbeats: BTreeMap<Name, Heartbeat>,
}

/// What a person has stopped: everything, or what all of the given parts cover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The number by which it is ended.
    pub id: u64,
    /// Actions of this rule only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<Name>,
    /// Actions about targets whose key this covers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetPattern>,
    /// Actions in this direction only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Since when.
    pub since: Time,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Who has set it.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// What an open episode of a rule with `hold` covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The targets; the empty one is all of them.
    pub covers: PartialTarget,
    /// Since when.
    pub since: Time,
}

/// A hold that nobody speaks of any more, so that nobody knows its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredHold {
    /// The targets.
    pub covers: PartialTarget,
    /// When it was given up.
    pub at: Time,
}

/// Whatever waits is looked at when a hold ends, so this is only to be remembered until that is done.
const EXPIRED_HOLD_RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// Whether a source's Prometheus was heard to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Since when it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_since: Option<Time>,
    /// When it ended last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "broke_at")]
    pub lost_at: Option<Time>,
}

/// A pattern over a target's key, such as `eks/nodegroup/*/prod-eu/*`: `*` is any number of characters,
/// also `/`, and all else is itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TargetPattern(String);

impl TargetPattern {
    /// The most bytes of a pattern.
    pub const MAX_BYTES: usize = 4096;

    /// A pattern; `None` if it is empty or too long.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty() && text.len() <= Self::MAX_BYTES).then(|| Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it covers a target. Takes no longer than the two texts are long, multiplied.
    pub fn covers(&self, key: &TargetKey) -> bool {
        let (pattern, text) = (self.0.as_bytes(), key.as_str().as_bytes());
        let (mut at, mut read) = (0, 0);
        // Where to go on when what follows the last `*` does not fit: that `*` takes one more.
        let mut retry: Option<(usize, usize)> = None;
        while read < text.len() {
            if pattern.get(at) == Some(&b'*') {
                retry = Some((at + 1, read));
                at += 1;
            } else if pattern.get(at) == Some(&text[read]) {
                at += 1;
                read += 1;
            } else if let Some((after, taken)) = retry {
                retry = Some((after, taken + 1));
                (at, read) = (after, taken + 1);
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for TargetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pause {
    /// Whether it stops this change now.
    pub fn covers(&self, rule: &Name, key: &TargetKey, change: &Change, now: Time) -> bool {
        self.is_active(now)
            && self.rule.as_ref().is_none_or(|own| own == rule)
            && self.direction.is_none_or(|direction| change.has_direction(direction))
            && self.target.as_ref().is_none_or(|pattern| pattern.covers(key))
    }

    /// Whether it is not over.
    pub fn is_active(&self, now: Time) -> bool {
        self.until.is_none_or(|until| until > now)
    }
}

impl Controls {
    /// The pauses that are not over, oldest first.
    pub fn pauses(&self, now: Time) -> impl Iterator<Item = &Pause> {
        self.pauses.values().filter(move |pause| pause.is_active(now))
    }

    /// Everything that waits has to be looked at again: the rules are others.
    pub fn bump_generation(&mut self) {
        self.version += 1;
        self.generation += 1;
    }

    /// Adds a pause, gives it its number and says which. Forgets those that are over.
    pub fn pause(&mut self, pause: Pause) -> u64 {
        self.version += 1;
        self.next_pause += 1;
        let id = self.next_pause;
        self.pauses.retain(|_, known| known.is_active(pause.since));
        self.pauses.insert(id, Pause { id, ..pause });
        id
    }

    /// Ends a pause; `None` if there is none of this number.
    pub fn resume(&mut self, id: u64) -> Option<Pause> {
        let pause = self.pauses.remove(&id)?;
        self.version += 1;
        self.generation += 1;
        Some(pause)
    }

    /// The open holds with their rules.
    pub fn holds(&self) -> impl Iterator<Item = (&Name, &Hold)> {
        self.holds.iter().flat_map(|(rule, holds)| holds.values().map(move |hold| (rule, hold)))
    }

    /// The rules whose open holds cover a target.
    pub fn rules_holding(&self, target: &Target) -> impl Iterator<Item = &Name> {
        self.holds().filter(|(_, hold)| hold.covers.covers(target)).map(|(rule, _)| rule)
    }

    /// The rules of which a hold that covers a target has lapsed after `since`.
    pub fn rules_with_expired_hold(&self, target: &Target, since: Time) -> impl Iterator<Item = &Name> {
        let covers =
            move |expired_hold: &ExpiredHold| expired_hold.at > since && expired_hold.covers.covers(target);
        self.expired_holds.iter().filter(move |(_, holds)| holds.values().any(covers)).map(|(rule, _)| rule)
    }

    /// An episode of a rule with `hold` has opened.
    pub fn open_hold(&mut self, rule: &Name, key: &TargetKey, hold: Hold) {
        self.version += 1;
        self.holds.entry(rule.clone()).or_default().insert(key.clone(), hold);
    }

    /// An episode of a rule with `hold` is over, at `expired` because nobody spoke of it any more.
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
            self.record_expired_hold(rule, key, ExpiredHold { covers: hold.covers, at });
        }
    }

    /// Remembers a hold that has lapsed, and forgets those that need not be remembered any more.
    fn record_expired_hold(&mut self, rule: &Name, key: &TargetKey, expired_hold: ExpiredHold) {
        self.expired_holds.retain(|_, holds| {
            holds.retain(|_, known| known.at.after(EXPIRED_HOLD_RETENTION) > expired_hold.at);
            !holds.is_empty()
        });
        self.expired_holds.entry(rule.clone()).or_default().insert(key.clone(), expired_hold);
    }

    /// A source's heartbeat; the default where none was ever heard.
    pub fn heartbeat(&self, source: &Name) -> Heartbeat {
        self.heartbeats.get(source).copied().unwrap_or_default()
    }

    /// A source's heartbeat is open from now on.
    pub fn open_heartbeat(&mut self, source: &Name, now: Time) {
        let heartbeat = self.heartbeats.entry(source.clone()).or_default();
        if heartbeat.open_since.is_none() {
            heartbeat.open_since = Some(now);
            self.version += 1;
            self.generation += 1;
        }
    }

    /// A source's heartbeat has ended.
    pub fn end_heartbeat(&mut self, source: &Name, now: Time) {
        let Some(heartbeat) = self.heartbeats.get_mut(source) else { return };
        if heartbeat.open_since.take().is_some() {
            heartbeat.lost_at = Some(now);
            self.version += 1;
            self.generation += 1;
        }
    }

    /// The sources whose heartbeat has ended after `since`, of these.
    pub fn heartbeat_lost_since<'a>(
        &self,
        mut sources: impl Iterator<Item = &'a Name>,
        since: Time,
    ) -> Option<&'a Name> {
        sources.find(|source| self.heartbeat(source).lost_at.is_some_and(|at| at > since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_number_of_characters() {
        let key = TargetKey::from_stored("eks/nodegroup/-/eu-west-1/prod-eu/-/workers");
        let covers = |pattern: &str| TargetPattern::new(pattern).unwrap().covers(&key);
        for pattern in
            ["*", "eks/*", "*/workers", "eks/*/prod-eu/*", key.as_str(), "**", "*-*-*", "*workers*"]
        {
            assert!(covers(pattern), "{pattern}");
        }
        for pattern in ["eks", "workers", "*/worker", "ecs/*", "*/prod-us/*", "eks/*workers/", "?*"] {
            assert!(!covers(pattern), "{pattern}");
        }
    }
}
