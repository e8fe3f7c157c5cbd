//! The engine: a pure state machine.
//!
//! `(states, controls, rates, input, now) -> (new states, new controls, rate delta, decisions)`. It reads no
//! clock and does no I/O, so a step can be executed again with the same result. [`process_notification`] handles one
//! notification; [`process_due`] handles timers and changes of the controls. `serve`, `test`, `explain` and
//! `replay` use these two functions.
//!
//! Modules in the order of processing: this one routes each alert to its targets; `occurrence` opens and
//! closes occurrences and records the changes of each rule in a `delta`; `episode` updates the rule's
//! episode, and `control_episode` those of holds and heartbeats, which update the controls; `act` executes an
//! `attempt` of a rule to act: it evaluates the guards of `guard`, then emits an event (`emit`) or defers the
//! action; `deferred` re-evaluates deferred actions; `outcome` records the decisions.

mod act;
mod attempt;
mod control_episode;
mod deferred;
mod delta;
mod emit;
mod episode;
mod guard;
mod input;
mod occurrence;
mod outcome;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::alert_key::AlertKey;
use super::control::Controls;
use super::delivery::{DeliveryChange, EventDelivery, LegacyEvent};
use super::name::Name;
use super::notification::{Alert, Status};
use super::rate::{PerMinute, RateDelta, Rates};
use super::state::{LastResolve, TargetState};
use super::table::RuleTable;
use super::target::{KeyKind, TargetKey};
use super::time::Time;
use super::verdict::{Decision, Verdict};
pub use input::{EvaluatedAlert, HeartbeatAlert, Input};
use occurrence::{FiringAlert, ResolvedAlert, TargetInput};
use step::StepContext;

/// The read-only inputs of a step.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The active rule table.
    pub rules: &'a RuleTable,
    /// The current store time.
    pub now: Time,
    /// When the store was created. Occurrences that started before are adopted.
    pub created: Time,
    /// Settings that apply to all rules.
    pub policy: Policy,
    /// Pauses, holds and heartbeats as of the last commit.
    pub controls: &'a Controls,
    /// The recent emissions and reserved slots of this process.
    pub rates: &'a Rates,
    /// The sources that have a heartbeat.
    pub with_heartbeat: &'a BTreeSet<Name>,
    /// Undelivered decreases by target; an increase supersedes them.
    pub undelivered_decreases: &'a BTreeMap<TargetKey, Vec<UndeliveredDecrease>>,
    /// The delivery of the events that the states track.
    pub deliveries: &'a Deliveries,
}

/// Settings that apply to all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long the last resolve of an alert is retained.
    pub last_resolve_retention: Duration,
    /// How long the id of an expired episode is retained.
    pub expired_episode_retention: Duration,
    /// How long a decrease can be deferred in addition to its stabilization window.
    pub max_deferral: Duration,
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
pub struct Deliveries {
    /// By target and event id. An event that is not here counts as delivered when it was emitted.
    pub events: BTreeMap<TargetKey, BTreeMap<Arc<str>, EventDelivery>>,
    /// The last successful call of each destination, as far as this process knows. Only filled if a state tracks events.
    pub last_success: BTreeMap<Name, Time>,
    /// By target: the `on_firing` events of episodes that were open when the store was upgraded from a version without
    /// tracked events, until the target's state is written.
    pub legacy: BTreeMap<TargetKey, Vec<LegacyEvent>>,
}

/// An event that can decrease capacity and that some destination has not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndeliveredDecrease {
    /// The id of the event.
    pub id: String,
    /// The rule that emitted it.
    pub rule: Name,
    /// The alerts of the event, without those that were left out to limit its size.
    pub alerts: Vec<AlertKey>,
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

fn sorted_unique<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

fn alert_key(source: &Name, fingerprint: &Arc<str>) -> AlertKey {
    AlertKey { source: source.clone(), fingerprint: fingerprint.clone() }
}

impl States {
    /// The latest known end of an alert over all targets.
    fn last_resolve(&self, alert: &AlertKey) -> Option<&LastResolve> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        let ends = keys.filter_map(|key| self.targets.get(key)?.last_resolve(alert));
        ends.max_by_key(|last_resolve| last_resolve.ends_at)
    }

    /// The targets at which an alert is open or late.
    fn tracked_at<'a, 'k>(
        &'a self,
        alert: &'k AlertKey,
    ) -> impl Iterator<Item = &'a TargetKey> + use<'a, 'k> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        keys.filter(move |key| {
            self.targets.get(key).is_some_and(|state| state.rules.values().any(|rule| rule.is_tracked(alert)))
        })
    }

    /// Whether an alert is open in the rule's episode at a target.
    fn is_open(&self, target: &TargetKey, rule: &Name, alert: &AlertKey) -> bool {
        let state = self.targets.get(target);
        state.and_then(|state| state.rules.get(rule)).is_some_and(|rule| rule.is_open(alert))
    }

    /// The key at which an alert is open or late for a rule. Only keys of the same kind as `same_kind`
    /// (target, hold or heartbeat) are considered.
    fn tracked_for_rule<'a>(
        &'a self,
        rule: &Name,
        alert: &AlertKey,
        same_kind: &TargetKey,
    ) -> Option<&'a TargetKey> {
        self.tracked_at(alert).filter(|key| key.kind() == same_kind.kind()).find(|key| {
            let state = self.targets.get(*key);
            state.and_then(|state| state.rules.get(rule)).is_some_and(|rule| rule.is_tracked(alert))
        })
    }
}

/// Processes one notification.
///
/// A firing alert is routed to the targets that its rules name; if it is already open for a rule at another
/// target, it stays there. A resolved alert is routed to every target at which it is open, whatever the rules
/// are now. Holds and heartbeats are processed before targets.
pub fn process_notification(context: &Context<'_>, input: &Input, states: &States) -> Step {
    let mut routing = Routing::new(context, input, states);
    for evaluated in &input.alerts {
        match evaluated {
            EvaluatedAlert::Invalid(invalid) => {
                let key =
                    alert_key(&input.source.name, &invalid.fingerprint.as_deref().unwrap_or_default().into());
                routing.targetless.add(None, Verdict::Invalid, Some(&invalid.error), key);
            }
            EvaluatedAlert::Firing(alert, evaluation) => {
                let key = alert_key(&input.source.name, &alert.fingerprint);
                if let Some(not_matched) = &evaluation.not_matched {
                    let detail = not_matched.detail.as_deref();
                    routing.targetless.add(
                        not_matched.rule.as_ref(),
                        not_matched.verdict,
                        detail,
                        key.clone(),
                    );
                }
                let last_end = states.last_resolve(&key).map(|last_resolve| last_resolve.ends_at);
                for matched in &evaluation.matches {
                    routing.route_firing(FiringAlert {
                        key: key.clone(),
                        alert,
                        rule: &context.rules.rules()[matched.rule_index].name,
                        scope: &matched.scope,
                        rule_target: &matched.key,
                        parameters: &matched.parameters,
                        metric: matched.metric,
                        last_end,
                    });
                }
                routing.mark_heard(&key, alert, false);
            }
            EvaluatedAlert::Heartbeat(alert, heartbeat) if alert.status == Status::Firing => {
                let key = alert_key(&input.source.name, &alert.fingerprint);
                let last_end = states.last_resolve(&key).map(|last_resolve| last_resolve.ends_at);
                routing.route_firing(FiringAlert {
                    key: key.clone(),
                    alert,
                    rule: &heartbeat.rule,
                    scope: &heartbeat.scope,
                    rule_target: &heartbeat.key,
                    parameters: &NO_PARAMETERS,
                    metric: None,
                    last_end,
                });
                routing.mark_heard(&key, alert, true);
            }
            EvaluatedAlert::Resolved(_) | EvaluatedAlert::Heartbeat(..) => {}
        }
    }
    routing.route_resolved();
    routing.decide()
}

static NO_PARAMETERS: BTreeMap<String, String> = BTreeMap::new();

/// Routes the alerts of a notification to targets.
struct Routing<'a> {
    context: &'a Context<'a>,
    input: &'a Input,
    states: &'a States,
    target_inputs: BTreeMap<TargetKey, TargetInput<'a>>,
    /// Ends of alerts that are not open at any target.
    strays: Vec<(TargetKey, LastResolve)>,
    targetless: TargetlessDecisions,
}

impl<'a> Routing<'a> {
    fn new(context: &'a Context<'a>, input: &'a Input, states: &'a States) -> Self {
        Self {
            context,
            input,
            states,
            target_inputs: BTreeMap::new(),
            strays: Vec::new(),
            targetless: TargetlessDecisions::default(),
        }
    }

    fn route_firing(&mut self, firing: FiringAlert<'a>) {
        let known = self.states.tracked_for_rule(firing.rule, &firing.key, firing.rule_target);
        let is_new = firing.last_end.is_none_or(|end| firing.alert.starts_at > end);
        let target = match known.filter(|known| *known != firing.rule_target) {
            // It started after the last known end, so it is a new occurrence and not a copy of the late one.
            Some(known) if is_new && !self.states.is_open(known, firing.rule, &firing.key) => {
                let outdated = (firing.rule.clone(), firing.key.clone());
                self.target_inputs.entry(known.clone()).or_default().outdated.push(outdated);
                firing.rule_target
            }
            known => known.unwrap_or(firing.rule_target),
        };
        self.target_inputs.entry(target.clone()).or_default().firing.push(firing);
    }

    /// Refreshes a firing alert wherever it is open, also where no rule matches it any more: it fires, so it
    /// does not expire. The exception is a heartbeat: an alert that is not the heartbeat of its source any
    /// more does not keep it open.
    fn mark_heard(&mut self, key: &AlertKey, alert: &Alert, is_heartbeat: bool) {
        for target in self.states.tracked_at(key) {
            let target_input = self.target_inputs.entry(target.clone()).or_default();
            if !is_heartbeat && target.kind() == KeyKind::Heartbeat {
                target_input.outdated.push((Name::for_heartbeat(), key.clone()));
            } else {
                target_input.heard.push((key.clone(), alert.starts_at));
            }
        }
    }

    fn route_resolved(&mut self) {
        let resolved = self.input.alerts.iter().filter_map(|evaluated| match evaluated {
            EvaluatedAlert::Resolved(alert) => Some((alert, false)),
            EvaluatedAlert::Heartbeat(alert, _) if alert.status == Status::Resolved => Some((alert, true)),
            _ => None,
        });
        let mut resolved = resolved.peekable();
        // An alert that fires in this notification can also resolve in it.
        let mut firing_at: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        if resolved.peek().is_some() {
            for (target, target_input) in &self.target_inputs {
                for firing in &target_input.firing {
                    firing_at.entry(firing.key.clone()).or_default().push(target.clone());
                }
            }
        }
        // Ends in this notification that are not applied at any target.
        let mut strays: BTreeMap<AlertKey, Time> = BTreeMap::new();
        for (alert, is_heartbeat) in resolved {
            let key = alert_key(&self.input.source.name, &alert.fingerprint);
            // `notification` guarantees that a resolved alert has an end.
            let ends_at = alert.ends_at.unwrap_or(alert.starts_at);
            let last_resolve = self.states.last_resolve(&key);
            let stray = strays.get(&key).copied();
            let last_end = last_resolve.map(|last_resolve| last_resolve.ends_at).max(stray);
            let open = self.states.tracked_at(&key).chain(firing_at.get(&key).into_iter().flatten());
            let open = sorted_unique(open.cloned().collect::<Vec<_>>());
            if !open.is_empty() {
                for target in open {
                    let resolve = ResolvedAlert { key: key.clone(), ends_at, last_end };
                    self.target_inputs.entry(target).or_default().resolves.push(resolve);
                }
                continue;
            }
            let is_repeated = last_end.is_some_and(|last| ends_at <= last);
            let was_open = last_resolve.is_some_and(|last_resolve| last_resolve.was_open);
            let verdict = match (is_heartbeat, is_repeated || was_open) {
                (true, _) => Verdict::Heartbeat,
                (false, true) => Verdict::Duplicate,
                (false, false) => Verdict::NoEvidence,
            };
            self.targetless.add(None, verdict, None, key.clone());
            if !is_repeated {
                strays.insert(key.clone(), ends_at);
                let known_target = self.states.alerts.get(&key).and_then(|keys| keys.first()).cloned();
                let source = self.input.source.name.as_str();
                let stray = || TargetKey::for_stray_alert(source, &key.fingerprint);
                let until = self.context.now.after(self.context.policy.last_resolve_retention);
                self.strays.push((
                    known_target.unwrap_or_else(stray),
                    LastResolve { alert: key, ends_at, was_open, until },
                ));
            }
        }
    }

    fn decide(self) -> Step {
        let Self { context, input, states, target_inputs, strays, targetless } = self;
        let mut decisions = targetless.decisions;
        let mut changed: BTreeMap<TargetKey, TargetState> = BTreeMap::new();
        let state_of =
            |key: &TargetKey| states.targets.get(key).map(|state| (**state).clone()).unwrap_or_default();
        let mut step_context = StepContext::new(context);
        let mut target_inputs: Vec<_> = target_inputs.into_iter().collect();
        target_inputs.sort_by_key(|(key, _)| key.kind());
        for (key, target_input) in target_inputs {
            let mut state = state_of(&key);
            decisions.extend(occurrence::apply(&mut step_context, input, &key, &mut state, target_input));
            changed.insert(key, state);
        }
        for (key, last_resolve) in strays {
            let state = changed.entry(key).or_insert_with_key(state_of);
            occurrence::record_last_resolve(state, last_resolve);
        }
        let (controls, rates) = step_context.into_changes();
        Step {
            states: changed.into_iter().collect(),
            controls,
            rates,
            decisions,
            delivery_changes: Vec::new(),
        }
    }
}

/// Processes targets that are due, or whose deferred actions depend on controls that have changed: expires
/// occurrences, opens late firings whose window is over, rechecks deferred actions, and prunes retained ends.
/// Targets that do not change are not part of the step.
pub fn process_due(context: &Context<'_>, keys: &[TargetKey], states: &States) -> Step {
    let mut step_context = StepContext::new(context);
    let mut step = Step::default();
    let mut keys: Vec<&TargetKey> = keys.iter().collect();
    keys.sort_by_key(|key| (key.kind(), *key));
    for key in keys {
        let Some(before) = states.targets.get(key) else { continue };
        let is_due = before.due().is_some_and(|due| due <= context.now);
        if !is_due && !before.depends_on_controls() {
            continue;
        }
        let mut state = TargetState::clone(before);
        state.prune(context.now);
        let decisions = occurrence::expire(&mut step_context, key, &mut state);
        if state != **before {
            step.states.push((key.clone(), state));
        }
        step.decisions.extend(decisions);
    }
    (step.controls, step.rates) = step_context.into_changes();
    step
}

/// Decisions about alerts that are not routed to a target, one for each rule, verdict and detail.
#[derive(Default)]
struct TargetlessDecisions {
    decisions: Vec<Decision>,
    kinds: HashMap<(Option<Name>, Verdict, Option<String>), usize>,
}

impl TargetlessDecisions {
    fn add(&mut self, rule: Option<&Name>, verdict: Verdict, detail: Option<&str>, alert: AlertKey) {
        let kind = (rule.cloned(), verdict, detail.map(str::to_owned));
        let decisions = &mut self.decisions;
        let at = *self.kinds.entry(kind).or_insert_with_key(|(rule, verdict, detail)| {
            let (rule, detail) = (rule.clone(), detail.clone());
            decisions.push(Decision { rule, detail, ..Decision::new(*verdict, Vec::new()) });
            decisions.len() - 1
        });
        decisions[at].alerts.push(alert);
    }
}
