//! Properties of the engine's runs, stated apart from the model: by what was heard, and by what the ledger of the
//! bridge says.

use super::super::*;
use super::bridge::Sent;
use super::model::{Destination, OnFiring, OnResolved, RuleId, Time as ModelTime};
use super::world::{Action, LONG_AGO, LastWord, World, to_seconds};

const MINUTE: ModelTime = 60;
const HOUR: ModelTime = 3600;
const DAY: ModelTime = 24 * HOUR;
/// The default stabilization window of a decrease.
const WINDOW: ModelTime = 5 * MINUTE;

/// What is wrong, how often, and the shortest history.
#[derive(Default)]
pub(crate) struct Violations {
    found: BTreeMap<String, (usize, String)>,
}

impl Violations {
    pub(crate) fn add(&mut self, kind: &str, world: &World, detail: &str) {
        let entry = self.found.entry(kind.to_owned()).or_insert_with(|| (0, String::new()));
        entry.0 += 1;
        let text = format!("{:?}: {detail}", world.history);
        if entry.1.is_empty() || text.len() < entry.1.len() {
            entry.1 = text;
        }
    }

    /// Whether the model and the engine agree.
    pub(crate) fn check_difference(&mut self, world: &World) -> bool {
        let difference = world.difference();
        if let Some((kind, detail)) = &difference {
            self.add(kind, world, detail);
        }
        difference.is_none()
    }

    /// Checks a state and what follows if nothing else is heard. Returns whether the model and the engine agree.
    pub(crate) fn check_state(&mut self, world: &World) -> bool {
        if !self.check_difference(world) {
            return false;
        }
        check_ledger(world, self);
        check_quiet_end(world, self);
        check_answered(world, self);
        check_wanted_decrease(world, self);
        true
    }

    pub(crate) fn list(&self) -> String {
        let list = self.found.iter().map(|(kind, (times, first))| format!("{times} x {kind}\n    {first}"));
        list.collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn assert_none(&self, count: usize) {
        assert!(self.found.is_empty(), "{count} states:\n{}", self.list());
    }
}

/// Whether the alerts of a rule speak against the decreases of another.
fn needs_capacity(world: &World, rule: RuleId) -> bool {
    let effects = world.config().rules[rule].effects(super::model::Phase::Firing);
    effects.increases && !effects.decreases
}

fn decreases_on_firing(world: &World, rule: RuleId) -> bool {
    matches!(world.config().rules[rule].on_firing, OnFiring::DecreaseBy(_))
}

fn takes_back(world: &World, rule: RuleId) -> bool {
    world.config().rules[rule].on_resolved == OnResolved::Revert
}

/// The safety of the decreases between two moments, by what was heard until the second one.
pub(crate) fn check_decreases(before: &World, after: &World, violations: &mut Violations) {
    for (number, sent) in after.bridge.ledger.iter().enumerate().filter(|(_, sent)| sent.effects.decreases) {
        let known = before.bridge.ledger.get(number);
        if known.is_none() {
            check_decrease(after, sent, to_seconds(sent.emitted_at), true, violations);
        }
        if known.is_none_or(|known| known.arrived_at.is_none())
            && let Some(arrived_at) = sent.arrived_at
        {
            check_decrease(after, sent, to_seconds(arrived_at), false, violations);
        }
    }
}

/// `is_emission` is whether the decrease is emitted then, and not only called.
fn check_decrease(
    world: &World,
    sent: &Sent,
    now: ModelTime,
    is_emission: bool,
    violations: &mut Violations,
) {
    let mut add = |kind: &str| violations.add(kind, world, &format!("at {now}: {sent:?}"));
    if is_emission && sent.phase == Phase::Resolved && world.truncated.contains(&sent.rule) {
        add("a decrease after a truncated close");
    }
    let late_window = world.config().late_window;
    for (alert, (word, heard_at)) in &world.words {
        let other = World::rule_of(*alert);
        let needs = needs_capacity(world, other);
        match word {
            LastWord::Firing if world.vouched.get(alert).is_some_and(|until| *until <= now) => {
                add("a decrease while an alert is absent");
            }
            LastWord::Firing if needs => add("a decrease while the last word is firing"),
            LastWord::Late if *heard_at + late_window > now => add("a decrease within a late firing"),
            LastWord::Late if needs => add("a decrease while a late firing is open"),
            LastWord::Invalid => add("a decrease while an invalid firing stands"),
            _ => {}
        }
        let calm_from = world.calm_from.get(alert).copied().unwrap_or(LONG_AGO);
        if is_emission && needs && calm_from + WINDOW > now {
            add("a decrease before its calm");
        }
    }
    if world.gap_end + late_window > now {
        add("a decrease within a reception gap or late_window after it");
    }
    if world.is_paused {
        add("a decrease while everything is paused");
    }
    if let Some(heartbeat) = world.config().heartbeat {
        let is_open = world.heartbeat.is_some_and(|since| now - since >= heartbeat.grace.max(WINDOW));
        if !is_open {
            add("a decrease without a heartbeat and its grace");
        }
        let last = world.calm_from.values().max().copied().unwrap_or(LONG_AGO);
        if is_emission && last + late_window > now {
            add("a decrease before the end of the heartbeat could be heard");
        }
    }
}

/// What the ledger says in any state.
fn check_ledger(world: &World, violations: &mut Violations) {
    let ledger = &world.bridge.ledger;
    let mut ids = BTreeSet::new();
    let mut taken_back = BTreeSet::new();
    for sent in ledger {
        if !ids.insert(&sent.id) {
            violations.add("an id repeats", world, "");
        }
        let is_empty = sent.reverts.is_empty() || sent.value >= 0;
        if sent.phase == Phase::Resolved && sent.effects.decreases && is_empty {
            violations.add("a decrease names nothing", world, "");
        }
        for named in &sent.reverts {
            if ledger[*named].delivery.delivered_at.is_none() {
                violations.add("a decrease names what was not delivered", world, "");
            }
            if sent.counts_as_delivered() && !taken_back.insert(*named) {
                violations.add("an event is taken back twice", world, "");
            }
        }
    }
    for rule in (0..2).filter(|rule| takes_back(world, *rule)) {
        if arrived(world, rule) < 0 {
            violations.add("what arrived sums to less than zero", world, "");
        }
        let deferred = world.bridge.deferred(rule).contains(&Phase::Resolved);
        let is_tried =
            |sent: &&Sent| sent.rule == rule && sent.phase == Phase::Resolved && sent.delivery.is_pending;
        let count = usize::from(deferred) + ledger.iter().filter(is_tried).count();
        if count > 1 {
            violations.add("a rule has two decreases at a time", world, "");
        }
        if count > 0 && world.bridge.is_open(rule) {
            violations.add("an on_resolved decrease beside the open episode of its rule", world, "");
        }
    }
}

fn sum(world: &World, counts: impl Fn(&Sent) -> bool, rule: RuleId) -> i64 {
    world.bridge.ledger.iter().filter(|sent| sent.rule == rule && counts(sent)).map(|sent| sent.value).sum()
}

/// What a rule has really added.
fn arrived(world: &World, rule: RuleId) -> i64 {
    sum(world, |sent| sent.arrived_at.is_some(), rule)
}

/// Nothing is paused, the destination is up and the heartbeat fires. The history stays as it is.
fn calmed(world: &World) -> World {
    let mut world = world.clone();
    world.apply(1, Action::Up);
    world.apply(0, Action::Resume);
    world
}

fn resolve_all(world: &mut World, is_resolved: impl Fn(RuleId) -> bool) {
    world.apply(0, Action::HeartbeatOn);
    for alert in (0..4).filter(|alert| is_resolved(World::rule_of(*alert))) {
        if world.words.get(&alert).is_some_and(|word| word.0 != LastWord::Resolved) {
            world.apply(0, Action::Resolved(alert));
        }
    }
}

/// Liveness (a): when everything is resolved by word and nothing blocks, then nothing stays deferred or owed. What was
/// given up waits for at most a day.
fn check_quiet_end(world: &World, violations: &mut Violations) {
    let mut end = calmed(world);
    resolve_all(&mut end, |_| true);
    end.advance(26 * HOUR);
    violations.check_difference(&end);
    for rule in 0..2 {
        if world.truncated.contains(&rule) || end.model.last_close_was_clean(rule) == Some(false) {
            continue;
        }
        if end.bridge.is_open(rule) {
            violations.add("(a) an episode stays open", world, "");
        }
        if !end.bridge.deferred(rule).is_empty() {
            violations.add("(a) something stays deferred", world, "");
        }
        if !end.bridge.owed(rule).is_empty() {
            violations.add("(a) something stays owed", world, "");
        }
        if !takes_back(&end, rule) {
            continue;
        }
        if sum(&end, Sent::counts_as_delivered, rule) != 0 {
            violations.add("(a) what counts as delivered does not sum to zero", world, "");
        }
        let is_lost = end.bridge.ledger.iter().any(|sent| sent.rule == rule && sent.delivery.is_uncertain);
        let arrived = arrived(&end, rule);
        if arrived < 0 {
            violations.add("(a) what arrived sums to less than zero", world, "");
        }
        if arrived > 0 && !is_lost {
            violations.add("(a) capacity is left behind", world, "");
        }
    }
    if end.bridge.ledger.iter().any(|sent| sent.delivery.is_pending) {
        violations.add("(a) something is still tried", world, "");
    }
    let decisions = end.bridge.decisions;
    end.advance(10 * DAY);
    if end.bridge.decisions > decisions + 10 {
        violations.add("(c) decisions without end after the quiet end", world, "");
    }
}

/// Liveness (b): an open episode with an increase that nothing blocks has a delivered event that was not taken back.
fn check_answered(world: &World, violations: &mut Violations) {
    let mut end = calmed(world);
    end.advance(11 * MINUTE);
    let is_hold = matches!(end.config().rules[1].on_firing, OnFiring::Hold { .. });
    if is_hold && (end.bridge.is_open(1) || end.model.late_firing_waits()) {
        return;
    }
    for rule in (0..2).filter(|rule| needs_capacity(world, *rule) && end.bridge.is_open(*rule)) {
        let ledger = &end.bridge.ledger;
        let is_taken_back = |number: usize| {
            ledger.iter().any(|sent| sent.counts_as_delivered() && sent.reverts.contains(&number))
        };
        let answers = |(number, sent): (usize, &Sent)| {
            let is_delivered = sent.rule == rule && sent.delivery.delivered_at.is_some();
            is_delivered && sent.phase == Phase::Firing && !is_taken_back(number)
        };
        if !ledger.iter().enumerate().any(answers) {
            violations.add("(b) an open episode has no answer", world, &format!("rule {rule}: {ledger:?}"));
        }
        if takes_back(&end, rule) && arrived(&end, rule) <= 0 {
            violations.add("(b) capacity that an open episode needs was taken away", world, "");
        }
    }
}

/// Liveness (b) of a decrease that an alert asks for: when nothing else fires, it is delivered.
fn check_wanted_decrease(world: &World, violations: &mut Violations) {
    let wanted: Vec<RuleId> = (0..2).filter(|rule| decreases_on_firing(world, *rule)).collect();
    if wanted.is_empty() {
        return;
    }
    let mut end = calmed(world);
    resolve_all(&mut end, |rule| !wanted.contains(&rule));
    // Notifications repeat, so that nothing expires.
    for _ in 0..3 {
        end.advance(9 * HOUR);
        for alert in (0..4).filter(|alert| wanted.contains(&World::rule_of(*alert))) {
            if matches!(end.words.get(&alert), Some((LastWord::Firing | LastWord::Late, _))) {
                end.apply(0, Action::Fire(alert));
            }
        }
    }
    if end.words.values().any(|word| word.0 == LastWord::Invalid) {
        return;
    }
    // An episode one of whose alerts went missing decreases nothing.
    let wanted = wanted.into_iter().filter(|rule| !end.truncated.contains(rule));
    for rule in wanted.filter(|rule| end.bridge.is_open(*rule)) {
        let of_rule = |sent: &&Sent| sent.rule == rule && sent.phase == Phase::Firing;
        let last = end.bridge.ledger.iter().rfind(of_rule);
        if !last.is_some_and(Sent::counts_as_delivered) {
            violations.add("(b) an on_firing decrease is never delivered", world, "");
        }
    }
}

/// Liveness (c): the number of decisions is bounded, also towards a destination that fails for ever or loses all answers.
pub(crate) fn check_bounded(world: &World, violations: &mut Violations) {
    for destination in [Destination::Down, Destination::Unknown { arrives: false }, Destination::Up] {
        let mut end = world.clone();
        end.advance(1);
        end.destination(destination);
        let before = end.bridge.decisions;
        end.advance(15 * DAY);
        let count = end.bridge.decisions - before;
        if count > 80 {
            violations.add(&format!("(c) {count} decisions towards {destination:?}"), world, "");
        }
    }
}
