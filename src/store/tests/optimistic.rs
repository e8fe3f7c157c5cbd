//! Optimistic execution gives the same results as execution by the writer.

use super::controls::changed;
use super::*;
use crate::domain::control::Controls;

/// A target whose state counts the transactions about it.
fn counted(view: &View, target: &str) -> Changes {
    let before = view.states.targets.get(&key(target)).map_or(0, |state| state.sequence);
    let alert = AlertKey { source: name("prod"), fingerprint: "f".into() };
    let until = Time::from_nanos(i64::MAX);
    let ended = [LastResolve { alert, ends_at: view.now, was_open: true, until }].into_iter().collect();
    let state = TargetState { sequence: before + 1, last_resolves: ended, ..TargetState::default() };
    Changes { states: vec![(key(target), state)], ..Changes::default() }
}

async fn count(harness: &StoreHarness, target: &'static str) -> u64 {
    let read = move |view: &View| {
        let state = view.states.targets.get(&key(target));
        (Changes::default(), state.map_or(0, |state| state.sequence))
    };
    harness.store.transact(harness.keys(&[target]), read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_loses_what_another_does_at_the_same_time() {
    for harness in StoreHarness::both() {
        let count_one = |_| {
            let (store, keys) = (harness.store.clone(), harness.keys(&["a"]));
            tokio::spawn(async move {
                for _ in 0..25 {
                    let keys = Keys { targets: keys.targets.clone(), alerts: keys.alerts.clone() };
                    store.transact(keys, |view| (counted(view, "a"), ())).await.unwrap();
                }
            })
        };
        for task in (0..16).map(count_one).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(count(&harness, "a").await, 400);
    }
}

/// The transactions are submitted while the writer is blocked, so the optimistic ones have not seen the others.
#[tokio::test]
async fn a_conflicting_transaction_is_decided_again() {
    let harness = StoreHarness::optimistic();
    harness.write(&["a"], |view| counted(view, "a")).await;
    let gate = Gate::new(&harness.store, true).await;
    let (pausing, reading) = (harness.store.clone(), harness.store.clone());
    let (pause_keys, read_keys) = (harness.keys(&["b"]), harness.keys(&["b"]));
    let paused = tokio::spawn(async move {
        let controls = changed(&Controls::default(), false);
        let decide = move |_: &View| (Changes { controls: Some(controls.clone()), ..Changes::default() }, ());
        pausing.transact(pause_keys, decide).await.unwrap();
    });
    let counting: Vec<_> = (0..3)
        .map(|_| {
            let (store, keys) = (harness.store.clone(), harness.keys(&["a"]));
            tokio::spawn(async move {
                store.transact(keys, |view| (counted(view, "a"), ())).await.unwrap();
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let seen_version = tokio::spawn(async move {
        reading.transact(read_keys, |view| (Changes::default(), view.controls.version)).await.unwrap()
    });
    gate.open().await;
    paused.await.unwrap();
    assert_eq!(seen_version.await.unwrap(), 1, "the pause that was set before it is seen");
    for task in counting {
        task.await.unwrap();
    }
    assert_eq!(count(&harness, "a").await, 4);
}
