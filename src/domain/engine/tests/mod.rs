//! Tests of the engine: each replays the notifications of an incident on a virtual clock.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::domain::control::{GapCause, ReceptionGap};
use crate::domain::delivery::{DeliveryChangeKind, GiveUp};
use crate::domain::event::assert_matches_schema;
use crate::domain::event::{AdjustmentType, Event};
use crate::domain::matcher::Matcher;
use crate::domain::notification::{Alert, Envelope, InvalidAlert, Status};
use crate::domain::phase::Phase;
use crate::domain::rule::{
    Action, Amount, Budget, Change, FiringAction, Limits, Mode, Repeat, ResolvedAction, Rule, RuleTarget,
    Step as RuleStep, Steps, TargetTemplate,
};
use crate::domain::size_limit::SizeLimit;
use crate::domain::source::Source;
use crate::domain::target::Platform;
use crate::domain::template::Templates;
use crate::domain::trigger::Trigger;
use crate::domain::verdict::Verdict;

mod absences;
mod calm;
mod clocks;
mod controls;
mod deliveries;
mod delivery_properties;
mod episodes;
mod guards;
mod holds;
mod kept;
mod owed;
mod permissions;
mod properties;
mod queues;
pub(crate) mod reference;
mod shadows;
mod taken_back;

const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const POLICY: Policy = Policy {
    last_resolve_retention: Duration::from_secs(60 * 60),
    expired_episode_retention: Duration::from_secs(7 * 24 * 60 * 60),
    owed_retention: Duration::from_secs(7 * 24 * 60 * 60),
    probes_destinations: true,
    per_minute: PerMinute { scale_out: 0, scale_in: 0 },
};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn by(units: u32) -> Amount {
    Amount::By(NonZeroU32::new(units).unwrap())
}

/// An action without cooldown and stabilization window.
fn unguarded(change: Change) -> Action {
    Action { change, cooldown: Duration::ZERO, stabilization_window: Duration::ZERO }
}

/// A source, a rule table, all states and a virtual clock. By default there is one rule, `pods`, for
/// `alertname = Pending`.
struct World {
    rules: RuleTable,
    source: Arc<Source>,
    /// Sources that are configured beside it.
    other_sources: Vec<Arc<Source>>,
    states: BTreeMap<TargetKey, Arc<TargetState>>,
    controls: Controls,
    rates: Rates,
    policy: Policy,
    /// What is known about deliveries. Every other event was delivered when it was emitted.
    deliveries: DeliveryFeedback,
    /// The changes of deliveries in the last step.
    delivery_changes: Vec<DeliveryChange>,
    now: Time,
    /// The wall clock, if it differs from the store's clock.
    wall: Option<Time>,
    created: Time,
    /// The steps so far, if they are recorded.
    steps: Option<Vec<ObservedStep>>,
    keeps_unknown_rules: bool,
    /// When the notifications were sent, if a queue delivers them.
    sent_at: Option<Time>,
}

/// A step as seen from outside.
struct ObservedStep {
    now: Time,
    before: BTreeMap<TargetKey, Arc<TargetState>>,
    after: BTreeMap<TargetKey, Arc<TargetState>>,
    /// The controls after it.
    controls: Controls,
    decisions: Vec<Decision>,
}

struct Setup {
    on_firing: Option<FiringAction>,
    on_resolved: Option<ResolvedAction>,
    mode: Mode,
    limits: Limits,
    budget: Option<Budget>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            on_firing: Some(FiringAction {
                action: unguarded(Change::ScaleOut(by(2))),
                repeat: Repeat::OnGrowth,
            }),
            on_resolved: Some(ResolvedAction { action: unguarded(Change::ScaleIn(by(1))) }),
            mode: Mode::Active,
            limits: Limits::default(),
            budget: None,
        }
    }
}

impl Setup {
    fn table(self, templates: Templates) -> RuleTable {
        let mut templates = templates;
        let mut template = |text: &str| templates.template(text).unwrap();
        let rule = Rule {
            name: name("pods"),
            sources: None,
            matchers: Matcher::parse_list("alertname = Pending").unwrap(),
            when: None,
            target: RuleTarget::Target(TargetTemplate {
                platform: Platform::Eks,
                kind: template("nodegroup"),
                name: template("{{ labels.nodegroup }}"),
                account: None,
                cluster: Some(template("{{ labels.cluster }}")),
                namespace: None,
                region: None,
            }),
            on_firing: self.on_firing,
            on_resolved: self.on_resolved,
            expires_after: 60 * MINUTE,
            limits: self.limits,
            budget: self.budget,
            parameters: vec![("zone".into(), template("{{ labels.zone | default('any') }}"))],
            mode: self.mode,
            send_to: vec![name("queue")],
            acting: vec![name("queue")],
            max_age: Duration::from_hours(1),
            size_limit: SizeLimit::of_body(262_144),
            continues: false,
        };
        RuleTable::new(vec![rule], templates)
    }

    fn world(self) -> World {
        World {
            rules: self.table(Templates::new()),
            source: Arc::new(Source {
                name: name("prod"),
                labels: Arc::new([("cluster", "prod-eu")].into_iter().collect()),
                late_window: 6 * MINUTE,
                occurrence_ttl: 24 * 60 * MINUTE,
                heartbeat: None,
                ignore_labels: Vec::new(),
                permissions: crate::domain::source::SourcePermissions::default(),
            }),
            other_sources: Vec::new(),
            states: BTreeMap::new(),
            controls: Controls::default(),
            rates: Rates::default(),
            policy: POLICY,
            deliveries: DeliveryFeedback::default(),
            delivery_changes: Vec::new(),
            now: at(0),
            wall: None,
            created: at(-3600),
            steps: None,
            keeps_unknown_rules: false,
            sent_at: None,
        }
    }
}

/// The time `seconds` after the beginning of the test.
pub(crate) fn at(seconds: i64) -> Time {
    Time::from_millis((1_795_366_500 + seconds) * 1000)
}

fn alert(status: Status, pod: &str, starts: i64, ends: Option<i64>) -> Alert {
    Alert {
        status,
        labels: Arc::new(
            [("alertname", "Pending"), ("nodegroup", "workers"), ("pod", pod)].into_iter().collect(),
        ),
        annotations: Arc::new([("value", "3")].into_iter().collect()),
        starts_at: at(starts),
        ends_at: ends.map(at),
        valid_until: None,
        absence: None,
        generator_url: "".into(),
        fingerprint: format!("fp-{pod}").into(),
    }
}

fn firing(pod: &str, starts: i64) -> Alert {
    alert(Status::Firing, pod, starts, None)
}

fn resolved(pod: &str, starts: i64, ends: i64) -> Alert {
    alert(Status::Resolved, pod, starts, Some(ends))
}

/// Scale-out by 2 and scale-in by 1, with these cooldowns and this stabilization window of the scale-in, in
/// minutes.
fn guarded(out_cooldown: u64, in_cooldown: u64, window: u64) -> Setup {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let action = |change, cooldown, stabilization_window| Action { change, cooldown, stabilization_window };
    let out = action(Change::ScaleOut(by(2)), minutes(out_cooldown), Duration::ZERO);
    let inwards = action(Change::ScaleIn(by(1)), minutes(in_cooldown), minutes(window));
    Setup {
        on_firing: Some(FiringAction { action: out, repeat: Repeat::OnGrowth }),
        on_resolved: Some(ResolvedAction { action: inwards }),
        ..Setup::default()
    }
}

impl World {
    /// Executes a step twice and asserts that both results are the same.
    fn step(&mut self, step: impl Fn(&Context<'_>, &States) -> Step) -> Vec<Decision> {
        let sources = self.other_sources.iter().chain([&self.source]);
        let sources = sources.map(|source| (source.name.clone(), source.clone())).collect();
        let context = Context {
            rules: &self.rules,
            now: self.now,
            wall: self.wall.unwrap_or(self.now),
            created: self.created,
            policy: self.policy,
            controls: &self.controls,
            rates: &self.rates,
            sources: &sources,
            deliveries: &self.deliveries,
            incarnation: 0,
            keeps_unknown_rules: self.keeps_unknown_rules,
        };
        let states = self.view();
        let decided = step(&context, &states);
        assert_eq!(decided, step(&context, &states), "the same input gives the same step");
        let snapshot = self.rates.clone();
        assert!(self.rates.try_apply(&snapshot, &decided.rates));
        let before = self.states.clone();
        let decisions = self.apply(decided);
        if let Some(steps) = &mut self.steps {
            let (after, controls) = (self.states.clone(), self.controls.clone());
            steps.push(ObservedStep { now: self.now, before, after, controls, decisions: decisions.clone() });
        }
        decisions
    }

    /// All states, and the targets that mention each alert.
    fn view(&self) -> States {
        let mut alerts: BTreeMap<AlertKey, Vec<TargetKey>> = BTreeMap::new();
        for (key, state) in &self.states {
            let known: BTreeSet<_> = state.alerts().cloned().collect();
            for alert in known {
                alerts.entry(alert).or_default().push(key.clone());
            }
        }
        States { targets: self.states.clone(), alerts }
    }

    /// Processes a notification `seconds` after the beginning.
    fn post(&mut self, seconds: i64, alerts: Vec<Alert>) -> Vec<Decision> {
        self.post_truncated(seconds, false, alerts)
    }

    fn post_truncated(&mut self, seconds: i64, truncated: bool, alerts: Vec<Alert>) -> Vec<Decision> {
        self.deliver(at(seconds), truncated, alerts)
    }

    /// Processes a notification at `now`.
    fn deliver(&mut self, now: Time, truncated: bool, alerts: Vec<Alert>) -> Vec<Decision> {
        self.deliver_parsed(now, truncated, alerts.into_iter().map(Ok).collect())
    }

    /// Processes a notification with one alert that fires and cannot be parsed.
    fn post_invalid(&mut self, seconds: i64, pod: &str) -> Vec<Decision> {
        let invalid = InvalidAlert {
            error: "labels.pod: not a string".to_owned(),
            fingerprint: Some(format!("fp-{pod}")),
            status: Some(Status::Firing),
            starts_at: None,
        };
        self.deliver_parsed(at(seconds), false, vec![Err(invalid)])
    }

    fn deliver_parsed(
        &mut self,
        now: Time,
        truncated: bool,
        alerts: Vec<Result<Alert, InvalidAlert>>,
    ) -> Vec<Decision> {
        self.now = now;
        let evaluated = alerts.into_iter().map(|alert| EvaluatedAlert::new(&self.rules, &self.source, alert));
        let input = Input {
            source: self.source.clone(),
            trigger: Arc::new(Trigger::new(&self.source.name, &Envelope::default(), None)),
            truncated,
            sent_at: self.sent_at,
            alerts: evaluated.collect(),
        };
        self.step(|context, states| process_notification(context, &input, states))
    }

    /// Moves the clock to `seconds` after the beginning and processes what is due.
    fn wait(&mut self, seconds: i64) -> Vec<Decision> {
        self.recheck(at(seconds))
    }

    /// Processes due targets and rechecks all deferred actions, as after a change of the controls or a
    /// restart.
    fn recheck(&mut self, now: Time) -> Vec<Decision> {
        self.now = now;
        let keys: Vec<TargetKey> = self.states.keys().cloned().collect();
        self.step(|context, states| process_due(context, &keys, states))
    }

    /// Moves the clock to `until` and processes what is due in between at its time. Returns the decisions
    /// with their times.
    fn run_until(&mut self, until: Time) -> Vec<(Time, Decision)> {
        let mut decisions = Vec::new();
        let mut rounds = 0;
        while let Some(due) = self.due().filter(|due| *due <= until) {
            rounds += 1;
            assert!(rounds < 1_000, "the states come due again and again at {due}: {:?}", self.states);
            let due = due.max(self.now);
            decisions.extend(self.recheck(due).into_iter().map(|decision| (due, decision)));
        }
        decisions
    }

    /// The next time at which a target is due. Events are delivered at once, so a target that awaits a delivery is due
    /// now.
    fn due(&self) -> Option<Time> {
        let due = |state: &TargetState| match state.awaits_delivery() && self.deliveries.events.is_empty() {
            true => Some(self.now),
            false => state.due(),
        };
        self.states.values().filter_map(|state| due(state)).min()
    }

    /// Like [`Self::due`], in seconds after the beginning.
    fn next_due(&self) -> Option<i64> {
        let due = self.due()?;
        Some((due.as_millis() - at(0).as_millis()).div_euclid(1000))
    }

    fn set_delivery(&mut self, event: &Event, delivery: EventDelivery) {
        self.deliveries.events.entry(event.key.clone()).or_default().insert(event.id.clone(), delivery);
    }

    /// The changes of deliveries in the last step, by event.
    fn changes(&self) -> Vec<(Arc<str>, DeliveryChangeKind)> {
        self.delivery_changes.iter().map(|change| (change.event.clone(), change.kind)).collect()
    }

    /// Lets `prod` and a new source of this name send the notifications in turn.
    fn switch_to(&mut self, source: &str) {
        let known = self.other_sources.iter().position(|known| known.name == name(source));
        let next = match known {
            Some(at) => self.other_sources.remove(at),
            None => Arc::new(Source { name: name(source), ..Source::clone(&self.source) }),
        };
        self.other_sources.push(std::mem::replace(&mut self.source, next));
    }

    /// The source could not be heard between these seconds.
    fn gap(&mut self, from: i64, until: i64) {
        let gap = ReceptionGap { from: at(from), until: at(until), cause: GapCause::NotRunning };
        self.controls.record_gap(&name("prod"), gap);
    }

    fn apply(&mut self, step: Step) -> Vec<Decision> {
        self.delivery_changes = step.delivery_changes;
        if let Some(controls) = step.controls {
            let text = serde_json::to_string(&controls).unwrap();
            let read: Controls = serde_json::from_str(&text).unwrap();
            assert_eq!(read, controls, "controls survive serialization");
            self.controls = read;
        }
        for (key, state) in step.states {
            if state.is_empty() {
                self.states.remove(&key);
            } else {
                let text = serde_json::to_string(&state).unwrap();
                let read: TargetState = serde_json::from_str(&text).unwrap();
                assert_eq!(read, state, "a state survives serialization");
                self.states.insert(key, Arc::new(read));
            }
        }
        let events = step
            .decisions
            .iter()
            .filter_map(|decision| decision.event.as_deref().or(decision.shadow.as_deref()));
        // Events with many alerts have the same shape as those with few, so they are not validated.
        events.filter(|event| event.alerts.len() < 50).for_each(assert_matches_schema);
        step.decisions
    }
}

/// The decisions in one line, for example `emitted×3 scale_out +2, duplicate×1`.
fn summary(decisions: &[Decision]) -> String {
    let line = |decision: &Decision| {
        let event = decision.event.as_deref().or(decision.shadow.as_deref()).map(|event| {
            let value = event.adjustment.as_ref().map(|adjustment| adjustment.value);
            format!(" {} {:+}", event.action, value.unwrap_or(0))
        });
        format!("{}×{}{}", decision.verdict, decision.alerts.len(), event.unwrap_or_default())
    };
    decisions.iter().map(line).collect::<Vec<_>>().join(", ")
}

fn events(decisions: &[Decision]) -> Vec<&Event> {
    decisions.iter().filter_map(|decision| decision.event.as_deref()).collect()
}

/// The world of `setup` with a second rule, `latency`, that scales out by two for `alertname = Slow`.
fn with_a_second_rule(setup: Setup) -> World {
    let mut world = setup.world();
    let mut second = Setup::default().table(Templates::new()).rules()[0].clone();
    second.name = name("latency");
    second.matchers = Matcher::parse_list("alertname = Slow").unwrap();
    second.on_resolved = None;
    let first = world.rules.rules()[0].clone();
    world.rules = RuleTable::new(vec![first, second], known_templates());
    world
}

fn slow(fires: bool, starts: i64, ends: i64) -> Alert {
    let mut alert = if fires { firing("slow", starts) } else { resolved("slow", starts, ends) };
    alert.labels = Arc::new([("alertname", "Slow"), ("nodegroup", "workers")].into_iter().collect());
    alert
}

/// The templates of the rules in these tests, so that changed rules can be put into a new table.
fn known_templates() -> Templates {
    let mut templates = Templates::new();
    for text in
        ["nodegroup", "{{ labels.nodegroup }}", "{{ labels.cluster }}", "{{ labels.zone | default('any') }}"]
    {
        templates.template(text).unwrap();
    }
    templates
}

/// The single event of these decisions.
fn event_of(decisions: &[Decision]) -> Event {
    let [event] = events(decisions)[..] else { panic!("not one event: {}", summary(decisions)) };
    event.clone()
}

/// The verdict and the "until" of the last of these decisions, in seconds after the beginning.
fn last_wait(decisions: &[Decision]) -> (String, Option<i64>) {
    let last = decisions.last().expect("a decision");
    let until = last.until.map(|until| (until.as_millis() - at(0).as_millis()) / 1000);
    (last.verdict.to_string(), until)
}

/// A rule that decreases while its alert fires, after this window in minutes.
fn idle(window: u64) -> Setup {
    let change = Change::ScaleIn(by(1));
    let stabilization_window = Duration::from_secs(60 * window);
    let action = Action { change, cooldown: Duration::ZERO, stabilization_window };
    let on_firing = Some(FiringAction { action, repeat: Repeat::OnGrowth });
    Setup { on_firing, on_resolved: None, ..Setup::default() }
}
