//! What is not called although it is pending.

use super::super::*;
use super::bridge::{Bridge, Sent};
use super::model::OnFiring;
use crate::domain::episode_scope::EpisodeScope;

/// Whether an `on_resolved` event that does not decrease has something to follow.
pub(crate) enum Follows {
    Delivered,
    /// An `on_firing` event of its episode is pending.
    Later,
    Nothing,
}

/// Such an event goes only where an `on_firing` event of its episode was delivered.
pub(crate) fn follows(bridge: &Bridge, sent: &Sent) -> Follows {
    if sent.phase == Phase::Firing || sent.effects.decreases {
        return Follows::Delivered;
    }
    let firing = || {
        let same = |other: &&Sent| other.episode == sent.episode && other.phase == Phase::Firing;
        bridge.ledger.iter().filter(same)
    };
    if firing().any(|other| other.delivery.is_pending) {
        return Follows::Later;
    }
    match firing().any(|other| other.delivery.delivered_at.is_some()) {
        true => Follows::Delivered,
        false => Follows::Nothing,
    }
}

/// A pause or hold withholds increases that are emitted and not delivered yet.
pub(crate) fn is_withheld(bridge: &Bridge, sent: &Sent) -> bool {
    let rule = &bridge.settings.rules.rules()[sent.rule];
    let action = match sent.phase {
        Phase::Firing => rule.on_firing.as_ref().map(|firing| &firing.action),
        Phase::Resolved => rule.on_resolved.as_ref().map(|resolved| &resolved.action),
    };
    let Some(change) = action.map(|action| &action.change).filter(|change| change.increases_capacity())
    else {
        return false;
    };
    let (now, controls) = (bridge.now, &bridge.controls);
    let is_paused = controls.pauses(now).any(|pause| pause.covers(&rule.name, &sent.key, change, now));
    is_paused || is_held(bridge, sent)
}

fn is_held(bridge: &Bridge, sent: &Sent) -> bool {
    let config = &bridge.settings.config;
    let scopes = bridge.states.get(&sent.key).into_iter().flat_map(|state| state.rules.values());
    let scope = scopes.filter_map(|rule| rule.last_episode()).map(|episode| &episode.scope).next();
    let Some(target) = scope.and_then(EpisodeScope::target) else { return false };
    bridge.controls.holds_on(target).any(|(by, hold)| {
        let rule = config.rules.iter().find(|rule| rule.name == by.as_str());
        let blocks = rule.is_some_and(|rule| rule.on_firing == OnFiring::Hold { blocks_increases: true });
        blocks && !hold.is_unreadable
    })
}
