//! A reference model of section 6 of the contract ("From notification to event"), written from the contract alone.
//!
//! One source, one target, one acting destination. State is kept as plain facts. At each instant every consequence is
//! derived anew until nothing changes (`settle`), and time jumps to the next instant at which something can change
//! (`next_due`). There are no timers that could be lost, and speed does not matter.

mod calm;
mod debts;
mod decreases;
mod delivery;
mod episodes;
mod facts;
mod guards;
mod observers;
mod occurrences;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use facts::*;
pub(crate) use settings::*;

#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) config: Config,
    pub(crate) now: Time,
    pub(crate) log: Vec<Decision>,
    pub(crate) ledger: Vec<Event>,
    alerts: BTreeMap<Fingerprint, AlertState>,
    episodes: Vec<Episode>,
    rules: Vec<RuleState>,
    ended: Vec<DoubtEnd>,
    /// Resolves heard that closed an occurrence.
    resolves: Vec<DoubtEnd>,
    gaps: Vec<(Time, Time)>,
    /// `None` is both directions, and notifies.
    pauses: Vec<Option<Direction>>,
    destination: Destination,
    changed: bool,
}

impl Model {
    pub(crate) fn new(config: Config) -> Model {
        let rules = vec![RuleState::default(); config.rules.len()];
        Model {
            config,
            now: 0,
            log: vec![],
            ledger: vec![],
            alerts: BTreeMap::new(),
            episodes: vec![],
            rules,
            ended: vec![],
            resolves: vec![],
            gaps: vec![],
            pauses: vec![],
            destination: Destination::Up,
            changed: false,
        }
    }

    /// One notification. All of it is applied before anything is decided.
    pub(crate) fn notify(&mut self, now: Time, body: Body) -> Vec<Decision> {
        self.input(now, |model| model.apply_body(&body))
    }

    /// Everything that comes due until `now`.
    pub(crate) fn advance_to(&mut self, now: Time) -> Vec<Decision> {
        self.input(now, |_| ())
    }

    /// A reception gap of the source; `until` may lie ahead.
    pub(crate) fn gap(&mut self, from: Time, until: Time) -> Vec<Decision> {
        self.input(from, |model| model.gaps.push((from, until)))
    }

    pub(crate) fn pause(&mut self, now: Time, direction: Option<Direction>) -> Vec<Decision> {
        self.input(now, |model| model.pauses.push(direction))
    }

    pub(crate) fn resume(&mut self, now: Time) -> Vec<Decision> {
        self.input(now, |model| model.pauses.clear())
    }

    pub(crate) fn destination(&mut self, now: Time, destination: Destination) -> Vec<Decision> {
        self.input(now, |model| model.set_destination(destination))
    }

    pub(crate) fn forgive(&mut self, now: Time, rule: RuleId) -> Vec<Decision> {
        self.input(now, |model| model.forgive_debts(rule))
    }

    fn input(&mut self, now: Time, apply: impl FnOnce(&mut Model)) -> Vec<Decision> {
        assert!(now >= self.now, "time runs forward");
        let before = self.log.len();
        while let Some(due) = self.next_due().filter(|due| *due <= now) {
            self.now = due;
            self.settle();
        }
        self.now = now;
        self.settle();
        apply(self);
        self.settle();
        self.log[before..].to_vec()
    }

    /// Derives every consequence at this instant.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.changed = false;
            self.open_due_late_firings();
            self.expire_silent();
            self.conclude_episodes();
            self.expire_debts();
            self.forget_ends();
            self.cancel_decreases();
            self.end_stale_deliveries();
            self.call_destination();
            self.renew_withheld();
            self.keep_one_decrease();
            self.decide();
            if !self.changed {
                return;
            }
        }
        panic!("no fixed point at {}: {:?}", self.now, &self.log[self.log.len().saturating_sub(8)..]);
    }

    /// The next instant at which something can change without an input.
    fn next_due(&self) -> Option<Time> {
        let mut due = vec![];
        self.occurrences_due(&mut due);
        self.repeats_due(&mut due);
        self.debts_due(&mut due);
        self.guards_due(&mut due);
        self.deliveries_due(&mut due);
        due.into_iter().filter(|t| *t > self.now && *t < FOREVER).min()
    }

    fn record(&mut self, rule: RuleId, phase: Phase, verdict: Verdict, until: Option<Time>) {
        let action = self.config.rules[rule].action(phase);
        self.log.push(Decision {
            at: self.now,
            rule: Some(rule),
            verdict,
            phase: Some(phase),
            action,
            value: None,
            reverts: vec![],
            until,
            event: None,
        });
    }

    fn record_alert(&mut self, rules: &[RuleId], verdict: Verdict, until: Option<Time>) {
        let rules = if rules.is_empty() { vec![None] } else { rules.iter().copied().map(Some).collect() };
        for rule in rules {
            self.log.push(Decision {
                at: self.now,
                rule,
                verdict,
                phase: None,
                action: None,
                value: None,
                reverts: vec![],
                until,
                event: None,
            });
        }
    }

    fn is_active(&self, rule: RuleId) -> bool {
        self.config.rules[rule].is_active()
    }
    /// What rule `viewer` reckons with: active rules, and itself. Shadow rules are apart.
    fn sees(&self, viewer: RuleId, other: RuleId) -> bool {
        viewer == other || self.is_active(other)
    }
    /// Cooldowns of a shadow rule are its own.
    fn shares_cooldowns(&self, viewer: RuleId, other: RuleId) -> bool {
        viewer == other || (self.is_active(viewer) && self.is_active(other))
    }
}
