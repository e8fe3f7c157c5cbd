//! The engine: a pure state machine.
//!
//! `(states, controls, what arrived or came due, now) -> (new states, new controls, decisions)`. It never
//! reads a clock, never waits, and can be run again. [`process_notification`] takes one notification, [`process_due`] what
//! its own clock, or a change of the controls, asks to look at again. `serve` and tests use these same two
//! functions.
//!
//! The order of things: `notify` sends each alert to the targets that it concerns; `occurrence` opens
//! and closes occurrences; `episode` sees what that made of the rule's episode, and `aside` the same for
//! holds and heartbeats, which set the controls; `act` asks the guards of `guard` and emits, or keeps what
//! is stopped for a time, which `again` takes up.

mod act;
mod control_episode;
mod deferred;
mod emit;
mod episode;
mod guard;
mod input;
mod occurrence;
mod step;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::alert_key::AlertKey;
use super::control::Controls;
use super::name::Name;
use super::notification::{Alert, Status};
use super::rate::{PerMinute, Rates};
use super::state::{LastResolve, TargetState};
use super::table::RuleTable;
use super::target::{KeyKind, TargetKey};
use super::time::Time;
use super::verdict::{Decision, Verdict};
pub use input::{EvaluatedAlert, HeartbeatAlert, Input};
use occurrence::{FiringAlert, ResolvedAlert, TargetInput};
use step::StepContext;

/// What every decision reads.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The rules.
    pub rules: &'a RuleTable,
    /// The store's time.
    pub now: Time,
    /// When the store was created: what began before is adopted.
    pub created: Time,
    /// What holds for all rules.
    pub policy: Policy,
    /// What stops actions whatever target they are about.
    pub controls: &'a Controls,
    /// The sources that have a heartbeat.
    pub with_heartbeat: &'a BTreeSet<Name>,
    /// What may still be cancelled, for each target.
    pub undelivered_decreases: &'a BTreeMap<TargetKey, Vec<UndeliveredDecrease>>,
}

/// What holds for all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The end of an alert is remembered.
    pub last_resolve_retention: Duration,
    /// That an episode ended because an alert of it expired is remembered.
    pub expired_episode_retention: Duration,
    /// Guards may keep what takes capacity away, beside its own stabilization window.
    pub max_deferral: Duration,
    /// What one process may emit.
    pub per_minute: PerMinute,
}

/// The states that a decision sees.
#[derive(Debug, Clone, Default)]
pub struct States {
    /// Of every wanted target that is known.
    pub targets: BTreeMap<TargetKey, Arc<TargetState>>,
    /// For every wanted alert that is known, the targets that know it.
    pub alerts: BTreeMap<AlertKey, Vec<TargetKey>>,
}

/// An event that may make capacity less and that was not sent yet to all its destinations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UndeliveredDecrease {
    /// Its id.
    pub id: String,
    /// Its rule.
    pub rule: Name,
    /// The alerts that it is about.
    pub alerts: Vec<AlertKey>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// States that are new or changed.
    pub states: Vec<(TargetKey, TargetState)>,
    /// The controls, if they have changed.
    pub controls: Option<Controls>,
    /// What was decided.
    pub decisions: Vec<Decision>,
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
    /// The last known end of an alert, on whichever target.
    fn last_resolve(&self, alert: &AlertKey) -> Option<&LastResolve> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        let ends = keys.filter_map(|key| self.targets.get(key)?.last_resolve(alert));
        ends.max_by_key(|ended| ended.ends_at)
    }

    /// Where an alert is open or late.
    fn tracked_at<'a, 'k>(
        &'a self,
        alert: &'k AlertKey,
    ) -> impl Iterator<Item = &'a TargetKey> + use<'a, 'k> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        keys.filter(move |key| {
            self.targets.get(key).is_some_and(|state| state.rules.values().any(|rule| rule.is_tracked(alert)))
        })
    }

    /// Whether a rule has this alert open there.
    fn is_open(&self, target: &TargetKey, rule: &Name, alert: &AlertKey) -> bool {
        let state = self.targets.get(target);
        state.and_then(|state| state.rules.get(rule)).is_some_and(|rule| rule.is_open(alert))
    }

    /// Where a rule has this alert open or late, if it has: at a target, or at a hold, or at a heartbeat,
    /// whichever `like` is.
    fn tracked_for_rule<'a>(
        &'a self,
        rule: &Name,
        alert: &AlertKey,
        like: &TargetKey,
    ) -> Option<&'a TargetKey> {
        self.tracked_at(alert).filter(|key| key.kind() == like.kind()).find(|key| {
            let state = self.targets.get(*key);
            state.and_then(|state| state.rules.get(rule)).is_some_and(|rule| rule.is_tracked(alert))
        })
    }
}

/// Decides one notification.
///
/// A firing alert goes to the targets that its rules name, except that a rule keeps an alert on the
/// target where it is already open. A resolved one goes to every target where it is open, whatever
/// the rules say by now. What sets the controls is decided first.
pub fn process_notification(
    context: &Context<'_>,
    input: &Input,
    states: &States,
    rates: &mut Rates,
) -> Step {
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
                let last_end = states.last_resolve(&key).map(|ended| ended.ends_at);
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
                let last_end = states.last_resolve(&key).map(|ended| ended.ends_at);
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
    routing.decide(rates)
}

static NO_PARAMETERS: BTreeMap<String, String> = BTreeMap::new();

/// Sends the alerts of a notification to the targets that they concern.
struct Routing<'a> {
    context: &'a Context<'a>,
    input: &'a Input,
    states: &'a States,
    target_inputs: BTreeMap<TargetKey, TargetInput<'a>>,
    /// Ends of alerts that are not open anywhere.
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
            // It began after the end that makes a copy late, so it is no copy of that.
            Some(known) if is_new && !self.states.is_open(known, firing.rule, &firing.key) => {
                let outdated = (firing.rule.clone(), firing.key.clone());
                self.target_inputs.entry(known.clone()).or_default().outdated.push(outdated);
                firing.rule_target
            }
            known => known.unwrap_or(firing.rule_target),
        };
        self.target_inputs.entry(target.clone()).or_default().firing.push(firing);
    }

    /// Also where no rule takes it any more: it fires, so it does not expire. Only the heartbeat of a source
    /// is never kept open by what is not its heartbeat any more.
    fn mark_heard(&mut self, key: &AlertKey, alert: &Alert, is_heartbeat: bool) {
        for target in self.states.tracked_at(key) {
            let target_inputs = self.target_inputs.entry(target.clone()).or_default();
            if !is_heartbeat && target.kind() == KeyKind::Heartbeat {
                target_inputs.outdated.push((Name::for_heartbeat(), key.clone()));
            } else {
                target_inputs.heard.push((key.clone(), alert.starts_at));
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
        // Where an alert fires in this very notification, it can resolve in it.
        let mut fires: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        if resolved.peek().is_some() {
            for (target, target_inputs) in &self.target_inputs {
                for firing in &target_inputs.firing {
                    fires.entry(firing.key.clone()).or_default().push(target.clone());
                }
            }
        }
        // Ends of this notification that no target has applied.
        let mut strays: BTreeMap<AlertKey, Time> = BTreeMap::new();
        for (alert, is_heartbeat) in resolved {
            let key = alert_key(&self.input.source.name, &alert.fingerprint);
            // A resolved alert has its end, `notification` sees to that.
            let ends_at = alert.ends_at.unwrap_or(alert.starts_at);
            let ended = self.states.last_resolve(&key);
            let stray = strays.get(&key).copied();
            let last_end = ended.map(|ended| ended.ends_at).max(stray);
            let open = self.states.tracked_at(&key).chain(fires.get(&key).into_iter().flatten());
            let open = sorted_unique(open.cloned().collect::<Vec<_>>());
            if !open.is_empty() {
                for target in open {
                    let resolve = ResolvedAlert { key: key.clone(), ends_at, last_end };
                    self.target_inputs.entry(target).or_default().resolves.push(resolve);
                }
                continue;
            }
            let again = last_end.is_some_and(|last| ends_at <= last);
            let was_open = ended.is_some_and(|ended| ended.was_open);
            let verdict = match (is_heartbeat, again || was_open) {
                (true, _) => Verdict::Heartbeat,
                (false, true) => Verdict::Duplicate,
                (false, false) => Verdict::NoEvidence,
            };
            self.targetless.add(None, verdict, None, key.clone());
            if !again {
                strays.insert(key.clone(), ends_at);
                let home = self.states.alerts.get(&key).and_then(|keys| keys.first()).cloned();
                let source = self.input.source.name.as_str();
                let stray = || TargetKey::for_stray_alert(source, &key.fingerprint);
                let until = self.context.now.after(self.context.policy.last_resolve_retention);
                self.strays
                    .push((home.unwrap_or_else(stray), LastResolve { alert: key, ends_at, was_open, until }));
            }
        }
    }

    fn decide(self, rates: &mut Rates) -> Step {
        let Self { context, input, states, target_inputs, strays, targetless } = self;
        let mut decisions = targetless.decisions;
        let mut changed: BTreeMap<TargetKey, TargetState> = BTreeMap::new();
        let state_of =
            |key: &TargetKey| states.targets.get(key).map(|state| (**state).clone()).unwrap_or_default();
        let mut step_context = StepContext::new(context, rates);
        let mut target_inputs: Vec<_> = target_inputs.into_iter().collect();
        target_inputs.sort_by_key(|(key, _)| key.kind());
        for (key, target_inputs) in target_inputs {
            let mut state = state_of(&key);
            decisions.extend(occurrence::apply(&mut step_context, input, &key, &mut state, target_inputs));
            changed.insert(key, state);
        }
        for (key, ended) in strays {
            let state = changed.entry(key).or_insert_with_key(state_of);
            occurrence::remember_end(state, ended);
        }
        Step { states: changed.into_iter().collect(), controls: step_context.changed_controls(), decisions }
    }
}

/// Decides what has come due at targets, or may be free by a change of the controls: occurrences that
/// nobody speaks of any more, late ones whose window is over, actions that a guard has stopped, ends that
/// need not be remembered. What has nothing to decide is not in the step.
pub fn process_due(context: &Context<'_>, keys: &[TargetKey], states: &States, rates: &mut Rates) -> Step {
    let mut step_context = StepContext::new(context, rates);
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
    step.controls = step_context.changed_controls();
    step
}

/// Decisions about alerts that come to no target, those of one kind together.
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
