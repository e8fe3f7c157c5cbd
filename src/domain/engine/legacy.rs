//! Adopts what an earlier version emitted, as if this version had emitted it: what it added for episodes that were open at
//! the upgrade is owed, and a decrease that was not delivered is taken back like any other.

use super::outcome::requested_action;
use super::step::StepContext;
use crate::domain::alert_key::AlertKey;
use crate::domain::alert_map::AlertMap;
use crate::domain::delivery::DeliveryChangeKind;
use crate::domain::episode_scope::EpisodeScope;
use crate::domain::event::{AdjustmentType, EventAlert, LegacyDecrease, LegacyEvent};
use crate::domain::phase::Phase;
use crate::domain::state::{
    ClosedEpisode, Deferred, Emission, EmissionOutcome, EmittedDecrease, Episode, Occurrence, RuleState,
    TargetState,
};
use crate::domain::target::TargetKey;

/// Adopts the events of a target, oldest first.
pub(super) fn adopt(step: &mut StepContext<'_>, key: &TargetKey, state: &mut TargetState) {
    let context = step.context;
    let deliveries = context.deliveries.events.get(key);
    for event in context.deliveries.legacy.get(key).into_iter().flatten() {
        if state.emission(&event.id).is_some() {
            continue;
        }
        let delivery = deliveries.and_then(|events| events.get(&event.id));
        let decrease =
            event.decrease.as_deref().filter(|_| delivery.is_some_and(|delivery| delivery.is_pending));
        let is_adopted = decrease.is_some_and(|decrease| adopt_decrease(step, key, state, event, decrease));
        if decrease.is_some() && !is_adopted {
            step.change_delivery(key, &event.id, DeliveryChangeKind::Cancel);
            continue;
        }
        adopt_emission(step, state, event, is_adopted);
    }
}

/// Adds an event to those that are owed or, if it `decreases`, whose delivery is not known.
fn adopt_emission(step: &StepContext<'_>, state: &mut TargetState, event: &LegacyEvent, decreases: bool) {
    let resolved = step.rule(&event.rule).and_then(|rule| requested_action(rule, Phase::Resolved));
    let takes_back = resolved.is_some_and(|action| action.change.decreases_capacity());
    let Some(adjustment) = &event.adjustment else { return };
    let is_change = adjustment.kind == AdjustmentType::ChangeInCapacity;
    let increases = adjustment.value > 0 || adjustment.kind == AdjustmentType::ExactCapacity;
    let is_owed = takes_back && event.phase == Phase::Firing && increases;
    if !is_owed && !decreases {
        return;
    }
    state.emissions.push(Emission {
        id: event.id.clone(),
        rule: event.rule.clone(),
        phase: event.phase,
        emitted_at: event.emitted_at,
        increases,
        decreases,
        // Its cooldown is among those that the earlier version stored.
        cooldown_ms: 0,
        value: is_change.then_some(adjustment.value),
        is_owed,
        takes_back_until: (event.phase == Phase::Resolved).then_some(event.emitted_at),
        takes_back: Vec::new(),
        acting: Vec::new(),
        outcome: EmissionOutcome::Pending,
        recheck_at: None,
        is_pending_elsewhere: false,
        is_suspended: false,
        is_withheld: false,
    });
    if is_owed {
        let until = step.context.now.after(step.context.policy.owed_retention);
        let rule_state = state.rules.get_or_default(&event.rule);
        rule_state.owed_until = rule_state.episode.is_none().then_some(until).or(rule_state.owed_until);
    }
}

/// Adds a decrease that is not delivered to the state of its rule. Returns false if something newer stands in its place:
/// it must not be called then.
fn adopt_decrease(
    step: &mut StepContext<'_>,
    key: &TargetKey,
    state: &mut TargetState,
    event: &LegacyEvent,
    decrease: &LegacyDecrease,
) -> bool {
    let Some(closed) = closed_episode(key, event, decrease) else { return false };
    let emitted = Some(EmittedDecrease {
        event: event.id.clone(),
        request: request(event, decrease),
        is_rejected: false,
        recheck_at: None,
    });
    let rule_state: &mut RuleState = state.rules.get_or_default(&event.rule);
    let replaced = match (event.phase, &mut rule_state.episode) {
        (Phase::Firing, Some(episode)) if episode.id == decrease.episode => {
            std::mem::replace(&mut episode.emitted, emitted)
        }
        (Phase::Resolved, None) => {
            let closed = rule_state.closed.get_or_insert_with(|| Box::new(closed));
            if closed.deferred.is_some() {
                return false;
            }
            std::mem::replace(&mut closed.emitted, emitted)
        }
        _ => return false,
    };
    // There is at most one of a rule, and the last one takes back what the others would.
    if let Some(replaced) = replaced {
        state.emissions.retain(|emission| emission.id != replaced.event);
        step.change_delivery(key, &replaced.event, DeliveryChangeKind::Cancel);
    }
    true
}

fn alert_key(decrease: &LegacyDecrease, alert: &EventAlert) -> AlertKey {
    AlertKey { source: decrease.trigger.source.clone(), fingerprint: alert.fingerprint.clone() }
}

fn request(event: &LegacyEvent, decrease: &LegacyDecrease) -> Deferred {
    Deferred {
        requested_at: event.emitted_at,
        stable_since: None,
        recheck_at: Some(event.emitted_at),
        limited_direction: None,
        decreases: true,
        is_repeat: false,
        is_retry: false,
        wait: None,
        blocked_by: None,
        alerts: decrease.alerts.iter().map(|alert| alert_key(decrease, alert)).collect(),
        trigger: decrease.trigger.clone().into(),
    }
}

/// The episode of a decrease as its event describes it; `None` if it is not about a target.
fn closed_episode(key: &TargetKey, event: &LegacyEvent, decrease: &LegacyDecrease) -> Option<ClosedEpisode> {
    let episode = Episode {
        id: decrease.episode.clone(),
        scope: EpisodeScope::Target(key.target()?.into()),
        opened_at: event.emitted_at,
        open: AlertMap::default(),
        emissions: 1,
        resolved_emissions: decrease.emission,
        undelivered_emissions: 0,
        most_open: 0,
        sources: vec![decrease.trigger.source.clone()],
        heartbeats: Vec::new(),
        adopted: false,
        expired: false,
        truncated: false,
        hold_over: false,
        is_silent: false,
        deferred: None,
        emitted: None,
        parameters: decrease.parameters.clone(),
    };
    let occurrence = |alert: &EventAlert| Occurrence {
        alert: alert_key(decrease, alert),
        starts_at: alert.starts_at,
        heard_at: event.emitted_at,
        expires_at: event.emitted_at,
        metric: None,
        labels: alert.labels.clone(),
        annotations: alert.annotations.clone(),
        generator_url: alert.generator_url.clone(),
        growth_key: None,
        validity: None,
    };
    Some(ClosedEpisode {
        episode: Box::new(episode),
        closed: decrease.alerts.iter().map(occurrence).collect(),
        deferred: None,
        unneeded: None,
        emitted: None,
        is_answered: false,
        until: None,
    })
}
