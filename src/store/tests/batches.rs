//! Group commit: the commands of one batch are committed together, without those that fail; if the commit fails,
//! none of them is.

use super::controls::{change_controls, changed, due, put};
use super::tracking::{change, tracking};
use super::*;
use crate::domain::control::Controls;
use crate::domain::delivery::{DeliveryChangeKind, EventDelivery};
use crate::store::{Error, Record};

type Write = Box<dyn FnMut(&View) -> Changes + Send>;

/// Makes every commit of a batch fail that delivers events or changes counts.
fn break_commits(harness: &StoreHarness) {
    let full = "CREATE TRIGGER full BEFORE UPDATE ON destinations BEGIN SELECT RAISE(ABORT, 'full'); END;
                CREATE TRIGGER full_too BEFORE INSERT ON tally BEGIN SELECT RAISE(ABORT, 'full'); END";
    harness.database().execute_batch(full).unwrap();
}

fn repair_commits(harness: &StoreHarness) {
    harness.database().execute_batch("DROP TRIGGER full; DROP TRIGGER full_too").unwrap();
}

/// Makes every command fail that writes a record with this text.
fn break_commands(harness: &StoreHarness) {
    let full = "CREATE TRIGGER full BEFORE INSERT ON records WHEN NEW.body = '\"fails\"'
                BEGIN SELECT RAISE(ABORT, 'full'); END";
    harness.database().execute_batch(full).unwrap();
}

/// The record of a command that fails.
fn failing_record(target: &str) -> Record {
    Record { targets: vec![key(target)], body: "\"fails\"".into() }
}

fn record(targets: &[&str]) -> Record {
    Record { targets: targets.iter().map(|target| key(target)).collect(), body: "{}".into() }
}

/// Emits an increase of target `a`, and cancels an earlier event of it.
fn increase_that_cancels(id: &str) -> Changes {
    Changes {
        delivery_changes: vec![change("a", id, DeliveryChangeKind::Cancel)],
        ..event("a", Kind::Out, "out", &["queue"]).changes()
    }
}

/// Commits these transactions in one batch.
async fn commit_together(
    harness: &StoreHarness,
    writes: Vec<(&'static str, Write)>,
) -> Vec<Result<(), Error>> {
    let gate = Gate::new(&harness.store, true).await;
    let tasks: Vec<_> = writes
        .into_iter()
        .map(|(target, mut changes)| {
            let (store, keys) = (harness.store.clone(), harness.keys(&[target]));
            tokio::spawn(async move { store.transact(keys, move |view| (changes(view), ())).await })
        })
        .collect();
    gate.open().await;
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}

#[tokio::test]
async fn a_batch_that_fails_cancels_nothing() {
    let mut harness = StoreHarness::sqlite();
    harness.emit_decreases("a", &["in"], &["queue"]).await;
    break_commits(&harness);
    let done = commit_together(
        &harness,
        vec![
            ("a", Box::new(|_| increase_that_cancels("in"))),
            ("b", Box::new(|_| Changes { record: Some(record(&["b"])), ..Changes::default() })),
        ],
    );
    assert!(done.await.iter().all(Result::is_err));
    let lease = harness.claim_expecting("queue", &["in"]).await[0];
    repair_commits(&harness);
    assert_eq!(harness.refusal(lease).await, None, "it is called");
    harness.restart().await;
    assert!(harness.tracked("a", "in").await.is_pending);
    harness.claim_expecting("queue", &["in"]).await;
}

#[tokio::test]
async fn a_command_that_fails_is_rolled_back_alone() {
    let mut harness = StoreHarness::sqlite();
    harness.emit_decreases("a", &["in"], &["queue"]).await;
    put(&harness, "d", deferred_state("nodes", Verdict::Paused, false)).await;
    break_commands(&harness);
    let done = commit_together(
        &harness,
        vec![
            ("b", Box::new(|_| event("b", Kind::Note, "before", &["queue"]).changes())),
            (
                "a",
                Box::new(|view| Changes {
                    states: vec![
                        (key("d"), TargetState::default()),
                        (key("e"), deferred_state("pods", Verdict::Held, false)),
                    ],
                    controls: Some(changed(&view.controls, true)),
                    record: Some(failing_record("a")),
                    delivery_changes: vec![change("a", "in", DeliveryChangeKind::Cancel)],
                    ..event("a", Kind::Out, "cancelling", &["queue", "journal"]).changes()
                }),
            ),
            (
                "a",
                Box::new(|view| {
                    assert_eq!(view.controls.generation, 0, "the command that failed changed no controls");
                    let delivery = &view.deliveries.events[&key("a")]["in"];
                    assert_eq!(*delivery, EventDelivery::pending(), "and it cancelled nothing");
                    event("c", Kind::Note, "after", &["queue"]).changes()
                }),
            ),
        ],
    );
    let done: Vec<bool> = done.await.iter().map(Result::is_ok).collect();
    assert_eq!(done, [true, false, true]);
    for restart in [false, true] {
        if restart {
            harness.store.close().await;
            harness.restart().await;
        }
        harness.claim_expecting("queue", &["in", "before", "after"]).await;
        harness.claim_expecting("journal", &[]).await;
        let counts = harness.store.tally();
        let paused: u64 = counts.deferred.values().sum();
        assert_eq!((paused, counts.open_episodes.len()), (1, counted_open(&harness).await), "{counts:?}");
        assert_eq!(harness.store.controls().generation, 0);
        harness.store.release_claims(&name("queue")).unwrap();
    }
    assert_eq!(harness.count("events"), 3);
    let states = harness.store.states(None, 10).await.unwrap();
    assert_eq!(states.iter().map(|stored| stored.key.as_str()).collect::<Vec<_>>(), ["a", "d", "b", "c"]);
}

#[tokio::test]
async fn a_decision_that_panics_fails_alone_and_the_store_goes_on() {
    let harness = StoreHarness::sqlite();
    let done = commit_together(
        &harness,
        vec![
            ("a", Box::new(|_| event("a", Kind::Note, "before", &["queue"]).changes())),
            ("b", Box::new(|_| panic!("a decision with a bug"))),
            ("c", Box::new(|_| event("c", Kind::Note, "after", &["queue"]).changes())),
        ],
    );
    let done = done.await;
    assert_eq!(done.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let Err(Error::Unavailable(why)) = &done[1] else { panic!("{done:?}") };
    assert_eq!(why, "the decision has panicked");
    harness.emit("d", Kind::Note, "later", &["queue"]).await;
    harness.claim_expecting("queue", &["before", "after", "later"]).await;
}

/// The number of rules with open episodes, from the states.
async fn counted_open(harness: &StoreHarness) -> usize {
    let states = harness.store.states(None, 10).await.unwrap();
    states
        .iter()
        .flat_map(|stored| stored.state.open_episodes())
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

#[tokio::test]
async fn a_batch_that_fails_keeps_the_controls_the_counts_and_the_recheck_queue() {
    let mut harness = StoreHarness::sqlite();
    put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
    let before = harness.store.tally();
    break_commits(&harness);
    let done = commit_together(
        &harness,
        vec![
            (
                "b",
                Box::new(|view| Changes {
                    states: vec![(key("b"), deferred_state("pods", Verdict::Paused, false))],
                    controls: Some(changed(&view.controls, true)),
                    ..Changes::default()
                }),
            ),
            (
                "c",
                Box::new(|view| {
                    assert_eq!(
                        view.controls.generation, 1,
                        "the earlier transaction of the batch is visible"
                    );
                    Changes { record: Some(record(&["c"])), ..Changes::default() }
                }),
            ),
        ],
    );
    assert!(done.await.iter().all(Result::is_err));
    repair_commits(&harness);
    let controls_and_tally = |harness: &StoreHarness| (harness.store.controls(), harness.store.tally());
    let unchanged = (std::sync::Arc::new(Controls::default()), before);
    assert_eq!(controls_and_tally(&harness), unchanged);
    assert_eq!(due(&harness).await, [""; 0]);
    harness
        .write(&[], |view| {
            assert_eq!(view.controls.generation, 0);
            Changes::default()
        })
        .await;
    harness.restart().await;
    assert_eq!(controls_and_tally(&harness), unchanged);
    assert_eq!(due(&harness).await, ["a"]);
}

#[tokio::test]
async fn a_target_rechecked_before_the_controls_changed_in_the_same_commit_is_queued_again() {
    let harness = StoreHarness::sqlite();
    put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
    put(&harness, "b", deferred_state("nodes", Verdict::Paused, false)).await;
    change_controls(&harness, true).await;
    let rechecks = |target: &'static str| -> Write {
        Box::new(move |_| Changes { rechecked: vec![key(target)], ..Changes::default() })
    };
    let defers = |target: &'static str| -> Write {
        let state = deferred_state("nodes", Verdict::Paused, false);
        Box::new(move |_| Changes { states: vec![(key(target), state.clone())], ..Changes::default() })
    };
    let done = commit_together(
        &harness,
        vec![
            ("a", rechecks("a")),
            ("c", defers("c")),
            (
                "x",
                Box::new(|view| Changes {
                    controls: Some(changed(&view.controls, true)),
                    ..Changes::default()
                }),
            ),
            ("b", rechecks("b")),
            ("d", defers("d")),
        ],
    );
    assert!(done.await.iter().all(Result::is_ok));
    assert_eq!(due(&harness).await, ["a", "c"], "b was rechecked and d was deferred under the new controls");
}

#[tokio::test]
async fn an_event_emitted_and_cancelled_in_one_commit_is_never_sent() {
    let mut harness = StoreHarness::sqlite();
    let emits: Write = Box::new(|_| Changes {
        states: vec![(key("a"), tracking(&["in"]))],
        ..event("a", Kind::In, "in", &["queue"]).changes()
    });
    let done =
        commit_together(&harness, vec![("a", emits), ("a", Box::new(|_| increase_that_cancels("in")))]);
    assert!(done.await.iter().all(Result::is_ok));
    assert_eq!(harness.backlog("queue"), (1, 0, 0));
    harness.claim_expecting("queue", &["out"]).await;
    harness.restart().await;
    assert_eq!(harness.backlog("queue"), (1, 0, 0));
    harness.claim_expecting("queue", &["out"]).await;
}

#[tokio::test]
async fn an_event_that_is_given_up_in_the_commit_that_cancels_it_is_no_dead_letter() {
    let mut harness = StoreHarness::sqlite();
    harness.emit_decreases("a", &["in"], &["queue"]).await;
    let seqs = harness.claim_expecting("queue", &["in"]).await;
    let gate = Gate::new(&harness.store, true).await;
    let store = harness.store.clone();
    let emitted = tokio::spawn(async move {
        let keys = Keys { targets: vec![key("a")], alerts: Vec::new() };
        store.transact(keys, |_| (increase_that_cancels("in"), ())).await
    });
    let store = harness.store.clone();
    let settled = tokio::spawn(async move {
        let dead = Settlement::Dead {
            error: "refused".into(),
            cause: GiveUp::Rejected,
            called: true,
            uncertain: false,
        };
        store.settle(&name("queue"), vec![(seqs[0], dead)]).await
    });
    gate.open().await;
    emitted.await.unwrap().unwrap();
    settled.await.unwrap().unwrap();
    for _ in 0..2 {
        assert_eq!(harness.backlog("queue"), (1, 0, 0));
        assert_eq!(harness.count("deliveries WHERE state = 2"), 0);
        harness.restart().await;
    }
    harness.claim_expecting("queue", &["out"]).await;
}

#[tokio::test]
async fn a_decision_about_a_target_without_a_state_is_in_its_history() {
    for mut harness in StoreHarness::all().await {
        let decide = |target: &'static str, body: &'static str| {
            move |_: &View| Changes {
                record: Some(Record { body: body.into(), ..record(&[target]) }),
                ..Changes::default()
            }
        };
        harness.write(&[], decide("a", "1")).await;
        harness.write(&[], decide("a", "2")).await;
        put(&harness, "a", state_with_last_resolve("a")).await;
        harness.write(&[], decide("a", "3")).await;
        put(&harness, "a", TargetState::default()).await;
        harness.restart().await;
        harness.write(&[], decide("a", "4")).await;
        harness.write(&[], decide("b", "other")).await;
        let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        let history = harness.store.history(&key("a"), from, to).await.unwrap();
        assert_eq!(history, ["1", "2", "3", "4"]);
    }
}

#[tokio::test]
async fn the_clock_starts_no_earlier_than_the_controls_were_written() {
    let mut harness = StoreHarness::sqlite();
    change_controls(&harness, false).await;
    harness.store.close().await;
    let later = harness.store.now().after(Duration::from_secs(3600));
    harness.database().execute("UPDATE controls SET at = ?1", [later.as_nanos()]).unwrap();
    harness.restart().await;
    assert!(harness.store.now() >= later);
}

/// A file of the first schema version.
#[tokio::test]
async fn what_an_earlier_version_stored_is_counted_rechecked_and_delivered() {
    let mut harness = StoreHarness::sqlite();
    put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
    let body = r#"{"id":"in","data":{"rule":"nodes","action":"scale_in"}}"#;
    harness
        .write(&["b"], |_| {
            let mut changes = event("b", Kind::Note, "in", &["queue"]).changes();
            changes.events[0].body = body.into();
            changes
        })
        .await;
    let tally = harness.store.tally();
    assert_eq!(tally.open_episodes[&name("nodes")], 1);
    let states = harness.store.states(None, 10).await.unwrap();
    harness.store.close().await;
    for stored in states {
        let text = serde_json::to_string(&stored.state).unwrap();
        harness
            .database()
            .execute("UPDATE targets SET state = ?2 WHERE id = ?1", (stored.cursor.position(), text))
            .unwrap();
    }
    harness
        .database()
        .execute_batch(
            "ALTER TABLE retired_targets RENAME TO former_targets; ALTER TABLE former_targets RENAME COLUMN retired_at TO gone;
             ALTER TABLE destinations RENAME COLUMN enqueued TO given;
             ALTER TABLE destinations RENAME COLUMN settled_below_cursor TO passed;
             DROP TABLE notifications; DROP TABLE receipts; DROP TABLE delivery_rechecks; ALTER TABLE targets DROP COLUMN tracked;
             ALTER TABLE targets DROP COLUMN awaits;
             DROP TABLE audit; DROP TABLE wall_clock_steps; ALTER TABLE records DROP COLUMN ahead;
             DROP TABLE event_blocks; ALTER TABLE targets DROP COLUMN dictionary;
             DROP TABLE controls; DROP TABLE recheck_queue; DROP TABLE tally;
             DROP INDEX exceptions; ALTER TABLE events DROP COLUMN decreases;
             ALTER TABLE events DROP COLUMN compensates; ALTER TABLE targets DROP COLUMN firing_events;
             ALTER TABLE deliveries DROP COLUMN expiry; ALTER TABLE deliveries DROP COLUMN since;
             ALTER TABLE deliveries DROP COLUMN flags;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    harness.restart().await;
    assert_eq!(harness.store.tally(), tally);
    assert_eq!(due(&harness).await, ["a"]);
    harness.emit("b", Kind::Out, "out", &["queue"]).await;
    harness.claim_and_settle("queue", "in", Settlement::Delivered { answer: None }).await;
    harness.claim_expecting("queue", &["out"]).await;
}
