//! What decisions know about deliveries, and what they change about them.

use super::*;
use crate::domain::delivery::{DeliveryChange, DeliveryChangeKind, EventDelivery};
use crate::domain::engine::DeliveryFeedback;
use crate::domain::state::{self, DestinationWait, EmissionOutcome};
use crate::store::{DeliveryState, RefusalReason};

/// A state that tracks these events.
pub(in crate::store) fn tracking(events: &[&str]) -> TargetState {
    let emission = |id: &&str| state::Emission {
        id: (*id).into(),
        rule: name("nodes"),
        phase: Phase::Firing,
        emitted_at: Time::from_nanos(0),
        increases: true,
        decreases: false,
        cooldown_ms: 0,
        value: None,
        is_owed: false,
        takes_back_until: None,
        takes_back: Vec::new(),
        acting: Vec::new(),
        outcome: EmissionOutcome::Pending,
        recheck_at: None,
        is_pending_elsewhere: false,
        is_suspended: false,
        is_withheld: false,
    };
    TargetState { emissions: events.iter().map(emission).collect(), ..TargetState::default() }
}

/// The same, of a target that is processed later for another reason: it awaits no delivery.
fn tracking_for_long(events: &[&str]) -> TargetState {
    TargetState { emissions: tracking(events).emissions, ..state_with_last_resolve("alert") }
}

/// A state that tracks these events, with an action that waits for a delivery.
fn awaiting_delivery(events: &[&str]) -> TargetState {
    let state = deferred_state("nodes", Verdict::CoolingDown, false);
    TargetState { emissions: tracking(events).emissions, ..state }
}

/// A state with an action that has been waiting for a destination since then.
fn awaiting_destination(since: Time) -> TargetState {
    let mut state = deferred_state("nodes", Verdict::CoolingDown, false);
    let far = Time::from_nanos(i64::MAX);
    for rule in state.rules.values_mut() {
        let deferred = rule.episode.as_mut().and_then(|episode| episode.deferred.as_mut()).unwrap();
        deferred.recheck_at = Some(far);
        deferred.wait = Some(DestinationWait { since, until: far, is_over: false });
    }
    state
}

pub(super) fn change(target: &str, event: &str, kind: DeliveryChangeKind) -> DeliveryChange {
    DeliveryChange { target: key(target), event: event.into(), kind }
}

impl StoreHarness {
    /// Emits an event with a state that tracks it and awaits its delivery.
    pub(super) async fn emit_tracked(&self, target: &str, kind: Kind, id: &str, to: &[&str]) {
        self.emit_acting(target, kind, id, to, to, &[id]).await;
    }

    async fn emit_acting(
        &self,
        target: &str,
        kind: Kind,
        id: &str,
        to: &[&str],
        acting: &[&str],
        tracked: &[&str],
    ) {
        let mut new = event(target, kind, id, to).event();
        new.acting = acting.iter().map(|destination| name(destination)).collect();
        let state = awaiting_delivery(tracked);
        let target = key(target);
        self.write(&[target.clone().as_str()], move |_| Changes {
            states: vec![(target.clone(), state.clone())],
            events: vec![new.clone()],
            ..Changes::default()
        })
        .await;
    }

    pub(super) async fn put_state(&self, target: &str, state: TargetState) {
        let target = key(target);
        self.write(&[target.clone().as_str()], move |_| Changes {
            states: vec![(target.clone(), state.clone())],
            ..Changes::default()
        })
        .await;
    }

    pub(super) async fn change(&self, target: &str, event: &str, kind: DeliveryChangeKind) {
        let change = change(target, event, kind);
        self.write(&[target], move |_| Changes {
            delivery_changes: vec![change.clone()],
            ..Changes::default()
        })
        .await;
    }

    async fn deliveries(&self, target: &str) -> DeliveryFeedback {
        let view = |view: &View| (Changes::default(), view.deliveries.clone());
        self.store.transact(self.keys(&[target]), view).await.unwrap()
    }

    /// The delivery of an event that the state of its target tracks.
    pub(super) async fn tracked(&self, target: &str, id: &str) -> EventDelivery {
        self.deliveries(target).await.events[&key(target)][id].clone()
    }

    /// The targets to process; all of them are rechecked.
    async fn rechecked(&self) -> Vec<String> {
        let due = self.store.due(100).await.unwrap();
        let targets = due.clone();
        self.store
            .transact(Keys { targets: due.clone(), alerts: Vec::new() }, move |_| {
                (Changes { rechecked: targets.clone(), ..Changes::default() }, ())
            })
            .await
            .unwrap();
        due.iter().map(|key| key.as_str().to_owned()).collect()
    }

    async fn event_state(&self, id: &str) -> DeliveryState {
        let stored = self.store.event(id).await.unwrap().unwrap();
        stored.deliveries[0].state
    }

    /// The store as it is after a kill: with the files as they are now.
    fn after_a_kill(&self) -> Option<(TempDir, Store)> {
        let Store::Sqlite(_) = self.store else { return None };
        let dir = tempfile::tempdir().unwrap();
        for file in ["bridge.db", "bridge.db-wal"] {
            std::fs::copy(self.dir.path().join(file), dir.path().join(file)).unwrap();
        }
        let store = Sqlite::open(&dir.path().join("bridge.db"), &destinations(), clock()).unwrap();
        Some((dir, Store::Sqlite(store)))
    }
}

/// An event that is found by its id.
pub(super) fn readable(emission: Emission) -> NewEvent {
    let id = emission.id.clone();
    let mut event = emission.event();
    let fields: serde_json::Value = serde_json::from_str(&event.body).unwrap();
    let fields =
        fields.as_object().unwrap().iter().filter(|(name, _)| *name != "specversion" && *name != "id");
    let fields: Vec<String> = fields.map(|(name, value)| format!(",\"{name}\":{value}")).collect();
    event.body = format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\"{}}}", fields.concat()).into();
    event
}

/// A list as schema 7 stored it.
fn firing_events(episode: &str, seq: i64, route: i64) -> Vec<u8> {
    use std::hash::Hasher as _;
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(episode.as_bytes());
    [hasher.finish().to_be_bytes(), seq.to_be_bytes(), route.to_be_bytes()].concat()
}

fn dead_because(cause: GiveUp, uncertain: bool) -> Settlement {
    Settlement::Dead { error: "given up".into(), cause, called: false, uncertain }
}

fn uncertain_retry() -> Settlement {
    Settlement::Retry { delay: Duration::ZERO, error: "time-out".into(), uncertain: true }
}

const SUCCESS: Settlement = Settlement::Delivered { answer: None };

#[tokio::test]
async fn a_decision_sees_the_delivery_of_the_events_that_its_states_track() {
    for mut harness in StoreHarness::all().await {
        harness.emit_tracked("a", Kind::Out, "out", &["queue"]).await;
        assert_eq!(harness.tracked("a", "out").await, EventDelivery::pending());
        assert!(harness.deliveries("b").await.events.is_empty());
        harness.claim_and_settle("queue", "out", retry_after(0)).await;
        assert_eq!(harness.tracked("a", "out").await, EventDelivery::pending());
        harness.claim_and_settle("queue", "out", uncertain_retry()).await;
        let uncertain = EventDelivery { is_uncertain: true, ..EventDelivery::pending() };
        assert_eq!(harness.tracked("a", "out").await, uncertain);
        harness.claim_and_settle("queue", "out", retry_after(0)).await;
        assert_eq!(harness.tracked("a", "out").await, uncertain, "of the earlier call");
        harness.restart().await;
        harness.store.release_all(&name("queue")).unwrap();
        assert_eq!(harness.tracked("a", "out").await, uncertain);
        assert_eq!(harness.deliveries("a").await.last_success, [].into());
        harness.claim_and_settle("queue", "out", SUCCESS).await;
        let delivered = harness.tracked("a", "out").await;
        assert!(delivered.delivered_at >= Some(now()) && !delivered.is_pending, "{delivered:?}");
        let success = harness.deliveries("a").await.last_success;
        assert_eq!(success.get(&name("queue")).copied(), delivered.delivered_at);
        harness.restart().await;
        assert_eq!(harness.tracked("a", "out").await, delivered, "the time is stored");
        harness.put_state("a", state_with_last_resolve("a")).await;
        assert!(harness.deliveries("a").await.events.is_empty(), "it tracks nothing any more");
    }
}

#[tokio::test]
async fn only_acting_destinations_count_for_the_delivery_of_an_event() {
    for harness in StoreHarness::all().await {
        harness.emit_acting("a", Kind::Out, "out", &["queue", "journal"], &["queue"], &["out"]).await;
        harness.claim_and_settle("journal", "out", SUCCESS).await;
        assert_eq!(harness.tracked("a", "out").await, EventDelivery::pending());
        harness.claim_and_settle("queue", "out", dead_because(GiveUp::Expired, true)).await;
        let expired =
            EventDelivery { given_up: Some(GiveUp::Expired), is_uncertain: true, ..EventDelivery::default() };
        assert_eq!(harness.tracked("a", "out").await, expired, "without a success of the queue");
        harness
            .emit_acting("b", Kind::Out, "both", &["queue", "journal"], &["queue", "journal"], &["both"])
            .await;
        harness.claim_and_settle("queue", "both", dead_because(GiveUp::Expired, false)).await;
        harness.claim_and_settle("journal", "both", dead_because(GiveUp::Rejected, false)).await;
        assert_eq!(harness.tracked("b", "both").await.given_up, Some(GiveUp::Rejected));
    }
}

#[tokio::test]
async fn a_target_is_processed_when_what_it_waits_for_has_happened() {
    for mut harness in StoreHarness::all().await {
        harness.emit_tracked("a", Kind::Out, "one", &["queue"]).await;
        harness.emit_tracked("b", Kind::Out, "two", &["queue"]).await;
        harness.emit_tracked("c", Kind::Out, "three", &["queue"]).await;
        harness.put_state("b", tracking_for_long(&["two"])).await;
        assert_eq!(harness.rechecked().await, [""; 0]);
        let is_due = || harness.store.next_due().borrow().is_some_and(|due| due <= harness.store.now());
        assert!(!is_due());
        let leases = harness.claim_expecting("queue", &["one", "two", "three"]).await;
        harness.settle("queue", leases[0], SUCCESS).await;
        harness.settle("queue", leases[1], SUCCESS).await;
        harness.settle("queue", leases[2], retry_after(3600)).await;
        assert!(is_due());
        assert_eq!(harness.rechecked().await, ["a"], "b awaits no delivery");
        assert_eq!(harness.rechecked().await, [""; 0]);
        harness.put_state("b", tracking_for_long(&["four"])).await;
        harness.emit_acting("b", Kind::Out, "four", &["queue"], &["queue"], &["four"]).await;
        harness.put_state("b", tracking_for_long(&["four"])).await;
        harness.claim_and_settle("queue", "four", dead_because(GiveUp::Expired, false)).await;
        harness.restart().await;
        let processed = harness.rechecked().await;
        assert!(processed.contains(&"b".to_owned()), "{processed:?}: it was given up");
        harness.restart().await;
        assert!(!harness.rechecked().await.contains(&"b".to_owned()), "it was rechecked");
    }
}

#[tokio::test]
async fn targets_that_wait_for_a_destination_are_processed_when_a_later_call_has_succeeded() {
    let moment = std::sync::atomic::AtomicI64::new(now().as_nanos());
    let clock = move || Time::from_nanos(moment.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let memory = Memory::new(&destinations(), Arc::new(clock));
    let memory = StoreHarness::of_memory(memory);
    for mut harness in [StoreHarness::sqlite(), memory, StoreHarness::postgres().await] {
        harness.put_state("waits", awaiting_destination(Time::from_nanos(0))).await;
        harness.put_state("other", tracking_for_long(&["0"])).await;
        let settle = async |harness: &StoreHarness, id: &str, settlement: Settlement| {
            harness.emit("x", Kind::Note, id, &["queue"]).await;
            harness.claim_and_settle("queue", id, settlement).await;
            harness.rechecked().await
        };
        assert_eq!(settle(&harness, "1", SUCCESS).await, ["waits"], "the first success since the start");
        assert_eq!(settle(&harness, "2", dead_because(GiveUp::Expired, false)).await, [""; 0]);
        assert_eq!(settle(&harness, "3", SUCCESS).await, [""; 0], "it was processed after an earlier one");
        // The last call has succeeded when the event is given up because of its age.
        harness.put_state("waits", awaiting_destination(harness.store.now())).await;
        assert_eq!(settle(&harness, "4", dead()).await, [""; 0]);
        assert_eq!(settle(&harness, "5", SUCCESS).await, ["waits"]);
        assert_eq!(settle(&harness, "6", SUCCESS).await, [""; 0]);
        harness.restart().await;
        if matches!(harness.store, Store::Sqlite(_)) {
            assert_eq!(harness.rechecked().await, ["waits"], "what has happened meanwhile is unknown");
            assert!(settle(&harness, "7", SUCCESS).await.contains(&"waits".to_owned()));
        }
    }
}

#[tokio::test]
async fn a_call_that_succeeds_at_the_very_time_of_a_give_up_is_a_later_one() {
    let harness = StoreHarness::memory();
    let now = harness.store.now();
    harness.put_state("waits", awaiting_destination(now)).await;
    harness.put_state("later", awaiting_destination(Time::from_nanos(now.as_nanos() + 1))).await;
    harness.emit("x", Kind::Note, "1", &["queue"]).await;
    harness.claim_and_settle("queue", "1", SUCCESS).await;
    assert_eq!(harness.rechecked().await, ["waits"]);
    harness.emit("x", Kind::Note, "2", &["queue"]).await;
    harness.claim_and_settle("queue", "2", SUCCESS).await;
    assert_eq!(harness.rechecked().await, [""; 0], "it was processed after one of the same time");
}

#[tokio::test]
async fn a_success_between_a_give_up_and_its_decision_is_known_to_the_decision() {
    for mut harness in StoreHarness::all().await {
        harness.emit_tracked("a", Kind::Out, "old", &["queue"]).await;
        harness.emit("b", Kind::Note, "new", &["queue"]).await;
        let leases = harness.claim_expecting("queue", &["old", "new"]).await;
        let settled = [dead_because(GiveUp::Expired, false), SUCCESS];
        let settled = leases.into_iter().zip(settled).collect();
        harness.store.settle(&name("queue"), settled).await.unwrap();
        let deliveries = harness.deliveries("a").await;
        let last = deliveries.last_success.get(&name("queue")).copied();
        assert!(last.is_some());
        assert_eq!(deliveries.events[&key("a")]["old"].later_success, last, "one worker has settled both");
        harness.restart().await;
        let after_restart = harness.tracked("a", "old").await.later_success;
        let knows_calls = !matches!(harness.store, Store::Sqlite(_));
        assert_eq!(after_restart, last.filter(|_| knows_calls), "of calls by this process");
    }
}

#[tokio::test]
async fn a_success_before_a_give_up_is_not_a_later_one() {
    let moment = std::sync::atomic::AtomicI64::new(now().as_nanos());
    let clock = move || Time::from_nanos(moment.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let memory = Memory::new(&destinations(), Arc::new(clock));
    let harness = StoreHarness::of_memory(memory);
    harness.emit("b", Kind::Note, "first", &["queue"]).await;
    harness.claim_and_settle("queue", "first", SUCCESS).await;
    harness.emit_tracked("a", Kind::Out, "old", &["queue"]).await;
    harness.claim_and_settle("queue", "old", dead_because(GiveUp::Expired, false)).await;
    assert_eq!(harness.tracked("a", "old").await.later_success, None);
}

#[tokio::test]
async fn what_was_settled_is_known_after_a_kill_and_is_not_sent_again() {
    let harness = StoreHarness::sqlite();
    harness.emit_tracked("a", Kind::Out, "first", &["queue"]).await;
    harness.emit_tracked("b", Kind::Out, "second", &["queue"]).await;
    let leases = harness.claim_expecting("queue", &["first", "second"]).await;
    harness.settle("queue", leases[1], SUCCESS).await;
    let (_dir, store) = harness.after_a_kill().unwrap();
    let due = store.due(10).await.unwrap();
    assert_eq!(due, [key("a"), key("b")], "both await a delivery");
    let claimed = store.claim(&name("queue"), 10).await.unwrap();
    assert_eq!(claimed.iter().map(id_of).collect::<Vec<_>>(), ["first"]);
    assert_eq!(store.undelivered(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_decrease_goes_to_destinations_at_which_an_event_that_it_takes_back_arrived() {
    for mut harness in StoreHarness::all().await {
        for id in ["1", "2"] {
            harness.emit_acting("a", Kind::Out, id, &["queue", "journal"], &["queue"], &["1", "2"]).await;
        }
        harness.claim_and_settle("queue", "1", SUCCESS).await;
        harness.claim_and_settle("queue", "2", SUCCESS).await;
        harness.claim_and_settle("journal", "1", dead()).await;
        harness.claim_and_settle("journal", "2", dead()).await;
        harness.restart().await;
        let mut new = event("a", Kind::In, "in", &["queue", "journal"]).event();
        new.reverts = ["1".into(), "2".into()].into();
        // The episode that closes has emitted nothing.
        new.episode_phase = Some(EpisodePhase { phase: Phase::Resolved, episode: "later".into() });
        harness
            .write(&["a"], move |_| Changes {
                states: vec![(key("a"), tracking(&["in"]))],
                events: vec![new.clone()],
                ..Changes::default()
            })
            .await;
        assert!(!harness.claim_one("queue", "in").await.nothing_to_compensate);
        assert!(harness.claim_one("journal", "in").await.nothing_to_compensate);
    }
}

#[tokio::test]
async fn a_decrease_that_was_called_when_the_process_ended_is_uncertain() {
    let harness = StoreHarness::sqlite();
    harness.emit_tracked("a", Kind::In, "in", &["queue"]).await;
    harness.emit_tracked("b", Kind::In, "other", &["queue"]).await;
    let leases = harness.claim_expecting("queue", &["in", "other"]).await;
    assert_eq!(harness.store.begin_calls(&name("queue"), vec![leases[0]]).await.unwrap(), []);
    assert!(harness.tracked("a", "in").await.is_uncertain, "the call goes on");
    let (_dir, store) = harness.after_a_kill().unwrap();
    let keys = Keys { targets: vec![key("a"), key("b")], alerts: Vec::new() };
    let deliveries =
        store.transact(keys, |view| (Changes::default(), view.deliveries.clone())).await.unwrap();
    let uncertain = |target: &str, id: &str| deliveries.events[&key(target)][id].is_uncertain;
    assert!(uncertain("a", "in") && !uncertain("b", "other"));
    let claimed = store.claim(&name("queue"), 10).await.unwrap();
    assert_eq!(claimed.iter().map(id_of).collect::<Vec<_>>(), ["in", "other"], "it is called again");
    assert_eq!(claimed[0].attempts, 0, "no call has failed");
    store.close().await;
    // Settled, nothing of it stays.
    harness.settle("queue", leases[0], SUCCESS).await;
    assert_eq!(harness.count("deliveries"), 0);
}

#[tokio::test]
async fn a_suspended_delivery_waits_and_delays_no_other_until_it_is_resumed() {
    for mut harness in StoreHarness::all().await {
        harness.emit_tracked("a", Kind::In, "in", &["queue"]).await;
        harness.change("a", "in", DeliveryChangeKind::Suspend).await;
        assert_eq!(harness.tracked("a", "in").await, EventDelivery::pending());
        harness.emit_acting("a", Kind::Note, "note", &["queue"], &["queue"], &["in"]).await;
        harness.claim_and_settle("queue", "note", SUCCESS).await;
        harness.restart().await;
        harness.claim_expecting("queue", &[]).await;
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        harness.change("a", "in", DeliveryChangeKind::Resume).await;
        let claimed = harness.claim_one("queue", "in").await;
        assert!(claimed.emitted_at >= now(), "its age counts from then");
        harness.settle("queue", claimed.lease, SUCCESS).await;
        assert!(harness.tracked("a", "in").await.delivered_at.is_some());
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_claimed_delivery_that_is_suspended_is_not_called_again_and_may_arrive() {
    for harness in StoreHarness::all().await {
        for (id, settlement) in [
            ("1", retry_after(0)),
            ("2", Settlement::NotCalled { delay: Duration::ZERO, stands_aside: true }),
            ("3", SUCCESS),
        ] {
            harness.emit_tracked(id, Kind::In, id, &["queue"]).await;
            let lease = harness.claim_expecting("queue", &[id]).await[0];
            harness.change(id, id, DeliveryChangeKind::Suspend).await;
            let refused = harness.store.begin_calls(&name("queue"), vec![lease]).await.unwrap();
            assert_eq!(refused[0].reason, RefusalReason::Suspended);
            harness.settle("queue", lease, settlement.clone()).await;
            harness.claim_expecting("queue", &[]).await;
            let arrived = settlement == SUCCESS;
            assert_eq!(harness.tracked(id, id).await.delivered_at.is_some(), arrived);
            harness.change(id, id, DeliveryChangeKind::Resume).await;
            if !arrived {
                harness.claim_and_settle("queue", id, SUCCESS).await;
            }
        }
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn an_event_is_cancelled_by_its_id_and_what_is_known_of_its_calls_stays() {
    for mut harness in StoreHarness::all().await {
        for (id, before) in [("1", None), ("2", Some(retry_after(0))), ("3", Some(uncertain_retry()))] {
            harness.emit_tracked(id, Kind::In, id, &["queue"]).await;
            let is_uncertain = before == Some(uncertain_retry());
            if let Some(before) = before {
                harness.claim_and_settle("queue", id, before).await;
            }
            harness.change(id, id, DeliveryChangeKind::Cancel).await;
            let ended = EventDelivery { is_uncertain, ..EventDelivery::default() };
            assert_eq!(harness.tracked(id, id).await, ended);
            harness.restart().await;
            harness.claim_expecting("queue", &[]).await;
            assert_eq!(harness.tracked(id, id).await, ended);
        }
        harness.emit_tracked("4", Kind::In, "4", &["queue"]).await;
        let lease = harness.claim_expecting("queue", &["4"]).await[0];
        harness.store.begin_calls(&name("queue"), vec![lease]).await.unwrap();
        harness.change("4", "4", DeliveryChangeKind::Cancel).await;
        harness.rechecked().await;
        assert!(harness.tracked("4", "4").await.is_pending, "the call goes on");
        harness.settle("queue", lease, uncertain_retry()).await;
        let ended = EventDelivery { is_uncertain: true, ..EventDelivery::default() };
        assert_eq!(harness.tracked("4", "4").await, ended);
        assert_eq!(harness.rechecked().await, ["4"]);
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_cancelled_delivery_that_arrives_after_all_has_one_attempt() {
    let id = "0123456789abcdef0123456789abcdef";
    for harness in StoreHarness::durable().await {
        harness
            .write(&["a"], move |_| Changes {
                states: vec![(key("a"), tracking(&[id]))],
                events: vec![readable(event("a", Kind::In, id, &["queue"]))],
                ..Changes::default()
            })
            .await;
        let lease = harness.store.claim(&name("queue"), 1).await.unwrap()[0].lease;
        harness.change("a", id, DeliveryChangeKind::Cancel).await;
        assert_eq!(harness.event_state(id).await, DeliveryState::Superseded);
        let answer = Some("MessageId 7".to_owned());
        harness.settle("queue", lease, Settlement::Delivered { answer: answer.clone() }).await;
        let delivery = harness.store.event(id).await.unwrap().unwrap().deliveries.remove(0);
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Delivered, 1));
        assert_eq!(delivery.answer, answer);
        assert!(delivery.delivered_at.is_some());
        assert!(harness.tracked("a", id).await.delivered_at.is_some());
    }
}

#[tokio::test]
async fn a_dead_letter_is_renewed_if_its_age_was_the_cause_and_replaced_whatever_it_was() {
    let renew = DeliveryChangeKind::Renew { expires_after: 5 * HOUR };
    for mut harness in StoreHarness::all().await {
        for (id, cause) in [("old", GiveUp::Expired), ("bad", GiveUp::Rejected)] {
            harness.emit_tracked(id, Kind::Out, id, &["queue"]).await;
            harness.claim_and_settle("queue", id, retry_after(0)).await;
            harness.claim_and_settle("queue", id, dead_because(cause, false)).await;
        }
        for id in ["old", "bad"] {
            harness.change(id, id, renew).await;
        }
        harness.restart().await;
        let claimed = harness.claim_one("queue", "old").await;
        let body: serde_json::Value = serde_json::from_str(&claimed.body).unwrap();
        assert!(body["expirytime"].as_str().unwrap() >= now().after(5 * HOUR).to_millis_string().as_str());
        assert_eq!(claimed.attempts, 1);
        harness.settle("queue", claimed.lease, dead_because(GiveUp::Expired, false)).await;
        assert_eq!(harness.backlog("queue"), (0, 0, 2));
        for id in ["old", "bad"] {
            harness.change(id, id, DeliveryChangeKind::Replace).await;
            assert_eq!(harness.tracked(id, id).await, EventDelivery::default());
        }
        harness.restart().await;
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
        assert_eq!(harness.store.dead_letters(None, None, 10).await.unwrap(), []);
        harness.claim_expecting("queue", &[]).await;
    }
}

#[tokio::test]
async fn the_age_of_a_renewed_delivery_counts_from_its_emission_when_the_renewal_ends() {
    let expirytime = |claimed: &Claimed| {
        let body: serde_json::Value = serde_json::from_str(&claimed.body).unwrap();
        body["expirytime"].as_str().unwrap().to_owned()
    };
    for mut harness in StoreHarness::all().await {
        for restarts in [false, true] {
            let id = if restarts { "restarted" } else { "old" };
            harness.emit_tracked(id, Kind::Out, id, &["queue"]).await;
            let first = harness.claim_one("queue", id).await;
            harness.settle("queue", first.lease, dead_because(GiveUp::Expired, true)).await;
            harness.change(id, id, DeliveryChangeKind::Renew { expires_after: 5 * HOUR }).await;
            let renewed = harness.claim_one("queue", id).await;
            harness.settle("queue", renewed.lease, retry_after(0)).await;
            // The memory store's clock stands still.
            let is_later = renewed.emitted_at > first.emitted_at || matches!(harness.store, Store::Memory(_));
            assert!(is_later && expirytime(&renewed) > expirytime(&first));
            harness.change(id, id, DeliveryChangeKind::EndRenewal).await;
            if restarts {
                // The clock of the tests goes on after the last stored time.
                harness.emit_tracked("later", Kind::Out, "later", &["journal"]).await;
                harness.restart().await;
            }
            assert!(harness.tracked(id, id).await.is_pending, "a worker gives it up");
            let ended = harness.claim_one("queue", id).await;
            assert_eq!(
                (ended.emitted_at, expirytime(&ended), ended.attempts),
                (first.emitted_at, expirytime(&first), 1)
            );
            harness.settle("queue", ended.lease, dead_because(GiveUp::Expired, false)).await;
            let given_up = harness.tracked(id, id).await;
            assert_eq!((given_up.given_up, given_up.is_uncertain), (Some(GiveUp::Expired), true));
        }
        assert_eq!(harness.backlog("queue"), (0, 0, 2));
    }
}

#[tokio::test]
async fn the_age_that_is_shown_of_a_renewed_or_resumed_event_counts_from_its_emission() {
    let moment = std::sync::atomic::AtomicI64::new(now().as_nanos());
    let clock = move || Time::from_nanos(moment.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let memory = Memory::new(&destinations(), Arc::new(clock));
    let memory = StoreHarness::of_memory(memory);
    for mut harness in [StoreHarness::sqlite(), memory, StoreHarness::postgres().await] {
        let shown = |harness: &StoreHarness| harness.store.stats(&name("queue")).oldest_unsettled;
        harness.emit_tracked("a", Kind::Out, "out", &["queue"]).await;
        let first = harness.claim_one("queue", "out").await;
        assert_eq!(shown(&harness), Some(first.emitted_at));
        harness.settle("queue", first.lease, dead_because(GiveUp::Expired, false)).await;
        assert_eq!(shown(&harness), None);
        harness.change("a", "out", DeliveryChangeKind::Renew { expires_after: 5 * HOUR }).await;
        assert_eq!(shown(&harness), Some(first.emitted_at));
        harness.change("a", "out", DeliveryChangeKind::Suspend).await;
        harness.change("a", "out", DeliveryChangeKind::Resume).await;
        assert_eq!(shown(&harness), Some(first.emitted_at));
        harness.restart().await;
        let renewed = harness.claim_one("queue", "out").await;
        assert!(renewed.emitted_at > first.emitted_at, "its limits count from then");
        assert_eq!(shown(&harness), Some(first.emitted_at));
    }
}

#[tokio::test]
async fn a_delivery_without_a_renewal_has_none_to_end() {
    for harness in StoreHarness::all().await {
        harness.emit_tracked("a", Kind::Out, "out", &["queue"]).await;
        harness.change("a", "out", DeliveryChangeKind::EndRenewal).await;
        let claimed = harness.claim_one("queue", "out").await;
        harness.settle("queue", claimed.lease, SUCCESS).await;
        harness.change("a", "out", DeliveryChangeKind::EndRenewal).await;
        assert!(harness.tracked("a", "out").await.delivered_at.is_some());
        assert_eq!(harness.backlog("queue"), (0, 0, 0));
    }
}

#[tokio::test]
async fn events_of_episodes_that_an_earlier_version_opened_are_told_with_what_they_did() {
    let mut harness = StoreHarness::sqlite();
    harness.emit_firing("a", "out", &["queue"]).await;
    let written = firing_events("e", 1, 1);
    harness.store.close().await;
    harness
        .database()
        .execute("UPDATE targets SET tracked = NULL, awaits = NULL, firing_events = ?1", [&written])
        .unwrap();
    harness.restart().await;
    let legacy = harness.deliveries("a").await.legacy;
    let [event] = legacy[&key("a")].as_slice() else { panic!("{legacy:?}") };
    assert_eq!((&*event.id, event.phase, event.rule.as_str()), ("out", Phase::Firing, "nodes"));
    assert_eq!(event.adjustment, None);
    // The first state that is written tracks it by its id.
    harness.put_state("a", tracking(&["out"])).await;
    assert_eq!(harness.tracked("a", "out").await, EventDelivery::pending());
    assert!(harness.deliveries("a").await.legacy.is_empty());
}

#[tokio::test]
async fn the_receipts_of_a_destination_are_found_and_pruned_with_their_events() {
    let harness = StoreHarness::sqlite();
    let ids: Vec<String> = (0..70).map(|number| format!("{number:032x}")).collect();
    for id in ids.clone() {
        harness
            .write(&["a"], move |_| Changes {
                states: vec![(key("a"), state_with_last_resolve("a"))],
                events: vec![super::query::event(&id, "a")],
                ..Changes::default()
            })
            .await;
    }
    for id in &ids {
        let claimed = harness.store.claim(&name("queue"), 1).await.unwrap().remove(0);
        harness.settle("queue", claimed.lease, Settlement::Delivered { answer: Some(id.clone()) }).await;
    }
    for id in &ids {
        let delivery = harness.store.event(id).await.unwrap().unwrap().deliveries.remove(0);
        assert_eq!(delivery.answer.as_ref(), Some(id));
    }
    while !harness.store.claim(&name("journal"), 100).await.unwrap().is_empty() {
        harness.store.release_claims(&name("journal")).unwrap();
        for claimed in harness.store.claim(&name("journal"), 100).await.unwrap() {
            harness.settle("journal", claimed.lease, SUCCESS).await;
        }
    }
    harness.prune().await;
    assert!(harness.count("events") <= 1);
    assert!(harness.count("receipts") <= 2);
}

#[tokio::test]
async fn a_delivery_that_is_withheld_for_long_writes_nothing_while_nothing_changes() {
    let mut harness = StoreHarness::sqlite();
    let withheld = Settlement::NotCalled { delay: Duration::ZERO, stands_aside: true };
    harness.emit_tracked("a", Kind::Out, "out", &["queue"]).await;
    harness.claim_and_settle("queue", "out", withheld.clone()).await;
    let database = harness.database();
    // It changes when another connection commits a change.
    let version = || database.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0)).unwrap();
    let before = version();
    for _ in 0..3 {
        harness.claim_and_settle("queue", "out", withheld.clone()).await;
        assert_eq!(version(), before);
    }
    harness.claim_and_settle("queue", "out", uncertain_retry()).await;
    assert_ne!(version(), before);
    let before = version();
    harness.claim_and_settle("queue", "out", withheld.clone()).await;
    assert_eq!(version(), before);
    let lease = harness.claim_expecting("queue", &["out"]).await[0];
    assert_eq!(harness.refusal(lease).await, None);
    let before = version();
    harness.settle("queue", lease, withheld).await;
    assert_ne!(version(), before, "no call is under way any more");
    drop(database);
    harness.restart().await;
    harness.store.release_all(&name("queue")).unwrap();
    harness.claim_and_settle("queue", "out", SUCCESS).await;
    assert_eq!(harness.backlog("queue"), (0, 0, 0));
}

#[tokio::test]
async fn the_delivery_of_many_events_is_known_after_a_restart() {
    let mut harness = StoreHarness::sqlite();
    let ids: Vec<String> = (0..30).map(|number| format!("event-{number}")).collect();
    let all: Vec<&str> = ids.iter().map(String::as_str).collect();
    for id in &all {
        harness.emit_acting("a", Kind::Out, id, &["queue", "journal"], &["queue", "journal"], &all).await;
    }
    for (number, id) in all.iter().enumerate() {
        let settlement = match number % 3 {
            0 => SUCCESS,
            1 => dead_because(GiveUp::Expired, true),
            _ => dead_because(GiveUp::Rejected, false),
        };
        harness.claim_and_settle("queue", id, settlement).await;
        if number < 20 {
            harness.claim_and_settle("journal", id, SUCCESS).await;
        }
    }
    let mut before = harness.deliveries("a").await.events;
    assert_eq!(before[&key("a")].values().filter(|one| one.is_pending).count(), 10);
    // The calls that have succeeded are those of this process.
    before.values_mut().flat_map(|events| events.values_mut()).for_each(|one| one.later_success = None);
    harness.restart().await;
    assert_eq!(harness.deliveries("a").await.events, before);
    harness.restart_for(&[name("queue")]).await;
    assert_eq!(harness.deliveries("a").await.events, before, "also without the lane of a destination");
}
