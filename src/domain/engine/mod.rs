//! The engine: a pure state machine.
//!
//! `(states, what arrived or came due, now) -> (new states, decisions)`. It never reads a clock, never
//! waits, and can be run again. [`notify`] takes one notification, [`come_due`] what its own clock asks
//! to look at again. `serve` and tests use these same two functions.
//!
//! The order of things: `notify` sends each alert to the targets that it concerns; `occurrence` opens
//! and closes occurrences; `episode` sees what that made of the rule's episode; `act` asks the guards and
//! emits, or keeps what is stopped for a time.

mod act;
mod emit;
mod episode;
mod occurrence;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::name::Name;
use super::notification::{Alert, InvalidAlert, Status};
use super::source::Source;
use super::state::{AlertKey, Cause, Ended, TargetState};
use super::table::{Judgement, RuleTable};
use super::target::TargetKey;
use super::time::Time;
use super::verdict::{Decision, Verdict};
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
    /// How long things are kept.
    pub policy: Policy,
}

/// How long the engine keeps things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The end of an alert is remembered.
    pub keep_ended: Duration,
    /// Guards may keep what takes capacity away, beside its own stabilization window.
    pub max_deferral: Duration,
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

/// One notification, each alert already judged by the rules.
#[derive(Debug, Clone)]
pub struct Input {
    /// Who sent it.
    pub source: Arc<Source>,
    /// What it says about itself.
    pub cause: Cause,
    /// Whether `max_alerts` left out alerts.
    pub truncated: bool,
    /// Its alerts in the order of the body.
    pub alerts: Vec<Judged>,
}

/// An alert and what the rules say.
#[derive(Debug, Clone)]
pub enum Judged {
    /// It fires.
    Firing(Alert, Judgement),
    /// It is over. Rules are not asked.
    Resolved(Alert),
    /// It cannot be understood.
    Invalid(InvalidAlert),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Step {
    /// States that are new or changed.
    pub states: Vec<(TargetKey, TargetState)>,
    /// What was decided.
    pub decisions: Vec<Decision>,
}

impl Judged {
    /// Judges an alert of `source`: the source's labels are laid over the alert's own, then the rules
    /// see it if it fires.
    pub fn new(rules: &RuleTable, source: &Source, alert: Result<Alert, InvalidAlert>) -> Self {
        match alert {
            Err(invalid) => Self::Invalid(invalid),
            Ok(mut alert) => {
                let labels = Arc::make_mut(&mut alert.labels);
                source.labels.iter().for_each(|(name, value)| labels.set(name, value));
                match alert.status {
                    Status::Resolved => Self::Resolved(alert),
                    Status::Firing => {
                        let judgement = rules.judge(source, &alert);
                        Self::Firing(alert, judgement)
                    }
                }
            }
        }
    }

    /// Who it is, as far as it can be understood.
    pub fn key(&self, source: &Name) -> Option<AlertKey> {
        match self {
            Self::Firing(alert, _) | Self::Resolved(alert) => Some(key_of(source, &alert.fingerprint)),
            Self::Invalid(_) => None,
        }
    }

    /// The targets that rules send it to.
    pub fn targets(&self) -> impl Iterator<Item = &TargetKey> {
        let taken = match self {
            Self::Firing(_, judgement) => judgement.taken.as_slice(),
            _ => &[],
        };
        taken.iter().map(|taken| &taken.key)
    }
}

impl Input {
    /// The alerts that [`States::alerts`] has to tell of, each once.
    pub fn alert_keys(&self) -> Vec<AlertKey> {
        sorted(self.alerts.iter().filter_map(|alert| alert.key(&self.source.name)).collect())
    }

    /// The targets that [`States::targets`] has to tell of, beside those that know an alert; each once.
    pub fn target_keys(&self) -> Vec<TargetKey> {
        sorted(self.alerts.iter().flat_map(Judged::targets).cloned().collect())
    }
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

fn key_of(source: &Name, fingerprint: &str) -> AlertKey {
    AlertKey { source: source.clone(), fingerprint: fingerprint.into() }
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

    /// Where a rule has this alert open or late, if it has.
    fn known_to<'a>(&'a self, rule: &Name, alert: &AlertKey) -> Option<&'a TargetKey> {
        self.known_at(alert).find(|key| {
            let state = self.targets.get(*key);
            state.and_then(|state| state.rules.get(rule)).is_some_and(|rule| rule.knows(alert))
        })
    }
}

/// Decides one notification.
///
/// A firing alert goes to the targets that its rules name, except that a rule keeps an alert on the
/// target where it is already open. A resolved one goes to every target where it is open, whatever
/// the rules say by now.
pub fn notify(context: &Context<'_>, input: &Input, states: &States) -> Step {
    let mut aside = Aside::default();
    let mut turns: BTreeMap<TargetKey, Turns<'_>> = BTreeMap::new();
    let mut strays: Vec<(TargetKey, Ended)> = Vec::new();
    for judged in &input.alerts {
        match judged {
            Judged::Invalid(invalid) => {
                let key = key_of(&input.source.name, invalid.fingerprint.as_deref().unwrap_or_default());
                aside.add(None, Verdict::Invalid, Some(&invalid.error), key);
            }
            Judged::Firing(alert, judgement) => {
                let key = key_of(&input.source.name, &alert.fingerprint);
                if let Some(refused) = &judgement.refused {
                    let detail = refused.detail.as_deref();
                    aside.add(refused.rule.as_ref(), refused.verdict, detail, key.clone());
                }
                let last_end = states.ended(&key).map(|ended| ended.ends_at);
                for taken in &judgement.taken {
                    let rule = &context.rules.rules()[taken.rule];
                    let known = states.known_to(&rule.name, &key).filter(|known| **known != taken.key);
                    let anew = last_end.is_none_or(|end| alert.starts_at > end);
                    let target = match known {
                        // It began after the end that makes a copy late, so it is no copy of that.
                        Some(known) if anew && !states.is_open(known, &rule.name, &key) => {
                            let outdated = (rule.name.clone(), key.clone());
                            turns.entry(known.clone()).or_default().outdated.push(outdated);
                            &taken.key
                        }
                        known => known.unwrap_or(&taken.key),
                    };
                    let firing = Firing { key: key.clone(), alert, rule, taken, last_end };
                    turns.entry(target.clone()).or_default().firing.push(firing);
                }
                for target in states.known_at(&key) {
                    // Also where no rule takes it any more: it fires, so it does not expire.
                    turns.entry(target.clone()).or_default().heard.push((key.clone(), alert.starts_at));
                }
            }
            Judged::Resolved(_) => {}
        }
    }
    let resolved = input.alerts.iter().filter_map(|judged| match judged {
        Judged::Resolved(alert) => Some(alert),
        _ => None,
    });
    let mut resolved = resolved.peekable();
    // Where an alert fires in this very notification, it can resolve in it.
    let mut fires: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
    if resolved.peek().is_some() {
        for (target, turns) in &turns {
            for firing in &turns.firing {
                fires.entry(firing.key.clone()).or_default().push(target.clone());
            }
        }
    }
    for alert in resolved {
        let key = key_of(&input.source.name, &alert.fingerprint);
        // A resolved alert has its end, `notification` sees to that.
        let ends_at = alert.ends_at.unwrap_or(alert.starts_at);
        let ended = states.ended(&key);
        let last_end = ended.map(|ended| ended.ends_at);
        let open = states.known_at(&key).chain(fires.get(&key).into_iter().flatten());
        let open = sorted(open.cloned().collect::<Vec<_>>());
        if !open.is_empty() {
            for target in open {
                let resolve = Resolve { key: key.clone(), ends_at, last_end };
                turns.entry(target).or_default().resolves.push(resolve);
            }
            continue;
        }
        let again = last_end.is_some_and(|last| ends_at <= last);
        let was_open = ended.is_some_and(|ended| ended.was_open);
        let verdict = if again || was_open { Verdict::Duplicate } else { Verdict::NoEvidence };
        aside.add(None, verdict, None, key.clone());
        if !again {
            let home = states.alerts.get(&key).and_then(|keys| keys.first()).cloned();
            let stray = || TargetKey::of_stray_alert(input.source.name.as_str(), &key.fingerprint);
            let until = context.now.after(context.policy.keep_ended);
            strays.push((home.unwrap_or_else(stray), Ended { alert: key, ends_at, was_open, until }));
        }
    }
    let mut step = Step { states: Vec::new(), decisions: aside.decisions };
    let mut changed: BTreeMap<TargetKey, TargetState> = BTreeMap::new();
    let state_of =
        |key: &TargetKey| states.targets.get(key).map(|state| (**state).clone()).unwrap_or_default();
    for (key, turns) in turns {
        let mut state = state_of(&key);
        step.decisions.extend(occurrence::apply(context, input, &key, &mut state, turns));
        changed.insert(key, state);
    }
    for (key, ended) in strays {
        let state = changed.entry(key).or_insert_with_key(state_of);
        occurrence::remember_end(state, ended);
    }
    step.states = changed.into_iter().collect();
    step
}

/// Decides what has come due at one target: occurrences that nobody speaks of any more, late ones
/// whose window is over, actions that a guard has stopped, ends that need not be remembered. An empty step if nothing has.
pub fn come_due(context: &Context<'_>, key: &TargetKey, state: &TargetState) -> Step {
    if state.due().is_none_or(|due| due > context.now) {
        return Step::default();
    }
    let mut state = state.clone();
    state.ended.take_if(|ended| ended.until <= context.now);
    state.cooldowns.prune(context.now);
    for rule_state in state.rules.values_mut() {
        rule_state.spent.retain(|free| *free > context.now);
    }
    state.rules.retain(|_, rule_state| !rule_state.is_empty());
    let decisions = occurrence::expire(context, key, &mut state);
    Step { states: vec![(key.clone(), state)], decisions }
}

/// Decisions about alerts that come to no target, those of one kind together.
#[derive(Default)]
struct Aside {
    decisions: Vec<Decision>,
    kinds: HashMap<(Option<Name>, Verdict, Option<String>), usize>,
}

impl Aside {
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
