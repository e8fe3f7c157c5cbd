//! Routes the alerts of a notification to the targets that they concern.

use std::collections::{BTreeMap, HashMap};

use super::delta::{RuleId, UnreadableHold};
use super::end::{ResolvedAlert, absence_detail};
use super::input::{EvaluatedAlert, HeartbeatAlert, Input};
use super::occurrence::{self, FiringAlert, HeardAlert, HeardValidity, TargetInput};
use super::step::StepContext;
use super::{Context, States, Step, alert_key, sorted_unique};
use crate::domain::alert_key::AlertKey;
use crate::domain::name::Name;
use crate::domain::notification::{Alert, InvalidAlert, Status};
use crate::domain::rule::Mode;
use crate::domain::state::{InvalidFiring, LastResolve, TargetState};
use crate::domain::table::{Evaluation, NotMatched};
use crate::domain::target::{KeyKind, TargetKey};
use crate::domain::time::Time;
use crate::domain::verdict::{Decision, Verdict};

/// A queue has delivered the firing after the resolve.
const SENT_BEFORE_END: &str = "it was sent before the end of the alert that was received";

static NO_PARAMETERS: BTreeMap<String, String> = BTreeMap::new();

/// Processes one notification.
///
/// A firing alert is routed to the targets that its rules name; if it is already open for a rule at another
/// target, it stays there. A resolved alert is routed to every target at which it is open, whatever the rules
/// are now. Holds and heartbeats are processed before targets.
pub fn process_notification(context: &Context<'_>, input: &Input, states: &States) -> Step {
    let mut routing = Routing::new(context, input, states);
    for evaluated in &input.alerts {
        match evaluated {
            EvaluatedAlert::Invalid(invalid) => routing.route_invalid(invalid),
            EvaluatedAlert::Firing(alert, evaluation) => routing.route_evaluated(alert, evaluation),
            EvaluatedAlert::Heartbeat(alert, heartbeat) if alert.status == Status::Firing => {
                routing.route_heartbeat(alert, heartbeat);
            }
            EvaluatedAlert::Resolved(_) | EvaluatedAlert::Heartbeat(..) => {}
        }
    }
    routing.route_resolved();
    routing.decide()
}

impl States {
    /// The latest known end of an alert over all targets.
    fn last_resolve(&self, alert: &AlertKey) -> Option<&LastResolve> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        let ends = keys.filter_map(|key| self.targets.get(key)?.last_resolve(alert));
        ends.max_by_key(|last_resolve| last_resolve.ends_at)
    }

    /// The targets that know an alert: where it is open, late or invalid, or was closed.
    fn known_at(&self, alert: &AlertKey) -> impl Iterator<Item = (&TargetKey, &TargetState)> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        keys.filter_map(|key| Some((key, &**self.targets.get(key)?)))
    }

    /// The targets at which an alert has an unreadable firing for which `ends` is true.
    fn unreadable_at(
        &self,
        alert: &AlertKey,
        ends: impl Fn(&InvalidFiring) -> bool,
    ) -> impl Iterator<Item = &TargetKey> {
        let is_ended = move |state: &TargetState| {
            let of_holds = state.rules.values().filter_map(|rule| rule.unreadable.get(alert));
            state.invalid.get(alert).into_iter().chain(of_holds).any(&ends)
        };
        self.known_at(alert).filter(move |(_, state)| is_ended(state)).map(|(target, _)| target)
    }

    /// The targets at which an alert is open or late.
    fn tracked_at(&self, alert: &AlertKey) -> impl Iterator<Item = &TargetKey> {
        let tracks = move |state: &TargetState| state.all_rules().any(|(_, rule)| rule.is_tracked(alert));
        self.known_at(alert).filter(move |(_, state)| tracks(state)).map(|(key, _)| key)
    }

    /// Whether an alert is open in the rule's episode at a target.
    fn is_open(&self, target: &TargetKey, rule: &RuleId, alert: &AlertKey) -> bool {
        let state = self.targets.get(target).and_then(|state| rule.state(state));
        state.is_some_and(|rule| rule.is_open(alert))
    }

    /// The key at which an alert is open or late for a rule. Only keys of the same kind as `same_kind`
    /// (target, hold or heartbeat) are considered.
    fn tracked_for_rule(&self, rule: &RuleId, alert: &AlertKey, same_kind: &TargetKey) -> Option<&TargetKey> {
        let tracks = |state: &TargetState| rule.state(state).is_some_and(|rule| rule.is_tracked(alert));
        let same_kind = self.known_at(alert).filter(|(key, _)| key.kind() == same_kind.kind());
        same_kind.filter(|(_, state)| tracks(state)).map(|(key, _)| key).next()
    }
}

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

    /// An alert that cannot be parsed. Unless it says that it has resolved, it may fire.
    fn route_invalid(&mut self, invalid: &InvalidAlert) {
        let fingerprint = invalid.fingerprint.as_deref().unwrap_or_default();
        let key = alert_key(&self.input.source.name, &fingerprint.into());
        self.targetless.add(None, Verdict::Invalid, Some(&invalid.error), key.clone());
        if invalid.fingerprint.is_none() || invalid.status == Some(Status::Resolved) {
            return;
        }
        if self.input.is_outdated(invalid.starts_at, self.last_end(&key)) {
            return;
        }
        self.mark_unreadable(&key, invalid.starts_at);
        // A start that cannot be read is not after any other.
        let starts_at = invalid.starts_at.unwrap_or(Time::from_nanos(0));
        self.mark_heard(HeardAlert { key, starts_at, validity: HeardValidity::Unreadable }, None);
    }

    /// The last end of an alert that was applied.
    fn last_end(&self, key: &AlertKey) -> Option<Time> {
        self.states.last_resolve(key).map(|last_resolve| last_resolve.ends_at)
    }

    /// A firing alert with the rules that match it.
    fn route_evaluated(&mut self, alert: &'a Alert, evaluation: &'a Evaluation) {
        let key = alert_key(&self.input.source.name, &alert.fingerprint);
        for NotMatched { rule, verdict, detail } in
            evaluation.not_matched.iter().chain(&evaluation.unreadable_by_shadows)
        {
            self.targetless.add(rule.as_ref(), *verdict, detail.as_deref(), key.clone());
        }
        let last_end = self.last_end(&key);
        if self.input.is_outdated(Some(alert.starts_at), last_end) {
            for matched in &evaluation.matches {
                let rule = &self.context.rules.rules()[matched.rule_index].name;
                self.targetless.add(Some(rule), Verdict::Stale, Some(SENT_BEFORE_END), key.clone());
            }
            return;
        }
        for matched in &evaluation.matches {
            let rule = &self.context.rules.rules()[matched.rule_index];
            self.route_firing(FiringAlert {
                key: key.clone(),
                alert,
                rule: RuleId { is_shadow: rule.mode == Mode::Shadow, name: rule.name.clone() },
                scope: &matched.scope,
                rule_target: &matched.key,
                parameters: &matched.parameters,
                metric: matched.metric,
                last_end,
            });
        }
        let validity = HeardValidity::Until(alert.valid_until);
        self.mark_heard(HeardAlert { key: key.clone(), starts_at: alert.starts_at, validity }, None);
        if evaluation.not_matched.as_ref().is_some_and(|not_matched| not_matched.verdict == Verdict::Invalid)
        {
            self.mark_unreadable(&key, Some(alert.starts_at));
        } else {
            self.mark_readable(&key, |_| true);
        }
        for unreadable in &evaluation.unreadable {
            let target_input = self.target_inputs.entry(unreadable.key.clone()).or_default();
            match unreadable.key.kind() {
                KeyKind::Target => target_input.unreadable.push((key.clone(), Some(alert.starts_at))),
                KeyKind::Hold => {
                    let rule = self.context.rules.rules()[unreadable.rule_index].name.clone();
                    let starts_at = Some(alert.starts_at);
                    let alert = key.clone();
                    target_input.unreadable_holds.push(UnreadableHold { alert, starts_at, rule });
                }
                KeyKind::Heartbeat => {}
            }
        }
    }

    fn route_heartbeat(&mut self, alert: &'a Alert, heartbeat: &'a HeartbeatAlert) {
        let key = alert_key(&self.input.source.name, &alert.fingerprint);
        let last_end = self.last_end(&key);
        if self.input.is_outdated(Some(alert.starts_at), last_end) {
            return self.targetless.add(None, Verdict::Heartbeat, Some(SENT_BEFORE_END), key);
        }
        self.route_firing(FiringAlert {
            key: key.clone(),
            alert,
            rule: RuleId { is_shadow: false, name: heartbeat.rule.clone() },
            scope: &heartbeat.scope,
            rule_target: &heartbeat.key,
            parameters: &NO_PARAMETERS,
            metric: None,
            last_end,
        });
        let validity = HeardValidity::Until(alert.valid_until);
        let heard = HeardAlert { key: key.clone(), starts_at: alert.starts_at, validity };
        self.mark_heard(heard, Some(&heartbeat.key));
        self.mark_readable(&key, |_| true);
    }

    fn route_firing(&mut self, firing: FiringAlert<'a>) {
        let known = self.states.tracked_for_rule(&firing.rule, &firing.key, firing.rule_target);
        let is_new = firing.last_end.is_none_or(|end| firing.alert.starts_at > end);
        let target = match known.filter(|known| *known != firing.rule_target) {
            // It started after the last known end, so it is a new occurrence and not a copy of the late one.
            Some(known) if is_new && !self.states.is_open(known, &firing.rule, &firing.key) => {
                let outdated = (firing.rule.clone(), firing.key.clone());
                self.target_inputs.entry(known.clone()).or_default().outdated.push(outdated);
                firing.rule_target
            }
            known => known.unwrap_or(firing.rule_target),
        };
        self.target_inputs.entry(target.clone()).or_default().firing.push(firing);
    }

    /// Refreshes a firing alert wherever it is open, also where no rule matches it any more: it fires, so it
    /// does not expire. The exception is a heartbeat: an alert that is not `heartbeat` any more does not keep it open.
    fn mark_heard(&mut self, heard: HeardAlert, heartbeat: Option<&TargetKey>) {
        let HeardAlert { key, starts_at, validity } = heard;
        for target in self.states.tracked_at(&key) {
            let target_input = self.target_inputs.entry(target.clone()).or_default();
            if target.kind() == KeyKind::Heartbeat && heartbeat != Some(target) {
                let rule = RuleId { is_shadow: false, name: Name::for_heartbeat() };
                target_input.outdated.push((rule, key.clone()));
            } else {
                target_input.heard.push(HeardAlert { key: key.clone(), starts_at, validity });
            }
        }
    }

    /// An alert fires and cannot be read: nothing is decreased on the targets that know it.
    fn mark_unreadable(&mut self, key: &AlertKey, starts_at: Option<Time>) {
        for (target, _) in self.states.known_at(key).filter(|(target, _)| target.kind() == KeyKind::Target) {
            self.target_inputs.entry(target.clone()).or_default().unreadable.push((key.clone(), starts_at));
        }
    }

    /// An alert can be read again, or has resolved: ends its unreadable firings for which `ends` is true.
    fn mark_readable(&mut self, key: &AlertKey, ends: impl Fn(&InvalidFiring) -> bool) {
        for target in self.states.unreadable_at(key, ends) {
            self.target_inputs.entry(target.clone()).or_default().readable.push(key.clone());
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
            // A copy of an earlier end is not that of a firing that began after it.
            let ends = |invalid: &InvalidFiring| match invalid.starts_at {
                Some(starts_at) => ends_at >= starts_at,
                None => last_end.is_none_or(|last| ends_at > last),
            };
            let absence = alert.absence.clone();
            for target in self.states.unreadable_at(&key, ends) {
                let target_input = self.target_inputs.entry(target.clone()).or_default();
                let ended =
                    if absence.is_some() { &mut target_input.gone } else { &mut target_input.readable };
                ended.push(key.clone());
            }
            let open = self.states.tracked_at(&key).chain(firing_at.get(&key).into_iter().flatten());
            let open = sorted_unique(open.cloned().collect::<Vec<_>>());
            if !open.is_empty() {
                for target in open {
                    let absence = absence.clone();
                    let resolve = ResolvedAlert { key: key.clone(), ends_at, last_end, absence };
                    self.target_inputs.entry(target).or_default().resolves.push(resolve);
                }
                continue;
            }
            let is_repeated = last_end.is_some_and(|last| ends_at <= last);
            let was_open = last_resolve.is_some_and(|last_resolve| last_resolve.was_open);
            let verdict = match (is_heartbeat, is_repeated || was_open) {
                (true, _) => Verdict::Heartbeat,
                (false, true) => Verdict::Duplicate,
                (false, false) if absence.is_some() => Verdict::NoAction,
                (false, false) => Verdict::NoEvidence,
            };
            let detail = absence.as_deref().map(absence_detail);
            self.targetless.add(None, verdict, detail.as_deref(), key.clone());
            if !is_repeated {
                strays.insert(key.clone(), ends_at);
                let until = self.retained_until();
                self.add_stray(LastResolve { alert: key, ends_at, was_open, closed_at: None, until });
            }
        }
    }

    fn retained_until(&self) -> Time {
        self.context.now.after(self.context.policy.last_resolve_retention)
    }

    /// Stores an end at a target that knows the alert, or under a key of its own.
    fn add_stray(&mut self, stray: LastResolve) {
        let known_target = self.states.alerts.get(&stray.alert).and_then(|keys| keys.first()).cloned();
        let source = self.input.source.name.as_str();
        let own_key = || TargetKey::for_stray_alert(source, &stray.alert.fingerprint);
        self.strays.push((known_target.unwrap_or_else(own_key), stray));
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
        let (controls, rates, delivery_changes) = step_context.into_changes();
        Step { states: changed.into_iter().collect(), controls, rates, decisions, delivery_changes }
    }
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
