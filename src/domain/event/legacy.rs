//! Events of versions that did not track the delivery of events.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::{Adjustment, EventAlert};
use crate::domain::labels::Labels;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;

/// An event of an episode that was open when the store was upgraded to a version that tracks deliveries, or a decrease
/// that was not delivered then, or an event that it compensates.
#[derive(Debug, Clone, PartialEq)]
pub struct LegacyEvent {
    /// The event's id.
    pub id: Arc<str>,
    /// When it was emitted.
    pub emitted_at: Time,
    /// Whether its episode fired or had resolved.
    pub phase: Phase,
    /// The rule that emitted it.
    pub rule: Name,
    /// Its change of capacity; `None` for `notify`.
    pub adjustment: Option<Adjustment>,
    /// What is needed to emit it again; `None` if it cannot decrease capacity.
    pub decrease: Option<Box<LegacyDecrease>>,
}

/// The request of a decrease, as far as its event has it.
#[derive(Debug, Clone, PartialEq)]
pub struct LegacyDecrease {
    /// The id of its episode.
    pub episode: Arc<str>,
    /// The number of the event within its episode and phase.
    pub emission: u32,
    /// The alerts of the event.
    pub alerts: Vec<EventAlert>,
    /// The notification that caused it.
    pub trigger: Trigger,
    /// The rendered parameters of the rule.
    pub parameters: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct StoredEvent {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    episode: Episode,
    alerts: Vec<Alert>,
    notification: Notification,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Episode {
    id: Arc<str>,
    emission: u32,
}

#[derive(Deserialize)]
struct Alert {
    fingerprint: Arc<str>,
    labels: Arc<Labels>,
    annotations: Arc<Labels>,
    starts_at: String,
    #[serde(default)]
    generator_url: Arc<str>,
}

#[derive(Deserialize)]
struct Notification {
    source: Name,
    receiver: String,
    group_key: String,
    external_url: String,
    reason: Option<String>,
}

impl LegacyDecrease {
    /// Reads it from an event; `None` if something is missing.
    pub(super) fn read(event: &str) -> Option<Self> {
        let StoredEvent { data } = serde_json::from_str(event).ok()?;
        let Data { episode, alerts, notification, parameters } = data;
        let Notification { source, receiver, group_key, external_url, reason } = notification;
        let alert = |Alert { fingerprint, labels, annotations, starts_at, generator_url }| {
            let starts_at = Time::parse(&starts_at).ok()?;
            Some(EventAlert { fingerprint, labels, annotations, starts_at, generator_url })
        };
        Some(Self {
            episode: episode.id,
            emission: episode.emission,
            alerts: alerts.into_iter().filter_map(alert).collect(),
            trigger: Trigger { source, receiver, group_key, external_url, reason, traceparent: None },
            parameters,
        })
    }
}
