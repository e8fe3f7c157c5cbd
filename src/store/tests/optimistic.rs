//! What is decided beside the writer is decided as if it had been decided there.

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

/// They are asked for while the writer is busy, so what is decided beside it has seen none of the others.
#[tokio::test]
async fn what_another_has_changed_meanwhile_is_decided_again() {
    let harness = StoreHarness::optimistic();
    harness.write(&["a"], |view| counted(view, "a")).await;
    let gate = Gate::new(&harness.store, true).await;
    let (raised, seen) = (harness.store.clone(), harness.store.clone());
    let (raise, look) = (harness.keys(&["b"]), harness.keys(&["b"]));
    let raised = tokio::spawn(async move {
        let controls = changed(&Controls::default(), false);
        let decide = move |_: &View| (Changes { controls: Some(controls.clone()), ..Changes::default() }, ());
        raised.transact(raise, decide).await.unwrap();
    });
    let grown: Vec<_> = (0..3)
        .map(|_| {
            let (store, keys) = (harness.store.clone(), harness.keys(&["a"]));
            tokio::spawn(async move {
                store.transact(keys, |view| (counted(view, "a"), ())).await.unwrap();
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let seen = tokio::spawn(async move {
        seen.transact(look, |view| (Changes::default(), view.controls.version)).await.unwrap()
    });
    gate.open().await;
    raised.await.unwrap();
    assert_eq!(seen.await.unwrap(), 1, "the pause that was set before it is seen");
    for task in grown {
        task.await.unwrap();
    }
    assert_eq!(count(&harness, "a").await, 4);
}
