//! Compressed events, records and states are read as they were written.

use super::*;
use crate::domain::labels::Labels;
use crate::store::{Error, Record, RecordQuery};

const EVENTS: usize = 150;

fn id(number: usize) -> String {
    format!("{number:032x}")
}

/// Many events of different lengths, a long record and a long state.
fn changes() -> Changes {
    let targets: Vec<String> = (0..EVENTS).map(|number| format!("workers-{number}")).collect();
    let events = targets.iter().enumerate().map(|(number, target)| {
        let mut event = event(target, Kind::Out, &id(number), &["queue", "journal"]).event();
        if number % 50 == 7 {
            let long = event.body.replace("they wait", &"they wait ".repeat(20_000));
            event.body = long.replace("pods wait", "none of them can be placed").into();
        }
        event
    });
    let decisions: Vec<_> = targets.iter().map(|target| json!({ "target": target })).collect();
    let pods = (0..200).flat_map(|number| {
        state_with_last_resolve(&format!("pod-{number}")).last_resolves.iter().cloned().collect::<Vec<_>>()
    });
    let state = TargetState { last_resolves: pods.collect(), ..state_with_last_resolve("workers-0") };
    Changes {
        states: vec![(key("workers-0"), state)],
        record: Some(Record {
            targets: targets.iter().map(|target| key(target)).collect(),
            body: json!({ "decisions": decisions }).to_string(),
        }),
        events: events.collect(),
        ..Changes::default()
    }
}

/// Claims and settles until nothing is left. Returns the claims in order.
async fn drain(
    harness: &StoreHarness,
    destination: &str,
    settle: impl Fn(&Claimed) -> Settlement,
) -> Vec<Claimed> {
    let mut all = Vec::new();
    loop {
        let claimed = harness.store.claim(&name(destination), 100).await.unwrap();
        if claimed.is_empty() {
            return all;
        }
        let settled = claimed.iter().map(|one| (one.lease, settle(one))).collect();
        harness.store.settle(&name(destination), settled).await.unwrap();
        all.extend(claimed);
    }
}

fn assert_as_written(claimed: &[Claimed]) {
    let written = changes().events;
    assert_eq!(claimed.len(), written.len());
    for (claimed, written) in claimed.iter().zip(&written) {
        assert_eq!(claimed.body, written.body, "event {}", claimed.lease.seq().0);
    }
}

#[tokio::test]
async fn event_blocks_survive_a_restart_and_are_found_by_all_queries() {
    for mut harness in StoreHarness::all().await {
        harness.write(&["workers-0"], |_| changes()).await;
        harness.restart().await;
        assert_as_written(&drain(&harness, "queue", |_| Settlement::Delivered { answer: None }).await);
        // Each event is retried, so that it is read individually; every other one then becomes a dead letter.
        let tried =
            drain(&harness, "journal", |claimed| match (claimed.attempts, claimed.lease.seq().0 % 2) {
                (0, _) => {
                    Settlement::Retry { delay: Duration::ZERO, error: "throttled".into(), uncertain: false }
                }
                (_, 0) => Settlement::Delivered { answer: None },
                _ => Settlement::Dead {
                    error: "refused".into(),
                    cause: GiveUp::Rejected,
                    called: true,
                    uncertain: false,
                },
            });
        let (first, mut again): (Vec<_>, Vec<_>) = tried.await.into_iter().partition(|one| one.attempts == 0);
        again.sort_by_key(|one| one.lease.seq());
        assert_as_written(&first);
        assert_as_written(&again);
        let written = changes().events;
        let dead_letters = harness.store.dead_letters(Some(&name("journal")), None, 1000).await.unwrap();
        assert_eq!(dead_letters.len(), EVENTS / 2);
        for (dead_letter, written) in dead_letters.iter().zip(written.iter().step_by(2)) {
            assert_eq!(dead_letter.event, written.body);
        }
        for (number, written) in written.iter().enumerate() {
            let found = harness.store.event(&id(number)).await.unwrap();
            assert_eq!(found.unwrap_or_else(|| panic!("event {number} is there")).body, *written.body);
        }
        assert_eq!(harness.store.event(&id(EVENTS)).await.unwrap(), None);

        let record = changes().record.unwrap().body;
        let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        assert_eq!(
            harness.store.history(&key("workers-149"), from, to).await.unwrap(),
            std::slice::from_ref(&record)
        );
        for target in [None, Some(key("workers-3"))] {
            let query = RecordQuery { target, max: 10, ..RecordQuery::default() };
            assert_eq!(harness.store.records(query).await.unwrap().records[0].body, record);
        }
        let states = harness.store.states(None, 10).await.unwrap();
        assert_eq!(states[0].state, changes().states[0].1);
        let read = |view: &View| (Changes::default(), view.states.targets.get(&key("workers-0")).cloned());
        let read = harness.store.transact(harness.keys(&["workers-0"]), read).await.unwrap();
        assert_eq!(read.as_deref(), Some(&changes().states[0].1));
    }
}

#[tokio::test]
async fn event_blocks_are_pruned_with_the_last_of_their_events() {
    for mut harness in [StoreHarness::sqlite()] {
        harness.write(&["workers-0"], |_| changes()).await;
        assert!(harness.count("event_blocks") > 3, "several blocks, since long events fill a block sooner");
        assert_eq!(harness.count("events WHERE body <> ''"), 0);
        drain(&harness, "queue", |_| Settlement::Delivered { answer: None }).await;
        drain(&harness, "journal", |claimed| match &claimed.body {
            body if *body == changes().events[90].body => Settlement::Dead {
                error: "refused".into(),
                cause: GiveUp::Rejected,
                called: true,
                uncertain: false,
            },
            _ => Settlement::Delivered { answer: None },
        })
        .await;
        harness.prune().await;
        assert_eq!((harness.count("events"), harness.count("event_blocks")), (1, 1), "the dead letter");
        harness.restart().await;
        let dead_letter = harness.store.dead_letters(None, None, 10).await.unwrap().remove(0);
        assert_eq!(dead_letter.event, changes().events[90].body);
        assert_eq!(harness.store.event(&id(89)).await.unwrap(), None, "its block still exists");
        assert!(harness.store.event(&id(90)).await.unwrap().is_some());
        harness.store.discard(&dead_letter.delivery_id, audit("discard")).await.unwrap();
        // An undelivered event is retained until all deliveries that were pending at that time are settled.
        harness.prune().await;
        harness.prune().await;
        assert_eq!((harness.count("events"), harness.count("event_blocks")), (0, 0));
    }
}

const NO_ROOM: &str = "Pods wait for more than five minutes, since no node has room for them.";

/// Events that fill a block by number, not by bytes; the last ones are stored uncompressed.
fn short(from: usize) -> Changes {
    let event = |number: usize| {
        let mut event = event(&format!("workers-{number}"), Kind::Note, &id(number), &["queue"]).event();
        event.body = format!(r#"{{"specversion":"1.0","id":"{}"}}"#, id(number)).into();
        event
    };
    Changes { events: (from..from + 200).map(event).collect(), ..Changes::default() }
}

/// A pruning step covers 500 events, so it ends within a block.
#[tokio::test]
async fn event_blocks_are_pruned_also_where_a_step_of_pruning_ends_within_one() {
    for harness in [StoreHarness::sqlite()] {
        for from in [0, 200, 400] {
            harness.write(&["workers-0"], move |_| short(from)).await;
        }
        assert_eq!(
            (harness.count("event_blocks"), harness.count("event_blocks WHERE last - first = 63")),
            (9, 9)
        );
        assert_eq!(harness.count("events WHERE body <> ''"), 3 * 8);
        assert_eq!(harness.count("event_blocks WHERE first <= 500 AND last > 500"), 1);
        assert_eq!(harness.store.event(&id(463)).await.unwrap().unwrap().body, *short(463).events[0].body);
        drain(&harness, "queue", |_| Settlement::Delivered { answer: None }).await;
        harness.prune().await;
        assert_eq!((harness.count("events"), harness.count("event_blocks")), (0, 0));
    }
}

#[tokio::test]
async fn damaged_event_blocks_hold_up_nobody_else() {
    for damage in
        ["x'ff'", "x'ffffffff00'", "compressed || x'00'", "zeroblob(100)", "substr(compressed, 1, 50)"]
    {
        let mut harness = StoreHarness::sqlite();
        harness.write(&["workers-0"], |_| changes()).await;
        harness.store.close().await;
        let damaged = format!("UPDATE event_blocks SET compressed = {damage} WHERE first = 1");
        assert_eq!(harness.database().execute(&damaged, []).unwrap(), 1);
        let lost: usize = harness
            .count("events WHERE id <= (SELECT last FROM event_blocks WHERE first = 1)")
            .try_into()
            .unwrap();
        let damaged =
            damaged.replace("event_blocks", "records").replace("compressed", "body").replace("first", "id");
        assert_eq!(harness.database().execute(&damaged, []).unwrap(), 1);
        harness.restart().await;
        harness.write(&[], |_| changes()).await;
        let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        assert_eq!(harness.store.history(&key("workers-1"), from, to).await.unwrap().len(), 1);
        for target in [None, Some(key("workers-1"))] {
            let query = RecordQuery { target, max: 10, ..RecordQuery::default() };
            assert_eq!(harness.store.records(query).await.unwrap().records.len(), 1);
        }
        let claimed = drain(&harness, "queue", |_| Settlement::Delivered { answer: None }).await;
        assert_eq!(claimed.len(), 2 * EVENTS);
        for (number, (claimed, written)) in claimed.iter().zip(changes().events).enumerate() {
            if number < lost {
                claimed.body.header().unwrap_err();
            } else {
                assert_eq!(claimed.body, written.body, "event {number}");
            }
        }
        // The second event with this id is found.
        let found = harness.store.event(&id(0)).await.unwrap().unwrap();
        assert_eq!(found.body, *changes().events[0].body);
    }
}

/// An open episode of typical size; most of its text is the same for all targets of the rule.
pub(super) fn similar_state(rule: &str, target: usize, about: &str) -> TargetState {
    let mut state = deferred_state(rule, Verdict::Paused, false);
    let annotations: Labels = [("summary", format!("{target}: {about}"))].into_iter().collect();
    for episode in state.rules.values_mut().filter_map(|rule| rule.episode.as_mut()) {
        let occurrence = Occurrence {
            alert: alert(&target.to_string()),
            starts_at: now(),
            heard_at: now(),
            expires_at: now().after(HOUR),
            metric: None,
            labels: Arc::default(),
            annotations: Arc::new(annotations.clone()),
            generator_url: format!("http://prometheus:9090/graph?g0.expr=up+%3D%3D+{target}").into(),
            growth_key: None,
            validity: None,
        };
        episode.open = std::iter::once(occurrence).collect();
    }
    state
}

async fn put_similar_states(
    harness: &StoreHarness,
    rule: &'static str,
    targets: std::ops::Range<usize>,
    about: &str,
) {
    for target in targets {
        let text = format!("{rule}-{target}");
        let changed = key(&text);
        let state = similar_state(rule, target, about);
        harness
            .write(&[&text], move |_| Changes {
                states: vec![(changed.clone(), state.clone())],
                ..Changes::default()
            })
            .await;
    }
}

async fn assert_states(harness: &StoreHarness, rule: &str, targets: std::ops::Range<usize>, about: &str) {
    for target in targets {
        let changed = key(&format!("{rule}-{target}"));
        let keys = harness.keys(&[changed.as_str()]);
        let read = move |view: &View| (Changes::default(), view.states.targets.get(&changed).cloned());
        let read = harness.store.transact(keys, read).await.unwrap();
        assert_eq!(read.as_deref(), Some(&similar_state(rule, target, about)), "{rule}-{target}");
    }
}

#[tokio::test]
async fn states_are_compressed_with_the_dictionary_of_the_program() {
    let mut harness = StoreHarness::sqlite();
    put_similar_states(&harness, "nodes", 0..10, NO_ROOM).await;
    assert_eq!(harness.count("targets WHERE dictionary IS NULL"), 0);
    let texts = "(SELECT avg(length(state)) AS bytes FROM targets) WHERE bytes < 400";
    assert_eq!(harness.count(texts), 1, "the states have about 600 bytes");
    harness.restart().await;
    assert_states(&harness, "nodes", 0..10, NO_ROOM).await;
    // A state that is written without the dictionary is read without it.
    harness
        .write(&["nodes-7"], |_| Changes {
            states: vec![(key("nodes-7"), state_with_last_resolve("nodes-7"))],
            ..Changes::default()
        })
        .await;
    harness.restart().await;
    assert_states(&harness, "nodes", 8..10, NO_ROOM).await;
    let states = harness.store.states(None, 100).await.unwrap();
    assert_eq!(states.len(), 10);
    assert!(
        states
            .iter()
            .any(|state| state.key == key("nodes-7") && state.state == state_with_last_resolve("nodes-7"))
    );
}

#[tokio::test]
async fn a_state_of_an_unknown_dictionary_is_unreadable_and_nothing_is_decided_without_it() {
    let mut harness = StoreHarness::sqlite();
    put_similar_states(&harness, "nodes", 0..2, NO_ROOM).await;
    harness.store.close().await;
    harness.database().execute_batch("UPDATE targets SET dictionary = 99 WHERE id = 2").unwrap();
    harness.restart().await;
    let decided = harness.store.transact(harness.keys(&["nodes-1"]), |_| (Changes::default(), ())).await;
    let Err(Error::Unreadable(unreadable)) = decided else { panic!("{decided:?}") };
    assert_eq!(unreadable.targets.into_iter().collect::<Vec<_>>(), [key("nodes-1")]);
    let rows = harness.store.unreadable_rows();
    assert!(rows[0].error.contains("unknown dictionary 99"), "{rows:?}");
    assert_states(&harness, "nodes", 0..1, NO_ROOM).await;
    assert_eq!(harness.store.states(None, 10).await.unwrap().len(), 1, "the readable one is returned");
}
