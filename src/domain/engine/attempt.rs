//! An attempt of a rule to act on a target: what is requested, and what earlier emissions block.

use std::sync::Arc;

use super::step::StepContext;
use crate::domain::name::Name;
use crate::domain::rate::Slot;
use crate::domain::rule::{Change, Mode, Rule};
use crate::domain::state::{AlertKey, Cooldowns, Shadow, Trigger};
use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::domain::verdict::Phase;

/// One chance of a rule to act on a target.
pub(super) struct ActionAttempt<'a, 'd> {
    pub step: &'a mut StepContext<'d>,
    pub key: &'a TargetKey,
    pub rule: &'a Rule,
    pub trigger: Arc<Trigger>,
    /// Whether the notification left out alerts.
    pub truncated: bool,
    /// Another rule that has an episode open that added capacity, if there is one.
    pub outranked: Option<Name>,
    pub emission_state: EmissionState<'a>,
}

/// What is asked for: by whom, and since when.
pub(super) struct ActionRequest<'a> {
    pub requested_at: Time,
    /// The place that it was given when the process's limits stopped it before.
    pub slot: Option<Slot>,
    /// Whether `repeat: while_firing` asks.
    pub is_repeat: bool,
    /// The alerts that it is about.
    pub alerts: &'a [AlertKey],
}

/// What earlier emissions block: of all active rules about the target, or of one rule in `mode: shadow`.
pub(super) struct EmissionState<'a> {
    pub sequence: &'a mut u64,
    pub cooldowns: &'a mut Cooldowns,
    /// See [`crate::domain::state::RuleState::budget_expiries`].
    pub budget_expiries: &'a mut Vec<Time>,
}

impl<'a> EmissionState<'a> {
    /// That of a rule's mode. What is made for a shadow is forgotten again when it stays empty.
    pub(super) fn for_mode(mode: Mode, own: Self, shadow: &'a mut Option<Box<Shadow>>) -> Self {
        match mode {
            Mode::Active | Mode::Disabled => own,
            Mode::Shadow => {
                let shadow = &mut **shadow.get_or_insert_default();
                Self {
                    sequence: own.sequence,
                    cooldowns: &mut shadow.cooldowns,
                    budget_expiries: &mut shadow.budget_expiries,
                }
            }
        }
    }
}

/// What a rule asks for at one end of an episode.
pub(super) fn requested_change(rule: &Rule, phase: Phase) -> Option<&Change> {
    let action = match phase {
        Phase::Firing => rule.on_firing.as_ref().map(|firing| &firing.action),
        Phase::Resolved => rule.on_resolved.as_ref().map(|resolved| &resolved.action),
    };
    action.map(|action| &action.change)
}
