//! The engine: a pure state machine.
//!
//! `(states, controls, rates, input, now) -> (new states, new controls, rate delta, decisions)`. It reads no
//! clock and does no I/O, so a step can be executed again with the same result. [`process_notification`] handles one
//! notification; [`process_due`] handles timers and changes of the controls. `serve`, `test`, `explain` and
//! `replay` use these two functions.
//!
//! Modules in the order of processing: this one collects what is known of a target, `routing` routes each alert to its
//! targets; `delivery` applies what is known about the delivery of earlier events, `legacy` what an earlier version has
//! emitted; `occurrence` opens and closes
//! occurrences (`end`: what ends them) and records the changes of each rule in a `delta`; `episode` applies them to the rule's episode and
//! requests actions, `control_episode` does so for holds and heartbeats, which update the controls; `deferred` executes
//! the requested and the deferred actions in their order: `guard` and `calm` say what blocks an action, `act` emits an
//! event (`emit`) or defers the action again, and `owed` says what a decrease takes back; `unconfirmed` takes back
//! decreases whose delivery is not confirmed; `kept` leaves rules of a newer configuration to others; `outcome` records the
//! decisions. `deferred_actions` shows what
//! blocks deferred actions, for operators.

mod act;
mod calm;
mod control_episode;
mod deferred;
mod deferred_actions;
mod delivery;
mod delta;
mod emit;
mod end;
mod episode;
mod guard;
mod input;
mod kept;
mod legacy;
mod occurrence;
mod outcome;
mod owed;
mod routing;
mod step;
#[cfg(test)]
pub(crate) mod tests;
mod unconfirmed;
mod visible_state;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::alert_key::AlertKey;
use super::control::Controls;
use super::delivery::{DeliveryChange, EventDelivery};
use super::event::LegacyEvent;
use super::name::Name;
use super::rate::{PerMinute, RateDelta, Rates};
use super::source::Source;
use super::state::TargetState;
use super::table::RuleTable;
use super::target::TargetKey;
use super::time::{ClockReading, Time};
use super::verdict::Decision;
pub use deferred_actions::{DeferredAction, deferred_actions};
pub use end::absence_detail;
pub use input::{EvaluatedAlert, HeartbeatAlert, Input};
pub use routing::process_notification;
use step::StepContext;

/// The read-only inputs of a step.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The active rule table.
    pub rules: &'a RuleTable,
    /// The current store time.
    pub now: Time,
    /// The wall clock at `now`: the time of the events that are emitted, and what the times of Prometheus are
    /// compared with.
    pub wall: Time,
    /// When the store was created. Occurrences that started before are adopted.
    pub created: Time,
    /// Settings that apply to all rules.
    pub policy: Policy,
    /// Pauses, holds and heartbeats as of the last commit.
    pub controls: &'a Controls,
    /// The recent emissions and reserved slots.
    pub rates: &'a Rates,
    /// The configured sources.
    pub sources: &'a BTreeMap<Name, Arc<Source>>,
    /// The delivery of the events that the states track.
    pub deliveries: &'a DeliveryFeedback,
    /// Part of the ids of events, unless it is 0: it changes when the store comes back behind what was committed.
    pub incarnation: u64,
    /// Another process that uses the same store has a newer configuration: rules that are not known here may be part of it.
    pub keeps_unknown_rules: bool,
}

impl Context<'_> {
    fn clock(&self) -> ClockReading {
        ClockReading { now: self.now, wall: self.wall }
    }
}

/// Settings that apply to all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long the last resolve of an alert is retained.
    pub last_resolve_retention: Duration,
    /// How long the id of an expired episode is retained.
    pub expired_episode_retention: Duration,
    /// How long what a rule owes is retained after its last close.
    pub owed_retention: Duration,
    /// Whether a decrease that was given up is tried again after some time, even if no other call to its destination has
    /// succeeded. Not in simulations: there the destination says when it works again.
    pub probes_destinations: bool,
    /// The rate limits of this process.
    pub per_minute: PerMinute,
}

/// The states that a step reads.
#[derive(Debug, Clone, Default)]
pub struct States {
    /// The state of each requested target that has one.
    pub targets: BTreeMap<TargetKey, Arc<TargetState>>,
    /// The targets whose state mentions an alert, for each requested alert.
    pub alerts: BTreeMap<AlertKey, Vec<TargetKey>>,
}

/// The delivery of events, as far as decisions need it.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFeedback {
    /// By target and event id. An event that is not here counts as delivered when it was emitted.
    pub events: BTreeMap<TargetKey, BTreeMap<Arc<str>, EventDelivery>>,
    /// The last successful call of each destination, as far as this process knows. Only filled if a state
    /// tracks events or [awaits a destination](TargetState::awaits_destination).
    pub last_success: BTreeMap<Name, Time>,
    /// By target: the `on_firing` events of episodes that were open when the store was upgraded from a version without
    /// tracked events, and the decreases that were not delivered then, until the target's state is written.
    pub legacy: BTreeMap<TargetKey, Vec<LegacyEvent>>,
}

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// The new and the changed states.
    pub states: Vec<(TargetKey, TargetState)>,
    /// The new controls, if they have changed.
    pub controls: Option<Controls>,
    /// The changes to the rates. To be applied before the events are sent; the step is not valid if they cannot be.
    pub rates: RateDelta,
    /// The decisions, in the order in which they were made.
    pub decisions: Vec<Decision>,
    /// Changes of the delivery of earlier events.
    pub delivery_changes: Vec<DeliveryChange>,
}

/// An increase for which an operator has forgiven the decrease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgivenEvent {
    /// The rule that owed it.
    pub rule: Name,
    /// The event's id.
    pub event: Arc<str>,
}

/// Forgives what a rule, or any rule, owes on a target. `detail` says who does so and why. Returns the events for which a
/// decrease was owed.
pub fn forgive(
    context: &Context<'_>,
    key: &TargetKey,
    states: &States,
    rule: Option<&Name>,
    detail: &str,
) -> (Step, Vec<ForgivenEvent>) {
    let mut step_context = StepContext::new(context);
    let mut step = Step::default();
    let mut forgiven = Vec::new();
    if let Some(before) = states.targets.get(key) {
        let mut state = TargetState::clone(before);
        step.decisions = delivery::apply(&mut step_context, key, &mut state);
        let (events, decisions) = owed::forgive(&mut step_context, key, &mut state, rule, detail);
        forgiven = events;
        step.decisions.extend(decisions);
        step.states.push((key.clone(), state));
    }
    (step.controls, step.rates, step.delivery_changes) = step_context.into_changes();
    (step, forgiven)
}

fn sorted_unique<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

fn alert_key(source: &Name, fingerprint: &Arc<str>) -> AlertKey {
    AlertKey { source: source.clone(), fingerprint: fingerprint.clone() }
}

/// Processes targets that are due, or whose deferred actions depend on controls that have changed: expires
/// occurrences, opens late firings whose window is over, applies deliveries, rechecks deferred actions, and prunes
/// retained ends. Targets that do not change are not part of the step.
pub fn process_due(context: &Context<'_>, keys: &[TargetKey], states: &States) -> Step {
    let mut step_context = StepContext::new(context);
    let mut step = Step::default();
    let mut keys: Vec<&TargetKey> = keys.iter().collect();
    keys.sort_by_key(|key| (key.kind(), *key));
    for key in keys {
        let Some(before) = states.targets.get(key) else { continue };
        let mut state = TargetState::clone(before);
        let decisions = occurrence::expire(&mut step_context, key, &mut state);
        state.prune(context.now);
        if state != **before {
            step.states.push((key.clone(), state));
        }
        step.decisions.extend(decisions);
    }
    (step.controls, step.rates, step.delivery_changes) = step_context.into_changes();
    step
}
