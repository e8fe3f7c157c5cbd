//! Inputs that both the model and the engine take, and an independent record of what was heard.

use super::super::*;
use super::bridge::{Bridge, Sent};
use super::model::{
    Action as ModelAction, Alert as ModelAlert, Body, Config, Destination, Event as ModelEvent, Fate,
    Fingerprint, Mode as ModelMode, Model, RuleId, Status as ModelStatus, Time as ModelTime,
};
use super::rules::{BEAT, Settings, alert_of};

/// Alerts 0 and 1 belong to rules 0 and 1; 2 and 3 are second alerts of the same rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Fire(usize),
    Resolved(usize),
    /// A firing whose start is not after the last end.
    Late(usize),
    /// A firing of which only the target can be read.
    Invalid(usize),
    /// A firing that cannot be read.
    Unreadable(usize),
    /// A resolve in a truncated body.
    Truncated(usize),
    /// A firing for which the sender vouches for a while.
    Vouched(usize),
    /// A firing for which the sender has vouched, and that comes after that time.
    Overdue(usize),
    /// An end that is no evidence.
    Missing(usize),
    /// A firing that a queue has delayed until after its resolve.
    Delayed(usize),
    /// The last end, sent again while a firing of a second sender waits.
    EndAgain(usize),
    Gap,
    HeartbeatOff,
    HeartbeatOn,
    Pause,
    Resume,
    Down,
    Up,
    /// The answers of calls are lost, and the events arrive or not.
    Unknown(bool),
}

/// What was heard last of an alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LastWord {
    Firing,
    Late,
    Invalid,
    Resolved,
}

/// What the bridge is given.
#[derive(Clone, Debug)]
pub(crate) enum BridgeInput {
    Notification(Vec<Result<Alert, InvalidAlert>>, bool, Option<Time>),
    /// A reception gap until then.
    Gap(Time),
    Pause,
    Resume,
    Destination(Destination),
}

#[derive(Clone)]
pub(crate) struct World {
    pub model: Model,
    pub bridge: Bridge,
    pub now: ModelTime,
    pub history: Vec<(ModelTime, Action)>,
    pub words: BTreeMap<usize, (LastWord, ModelTime)>,
    starts: BTreeMap<usize, ModelTime>,
    pub ends: BTreeMap<usize, ModelTime>,
    /// Until when the sender vouches for each alert of which it says so.
    pub vouched: BTreeMap<usize, ModelTime>,
    /// The last end of a need or a doubt, by its alert.
    pub calm_from: BTreeMap<usize, ModelTime>,
    pub gap_end: ModelTime,
    pub is_paused: bool,
    /// Since when the heartbeat fires.
    pub heartbeat: Option<ModelTime>,
    /// Rules whose episode had an occurrence that a truncated body closed.
    pub truncated: BTreeSet<RuleId>,
    /// What the bridge was given and when, if that is to be known.
    pub inputs: Option<Vec<(Time, BridgeInput)>>,
}

/// For how long a sender vouches for an alert.
const VALIDITY: ModelTime = 240;
/// The length of a reception gap.
const GAP: ModelTime = 90;
/// Before everything.
pub(crate) const LONG_AGO: ModelTime = -1_000_000;

impl World {
    pub(crate) fn new(config: &Config) -> Self {
        Self::begin(config, None)
    }

    /// It records what the bridge is given.
    pub(crate) fn recording(config: &Config) -> Self {
        Self::begin(config, Some(Vec::new()))
    }

    /// The rules and the source of a configuration.
    pub(crate) fn settings(config: &Config) -> Settings {
        let is_matched = |rule: RuleId, other: RuleId| {
            rule == other || (other == 0 && config.rules[rule].mode == ModelMode::Shadow)
        };
        Settings::new(config.clone(), is_matched)
    }

    fn begin(config: &Config, inputs: Option<Vec<(Time, BridgeInput)>>) -> Self {
        let settings = Self::settings(config);
        let mut world = Self {
            model: Model::new(config.clone()),
            bridge: Bridge::new(Arc::new(settings)),
            now: 0,
            history: Vec::new(),
            words: BTreeMap::new(),
            starts: BTreeMap::new(),
            ends: BTreeMap::new(),
            vouched: BTreeMap::new(),
            calm_from: BTreeMap::new(),
            gap_end: LONG_AGO,
            is_paused: false,
            heartbeat: None,
            truncated: BTreeSet::new(),
            inputs,
        };
        if config.heartbeat.is_some() {
            world.apply(0, Action::HeartbeatOn);
            world.advance(3000);
        }
        world.history.clear();
        world
    }

    pub(crate) fn config(&self) -> &Config {
        &self.model.config
    }

    pub(crate) fn rule_of(alert: usize) -> RuleId {
        alert % 2
    }

    /// When each alert that fires has started.
    pub(crate) fn starts(&self) -> impl Iterator<Item = (usize, ModelTime)> {
        self.starts.iter().map(|(alert, start)| (*alert, *start))
    }

    /// Time passes.
    pub(crate) fn advance(&mut self, step: ModelTime) {
        self.now += step;
        self.model.advance_to(self.now);
        self.bridge.advance_to(at(self.now));
    }

    fn fires(&self, alert: usize) -> bool {
        self.words.get(&alert).is_some_and(|word| word.0 != LastWord::Resolved)
    }

    /// Advances by `step` and applies the action; false if it makes no sense here.
    pub(crate) fn apply(&mut self, step: ModelTime, action: Action) -> bool {
        self.advance(step);
        let applies = match action {
            Action::Late(alert) => self.ends.contains_key(&alert) && !self.fires(alert),
            // Of an alert that no target knows, nobody knows what it is about.
            Action::Unreadable(alert) => self.fires(alert),
            Action::Overdue(alert) => {
                self.words.get(&alert).is_some_and(|word| word.0 == LastWord::Firing)
                    && self.vouched.get(&alert).is_some_and(|until| *until < self.now)
            }
            Action::Delayed(alert) => {
                let is_known = |end: &ModelTime| self.now < end + self.config().retention_closed;
                self.ends.get(&alert).is_some_and(is_known) && !self.fires(alert)
            }
            Action::EndAgain(alert) => {
                let until =
                    self.ends.get(&alert).map_or(LONG_AGO, |end| end + self.config().retention_closed);
                let opens_at = |word: &(LastWord, ModelTime)| word.1 + self.config().late_window;
                let waits = self.words.get(&alert).filter(|word| word.0 == LastWord::Late).map(opens_at);
                self.now < until && waits.is_some_and(|opens_at| self.now < opens_at)
            }
            Action::HeartbeatOff => self.heartbeat.is_some(),
            Action::HeartbeatOn => self.config().heartbeat.is_some() && self.heartbeat.is_none(),
            Action::Pause => !self.is_paused,
            Action::Resume => self.is_paused,
            _ => true,
        };
        if applies {
            self.history.push((self.now, action));
            self.apply_now(action);
        }
        applies
    }

    fn apply_now(&mut self, action: Action) {
        let now = self.now;
        match action {
            Action::Fire(alert)
            | Action::Vouched(alert)
            | Action::Invalid(alert)
            | Action::Unreadable(alert) => {
                self.fire(alert, action);
            }
            Action::Resolved(alert) | Action::Truncated(alert) | Action::Missing(alert) => {
                self.resolve(alert, action);
            }
            Action::Overdue(alert) => {
                let ends_at = self.vouched[&alert] + 1;
                self.vouched.insert(alert, ends_at);
                let end = ModelAlert { ends_at, ..self.alert(alert, ModelStatus::Resolved, true) };
                self.post(Body { alerts: vec![end], ..Body::default() });
            }
            Action::Delayed(alert) => {
                let starts_at = self.ends[&alert] - 1;
                let firing = ModelAlert { starts_at, ..self.alert(alert, ModelStatus::Firing, true) };
                self.post(Body { sent_at: Some(starts_at), alerts: vec![firing], ..Body::default() });
            }
            Action::EndAgain(alert) => {
                let ends_at = self.ends[&alert];
                let end = self.alert(alert, ModelStatus::Resolved, true);
                if self.vouched.get(&alert).is_none_or(|until| *until <= now) {
                    self.hear(alert, LastWord::Resolved);
                    self.ends.insert(alert, ends_at);
                }
                self.post(Body { alerts: vec![ModelAlert { ends_at, ..end }], ..Body::default() });
            }
            Action::Late(alert) => {
                let end = self.ends[&alert];
                self.starts.insert(alert, end - 1);
                // `retention.closed` after its end, the end may be forgotten: no late firing.
                let is_known = now < end + self.config().retention_closed;
                self.hear(alert, if is_known { LastWord::Late } else { LastWord::Firing });
                let firing = self.alert(alert, ModelStatus::Firing, true);
                self.post(Body { alerts: vec![firing], ..Body::default() });
            }
            Action::Gap => {
                self.gap_end = now + GAP;
                self.record(|| BridgeInput::Gap(at(now + GAP)));
                self.model.gap(now, now + GAP);
                self.bridge.gap(at(now + GAP));
            }
            Action::HeartbeatOff => {
                self.heartbeat = None;
                self.beat(ModelStatus::Resolved);
            }
            Action::HeartbeatOn => {
                self.heartbeat = Some(now);
                self.beat(ModelStatus::Firing);
            }
            Action::Pause => {
                self.is_paused = true;
                self.record(|| BridgeInput::Pause);
                self.model.pause(now, None);
                self.bridge.pause();
            }
            Action::Resume => {
                self.is_paused = false;
                self.record(|| BridgeInput::Resume);
                self.model.resume(now);
                self.bridge.resume();
            }
            Action::Down => self.destination(Destination::Down),
            Action::Up => self.destination(Destination::Up),
            Action::Unknown(arrives) => self.destination(Destination::Unknown { arrives }),
        }
    }

    /// The end of an alert is sent again if its sender has not vouched for it beyond that: the first copy may be a firing
    /// that comes late. In between comes the end of a second sender.
    fn resolve(&mut self, alert: usize, action: Action) {
        let (is_truncated, is_absence) =
            (action == Action::Truncated(alert), action == Action::Missing(alert));
        let was_firing = self.words.get(&alert).is_some_and(|word| word.0 == LastWord::Firing);
        let ends_at = self.now;
        let end = self.alert(alert, ModelStatus::Resolved, true);
        let end = ModelAlert { ends_at, is_absence, ..end };
        let body = Body { truncated: is_truncated, alerts: vec![end], ..Body::default() };
        let is_open = self.words.get(&alert).is_some_and(|(word, heard_at)| match word {
            LastWord::Firing | LastWord::Invalid => true,
            LastWord::Late => heard_at + self.config().late_window <= self.now,
            LastWord::Resolved => false,
        });
        let is_doubted = self.vouched.get(&alert).is_some_and(|until| *until <= ends_at);
        if is_doubted && is_open && !is_absence {
            self.post(body.clone());
            let of_another = body.alerts.iter().map(|end| ModelAlert { ends_at: ends_at - 1, ..end.clone() });
            self.post(Body { alerts: of_another.collect(), ..body.clone() });
            self.advance(10);
        }
        if (is_truncated || is_absence) && was_firing {
            self.truncated.insert(Self::rule_of(alert));
        }
        self.hear(alert, LastWord::Resolved);
        self.ends.insert(alert, ends_at);
        self.post(body);
    }

    fn fire(&mut self, alert: usize, action: Action) {
        let rule = Self::rule_of(alert);
        if [rule, rule + 2].iter().all(|alert| !self.fires(*alert)) {
            self.truncated.remove(&rule);
        }
        self.starts.entry(alert).or_insert(self.now);
        // A valid copy of a firing that is late stays a late one.
        let waits = self.words.get(&alert).is_some_and(|word| word.0 == LastWord::Late);
        let is_vouched = action == Action::Vouched(alert);
        let is_valid = action == Action::Fire(alert) || is_vouched;
        self.end_absence(alert, action);
        match action {
            Action::Vouched(_) => {
                let until = self.now + VALIDITY;
                self.vouched.insert(alert, until);
            }
            // Of an alert that cannot be read, nothing is said.
            Action::Unreadable(_) => {}
            _ => drop(self.vouched.remove(&alert)),
        }
        let word = match (is_valid, waits) {
            (false, _) => LastWord::Invalid,
            (true, true) => LastWord::Late,
            (true, false) => LastWord::Firing,
        };
        self.hear(alert, word);
        let status = if is_valid { ModelStatus::Firing } else { ModelStatus::InvalidFiring };
        let valid_until = self.vouched.get(&alert).copied().filter(|_| is_vouched);
        let firing = self.alert(alert, status, action != Action::Unreadable(alert));
        self.post(Body { alerts: vec![ModelAlert { valid_until, ..firing }], ..Body::default() });
    }

    /// An alert that was absent is heard again.
    fn end_absence(&mut self, alert: usize, action: Action) {
        let was_absent = self.vouched.get(&alert).is_some_and(|until| *until <= self.now);
        if was_absent && action != Action::Unreadable(alert) {
            self.calm_from.insert(alert, self.now);
        }
    }

    fn hear(&mut self, alert: usize, word: LastWord) {
        let now = self.now;
        let was = self.words.get(&alert).map(|word| word.0);
        // A further copy of a late firing does not prolong its wait.
        if was != Some(LastWord::Late) || word != LastWord::Late {
            self.words.insert(alert, (word, now));
        }
        if word == LastWord::Resolved {
            if was.is_some_and(|word| word != LastWord::Resolved) {
                self.calm_from.insert(alert, now);
            }
            self.ends.insert(alert, now);
            self.starts.remove(&alert);
            self.vouched.remove(&alert);
        }
    }

    fn alert(&self, alert: usize, status: ModelStatus, has_target: bool) -> ModelAlert {
        let own = Self::rule_of(alert);
        let shadows = |rule: &RuleId| own == 0 && self.config().rules[*rule].mode == ModelMode::Shadow;
        let rules = (0..self.config().rules.len()).filter(|rule| *rule == own || shadows(rule));
        ModelAlert {
            fingerprint: Fingerprint::try_from(alert).unwrap(),
            status,
            starts_at: self.starts.get(&alert).copied().unwrap_or(self.now),
            ends_at: self.now,
            rules: if has_target { rules.collect() } else { Vec::new() },
            heartbeat: false,
            metric: Some(60 * i64::try_from(alert).unwrap()),
            valid_until: None,
            is_absence: false,
        }
    }

    fn beat(&mut self, status: ModelStatus) {
        let (starts_at, ends_at) = (self.now, self.now);
        let beat = ModelAlert {
            fingerprint: BEAT,
            status,
            starts_at,
            ends_at,
            rules: vec![],
            heartbeat: true,
            metric: None,
            valid_until: None,
            is_absence: false,
        };
        self.post(Body { alerts: vec![beat], ..Body::default() });
    }

    fn record(&mut self, input: impl FnOnce() -> BridgeInput) {
        let now = at(self.now);
        if let Some(inputs) = &mut self.inputs {
            inputs.push((now, input()));
        }
    }

    fn post(&mut self, body: Body) {
        self.record(|| {
            let alerts = body.alerts.iter().map(alert_of).collect();
            BridgeInput::Notification(alerts, body.truncated, body.sent_at.map(at))
        });
        self.bridge.notify(&body);
        self.model.notify(self.now, body);
    }

    pub(crate) fn destination(&mut self, destination: Destination) {
        self.record(|| BridgeInput::Destination(destination));
        self.model.destination(self.now, destination);
        self.bridge.set_destination(destination);
    }

    /// The first difference between the engine and the model.
    pub(crate) fn difference(&self) -> Option<(&'static str, String)> {
        let of_model: Vec<&ModelEvent> = self.model.ledger.iter().collect();
        let (model, engine): (Vec<_>, Vec<_>) = (
            of_model.iter().map(|event| shown(event)).collect(),
            self.bridge.ledger.iter().map(sent).collect(),
        );
        if model != engine {
            return Some(("events", format!("the model emits {model:#?}, the engine {engine:#?}")));
        }
        let fates: Vec<_> = of_model.iter().map(|event| fate(event)).collect();
        let known: Vec<_> = self.bridge.ledger.iter().map(known).collect();
        if fates != known {
            return Some(("deliveries", format!("the model {fates:?}, the engine {known:?}")));
        }
        for rule in 0..self.config().rules.len() {
            let model = (self.model.open(rule), self.model_deferred(rule));
            let engine = (self.bridge.is_open(rule), self.bridge.deferred(rule));
            if model != engine {
                return Some((
                    "open and deferred",
                    format!("rule {rule}: the model {model:?}, the engine {engine:?}"),
                ));
            }
            let (model, engine) = (self.model.owed(rule), self.bridge.owed(rule));
            if model != engine {
                return Some(("owed", format!("rule {rule}: the model {model:?}, the engine {engine:?}")));
            }
        }
        None
    }

    fn model_deferred(&self, rule: RuleId) -> Vec<Phase> {
        self.model.deferred(rule).into_iter().map(|(phase, ..)| phase_of(phase)).collect()
    }
}

fn phase_of(phase: super::model::Phase) -> Phase {
    match phase {
        super::model::Phase::Firing => Phase::Firing,
        super::model::Phase::Resolved => Phase::Resolved,
    }
}

/// When an event was emitted, its rule, phase, value and what it takes back.
type Shown = (ModelTime, RuleId, Phase, i64, Vec<usize>);

fn shown(event: &ModelEvent) -> Shown {
    let is_notify = event.action == ModelAction::Notify;
    let value = if is_notify { 0 } else { event.value };
    (event.emitted_at, event.rule, phase_of(event.phase), value, event.reverts.clone())
}

pub(crate) fn to_seconds(time: Time) -> ModelTime {
    (time.as_millis() - at(0).as_millis()) / 1000
}

fn sent(sent: &Sent) -> Shown {
    (to_seconds(sent.emitted_at), sent.rule, sent.phase, sent.value, sent.reverts.clone())
}

/// What is known about a delivery: when an answer said that it was delivered, whether it is tried, and when it arrived.
type Progress = (Option<ModelTime>, bool, Option<ModelTime>);

fn fate(event: &ModelEvent) -> Progress {
    let delivered = match event.fate {
        Fate::Delivered(at) => Some(at),
        _ => None,
    };
    (delivered, event.is_outstanding(), event.arrived_at)
}

fn known(sent: &Sent) -> Progress {
    let delivered = sent.delivery.delivered_at.map(to_seconds);
    (delivered, sent.delivery.is_pending, sent.arrived_at.map(to_seconds))
}
