//! The parts of an event: ids, adjustment, alerts and reason.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::delta::Opened;
use crate::domain::alert_map::AlertMap;
use crate::domain::event::{Adjustment, AdjustmentType, EpisodeRef, EventAlert};
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rule::{Amount, Change, Limits};
use crate::domain::state::{Episode, ExpiredEpisode, Occurrence};
use crate::domain::target::TargetKey;
use crate::domain::time::ClockReading;
use crate::json::truncate_escaped;

/// The alert names in a reason; further names are counted.
const MAX_NAMES_IN_REASON: usize = 3;
const MAX_NAME_IN_REASON_BYTES: usize = 100;

/// The id of the episode that these occurrences open. The same history gives the same id, also in a new store
/// after the old one was lost. It differs from the id of the expired episode before it.
pub(super) fn episode_id(
    rule: &Name,
    target: &TargetKey,
    opened: &AlertMap<Opened>,
    expired_episode: Option<&ExpiredEpisode>,
) -> Arc<str> {
    let mut hash = Hash::new("episode", rule, target);
    // Sorted by alert key, so that the order of the notification does not matter.
    for opened in opened.iter() {
        let Occurrence { alert, starts_at, .. } = &opened.occurrence;
        hash.part(alert.source.as_str().as_bytes());
        hash.part(alert.fingerprint.as_bytes());
        hash.part(&starts_at.as_nanos().to_be_bytes());
        hash.part(&opened.previous_end.map_or([0; 8], |end| end.as_nanos().to_be_bytes()));
    }
    if let Some(expired_episode) = expired_episode {
        hash.part(expired_episode.episode.as_bytes());
    }
    hash.finish()
}

/// The id of an event. It includes phase and emission, so the ids of one episode never collide, and an incarnation of the
/// store other than the first, so that an emission that a store has lost collides with none after it.
pub(super) fn event_id(
    rule: &Name,
    target: &TargetKey,
    phase: Phase,
    episode: &str,
    emission: u32,
    incarnation: u64,
) -> Arc<str> {
    let mut hash = Hash::new("event", rule, target);
    hash.part(phase.as_str().as_bytes());
    hash.part(episode.as_bytes());
    hash.part(&emission.to_be_bytes());
    if incarnation != 0 {
        hash.part(&incarnation.to_be_bytes());
    }
    hash.finish()
}

/// SHA-256 over length-prefixed parts, truncated to 128 bits.
struct Hash(Sha256);

impl Hash {
    fn new(what: &str, rule: &Name, target: &TargetKey) -> Self {
        let mut hash = Self(Sha256::new());
        hash.part(what.as_bytes());
        hash.part(rule.as_str().as_bytes());
        hash.part(target.as_str().as_bytes());
        hash
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn finish(self) -> Arc<str> {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digest = self.0.finalize();
        let mut text = [0; 32];
        for (two, byte) in text.chunks_exact_mut(2).zip(&digest[..]) {
            two.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        // Hexadecimal digits are valid UTF-8.
        std::str::from_utf8(&text).unwrap_or_default().into()
    }
}

/// The change as an adjustment of AWS Auto Scaling. `owed` is the value of a `revert`. Fails if step scaling has no metric, which happens only
/// if the rule was changed during the episode.
pub(super) fn adjustment(
    change: &Change,
    limits: &Limits,
    metrics: &[f64],
    owed: Option<i64>,
) -> Result<Option<Adjustment>, String> {
    let (amount, sign) = match change {
        Change::Notify => return Ok(None),
        Change::SetCapacity { to, allow_decrease } => {
            return Ok(Some(Adjustment {
                kind: AdjustmentType::ExactCapacity,
                value: i64::from(limits.clamp(*to)),
                min_magnitude: None,
                allow_decrease: Some(*allow_decrease),
            }));
        }
        Change::ScaleOut(amount) => (amount, 1),
        Change::ScaleIn(amount) => (amount, -1),
        Change::Revert => {
            let value = owed.ok_or("nothing that is owed was added in units")?;
            let kind = AdjustmentType::ChangeInCapacity;
            return Ok(Some(Adjustment { kind, value, min_magnitude: None, allow_decrease: None }));
        }
    };
    let (kind, value, min_magnitude) = match amount {
        Amount::By(units) => (AdjustmentType::ChangeInCapacity, units.get(), None),
        Amount::ByPercent { percent, at_least } => {
            let least = at_least.map(std::num::NonZero::get);
            (AdjustmentType::PercentChangeInCapacity, percent.get(), least)
        }
        Amount::Steps(steps) => {
            let highest = metrics.iter().copied().reduce(f64::max);
            let highest = highest.ok_or(
                "no open alert has a metric: the steps were added to the rule after the alerts opened",
            )?;
            let step = steps.step_for(highest);
            let step =
                step.ok_or_else(|| format!("metric {highest} is below the lowest step, {}", steps.lowest()))?;
            (AdjustmentType::ChangeInCapacity, step.by.get(), None)
        }
    };
    let value = sign * i64::from(value);
    Ok(Some(Adjustment { kind, value, min_magnitude, allow_decrease: None }))
}

/// The representation of an occurrence in events.
pub(super) fn event_alert(occurrence: &Occurrence) -> EventAlert {
    EventAlert {
        fingerprint: occurrence.alert.fingerprint.clone(),
        labels: occurrence.labels.clone(),
        annotations: occurrence.annotations.clone(),
        starts_at: occurrence.starts_at,
        generator_url: occurrence.generator_url.clone(),
    }
}

/// The representation of an episode in events.
pub(super) fn episode_ref(episode: &Episode, emission: u32, clock: ClockReading) -> EpisodeRef {
    EpisodeRef { id: episode.id.clone(), opened_at: clock.on_wall(episode.opened_at), emission }
}

/// For example `3 alerts firing: KubePodUnschedulable`.
pub(super) fn reason(phase: Phase, alerts: &[EventAlert]) -> String {
    let mut names: Vec<&str> = alerts.iter().map(|alert| alert.labels.get("alertname")).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !name.is_empty());
    let count = alerts.len();
    let mut text = format!("{count} {} {}", if count == 1 { "alert" } else { "alerts" }, phase.as_str());
    for (at, name) in names.iter().take(MAX_NAMES_IN_REASON).enumerate() {
        text += if at == 0 { ": " } else { ", " };
        text += truncate_escaped(name, MAX_NAME_IN_REASON_BYTES);
    }
    if names.len() > MAX_NAMES_IN_REASON {
        text += &format!(" and {} more", names.len() - MAX_NAMES_IN_REASON);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids that were sent by earlier versions stay the same.
    #[test]
    fn only_an_incarnation_other_than_the_first_changes_the_id_of_an_event() {
        let (rule, target) =
            (Name::new("pods").unwrap(), TargetKey::from_stored("eks/nodegroup/-/-/-/-/workers"));
        let id = |incarnation| event_id(&rule, &target, Phase::Firing, "e", 1, incarnation);
        let mut first = Hash::new("event", &rule, &target);
        [b"firing".as_slice(), b"e", &1_u32.to_be_bytes()].iter().for_each(|part| first.part(part));
        assert_eq!(id(0), first.finish());
        assert_eq!([id(1) == id(0), id(2) == id(1), id(2) == id(2)], [false, false, true]);
    }
}
