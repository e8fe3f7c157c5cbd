//! The engine: a pure state machine.
//!
//! `(states, controls, what arrived or came due, now) -> (new states, new controls, decisions)`. It never
//! reads a clock, never waits, and can be run again. [`notify`] takes one notification, [`come_due`] what
//! its own clock, or a change of the controls, asks to look at again. `serve` and tests use these same two
//! functions.
//!
//! The order of things: `notify` sends each alert to the targets that it concerns; `occurrence` opens
//! and closes occurrences; `episode` sees what that made of the rule's episode, and `aside` the same for
//! holds and heartbeats, which set the controls; `act` asks the guards of `guard` and emits, or keeps what
//! is stopped for a time, which `again` takes up.

mod act;
mod again;
mod aside;
mod desk;
mod emit;
mod episode;
mod guard;
mod input;
mod occurrence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::control::Controls;
use super::name::Name;
use super::notification::{Alert, Status};
use super::rate::{PerMinute, Rates};
use super::state::{AlertKey, Ended, TargetState};
use super::table::RuleTable;
use super::target::{KeyKind, TargetKey};
use super::time::Time;
use super::verdict::{Decision, Verdict};
use desk::Desk;
pub use input::{Beat, Input, Judged};
use occurrence::{Firing, Resolve, Turns};

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
    pub unsent: &'a BTreeMap<TargetKey, Vec<Unsent>>,
}

/// What holds for all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The end of an alert is remembered.
    pub keep_ended: Duration,
    /// That an episode ended because an alert of it expired is remembered.
    pub keep_lapsed: Duration,
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
pub struct Unsent {
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

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

fn key_of(source: &Name, fingerprint: &Arc<str>) -> AlertKey {
    AlertKey { source: source.clone(), fingerprint: fingerprint.clone() }
}

impl States {
    /// The last known end of an alert, on whichever target.
    fn ended(&self, alert: &AlertKey) -> Option<&Ended> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        let ends = keys.filter_map(|key| self.targets.get(key)?.ended(alert));
        ends.max_by_key(|ended| ended.ends_at)
    }

    /// Where an alert is open or late.
    fn known_at<'a, 'k>(&'a self, alert: &'k AlertKey) -> impl Iterator<Item = &'a TargetKey> + use<'a, 'k> {
        let keys = self.alerts.get(alert).into_iter().flatten();
        keys.filter(move |key| {
            self.targets.get(key).is_some_and(|state| state.rules.values().any(|rule| rule.knows(alert)))
        })
    }

    /// Whether a rule has this alert open there.
    fn is_open(&self, target: &TargetKey, rule: &Name, alert: &AlertKey) -> bool {
        let state = self.targets.get(target);
        state.and_then(|state| state.rules.get(rule)).is_some_and(|rule| rule.is_open(alert))
    }

    /// Where a rule has this alert open or late, if it has: at a target, or at a hold, or at a heartbeat,
    /// whichever `like` is.
    fn known_to<'a>(&'a self, rule: &Name, alert: &AlertKey, like: &TargetKey) -> Option<&'a TargetKey> {
        self.known_at(alert).filter(|key| key.kind() == like.kind()).find(|key| {
            let state = self.targets.get(*key);
            state.and_then(|state| state.rules.get(rule)).is_some_and(|rule| rule.knows(alert))
        })
    }
}

/// Decides one notification.
///
/// A firing alert goes to the targets that its rules name, except that a rule keeps an alert on the
/// target where it is already open. A resolved one goes to every target where it is open, whatever
/// the rules say by now. What sets the controls is decided first.
pub fn notify(context: &Context<'_>, input: &Input, states: &States, rates: &mut Rates) -> Step {
    let mut work = Routing::new(context, input, states);
    for judged in &input.alerts {
        match judged {
            Judged::Invalid(invalid) => {
                let key =
                    key_of(&input.source.name, &invalid.fingerprint.as_deref().unwrap_or_default().into());
                work.loose.add(None, Verdict::Invalid, Some(&invalid.error), key);
            }
            Judged::Firing(alert, judgement) => {
                let key = key_of(&input.source.name, &alert.fingerprint);
                if let Some(refused) = &judgement.refused {
                    let detail = refused.detail.as_deref();
                    work.loose.add(refused.rule.as_ref(), refused.verdict, detail, key.clone());
                }
                let last_end = states.ended(&key).map(|ended| ended.ends_at);
                for taken in &judgement.taken {
                    work.fires(Firing {
                        key: key.clone(),
                        alert,
                        rule: &context.rules.rules()[taken.rule].name,
                        subject: &taken.subject,
                        home: &taken.key,
                        parameters: &taken.parameters,
                        metric: taken.metric,
                        last_end,
                    });
                }
                work.is_heard(&key, alert, false);
            }
            Judged::Heartbeat(alert, beat) if alert.status == Status::Firing => {
                let key = key_of(&input.source.name, &alert.fingerprint);
                let last_end = states.ended(&key).map(|ended| ended.ends_at);
                work.fires(Firing {
                    key: key.clone(),
                    alert,
                    rule: &beat.rule,
                    subject: &beat.subject,
                    home: &beat.key,
                    parameters: &NO_PARAMETERS,
                    metric: None,
                    last_end,
                });
                work.is_heard(&key, alert, true);
            }
            Judged::Resolved(_) | Judged::Heartbeat(..) => {}
        }
    }
    work.resolve();
    work.decide(rates)
}

static NO_PARAMETERS: BTreeMap<String, String> = BTreeMap::new();

/// Sends the alerts of a notification to the targets that they concern.
struct Routing<'a> {
    context: &'a Context<'a>,
    input: &'a Input,
    states: &'a States,
    turns: BTreeMap<TargetKey, Turns<'a>>,
    /// Ends of alerts that are not open anywhere.
    strays: Vec<(TargetKey, Ended)>,
    loose: Loose,
}

impl<'a> Routing<'a> {
    fn new(context: &'a Context<'a>, input: &'a Input, states: &'a States) -> Self {
        Self { context, input, states, turns: BTreeMap::new(), strays: Vec::new(), loose: Loose::default() }
    }

    fn fires(&mut self, firing: Firing<'a>) {
        let known = self.states.known_to(firing.rule, &firing.key, firing.home);
        let anew = firing.last_end.is_none_or(|end| firing.alert.starts_at > end);
        let target = match known.filter(|known| *known != firing.home) {
            // It began after the end that makes a copy late, so it is no copy of that.
            Some(known) if anew && !self.states.is_open(known, firing.rule, &firing.key) => {
                let outdated = (firing.rule.clone(), firing.key.clone());
                self.turns.entry(known.clone()).or_default().outdated.push(outdated);
                firing.home
            }
            known => known.unwrap_or(firing.home),
        };
        self.turns.entry(target.clone()).or_default().firing.push(firing);
    }

    /// Also where no rule takes it any more: it fires, so it does not expire. Only the heartbeat of a source
    /// is never kept open by what is not its heartbeat any more.
    fn is_heard(&mut self, key: &AlertKey, alert: &Alert, is_heartbeat: bool) {
        for target in self.states.known_at(key) {
            let turns = self.turns.entry(target.clone()).or_default();
            if !is_heartbeat && target.kind() == KeyKind::Heartbeat {
                turns.outdated.push((Name::heartbeat(), key.clone()));
            } else {
                turns.heard.push((key.clone(), alert.starts_at));
            }
        }
    }

    fn resolve(&mut self) {
        let resolved = self.input.alerts.iter().filter_map(|judged| match judged {
            Judged::Resolved(alert) => Some((alert, false)),
            Judged::Heartbeat(alert, _) if alert.status == Status::Resolved => Some((alert, true)),
            _ => None,
        });
        let mut resolved = resolved.peekable();
        // Where an alert fires in this very notification, it can resolve in it.
        let mut fires: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        if resolved.peek().is_some() {
            for (target, turns) in &self.turns {
                for firing in &turns.firing {
                    fires.entry(firing.key.clone()).or_default().push(target.clone());
                }
            }
        }
        // Ends of this notification that no target has applied.
        let mut strays: BTreeMap<AlertKey, Time> = BTreeMap::new();
        for (alert, is_heartbeat) in resolved {
            let key = key_of(&self.input.source.name, &alert.fingerprint);
            // A resolved alert has its end, `notification` sees to that.
            let ends_at = alert.ends_at.unwrap_or(alert.starts_at);
            let ended = self.states.ended(&key);
            let stray = strays.get(&key).copied();
            let last_end = ended.map(|ended| ended.ends_at).max(stray);
            let open = self.states.known_at(&key).chain(fires.get(&key).into_iter().flatten());
            let open = sorted(open.cloned().collect::<Vec<_>>());
            if !open.is_empty() {
                for target in open {
                    let resolve = Resolve { key: key.clone(), ends_at, last_end };
                    self.turns.entry(target).or_default().resolves.push(resolve);
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
            self.loose.add(None, verdict, None, key.clone());
            if !again {
                strays.insert(key.clone(), ends_at);
                let home = self.states.alerts.get(&key).and_then(|keys| keys.first()).cloned();
                let source = self.input.source.name.as_str();
                let stray = || TargetKey::of_stray_alert(source, &key.fingerprint);
                let until = self.context.now.after(self.context.policy.keep_ended);
                self.strays
                    .push((home.unwrap_or_else(stray), Ended { alert: key, ends_at, was_open, until }));
            }
        }
    }

    fn decide(self, rates: &mut Rates) -> Step {
        let Self { context, input, states, turns, strays, loose } = self;
        let mut decisions = loose.decisions;
        let mut changed: BTreeMap<TargetKey, TargetState> = BTreeMap::new();
        let state_of =
            |key: &TargetKey| states.targets.get(key).map(|state| (**state).clone()).unwrap_or_default();
        let mut desk = Desk::new(context, rates);
        let mut turns: Vec<_> = turns.into_iter().collect();
        turns.sort_by_key(|(key, _)| key.kind());
        for (key, turns) in turns {
            let mut state = state_of(&key);
            decisions.extend(occurrence::apply(&mut desk, input, &key, &mut state, turns));
            changed.insert(key, state);
        }
        for (key, ended) in strays {
            let state = changed.entry(key).or_insert_with_key(state_of);
            occurrence::remember_end(state, ended);
        }
        Step { states: changed.into_iter().collect(), controls: desk.changed(), decisions }
    }
}

/// Decides what has come due at targets, or may be free by a change of the controls: occurrences that
/// nobody speaks of any more, late ones whose window is over, actions that a guard has stopped, ends that
/// need not be remembered. What has nothing to decide is not in the step.
pub fn come_due(context: &Context<'_>, keys: &[TargetKey], states: &States, rates: &mut Rates) -> Step {
    let mut desk = Desk::new(context, rates);
    let mut step = Step::default();
    let mut keys: Vec<&TargetKey> = keys.iter().collect();
    keys.sort_by_key(|key| (key.kind(), *key));
    for key in keys {
        let Some(before) = states.targets.get(key) else { continue };
        let is_due = before.due().is_some_and(|due| due <= context.now);
        if !is_due && !before.watches() {
            continue;
        }
        let mut state = TargetState::clone(before);
        state.forget(context.now);
        let decisions = occurrence::expire(&mut desk, key, &mut state);
        if state != **before {
            step.states.push((key.clone(), state));
        }
        step.decisions.extend(decisions);
    }
    step.controls = desk.changed();
    step
}

/// Decisions about alerts that come to no target, those of one kind together.
#[derive(Default)]
struct Loose {
    decisions: Vec<Decision>,
    kinds: HashMap<(Option<Name>, Verdict, Option<String>), usize>,
}

impl Loose {
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
