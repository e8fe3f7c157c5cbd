//! Property tests: random histories of six rules and two targets on a virtual clock. The invariants are
//! checked to the millisecond by models that are independent of the engine.

use proptest::prelude::*;

use super::*;
use crate::domain::control::Pause;
use crate::domain::direction::Direction;
use crate::domain::rule::{HoldTemplate, PartialTemplate};
use crate::domain::source::HeartbeatSettings;
use crate::domain::target_pattern::TargetPattern;

const OUT_COOLDOWN: Duration = Duration::from_millis(180_500);
const IN_COOLDOWN: Duration = Duration::from_secs(600);
const WINDOW: Duration = Duration::from_millis(300_250);
const BUDGET: Budget = Budget { events: NonZeroU32::new(4).unwrap(), per: Duration::from_secs(1800) };

/// The rules by name, and the alerts that they match. `trial` is a shadow of `pods`; `freeze` is a hold.
const RULES: [(&str, &str); 6] = [
    ("trial", "Pending"),
    ("pods", "Pending"),
    ("latency", "Slow"),
    ("idle", "Idle"),
    ("renewed", "Renewed"),
    ("freeze", "Deploy"),
];
/// The names of the alerts, by number. Even numbers are about one target and odd numbers about another.
const ALERTS: [&str; 15] = [
    "Pending", "Pending", "Pending", "Pending", "Slow", "Slow", "Slow", "Slow", "Idle", "Idle", "Renewed",
    "Renewed", "Renewed", "Deploy", "Watchdog",
];

fn action(change: Change, cooldown: Duration, stabilization_window: Duration) -> Action {
    Action { change, cooldown, stabilization_window }
}

fn rule(kind: &str, alertname: &str) -> Rule {
    let base = Setup::default().table(Templates::new()).rules()[0].clone();
    let matchers = Matcher::parse_list(&format!("alertname = {alertname}")).unwrap();
    let base = Rule { name: name(kind), matchers, on_resolved: None, ..base };
    let fires = |action| Some(FiringAction { action, repeat: Repeat::OnGrowth });
    let out = action(Change::ScaleOut(by(2)), OUT_COOLDOWN, Duration::ZERO);
    let inwards = action(Change::ScaleIn(by(1)), IN_COOLDOWN, WINDOW);
    match kind {
        "pods" | "trial" => Rule {
            on_firing: fires(out),
            on_resolved: Some(ResolvedAction { action: inwards }),
            mode: if kind == "trial" { Mode::Shadow } else { Mode::Active },
            budget: Some(BUDGET),
            ..base
        },
        "latency" => Rule { on_firing: fires(unguarded(Change::ScaleOut(by(1)))), ..base },
        "idle" => Rule { on_firing: fires(inwards), ..base },
        "renewed" => Rule {
            on_firing: Some(FiringAction {
                action: out,
                repeat: Repeat::WhileFiring { max_emissions: NonZeroU32::new(3).unwrap() },
            }),
            on_resolved: Some(ResolvedAction { action: inwards }),
            budget: Some(BUDGET),
            ..base
        },
        _ => Rule {
            target: RuleTarget::Hold(HoldTemplate {
                covers: PartialTemplate::default(),
                blocks: vec![Direction::ScaleIn],
                max_duration: None,
            }),
            on_firing: None,
            ..base
        },
    }
}

/// All rules except those of `without`; the active ones are in this mode.
fn table(without: &BTreeSet<usize>, mode: Mode) -> RuleTable {
    let rules =
        RULES.iter().enumerate().filter(|(number, _)| !without.contains(number)).map(|(_, rule)| *rule);
    let rules = rules.map(|(kind, alertname)| {
        let rule = rule(kind, alertname);
        if rule.mode == Mode::Active { Rule { mode, ..rule } } else { rule }
    });
    RuleTable::new(rules.collect(), known_templates())
}

/// The world with all rules except those of `without`.
fn world(without: &[&str]) -> World {
    let mut world = Setup::default().world();
    let rules = RULES.iter().filter(|(kind, _)| !without.contains(kind));
    world.rules =
        RuleTable::new(rules.map(|(kind, alertname)| rule(kind, alertname)).collect(), known_templates());
    let source = Arc::get_mut(&mut world.source).unwrap();
    source.heartbeat = Some(HeartbeatSettings::new(Matcher::parse_list("alertname = Watchdog").unwrap()));
    world
}

/// One step of a history. A history has with each step the milliseconds since the previous one.
#[derive(Debug, Clone)]
enum HistoryStep {
    /// A notification: the number of each alert, whether it fires, and how many seconds ago it started or
    /// ended.
    Post { alerts: Vec<(usize, bool, i64)>, truncated: bool },
    /// An operator sets a pause, for this many seconds or without an end. `part` selects what it covers.
    Pause { part: u8, seconds: Option<u16> },
    /// An operator ends the oldest pause.
    Resume,
    /// Time passes without a notification.
    Wait,
    /// A reload: these rules are removed, and the others are in this mode.
    Reload { without: BTreeSet<usize>, mode: Mode },
}

fn history() -> impl Strategy<Value = Vec<(i64, HistoryStep)>> {
    let alert = (0..ALERTS.len(), prop::bool::weighted(0.6), 0..400_i64);
    // Alertmanager mentions an alert once in a notification.
    let alerts = prop::collection::vec(alert, 1..6).prop_map(|mut alerts| {
        alerts.sort_by_key(|(number, ..)| *number);
        alerts.dedup_by_key(|(number, ..)| *number);
        alerts
    });
    let step = prop_oneof![
        12 => (alerts, prop::bool::weighted(0.1)).prop_map(|(alerts, truncated)| HistoryStep::Post { alerts, truncated }),
        1 => (0..6_u8, prop::option::of(1..3000_u16)).prop_map(|(part, seconds)| HistoryStep::Pause { part, seconds }),
        2 => Just(HistoryStep::Resume),
        2 => Just(HistoryStep::Wait),
    ];
    let delay = prop_oneof![0..30_000_i64, 0..1_200_000_i64];
    // The heartbeat opens first, since otherwise hardly any scale-in would ever be emitted.
    let begin = HistoryStep::Post { alerts: vec![(14, true, 1)], truncated: false };
    prop::collection::vec((delay, step), 1..50).prop_map(move |mut history| {
        history.insert(0, (0, begin.clone()));
        history
    })
}

/// A history with reloads.
fn changing_history() -> impl Strategy<Value = Vec<(i64, HistoryStep)>> {
    let mode = prop_oneof![4 => Just(Mode::Active), 1 => Just(Mode::Shadow), 1 => Just(Mode::Disabled)];
    let without = prop::collection::btree_set(0..RULES.len(), 0..3);
    let reload = (without, mode).prop_map(|(without, mode)| HistoryStep::Reload { without, mode });
    let reloads = prop::collection::vec((any::<prop::sample::Index>(), 0..30_000_i64, reload), 1..6);
    (history(), reloads).prop_map(|(mut history, reloads)| {
        for (at, delay, reload) in reloads {
            history.insert(at.index(history.len()) + 1, (delay, reload));
        }
        history
    })
}

fn alert_of(number: usize, fires: bool, at: Time) -> Alert {
    let pod = number.to_string();
    let mut alert = if fires { firing(&pod, 0) } else { resolved(&pod, 0, 0) };
    (alert.starts_at, alert.ends_at) = if fires { (at, None) } else { (seconds_before(at, 50), Some(at)) };
    let group = if number.is_multiple_of(2) { "workers" } else { "others" };
    alert.labels = Arc::new([("alertname", ALERTS[number]), ("nodegroup", group)].into_iter().collect());
    alert
}

fn seconds_before(time: Time, seconds: i64) -> Time {
    Time::from_millis(time.as_millis() - 1000 * seconds)
}

fn set_pause(world: &mut World, now: Time, part: u8, seconds: Option<u16>) {
    let until = seconds.map(|seconds| now.after(Duration::from_secs(seconds.into())));
    let (author, reason) = ("ana".to_owned(), "a test".to_owned());
    let all = Pause { id: 0, rule: None, target: None, direction: None, since: now, until, author, reason };
    world.controls.pause(match part {
        0 => Pause { rule: Some(name("pods")), ..all },
        1 => Pause { target: TargetPattern::new("*/others"), ..all },
        2 => Pause { direction: Some(Direction::ScaleIn), ..all },
        3 => Pause { direction: Some(Direction::ScaleOut), ..all },
        4 => Pause { rule: Some(name("latency")), target: TargetPattern::new("eks/*"), ..all },
        _ => all,
    });
}

/// Executes one step of a history, with `copies` copies of its notification, and returns the decisions with
/// their times. Everything due before is processed at its time; deferred actions that a change of the
/// controls unblocks are rechecked immediately.
fn advance(world: &mut World, step: &(i64, HistoryStep), copies: usize) -> Vec<(Time, Decision)> {
    let now = world.now.after(Duration::from_millis(step.0.unsigned_abs()));
    let mut decisions = world.run_until(now);
    let mut decided = Vec::new();
    match &step.1 {
        HistoryStep::Post { alerts, truncated } => {
            for _ in 0..copies {
                let alerts =
                    alerts.iter().map(|(at, fires, ago)| alert_of(*at, *fires, seconds_before(now, *ago)));
                decided.extend(world.deliver(now, *truncated, alerts.collect()));
                decided.extend(world.recheck(now));
            }
        }
        HistoryStep::Pause { part, seconds } => set_pause(world, now, *part, *seconds),
        HistoryStep::Resume => {
            let oldest = world.controls.pauses(now).next().map(|pause| pause.id);
            oldest.and_then(|id| world.controls.resume(id));
        }
        HistoryStep::Wait => {}
        HistoryStep::Reload { without, mode } => world.rules = table(without, *mode),
    }
    // What the first one emits is delivered at once.
    decided.extend(world.recheck(now));
    decided.extend(world.recheck(now));
    decisions.extend(decided.into_iter().map(|decision| (now, decision)));
    decisions
}

fn run(world: &mut World, history: &[(i64, HistoryStep)], copies: usize) -> Vec<(Time, Decision)> {
    history.iter().flat_map(|step| advance(world, step, copies)).collect()
}

fn sent(decisions: &[(Time, Decision)]) -> impl Iterator<Item = (Time, &Event)> {
    decisions.iter().filter_map(|(at, decision)| decision.event.as_deref().map(|event| (*at, event)))
}

fn ids(decisions: &[(Time, Decision)]) -> Vec<(Time, String)> {
    sent(decisions).map(|(at, event)| (at, event.id.to_string())).collect()
}

/// The open alerts of each rule at each target.
fn open(world: &World) -> BTreeSet<(TargetKey, Name, AlertKey)> {
    let rules = world.states.iter().flat_map(|(key, state)| state.rules.iter().map(move |rule| (key, rule)));
    let open = rules.flat_map(|(key, (name, rule))| {
        let alerts = rule.episode.iter().flat_map(|episode| episode.open.iter());
        alerts.map(move |open| (key.clone(), name.clone(), open.alert.clone()))
    });
    open.collect()
}

fn decreases_capacity(event: &Event) -> bool {
    event.action == "scale_in"
}

/// Ends all pauses and runs without notifications until all retention times are over.
fn drain(world: &mut World) -> Vec<(Time, Decision)> {
    let pauses: Vec<u64> = world.controls.pauses(world.now).map(|pause| pause.id).collect();
    pauses.into_iter().for_each(|pause| drop(world.controls.resume(pause)));
    let now = world.now;
    let mut decisions: Vec<_> = world.recheck(now).into_iter().map(|decision| (now, decision)).collect();
    decisions.extend(
        world.run_until(now.after(POLICY.expired_episode_retention + Duration::from_secs(3 * 24 * 3600))),
    );
    decisions
}

/// Checks that each alert of the notification at `now` has a reply.
fn check_all_are_answered(
    alerts: &[(usize, bool, i64)],
    now: Time,
    decisions: &[(Time, Decision)],
) -> Result<(), TestCaseError> {
    for (number, ..) in alerts {
        let fingerprint = format!("fp-{number}");
        let answers = |(at, decision): &(Time, Decision)| {
            let about = |alert: &AlertKey| *alert.fingerprint == *fingerprint;
            *at == now && decision.is_reply && decision.alerts.iter().any(about)
        };
        prop_assert!(decisions.iter().any(answers), "no reply to alert {number}");
    }
    Ok(())
}

/// Checks that each decrease is either the `on_firing` action of a rule, or names increases of its rule on its target
/// that no decrease has named before; that ids never repeat; and that `sequence` rises for each target.
fn check_events_are_justified(decisions: &[(Time, Decision)]) -> Result<(), TestCaseError> {
    let mut owed: BTreeSet<(TargetKey, Name, &str)> = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut last: BTreeMap<TargetKey, u64> = BTreeMap::new();
    for (at, event) in sent(decisions) {
        prop_assert!(ids.insert(&event.id), "the id of {} of {} at {at} repeats", event.action, event.rule);
        let before = last.insert(event.target.key(), event.sequence);
        prop_assert!(before.is_none_or(|before| event.sequence > before));
        let debt = |id| (event.target.key(), event.rule.clone(), id);
        match (event.phase, event.rule.as_str()) {
            (Phase::Firing, "idle") => prop_assert!(decreases_capacity(event)),
            (Phase::Firing, _) => {
                prop_assert!(!decreases_capacity(event));
                owed.insert(debt(&*event.id));
            }
            (Phase::Resolved, _) => {
                prop_assert!(!event.reverts.is_empty(), "nothing is owed");
                for id in &event.reverts {
                    prop_assert!(owed.remove(&debt(&**id)), "{id} is not owed");
                }
            }
        }
    }
    Ok(())
}

/// What speaks against a decrease at a target: the rules with an open episode that has increased capacity or is about
/// to, and the late firings under active rules.
fn disturbances(state: &TargetState) -> BTreeSet<(Name, Option<AlertKey>)> {
    let of_rule = |(name, rule): (&Name, &crate::domain::state::RuleState)| {
        let increases = ["pods", "latency", "renewed"].contains(&name.as_str());
        let need =
            rule.episode.as_ref().filter(|episode| episode.emissions > 0 || episode.deferred.is_some());
        let need = need.filter(|_| increases).map(|_| (name.clone(), None));
        let late = rule.late.iter().map(|late| (name.clone(), Some(late.occurrence.alert.clone())));
        need.into_iter().chain(late).collect::<Vec<_>>()
    };
    state.rules.iter().flat_map(of_rule).collect()
}

fn disturbances_at(
    states: &BTreeMap<TargetKey, Arc<TargetState>>,
    key: &TargetKey,
) -> BTreeSet<(Name, Option<AlertKey>)> {
    states.get(key).map(|state| disturbances(state)).unwrap_or_default()
}

/// Checks a decrease against the states and controls after the step that emitted it.
fn check_decrease(
    step: &ObservedStep,
    event: &Event,
    disturbed: &BTreeMap<TargetKey, Time>,
) -> Result<(), TestCaseError> {
    let (key, now) = (event.target.key(), step.now);
    let disturbing = disturbances_at(&step.after, &key);
    prop_assert!(disturbing.is_empty(), "{} while {disturbing:?}", event.rule);
    let calm_for = disturbed.get(&key).map(|at| now.since(*at));
    prop_assert!(calm_for.is_none_or(|calm| calm >= WINDOW), "{} after {calm_for:?}", event.rule);
    let is_held = step.controls.holds_on(&event.target).next().is_some();
    prop_assert!(!is_held, "{} is held", event.rule);
    let heartbeat = step.controls.heartbeat_of_source(&name("prod")).open_since.map(|since| now.since(since));
    let grace = HeartbeatSettings::DEFAULT_GRACE;
    prop_assert!(heartbeat.is_some_and(|open| open >= grace), "{}: heartbeat {heartbeat:?}", event.rule);
    let covers = |pause: &Pause| pause.covers(&event.rule, &key, &Change::ScaleIn(by(1)), now);
    prop_assert!(!step.controls.pauses(now).any(covers), "{} is paused", event.rule);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    #[test]
    fn doubling_every_notification_adds_no_event(history in history()) {
        let (once, twice) = (run(&mut world(&[]), &history, 1), run(&mut world(&[]), &history, 2));
        prop_assert_eq!(ids(&once), ids(&twice));
    }

    /// A recheck of all targets at any time, as after a restart, decides nothing. `World::apply` serializes
    /// and deserializes all states and controls.
    #[test]
    fn a_restart_after_any_step_changes_nothing(history in history(), restarts in prop::collection::vec(any::<bool>(), 60)) {
        let mut decisions = Vec::new();
        let mut world = world(&[]);
        for (step, restart) in history.iter().zip(restarts) {
            decisions.extend(advance(&mut world, step, 1));
            if restart {
                world.rates = Rates::default();
                let again = world.recheck(world.now);
                prop_assert!(again.is_empty(), "{:?}", again);
            }
        }
        prop_assert_eq!(decisions, run(&mut super::properties::world(&[]), &history, 1));
    }

    #[test]
    fn a_shadow_changes_nothing_for_others(history in history()) {
        let decisions_of_active_rules = |without: &[&str]| {
            let mut decisions = run(&mut world(without), &history, 1);
            decisions.retain(|(_, decision)| decision.rule.as_ref().is_none_or(|rule| rule.as_str() != "trial"));
            decisions
        };
        prop_assert_eq!(decisions_of_active_rules(&[]), decisions_of_active_rules(&["trial"]));
    }

    #[test]
    fn cooldowns_and_budgets_hold_to_the_millisecond(history in history()) {
        let decisions = run(&mut world(&[]), &history, 1);
        let mut free: BTreeMap<(TargetKey, bool), Time> = BTreeMap::new();
        let mut emitted_at: BTreeMap<(TargetKey, Name), Vec<Time>> = BTreeMap::new();
        for (at, event) in sent(&decisions) {
            let (key, is_decrease) = (event.target.key(), decreases_capacity(event));
            for direction in [false, true].into_iter().filter(|after_decrease| !after_decrease || is_decrease) {
                let free = free.get(&(key.clone(), direction));
                prop_assert!(free.is_none_or(|free| at >= *free), "{} at {at}, free at {free:?}", event.reason);
            }
            let cooldown = match event.rule.as_str() {
                "latency" => Duration::ZERO,
                _ if is_decrease => IN_COOLDOWN,
                _ => OUT_COOLDOWN,
            };
            free.entry((key.clone(), is_decrease)).and_modify(|free| *free = at.after(cooldown).max(*free)).or_insert(at.after(cooldown));
            if ["pods", "renewed"].contains(&event.rule.as_str()) {
                let emitted_at = emitted_at.entry((key, event.rule.clone())).or_default();
                emitted_at.retain(|then| then.after(BUDGET.per) > at);
                emitted_at.push(at);
                prop_assert!(emitted_at.len() <= BUDGET.events.get() as usize, "the budget is exceeded");
            }
        }
    }

    #[test]
    fn every_event_is_justified_and_unique(history in history()) {
        let decisions = run(&mut world(&[]), &history, 1);
        check_events_are_justified(&decisions)?;
    }

    /// Evidence of calm, and the guards that depend on others. A decrease requires that for a whole window no rule has
    /// had a need that increased capacity on the target, and no firing there was late; and that nothing outranks, holds
    /// or pauses it, and the heartbeat has been open for its grace.
    #[test]
    fn a_target_scales_in_only_on_evidence_of_calm(history in history()) {
        let mut world = world(&[]);
        world.steps = Some(Vec::new());
        run(&mut world, &history, 1);
        let mut disturbed: BTreeMap<TargetKey, Time> = BTreeMap::new();
        for step in world.steps.take().unwrap_or_default() {
            for (key, before) in &step.before {
                let ended = disturbances(before).difference(&disturbances_at(&step.after, key)).count() > 0;
                if ended {
                    disturbed.insert(key.clone(), step.now);
                }
            }
            let events = events(&step.decisions);
            for event in events.into_iter().filter(|event| decreases_capacity(event)) {
                check_decrease(&step, event, &disturbed)?;
            }
        }
    }

    /// A deferred action is rechecked when it is due or replaced before; after the history, when everything
    /// has expired, no deferred action is left.
    #[test]
    fn nothing_is_deferred_beyond_its_time(history in history()) {
        let mut world = world(&[]);
        for step in &history {
            advance(&mut world, step, 1);
            prop_assert!(world.due().is_none_or(|due| due > world.now));
        }
        drain(&mut world);
        let waiting: Vec<Verdict> = world.states.values().flat_map(|state| state.deferred_verdicts()).collect();
        prop_assert!(waiting.is_empty() && open(&world).is_empty(), "{waiting:?}");
        prop_assert!(world.states.is_empty(), "{:?}", world.states);
    }

    #[test]
    fn every_alert_is_answered(history in history()) {
        let mut world = world(&[]);
        for step in &history {
            let now = world.now.after(Duration::from_millis(step.0.unsigned_abs()));
            let HistoryStep::Post { alerts, .. } = &step.1 else { continue };
            let decisions = advance(&mut world, step, 1);
            check_all_are_answered(alerts, now, &decisions)?;
        }
    }
}

/// The history of a group as an Alertmanager sends it: in each step some alerts start or end, and all firing
/// and just resolved alerts are sent. A second Alertmanager sends a copy up to this many seconds later, in
/// the same order.
fn group_history() -> impl Strategy<Value = Vec<(i64, BTreeSet<usize>, i64)>> {
    let changes = prop::collection::btree_set(0..12_usize, 1..4);
    prop::collection::vec((2..500_i64, changes, 0..340_i64), 1..25)
}

/// The notifications of a group history with the seconds of their arrival, including the copies.
fn notifications(history: &[(i64, BTreeSet<usize>, i64)], copies: bool) -> Vec<(i64, Vec<Alert>)> {
    let mut firing: BTreeMap<usize, Time> = BTreeMap::new();
    let (mut now, mut second) = (10, 0);
    let mut arrivals = Vec::new();
    for (delay, changes, later) in history {
        now += delay;
        let mut alerts = Vec::new();
        for number in changes {
            match firing.remove(number) {
                Some(began) => {
                    let mut ended = alert_of(*number, false, at(now - 1));
                    ended.starts_at = began;
                    alerts.push(ended);
                }
                None => drop(firing.insert(*number, at(now - 1))),
            }
        }
        alerts.extend(firing.iter().map(|(number, began)| alert_of(*number, true, *began)));
        arrivals.push((now, alerts.clone()));
        if copies {
            second = second.max(now + later);
            arrivals.push((second, alerts));
        }
    }
    // The sort is stable: of two that arrive in the same second, the original comes first.
    arrivals.sort_by_key(|(at, _)| *at);
    arrivals
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn copies_of_a_second_alertmanager_add_no_event_and_leave_the_same_open(history in group_history()) {
        let outcome_of = |copies: bool| {
            let mut world = world(&[]);
            // Late copies delay decreases, so that the events of a budget would be others.
            let rules = world.rules.rules().iter().map(|rule| Rule { budget: None, ..rule.clone() });
            world.rules = RuleTable::new(rules.collect(), known_templates());
            // The previous end is part of an episode id. Copies extend its retention, so it must not expire
            // here.
            world.policy.last_resolve_retention = Duration::from_secs(24 * 3600);
            world.deliver(at(0), false, vec![alert_of(14, true, at(0))]);
            let mut decisions = Vec::new();
            for (seconds, alerts) in notifications(&history, copies) {
                decisions.extend(world.run_until(at(seconds)));
                decisions.extend(world.deliver(at(seconds), false, alerts).into_iter().map(|it| (at(seconds), it)));
            }
            let end = notifications(&history, true).last().map_or(0, |(at, _)| *at);
            decisions.extend(world.run_until(at(end + 361)));
            let (decreases, increases): (Vec<_>, Vec<_>) = sent(&decisions)
                .map(|(at, event)| (at, event.id.clone(), decreases_capacity(event)))
                .partition(|(.., decreases)| *decreases);
            let decreases: BTreeSet<Arc<str>> = decreases.into_iter().map(|(_, id, _)| id).collect();
            (increases, decreases, open(&world))
        };
        let (alone, both) = (outcome_of(false), outcome_of(true));
        prop_assert_eq!(alone.0, both.0, "the same increases at the same time");
        prop_assert!(both.1.is_subset(&alone.1), "a late copy delays a decrease, and causes none");
        prop_assert_eq!(alone.2, both.2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// `occurrence_ttl` is short, so that firing alerts expire between two notifications, and their episodes
    /// open again with the same start.
    #[test]
    fn ids_never_repeat_where_alerts_expire_and_fire_again(history in group_history(), copies in any::<bool>()) {
        let mut world = world(&[]);
        Arc::get_mut(&mut world.source).unwrap().occurrence_ttl = 4 * MINUTE;
        let mut decisions = Vec::new();
        for (seconds, alerts) in notifications(&history, copies) {
            decisions.extend(world.run_until(at(seconds)));
            decisions.extend(world.deliver(at(seconds), false, alerts).into_iter().map(|it| (at(seconds), it)));
        }
        check_events_are_justified(&decisions)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, ..ProptestConfig::default() })]

    /// The invariants hold when rules change while episodes are open: every event is justified, every alert
    /// has a reply, and no state is left at the end.
    #[test]
    fn reloads_break_no_invariant(history in changing_history()) {
        let mut world = world(&[]);
        Arc::get_mut(&mut world.source).unwrap().occurrence_ttl = 30 * MINUTE;
        let mut decisions = Vec::new();
        for step in &history {
            let decided = advance(&mut world, step, 1);
            prop_assert!(world.due().is_none_or(|due| due > world.now));
            if let HistoryStep::Post { alerts, .. } = &step.1 {
                check_all_are_answered(alerts, world.now, &decided)?;
            }
            decisions.extend(decided);
        }
        decisions.extend(drain(&mut world));
        prop_assert!(world.states.is_empty(), "{:?}", world.states);
        check_events_are_justified(&decisions)?;
    }
}
