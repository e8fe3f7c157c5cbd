//! The engine with a simulated store and one simulated destination, as `serve` uses it.

use super::super::*;
use super::model::{Destination, Effects, RuleId};
use super::rules::{Settings, alert_of, seconds};
use super::{model, withheld};
use crate::domain::control::Pause;
use crate::domain::delivery::EventDelivery;

/// An emitted event and what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub id: Arc<str>,
    pub key: TargetKey,
    pub rule: RuleId,
    pub phase: Phase,
    pub effects: Effects,
    pub value: i64,
    /// The events that it takes back, as indices of the ledger.
    pub reverts: Vec<usize>,
    pub episode: Arc<str>,
    pub emitted_at: Time,
    /// What really happened, whether the bridge knows it or not.
    pub arrived_at: Option<Time>,
    pub delivery: EventDelivery,
    is_suspended: bool,
    /// Whether a call of the destination as it is now would change nothing.
    is_called: bool,
    expires_after: Duration,
    expires_at: Time,
    /// `max_age` counts from here.
    age_from: Time,
}

impl Sent {
    /// The times that decide what becomes of it.
    pub(crate) fn times(&self) -> [Time; 2] {
        [self.expires_at, self.age_from]
    }

    /// What decides whether it is called.
    pub(crate) fn marks(&self) -> impl std::fmt::Debug {
        let delivery = (self.delivery.is_pending, self.delivery.is_uncertain, self.delivery.given_up);
        (
            self.rule,
            self.phase,
            self.value,
            delivery,
            self.is_suspended,
            self.is_called,
            self.arrived_at.is_some(),
        )
    }

    /// Delivered, or a decrease that may have arrived and is not tried any more.
    pub(crate) fn counts_as_delivered(&self) -> bool {
        let is_lost = self.effects.decreases && self.delivery.is_uncertain && !self.delivery.is_pending;
        self.delivery.delivered_at.is_some() || is_lost
    }
}

#[derive(Clone)]
pub(crate) struct Bridge {
    pub settings: Arc<Settings>,
    pub states: BTreeMap<TargetKey, Arc<TargetState>>,
    pub controls: Controls,
    rates: Rates,
    deliveries: DeliveryFeedback,
    pub now: Time,
    pub destination: Destination,
    pub ledger: Vec<Sent>,
    /// The number of decisions.
    pub decisions: usize,
    /// Targets to process at once.
    woken: BTreeSet<TargetKey>,
}

impl Bridge {
    pub(crate) fn new(settings: Arc<Settings>) -> Self {
        Self {
            settings,
            states: BTreeMap::new(),
            controls: Controls::default(),
            rates: Rates::default(),
            deliveries: DeliveryFeedback::default(),
            now: at(0),
            destination: Destination::Up,
            ledger: Vec::new(),
            decisions: 0,
            woken: BTreeSet::new(),
        }
    }

    pub(crate) fn notify(&mut self, body: &model::Body) {
        let settings = self.settings.clone();
        let evaluated = body
            .alerts
            .iter()
            .map(|alert| EvaluatedAlert::new(&settings.rules, &settings.source, alert_of(alert)));
        let input = Input {
            source: settings.source.clone(),
            trigger: Arc::new(Trigger::new(&settings.source.name, &Envelope::default(), None)),
            truncated: body.truncated,
            sent_at: body.sent_at.map(at),
            alerts: evaluated.collect(),
        };
        self.step(|context, states| process_notification(context, &input, states));
        self.settle();
    }

    pub(crate) fn change_controls(&mut self, change: impl FnOnce(&mut Controls)) {
        let before = self.controls.generation;
        change(&mut self.controls);
        self.wake_after_controls(before);
        self.settle();
    }

    pub(crate) fn pause(&mut self) {
        let pause = Pause {
            id: 0,
            rule: None,
            target: None,
            direction: None,
            since: self.now,
            until: None,
            author: "ana".into(),
            reason: "the database moves".into(),
        };
        self.change_controls(|controls| {
            controls.pause(pause);
        });
    }

    pub(crate) fn resume(&mut self) {
        let now = self.now;
        self.change_controls(|controls| {
            let pauses: Vec<u64> = controls.pauses(now).map(|pause| pause.id).collect();
            pauses.into_iter().for_each(|id| drop(controls.resume(id)));
        });
    }

    pub(crate) fn gap(&mut self, until: Time) {
        let gap = ReceptionGap { from: self.now, until, cause: GapCause::Refused };
        self.change_controls(|controls| controls.record_gap(&name("prod"), gap));
    }

    pub(crate) fn set_destination(&mut self, destination: Destination) {
        self.destination = destination;
        self.ledger.iter_mut().for_each(|sent| sent.is_called = false);
        self.settle();
    }

    /// Processes everything that is due until then.
    pub(crate) fn advance_to(&mut self, until: Time) {
        let mut rounds = 0;
        while let Some(due) = self.next_due().filter(|due| *due <= until) {
            rounds += 1;
            assert!(rounds < 20_000, "due again and again at {due}: {:?}", self.states);
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = until;
        self.settle();
    }

    fn next_due(&self) -> Option<Time> {
        let states = self.states.values().filter_map(|state| state.due());
        states.chain(self.ledger.iter().filter_map(|sent| self.gives_up_at(sent))).min()
    }

    /// Does everything that can be done now, until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..100 {
            let has_changed = self.give_up() | self.call() | self.process();
            if !has_changed {
                return;
            }
        }
        panic!("no fixed point at {}: {:?} {:?}", self.now, self.states, self.ledger);
    }

    fn process(&mut self) -> bool {
        let is_due = |key: &TargetKey, due: Option<Time>| {
            due.is_some_and(|due| due <= self.now) || self.woken.contains(key)
        };
        let keys: Vec<TargetKey> = self
            .states
            .iter()
            .filter(|(key, state)| is_due(key, state.due()))
            .map(|(key, _)| key.clone())
            .collect();
        self.woken.clear();
        if keys.is_empty() {
            return false;
        }
        self.step(|context, states| process_due(context, &keys, states));
        true
    }

    fn step(&mut self, step: impl Fn(&Context<'_>, &States) -> Step) {
        let mut states = States { targets: self.states.clone(), ..States::default() };
        for (key, state) in &self.states {
            let known: BTreeSet<_> = state.alerts().cloned().collect();
            known.into_iter().for_each(|alert| states.alerts.entry(alert).or_default().push(key.clone()));
        }
        let context = Context {
            rules: &self.settings.rules,
            now: self.now,
            wall: self.now,
            created: at(-100_000),
            policy: POLICY,
            controls: &self.controls,
            rates: &self.rates,
            sources: &self.settings.sources,
            deliveries: &self.deliveries,
            incarnation: 0,
            keeps_unknown_rules: false,
        };
        let step = step(&context, &states);
        self.apply(step);
    }

    /// Stores a step.
    fn apply(&mut self, step: Step) {
        let snapshot = self.rates.clone();
        assert!(self.rates.try_apply(&snapshot, &step.rates));
        for (key, state) in step.states {
            if state.is_empty() {
                self.states.remove(&key);
            } else {
                self.states.insert(key, Arc::new(state));
            }
        }
        if let Some(controls) = step.controls {
            let before = std::mem::replace(&mut self.controls, controls).generation;
            self.wake_after_controls(before);
        }
        for change in step.delivery_changes {
            self.change_delivery(&change);
        }
        self.decisions += step.decisions.len();
        for event in step.decisions.into_iter().filter_map(|decision| decision.event) {
            self.send(&event);
        }
    }

    fn wake_after_controls(&mut self, before: u64) {
        if self.controls.generation != before {
            let depend = self.states.iter().filter(|(_, state)| state.depends_on_controls());
            self.woken.extend(depend.map(|(key, _)| key.clone()));
        }
    }

    fn send(&mut self, event: &Event) {
        let rules = self.settings.rules.rules();
        let rule = rules.iter().position(|rule| rule.name == event.rule).unwrap();
        let phase = match event.phase {
            Phase::Firing => model::Phase::Firing,
            Phase::Resolved => model::Phase::Resolved,
        };
        let numbers = event.reverts.iter().map(|id| self.number(id).unwrap()).collect();
        self.ledger.push(Sent {
            id: event.id.clone(),
            key: event.key.clone(),
            rule,
            phase: event.phase,
            effects: self.settings.config.rules[rule].effects(phase),
            value: event.adjustment.as_ref().map_or(0, |adjustment| adjustment.value),
            reverts: numbers,
            episode: event.episode.id.clone(),
            emitted_at: self.now,
            arrived_at: None,
            delivery: EventDelivery::pending(),
            is_suspended: false,
            is_called: false,
            expires_after: event.expires_after,
            expires_at: self.now.after(event.expires_after),
            age_from: self.now,
        });
        self.publish(self.ledger.len() - 1);
    }

    /// The last successful call.
    pub(crate) fn last_success(&self) -> Option<Time> {
        self.deliveries.last_success.values().max().copied()
    }

    /// The number of an event in the ledger.
    pub(crate) fn number(&self, id: &str) -> Option<usize> {
        self.ledger.iter().rposition(|sent| *sent.id == *id)
    }

    fn change_delivery(&mut self, change: &DeliveryChange) {
        let number = self.number(&change.event).unwrap();
        let now = self.now;
        let sent = &mut self.ledger[number];
        match change.kind {
            DeliveryChangeKind::Cancel | DeliveryChangeKind::Replace => {
                (sent.delivery.is_pending, sent.delivery.given_up) = (false, None);
            }
            DeliveryChangeKind::Suspend => sent.is_suspended = true,
            DeliveryChangeKind::Resume => {
                (sent.is_suspended, sent.is_called, sent.age_from) = (false, false, now);
            }
            DeliveryChangeKind::Renew { expires_after } => {
                (sent.delivery.is_pending, sent.delivery.given_up) = (true, None);
                (sent.is_called, sent.age_from, sent.expires_at) = (false, now, now.after(expires_after));
            }
            DeliveryChangeKind::EndRenewal => {
                let emitted_at = sent.emitted_at;
                (sent.age_from, sent.expires_at) = (emitted_at, emitted_at.after(sent.expires_after));
            }
        }
        self.publish(number);
    }

    /// Tells the engine what is known about a delivery.
    fn publish(&mut self, number: usize) {
        let Sent { key, id, delivery, .. } = &self.ledger[number];
        let events = self.deliveries.events.entry(key.clone()).or_default();
        events.insert(id.clone(), delivery.clone());
    }

    fn gives_up_at(&self, sent: &Sent) -> Option<Time> {
        let config = &self.settings.config;
        let max_age = if sent.effects.decreases { config.scale_in_max_age } else { config.max_age };
        let by_age = if sent.is_suspended { sent.expires_at } else { sent.age_from.after(seconds(max_age)) };
        sent.delivery.is_pending.then(|| by_age.min(sent.expires_at))
    }

    fn give_up(&mut self) -> bool {
        let over = |sent: &Sent| self.gives_up_at(sent).is_some_and(|at| at <= self.now);
        let numbers: Vec<usize> =
            (0..self.ledger.len()).filter(|number| over(&self.ledger[*number])).collect();
        for number in &numbers {
            self.end(*number, Some(GiveUp::Expired));
        }
        !numbers.is_empty()
    }

    fn end(&mut self, number: usize, given_up: Option<GiveUp>) {
        let sent = &mut self.ledger[number];
        (sent.delivery.is_pending, sent.delivery.given_up) = (false, given_up);
        self.woken.insert(sent.key.clone());
        self.publish(number);
    }

    fn call(&mut self) -> bool {
        let mut has_changed = false;
        for number in 0..self.ledger.len() {
            let sent = &self.ledger[number];
            let waits = !sent.delivery.is_pending || sent.is_suspended || sent.is_called;
            if waits || withheld::is_withheld(self, sent) {
                continue;
            }
            match withheld::follows(self, sent) {
                withheld::Follows::Later => continue,
                withheld::Follows::Nothing => self.end(number, None),
                withheld::Follows::Delivered => self.call_one(number),
            }
            has_changed = true;
        }
        has_changed
    }

    fn call_one(&mut self, number: usize) {
        let now = self.now;
        let sent = &mut self.ledger[number];
        sent.is_called = true;
        let key = sent.key.clone();
        match self.destination {
            Destination::Down => return,
            Destination::Unknown { arrives } => {
                sent.delivery.is_uncertain = true;
                if arrives {
                    sent.arrived_at.get_or_insert(now);
                }
            }
            Destination::Up => {
                sent.arrived_at.get_or_insert(now);
                sent.delivery = EventDelivery {
                    is_uncertain: sent.delivery.is_uncertain,
                    ..EventDelivery::delivered(now)
                };
                let queue = name("queue");
                self.deliveries.last_success.insert(queue.clone(), now);
                let wakes = |(known, state): &(&TargetKey, &Arc<TargetState>)| {
                    (**known == key && state.awaits_delivery()) || state.awaits_destination(&queue)
                };
                self.woken.extend(self.states.iter().filter(wakes).map(|(key, _)| key.clone()));
            }
        }
        self.publish(number);
    }
}
