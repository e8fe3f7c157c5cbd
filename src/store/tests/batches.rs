//! What is written together in one commit, and what is left of it when that fails.

use super::controls::{change, changed, due, put};
use super::*;
use crate::domain::control::Controls;
use crate::store::{Error, Record};

type Write = Box<dyn FnMut(&View) -> Changes + Send>;

/// No record can be written: whatever holds one fails, with all that is written together with it.
fn break_disk(house: &House) {
    let full = "CREATE TRIGGER full BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'full'); END";
    house.database().execute_batch(full).unwrap();
}

fn mend_disk(house: &House) {
    house.database().execute_batch("DROP TRIGGER full").unwrap();
}

fn record(targets: &[&str]) -> Record {
    Record { targets: targets.iter().map(|target| key(target)).collect(), body: "{}".into() }
}

/// Asks for these in one commit.
async fn together(house: &House, asked: Vec<(&'static str, Write)>) -> Vec<Result<(), Error>> {
    let gate = Gate::new(&house.store, true).await;
    let tasks: Vec<_> = asked
        .into_iter()
        .map(|(target, mut changes)| {
            let (store, keys) = (house.store.clone(), house.keys(&[target]));
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
async fn no_worker_gets_what_a_transaction_was_told_of() {
    let house = House::sqlite();
    house.emit("a", Kind::In, "in", &["queue"]).await;
    house.emit("b", Kind::Note, "note", &["queue"]).await;
    let outlet = house.store.outlet(&name("queue")).unwrap().clone();
    let handed = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = handed.clone();
    house
        .write(&["a"], move |view| {
            assert_eq!(ids(view), ["in"]);
            let handed = outlet.lane(|lane| lane.claim(10, view.now));
            seen.lock().unwrap().extend(handed.iter().map(|one| one.seq.0));
            Changes::default()
        })
        .await;
    assert_eq!(*handed.lock().unwrap(), [2]);
    tokio::time::timeout(Duration::from_secs(5), house.store.wait(&name("queue"))).await.unwrap();
    house.sends("queue", &["in"]).await;
}

#[tokio::test]
async fn a_batch_that_fails_cancels_nothing_and_gives_back_what_it_withheld() {
    let mut house = House::sqlite();
    house.emit("a", Kind::In, "in", &["queue"]).await;
    break_disk(&house);
    let done = together(
        &house,
        vec![
            ("a", Box::new(|_| event("a", Kind::Out, "out", &["queue"]).changes())),
            ("b", Box::new(|_| Changes { record: Some(record(&["b"])), ..Changes::default() })),
        ],
    );
    assert!(done.await.iter().all(Result::is_err));
    mend_disk(&house);
    house.restart().await;
    let seqs = house.sends("queue", &["in"]).await;
    assert_eq!(house.emit("a", Kind::Note, "note", &["queue"]).await, ["in"]);
    house.settle("queue", seqs[0], retry_after(0)).await;
    house.sends("queue", &["in"]).await;
}

#[tokio::test]
async fn a_batch_that_fails_keeps_the_controls_the_counts_and_who_was_woken() {
    let mut house = House::sqlite();
    put(&house, "a", waiting("nodes", Verdict::Paused, false)).await;
    let before = house.store.tally();
    break_disk(&house);
    let done = together(
        &house,
        vec![
            (
                "b",
                Box::new(|view| Changes {
                    states: vec![(key("b"), waiting("pods", Verdict::Paused, false))],
                    controls: Some(changed(&view.controls, true)),
                    ..Changes::default()
                }),
            ),
            (
                "c",
                Box::new(|view| {
                    assert_eq!(view.controls.generation, 1, "the earlier one of the batch is seen");
                    Changes { record: Some(record(&["c"])), ..Changes::default() }
                }),
            ),
        ],
    );
    assert!(done.await.iter().all(Result::is_err));
    mend_disk(&house);
    let kept = |house: &House| (house.store.controls(), house.store.tally());
    let unchanged = (std::sync::Arc::new(Controls::default()), before);
    assert_eq!(kept(&house), unchanged);
    assert_eq!(due(&house).await, [""; 0]);
    house
        .write(&[], |view| {
            assert_eq!(view.controls.generation, 0);
            Changes::default()
        })
        .await;
    house.restart().await;
    assert_eq!(kept(&house), unchanged);
    assert_eq!(due(&house).await, ["a"]);
}

#[tokio::test]
async fn who_was_looked_at_before_the_controls_changed_in_the_same_commit_is_woken() {
    let house = House::sqlite();
    put(&house, "a", waiting("nodes", Verdict::Paused, false)).await;
    put(&house, "b", waiting("nodes", Verdict::Paused, false)).await;
    change(&house, true).await;
    let looks_at = |target: &'static str| -> Write {
        Box::new(move |_| Changes { looked_at: vec![key(target)], ..Changes::default() })
    };
    let waits = |target: &'static str| -> Write {
        let state = waiting("nodes", Verdict::Paused, false);
        Box::new(move |_| Changes { states: vec![(key(target), state.clone())], ..Changes::default() })
    };
    let done = together(
        &house,
        vec![
            ("a", looks_at("a")),
            ("c", waits("c")),
            (
                "x",
                Box::new(|view| Changes {
                    controls: Some(changed(&view.controls, true)),
                    ..Changes::default()
                }),
            ),
            ("b", looks_at("b")),
            ("d", waits("d")),
        ],
    );
    assert!(done.await.iter().all(Result::is_ok));
    assert_eq!(due(&house).await, ["a", "c"], "b was looked at and d began to wait under the new controls");
}

#[tokio::test]
async fn what_is_emitted_and_cancelled_in_one_commit_is_never_sent() {
    let mut house = House::sqlite();
    let emits =
        |kind, id: &'static str| -> Write { Box::new(move |_| event("a", kind, id, &["queue"]).changes()) };
    together(&house, vec![("a", emits(Kind::In, "in")), ("a", emits(Kind::Out, "out"))]).await;
    assert_eq!(house.backlog("queue"), (1, 0, 0));
    house.sends("queue", &["out"]).await;
    house.restart().await;
    assert_eq!(house.backlog("queue"), (1, 0, 0));
    house.sends("queue", &["out"]).await;
}

#[tokio::test]
async fn what_is_given_up_in_the_commit_that_cancels_it_is_a_dead_letter() {
    let mut house = House::sqlite();
    house.emit("a", Kind::In, "in", &["queue"]).await;
    let seqs = house.sends("queue", &["in"]).await;
    let gate = Gate::new(&house.store, true).await;
    let store = house.store.clone();
    let emitted = tokio::spawn(async move {
        let keys = Keys { targets: vec![key("a")], alerts: Vec::new() };
        let out = event("a", Kind::Out, "out", &["queue"]);
        store.transact(keys, move |view| (out.clone().changes(), ids(view))).await
    });
    let store = house.store.clone();
    let settled = tokio::spawn(async move {
        let dead = Settlement::Dead { error: "refused".into() };
        store.settle(&name("queue"), vec![(seqs[0], dead)]).await
    });
    gate.open().await;
    assert_eq!(emitted.await.unwrap().unwrap(), ["in"]);
    settled.await.unwrap().unwrap();
    for _ in 0..2 {
        assert_eq!(house.backlog("queue"), (1, 0, 1));
        assert_eq!(house.count("deliveries WHERE state = 2"), 1);
        house.restart().await;
    }
    house.sends("queue", &["out"]).await;
}

#[tokio::test]
async fn a_decision_about_a_target_without_a_state_is_in_its_history() {
    for mut house in House::both() {
        let decide = |target: &'static str, body: &'static str| {
            move |_: &View| Changes {
                record: Some(Record { body: body.into(), ..record(&[target]) }),
                ..Changes::default()
            }
        };
        house.write(&[], decide("a", "1")).await;
        house.write(&[], decide("a", "2")).await;
        put(&house, "a", remembering("a")).await;
        house.write(&[], decide("a", "3")).await;
        put(&house, "a", TargetState::default()).await;
        house.restart().await;
        house.write(&[], decide("a", "4")).await;
        house.write(&[], decide("b", "other")).await;
        let (from, to) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        let history = house.store.history(&key("a"), from, to).await.unwrap();
        assert_eq!(history, ["1", "2", "3", "4"]);
    }
}

#[tokio::test]
async fn the_clock_starts_no_earlier_than_the_controls_were_written() {
    let mut house = House::sqlite();
    change(&house, false).await;
    house.store.close().await;
    let later = house.store.now().after(Duration::from_secs(3600));
    house.database().execute("UPDATE controls SET at = ?1", [later.as_nanos()]).unwrap();
    house.restart().await;
    assert!(house.store.now() >= later);
}

/// A file as the first version of the schema left it.
#[tokio::test]
async fn what_an_earlier_version_kept_is_counted_woken_and_superseded() {
    let mut house = House::sqlite();
    put(&house, "a", waiting("nodes", Verdict::Paused, false)).await;
    let body = r#"{"id":"in","data":{"rule":"nodes","action":"scale_in"}}"#;
    house
        .write(&["b"], |_| {
            let mut changes = event("b", Kind::Note, "in", &["queue"]).changes();
            changes.events[0].body = body.into();
            changes
        })
        .await;
    let tally = house.store.tally();
    assert_eq!(tally.open_episodes[&name("nodes")], 1);
    house.store.close().await;
    house
        .database()
        .execute_batch(
            "DROP TABLE texts; DROP TABLE samples; ALTER TABLE targets DROP COLUMN sample; DROP TABLE controls; DROP TABLE watching; DROP TABLE tally; DROP INDEX shrinking;
             DROP INDEX exceptions; ALTER TABLE events DROP COLUMN shrinks;
             ALTER TABLE events DROP COLUMN undoes; ALTER TABLE targets DROP COLUMN fired;
             ALTER TABLE deliveries DROP COLUMN expiry; ALTER TABLE deliveries DROP COLUMN since;
             PRAGMA user_version = 1;",
        )
        .unwrap();
    house.restart().await;
    assert_eq!(house.store.tally(), tally);
    assert_eq!(due(&house).await, ["a"]);
    assert_eq!(house.emit("b", Kind::Out, "out", &["queue"]).await, ["in"]);
    house.sends("queue", &["out"]).await;
}
