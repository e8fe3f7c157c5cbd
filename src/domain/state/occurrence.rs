//! Occurrences of alerts: open, late, invalid, and resolved.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::HasAlertKey;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::labels::Labels;
use crate::domain::target_pattern::TargetPattern;
use crate::domain::time::{ClockReading, Time};
use crate::domain::trigger::Trigger;

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
    /// Until when its sender vouches for it; `None` if the sender does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity: Option<Validity>,
}

/// Until when a sender vouches for an alert that it does not send again. Prometheus sends a firing alert with an `endsAt`
/// that lies ahead, and a new one with each repetition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The latest time that was received, by the sender's clock.
    pub until: Time,
    /// The same by the store's clock: from then on the alert is absent.
    pub absent_at: Time,
    /// Ends that were received and may be no ends, in the order of their receipt. Each of several senders of the same
    /// alert has an end of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubted: Vec<DoubtedEnd>,
}

/// An `endsAt` that had passed when it was received, not before what the sender vouched for. It is the end of the alert, or a
/// firing that arrives late. Each firing has an `endsAt` of its own; an end is sent again and again with the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtedEnd {
    /// The end by the sender's clock.
    pub ends_at: Time,
    /// The store time at which it was received first.
    pub received_at: Time,
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
    /// For a hold: the targets that the source allows, or did until it was removed. `None` if it allows all, or was
    /// removed under an earlier version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Vec<TargetPattern>>,
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
    /// When a resolve closed an occurrence of it on this target: the episode of that time is the one that it was in.
    /// Not known of what earlier versions stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "closed")]
    pub closed_at: Option<Time>,
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

    /// Whether its sender does not vouch for it any more and has not sent it again. It stays open.
    pub fn is_absent(&self, now: Time) -> bool {
        self.validity.as_ref().is_some_and(|validity| validity.absent_at <= now)
    }

    /// Whether its sender vouches for it now.
    pub fn is_vouched_for(&self, now: Time) -> bool {
        self.validity.is_some() && !self.is_absent(now)
    }

    /// Whether an end that its sender sends is its end, and not a firing that arrives late. An end that is in doubt is
    /// remembered.
    pub fn ends_with(&mut self, ends_at: Time, clock: ClockReading) -> bool {
        self.validity.as_mut().is_none_or(|validity| validity.ends_with(ends_at, clock))
    }
}

impl Validity {
    /// The copies of one request can arrive together late. The copies of an end that its sender repeats arrive at least
    /// this long apart.
    const MIN_REPEAT: Duration = Duration::from_secs(10);

    /// So many doubted ends are remembered, those that were received last.
    const MAX_DOUBTED: usize = 4;

    /// What is known after a firing that its sender vouches for until then.
    pub fn after_firing(known: Option<&Self>, until: Option<Time>, clock: ClockReading) -> Option<Self> {
        let until = until.map(|until| known.map_or(until, |known| known.until.max(until)));
        until.map(|until| Self { until, absent_at: clock.on_store(until), doubted: Vec::new() })
    }

    fn ends_with(&mut self, ends_at: Time, clock: ClockReading) -> bool {
        if let Some(doubted) = self.doubted.iter().find(|doubted| doubted.ends_at == ends_at) {
            return clock.now >= doubted.received_at.after(Self::MIN_REPEAT);
        }
        if self.doubted.is_empty() && ends_at < self.until {
            // The sender takes back what it has vouched for.
            return true;
        }
        if self.doubted.len() >= Self::MAX_DOUBTED {
            self.doubted.remove(0);
        }
        self.doubted.push(DoubtedEnd { ends_at, received_at: clock.now });
        self.until = self.until.max(ends_at);
        self.absent_at = clock.on_store(self.until);
        false
    }
}

impl LastResolve {
    /// Whether the alert was in the last episode of a rule, which opened at this time.
    pub fn was_in_episode_of(&self, opened_at: Time) -> bool {
        self.closed_at.is_some_and(|closed_at| closed_at >= opened_at)
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
