//! Transactions about one target are serial.

use super::*;

/// A target whose state counts the transactions about it.
fn counted(view: &View, target: &str) -> Changes {
    let before = view.states.targets.get(&key(target)).map_or(0, |state| state.sequence);
    let alert = AlertKey { source: name("prod"), fingerprint: "f".into() };
    let until = Time::from_nanos(i64::MAX);
    let ended = [LastResolve { alert, ends_at: view.now, was_open: true, closed_at: None, until }]
        .into_iter()
        .collect();
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
    for harness in StoreHarness::all().await {
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
