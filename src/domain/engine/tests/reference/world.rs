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
    Notification(Vec<Result<Alert, InvalidAlert>>, bool),
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
            Action::Fire(alert) | Action::Invalid(alert) | Action::Unreadable(alert) => {
                self.fire(alert, action);
            }
            Action::Resolved(alert) | Action::Truncated(alert) => {
                let is_truncated = action == Action::Truncated(alert);
                let was_firing = self.words.get(&alert).is_some_and(|word| word.0 == LastWord::Firing);
                if is_truncated && was_firing {
                    self.truncated.insert(Self::rule_of(alert));
                }
                self.hear(alert, LastWord::Resolved);
                self.send(is_truncated, alert, ModelStatus::Resolved, true);
            }
            Action::Late(alert) => {
                let end = self.ends[&alert];
                self.starts.insert(alert, end - 1);
                // `retention.closed` after its end, the end may be forgotten: no late firing.
                let is_known = now < end + self.config().retention_closed;
                self.hear(alert, if is_known { LastWord::Late } else { LastWord::Firing });
                self.send(false, alert, ModelStatus::Firing, true);
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

    fn fire(&mut self, alert: usize, action: Action) {
        let rule = Self::rule_of(alert);
        if [rule, rule + 2].iter().all(|alert| !self.fires(*alert)) {
            self.truncated.remove(&rule);
        }
        self.starts.entry(alert).or_insert(self.now);
        // A valid copy of a firing that is late stays a late one.
        let waits = self.words.get(&alert).is_some_and(|word| word.0 == LastWord::Late);
        let is_valid = action == Action::Fire(alert);
        let word = match (is_valid, waits) {
            (false, _) => LastWord::Invalid,
            (true, true) => LastWord::Late,
            (true, false) => LastWord::Firing,
        };
        self.hear(alert, word);
        let status = if is_valid { ModelStatus::Firing } else { ModelStatus::InvalidFiring };
        self.send(false, alert, status, action != Action::Unreadable(alert));
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
        }
    }

    fn send(&mut self, is_truncated: bool, alert: usize, status: ModelStatus, has_target: bool) {
        let own = Self::rule_of(alert);
        let shadows = |rule: &RuleId| own == 0 && self.config().rules[*rule].mode == ModelMode::Shadow;
        let rules = (0..self.config().rules.len()).filter(|rule| *rule == own || shadows(rule));
        let alert = ModelAlert {
            fingerprint: Fingerprint::try_from(alert).unwrap(),
            status,
            starts_at: self.starts.get(&alert).copied().unwrap_or(self.now),
            ends_at: self.now,
            rules: if has_target { rules.collect() } else { Vec::new() },
            heartbeat: false,
            metric: Some(60 * i64::try_from(alert).unwrap()),
        };
        self.post(Body { truncated: is_truncated, alerts: vec![alert] });
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
        };
        self.post(Body { truncated: false, alerts: vec![beat] });
    }

    fn record(&mut self, input: impl FnOnce() -> BridgeInput) {
        let now = at(self.now);
        if let Some(inputs) = &mut self.inputs {
            inputs.push((now, input()));
        }
    }

    fn post(&mut self, body: Body) {
        self.record(|| BridgeInput::Notification(body.alerts.iter().map(alert_of).collect(), body.truncated));
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
