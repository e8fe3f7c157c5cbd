use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::domain::alert_key::AlertKey;
use crate::domain::engine::{DeliveryFeedback, States};
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::rate::Rates;
use crate::domain::state::LastResolve;
use crate::domain::verdict::Verdict;
use crate::store::postgres::transact::tracked::Compensated;
use crate::store::postgres::transact::view::Locks;
use crate::store::tests::tracking::tracking;
use crate::store::tests::{deferred_state, open_episode};
use crate::store::{EpisodePhase, EventSeq, View};

const CONTROLS_GENERATION: u64 = 5;

fn key(text: &str) -> TargetKey {
    TargetKey::from_stored(text)
}

fn names(all: &[&str]) -> Arc<[Name]> {
    all.iter().map(|name| Name::new(name).unwrap()).collect()
}

fn at(nanos: i64) -> Time {
    Time::from_nanos(nanos)
}

/// A state with the last resolves of these alerts.
fn with_alerts(alerts: &[&str]) -> TargetState {
    let ended = |text: &&str| LastResolve {
        alert: AlertKey { source: Name::new("prod").unwrap(), fingerprint: (*text).into() },
        ends_at: at(0),
        was_open: true,
        closed_at: None,
        until: at(i64::MAX),
    };
    TargetState { last_resolves: alerts.iter().map(ended).collect(), ..TargetState::default() }
}

/// The target `a` with the id 1, as it is before a batch, and one command that has it.
struct Before {
    rows: LockedRows,
    slot: Slot,
    tracked: BTreeMap<i64, Vec<TrackedEvent>>,
}

impl Before {
    fn new(state: Option<TargetState>) -> Self {
        let target = LockedTarget {
            id: 1,
            key: key("a"),
            last_at: at(0),
            due: state.as_ref().and_then(TargetState::due),
            recheck: false,
            generation: 3,
            has_waits: false,
            tally: state.as_ref().and_then(tally::encode),
            state: state.map(Arc::new),
        };
        let mut rows = LockedRows::default();
        rows.by_hash.insert(target_hash(&target.key), 1);
        rows.targets.insert(1, target);
        let view = View {
            now: at(1000),
            wall: at(990),
            created: at(0),
            states: States::default(),
            controls: controls(CONTROLS_GENERATION),
            deliveries: DeliveryFeedback::default(),
            rates: None,
            incarnation: 0,
            has_newer_configuration: false,
        };
        Self { rows, slot: Slot { view, targets: vec![1] }, tracked: BTreeMap::new() }
    }

    fn tracks(mut self, seq: i64, id: &str, episode: Option<(&str, Phase)>, to: &[&str]) -> Self {
        let destinations = names(to).to_vec();
        let episode = episode.map(|(episode, phase)| (episode.to_owned(), phase));
        let event = TrackedEvent {
            seq: EventSeq(seq),
            id: id.into(),
            acting: destinations.clone(),
            destinations,
            episode,
        };
        self.tracked.entry(1).or_default().push(event);
        self
    }

    fn write(&self, changes: Changes) -> WriteSet {
        let view = &self.slot.view;
        let slot = Slot {
            view: View {
                states: States::default(),
                deliveries: DeliveryFeedback::default(),
                controls: view.controls.clone(),
                rates: None,
                ..*view
            },
            targets: self.slot.targets.clone(),
        };
        let controls = changes.controls.clone();
        let outcome = Outcome { controls, rates: Rates::default(), changed: Locks::default() };
        let source = Source { rows: &self.rows, tracked: &self.tracked, next_due: None };
        WriteSet::new(vec![(slot, changes)], &outcome, &source).unwrap()
    }

    fn put(&self, state: TargetState) -> WriteSet {
        self.write(Changes { states: vec![(key("a"), state)], ..Changes::default() })
    }
}

fn event(id: &str, episode: Option<(&str, Phase)>, to: &[&str], reverts: &[&str]) -> NewEvent {
    NewEvent {
        target: key("a"),
        destinations: names(to),
        acting: names(to),
        may_decrease_capacity: false,
        reverts: reverts.iter().map(|id| Arc::from(*id)).collect(),
        episode_phase: episode.map(|(episode, phase)| EpisodePhase { phase, episode: episode.into() }),
        body: format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\"}}").as_str().into(),
    }
}

fn controls(generation: u64) -> Arc<Controls> {
    let mut controls = Controls::default();
    (0..generation).for_each(|_| controls.bump_generation());
    controls.into()
}

fn bumped() -> Option<Arc<Controls>> {
    Some(controls(CONTROLS_GENERATION + 1))
}

#[test]
fn a_target_that_depends_on_the_controls_stays_pending_until_it_is_processed() {
    let paused = || deferred_state("nodes", Verdict::Paused, false);
    let generation = |before: Option<TargetState>, changes: Changes| {
        let set = Before::new(before).write(changes);
        (set.targets[0].depends_on_controls, set.targets[0].generation)
    };
    let put = |state| Changes { states: vec![(key("a"), state)], ..Changes::default() };
    assert_eq!(
        generation(None, put(paused())),
        (true, CONTROLS_GENERATION),
        "it was decided under these controls"
    );
    let raised = Changes { controls: bumped(), ..put(paused()) };
    assert_eq!(
        generation(None, raised),
        (true, CONTROLS_GENERATION),
        "but not under those that it has changed"
    );
    assert_eq!(generation(Some(paused()), put(paused())), (true, 3), "a notification does not process it");
    let rechecked = || Changes { rechecked: vec![key("a")], ..put(paused()) };
    assert_eq!(generation(Some(paused()), rechecked()), (true, CONTROLS_GENERATION));
    let both = Changes { controls: bumped(), ..rechecked() };
    assert_eq!(generation(Some(paused()), both), (true, CONTROLS_GENERATION + 1));
    assert!(!generation(Some(paused()), put(with_alerts(&["1"]))).0);
}

#[test]
fn a_change_of_a_delivery_is_forgotten_when_the_target_is_processed_or_its_state_is_deleted() {
    let mut before = Before::new(Some(with_alerts(&["1"])));
    before.rows.targets.get_mut(&1).unwrap().recheck = true;
    assert!(before.put(with_alerts(&["2"])).targets[0].recheck);
    assert!(!before.put(TargetState::default()).targets[0].recheck);
    let rechecked = || Changes { rechecked: vec![key("a"), key("unknown")], ..Changes::default() };
    let set = before.write(rechecked());
    assert_eq!((set.targets.len(), set.rechecked.len(), set.rechecked[0].id), (0, 1, 1));
    assert!(set.may_postpone);
    let set = before.write(Changes { states: vec![(key("a"), with_alerts(&["2"]))], ..rechecked() });
    assert_eq!((set.targets[0].recheck, set.rechecked.len()), (false, 0));
}

#[test]
fn only_what_has_changed_is_written() {
    let before = Before::new(Some(with_alerts(&["1", "2"])));
    let states = vec![(key("a"), with_alerts(&["9"])), (key("a"), with_alerts(&["2", "3"]))];
    let set = before.write(Changes { states, ..Changes::default() });
    let hash = |text: &str| alerts(Some(&with_alerts(&[text])))[0];
    assert_eq!(set.targets.len(), 1, "only the last state counts");
    assert_eq!((set.removed_alerts, set.added_alerts), (vec![(hash("1"), 1)], vec![(hash("3"), 1)]));
    assert_eq!((set.targets[0].at, set.targets[0].waits.as_deref()), (at(1000), None));
    let deleted = before.put(TargetState::default());
    assert_eq!((deleted.targets[0].state.as_deref(), deleted.targets[0].due), (None, None));
    assert!(Before::new(None).put(TargetState::default()).is_empty(), "there was nothing");
    assert!(before.write(Changes::default()).is_empty());
    let opened = Before::new(None).put(open_episode("e"));
    assert_eq!(opened.tally, [(None, Some("o nodes".to_owned()))]);
}

#[test]
fn events_are_tracked_while_the_state_knows_them_or_their_episode_is_open() {
    let firing = Some(("e", Phase::Firing));
    let before = || {
        Before::new(Some(open_episode("e")))
            .tracks(1, "one", firing, &["queue"])
            .tracks(2, "two", Some(("other", Phase::Firing)), &["queue"])
            .tracks(3, "three", Some(("e", Phase::Resolved)), &["queue"])
    };
    assert_eq!(before().put(open_episode("e")).untracked, [2, 3]);
    assert_eq!(before().put(tracking(&["two", "three"])).untracked, [1]);
    assert_eq!(before().put(with_alerts(&["1"])).untracked, [1, 2, 3]);
    let emit = |before: Before, state: Option<TargetState>| {
        let events = vec![event("new", firing, &["queue"], &[]), event("known", None, &["queue"], &[])];
        let states = state.into_iter().map(|state| (key("a"), state)).collect();
        let set = before.write(Changes { states, events, ..Changes::default() });
        set.events.iter().map(|event| event.is_tracked).collect::<Vec<_>>()
    };
    assert_eq!(emit(before(), None), [true, false], "by the state that stays");
    assert_eq!(emit(before(), Some(tracking(&["known"]))), [false, true]);
    assert_eq!(emit(Before::new(None), None), [false, false]);
}

#[test]
fn a_compensation_takes_back_what_its_episode_or_its_list_names() {
    let (firing, resolved) = (Some(("e", Phase::Firing)), Some(("e", Phase::Resolved)));
    let stored = |seq, to: &[&str]| Compensated::Stored(seq, names(to).to_vec());
    let compensates = |before: Before, events: Vec<NewEvent>| {
        let set = before.write(Changes { events, ..Changes::default() });
        set.events.last().unwrap().compensates.clone()
    };
    let before = || {
        Before::new(Some(open_episode("e"))).tracks(1, "one", firing, &["queue"]).tracks(
            2,
            "two",
            Some(("other", Phase::Firing)),
            &["journal"],
        )
    };
    let plain = |episode, reverts: &[&str]| event("new", episode, &["queue"], reverts);
    assert_eq!(compensates(before(), vec![plain(firing, &[])]), None);
    assert_eq!(compensates(before(), vec![plain(resolved, &[])]), Some(vec![stored(1, &["queue"])]));
    let both = vec![plain(firing, &[]), plain(resolved, &[])];
    assert_eq!(compensates(before(), both), Some(vec![stored(1, &["queue"]), Compensated::New(0)]));
    let listed = compensates(before(), vec![plain(resolved, &["two", "gone"])]);
    assert_eq!(listed, Some(vec![stored(2, &["journal"])]));
    assert_eq!(compensates(before(), vec![plain(resolved, &["gone"])]), None, "nothing is known about it");
    assert_eq!(compensates(Before::new(None), vec![plain(resolved, &[])]), Some(Vec::new()));
}

#[test]
fn targets_that_a_decision_has_not_read_are_asked_for() {
    let before = Before::new(None);
    let changes = Changes {
        states: vec![(key("a"), with_alerts(&["1"])), (key("b"), with_alerts(&["1"]))],
        events: vec![
            event("new", None, &["queue"], &[]),
            NewEvent { target: key("c"), ..event("x", None, &[], &[]) },
        ],
        record: Some(Record { targets: vec![key("a"), key("d")], body: "{}".into() }),
        rechecked: vec![key("unknown")],
        ..Changes::default()
    };
    let missing = missing_targets(&changes, &before.slot, &before.rows);
    let missing: Vec<&str> = missing.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!(missing, ["b", "c", "d"]);
}
