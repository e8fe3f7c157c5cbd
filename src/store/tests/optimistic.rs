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

/// A store with a target whose state is cached: the cache has states that were used more than once.
async fn with_cached_target(target: &'static str) -> StoreHarness {
    let harness = StoreHarness::optimistic();
    for _ in 0..2 {
        harness.write(&[target], move |view| counted(view, target)).await;
    }
    harness
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
    let harness = with_cached_target("a").await;
    let (_, before) = counts(&harness);
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
    let (_, after) = counts(&harness);
    assert_eq!(after - before, 4, "all others conflict with the pause");
    assert_eq!(count(&harness, "a").await, 5);
}

/// Decides a transaction about a target. Returns the threads on which it was decided, `None` for the caller's.
async fn deciders(harness: &StoreHarness, target: &'static str) -> Vec<Option<String>> {
    let caller = std::thread::current().id();
    let deciders = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let seen = deciders.clone();
    harness
        .write(&[target], move |view| {
            let thread = std::thread::current();
            let name = (thread.id() != caller).then(|| thread.name().unwrap_or_default().to_owned());
            seen.lock().push(name);
            counted(view, target)
        })
        .await;
    let deciders = deciders.lock();
    deciders.clone()
}

/// The numbers of optimistic decisions and of conflicts since the store was opened.
fn counts(harness: &StoreHarness) -> (u64, u64) {
    let Store::Sqlite(sqlite) = &harness.store else { panic!("not SQLite") };
    let counts = sqlite.speculation_counts();
    (counts.made, counts.conflicts)
}

/// The results are the same without optimistic execution, so only this test notices if it is off.
#[tokio::test]
async fn a_transaction_is_decided_once_and_on_its_callers_thread() {
    let mut harness = with_cached_target("a").await;
    let (before, _) = counts(&harness);
    for (at, target) in ["a", "new", "a", "a"].into_iter().enumerate() {
        assert_eq!(deciders(&harness, target).await, [None], "transaction {at}, about {target}");
    }
    assert_eq!(counts(&harness), (before + 4, 0));
    harness.restart().await;
    for _ in 0..2 {
        deciders(&harness, "a").await;
    }
    assert_eq!(deciders(&harness, "a").await, [None], "its state is cached again");
}

/// While targets are contended the writer decides, which costs less than deciding twice.
#[tokio::test]
async fn the_writer_decides_for_a_while_after_a_conflict() {
    let harness = with_cached_target("a").await;
    let (made, conflicts) = counts(&harness);
    let gate = Gate::new(&harness.store, true).await;
    let counting: Vec<_> = (0..2)
        .map(|_| {
            let (store, keys) = (harness.store.clone(), harness.keys(&["a"]));
            tokio::spawn(async move { store.transact(keys, |view| (counted(view, "a"), ())).await.unwrap() })
        })
        .collect();
    gate.open().await;
    for task in counting {
        task.await.unwrap();
    }
    assert_eq!(counts(&harness), (made + 2, conflicts + 1), "both saw the same state, and one was first");
    let writer = Some("store-writer".to_owned());
    let mut by_writer = 0;
    while deciders(&harness, "a").await == [writer.clone()] {
        by_writer += 1;
        assert!(by_writer < 1000, "optimistic execution is not resumed");
    }
    assert!(by_writer > 0, "optimistic execution is not suspended");
    assert_eq!(deciders(&harness, "a").await, [None]);
    assert_eq!(counts(&harness).1, conflicts + 1);
}
