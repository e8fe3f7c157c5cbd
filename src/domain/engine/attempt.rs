//! An attempt of a rule to act on a target: the request, and the state of earlier emissions.

use std::sync::Arc;

use super::step::StepContext;
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rate::Slot;
use crate::domain::rule::{Change, Mode, Rule};
use crate::domain::state::{Cooldowns, Shadow};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::trigger::Trigger;

/// An attempt of a rule to act on a target. `act` executes it; `guard` evaluates the guards.
pub(super) struct ActionAttempt<'a, 'd> {
    pub step: &'a mut StepContext<'d>,
    pub key: &'a TargetKey,
    pub rule: &'a Rule,
    pub trigger: Arc<Trigger>,
    /// Whether the notification is truncated.
    pub truncated: bool,
    /// Another rule with an open episode that increases capacity; it blocks decreases.
    pub outranked: Option<Name>,
    pub emission_state: EmissionState<'a>,
}

/// The action that is requested.
pub(super) struct ActionRequest<'a> {
    pub requested_at: Time,
    /// The slot that it reserved when a rate limit blocked it before.
    pub slot: Option<Slot>,
    /// Whether `repeat: while_firing` requests it.
    pub is_repeat: bool,
    /// The alerts that the action is about.
    pub alerts: &'a [AlertKey],
}

/// The state of earlier emissions, which block later ones. The active rules of a target share sequence and
/// cooldowns; a rule in `mode: shadow` has cooldowns of its own. The budget is always that of one rule.
pub(super) struct EmissionState<'a> {
    pub sequence: &'a mut u64,
    pub cooldowns: &'a mut Cooldowns,
    /// See [`crate::domain::state::RuleState::budget_expiries`].
    pub budget_expiries: &'a mut Vec<Time>,
}

impl<'a> EmissionState<'a> {
    /// The emission state for the mode of a rule. A shadow state that is created here and stays empty is
    /// removed by `episode::remove_if_empty`.
    pub(super) fn for_mode(mode: Mode, active: Self, shadow: &'a mut Option<Box<Shadow>>) -> Self {
        match mode {
            Mode::Active | Mode::Disabled => active,
            Mode::Shadow => {
                let shadow = &mut **shadow.get_or_insert_default();
                Self {
                    sequence: active.sequence,
                    cooldowns: &mut shadow.cooldowns,
                    budget_expiries: &mut shadow.budget_expiries,
                }
            }
        }
    }
}

/// The change that a rule requests in a phase of an episode.
pub(super) fn requested_change(rule: &Rule, phase: Phase) -> Option<&Change> {
    let action = match phase {
        Phase::Firing => rule.on_firing.as_ref().map(|firing| &firing.action),
        Phase::Resolved => rule.on_resolved.as_ref().map(|resolved| &resolved.action),
    };
    action.map(|action| &action.change)
}
