//! Controls are durable, and targets that depend on them are rechecked when the generation increases.

use std::sync::Arc;

use super::*;
use crate::domain::control::{Controls, GapCause, Heartbeat, Pause, ReceptionGap, ReceptionGaps};

/// The controls with one more change, with or without a new generation.
pub(super) fn changed(controls: &Controls, bumps_generation: bool) -> Arc<Controls> {
    let mut controls = controls.clone();
    let pause = Pause {
        id: 0,
        rule: None,
        target: None,
        direction: None,
        since: Time::from_nanos(0),
        until: None,
        author: "ann".into(),
        reason: "test".into(),
    };
    let generation = controls.generation;
    let id = controls.pause(pause);
    if bumps_generation {
        controls.resume(id);
    } else {
        controls.generation = generation;
    }
    Arc::new(controls)
}

pub(super) async fn change_controls(harness: &StoreHarness, bumps_generation: bool) {
    harness
        .write(&[], move |view| Changes {
            controls: Some(changed(&view.controls, bumps_generation)),
            ..Changes::default()
        })
        .await;
}

pub(super) async fn put(harness: &StoreHarness, target: &str, state: TargetState) {
    let key = key(target);
    harness
        .write(&[target], move |_| Changes {
            states: vec![(key.clone(), state.clone())],
            ..Changes::default()
        })
        .await;
}

pub(super) async fn recheck(harness: &StoreHarness, target: &str) {
    let key = key(target);
    harness.write(&[target], move |_| Changes { rechecked: vec![key.clone()], ..Changes::default() }).await;
}

pub(super) async fn due(harness: &StoreHarness) -> Vec<String> {
    let due = harness.store.due(10).await.unwrap();
    due.iter().map(|key| key.as_str().to_owned()).collect()
}

pub(super) fn is_due_now(harness: &StoreHarness) -> bool {
    harness.store.next_due().borrow().is_some_and(|due| due <= harness.store.now())
}

#[tokio::test]
async fn controls_are_seen_by_the_next_transaction_also_after_a_restart() {
    for mut harness in StoreHarness::all().await {
        assert_eq!(*harness.store.controls(), Controls::default());
        change_controls(&harness, false).await;
        harness.restart().await;
        assert_eq!(harness.store.controls().version, 1);
        harness
            .write(&[], |view| {
                assert_eq!(view.controls.pauses(view.now).count(), 1);
                Changes::default()
            })
            .await;
        change_controls(&harness, false).await;
        assert_eq!(harness.store.controls().version, 2);
        assert_eq!(harness.store.controls().heartbeat_of_source(&name("prod")), Heartbeat::default());
    }
}

#[tokio::test]
async fn reception_gaps_survive_a_restart_and_the_store_tells_the_last_time_before_it() {
    for mut harness in StoreHarness::all().await {
        assert_eq!(harness.store.last_stored(), None, "a new store");
        let opened = harness.store.now();
        let gap =
            ReceptionGap { from: Time::from_nanos(1), until: Time::from_nanos(7), cause: GapCause::Store };
        harness
            .write(&[], move |view| {
                let mut controls = Controls::clone(&view.controls);
                controls.record_gap(&name("prod"), gap);
                Changes { controls: Some(Arc::new(controls)), ..Changes::default() }
            })
            .await;
        harness.restart().await;
        let recorded = *harness.store.controls().reception_gaps(&name("prod")).unwrap();
        assert_eq!(
            recorded,
            ReceptionGaps { last: gap, total: Duration::from_nanos(6), reconciled_at: None }
        );
        assert_eq!(harness.store.controls().reception_gaps(&name("lab")), None);
        // Replicas tell when they were ready last.
        if matches!(harness.store, Store::Sqlite(_)) {
            let expected = opened..harness.store.now();
            assert!(harness.store.last_stored().is_some_and(|last| expected.contains(&last)));
        }
    }
}

#[tokio::test]
async fn a_store_without_any_rows_was_last_written_when_it_was_created() {
    let mut harness = StoreHarness::sqlite();
    harness.restart().await;
    assert_eq!(harness.store.last_stored(), Some(clock()()));
}

#[tokio::test]
async fn a_new_generation_rechecks_all_targets_that_depend_on_controls_and_no_other() {
    for harness in StoreHarness::all().await {
        put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
        put(&harness, "b", deferred_state("nodes", Verdict::CoolingDown, false)).await;
        put(&harness, "c", deferred_state("nodes", Verdict::Stabilizing, true)).await;
        change_controls(&harness, false).await;
        assert_eq!(due(&harness).await, [""; 0]);
        assert!(!is_due_now(&harness));
        change_controls(&harness, true).await;
        assert_eq!(due(&harness).await, ["a", "c"]);
        assert!(is_due_now(&harness));
        assert_eq!(harness.store.due(1).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_target_that_was_rechecked_or_no_longer_depends_on_controls_leaves_the_queue() {
    for harness in StoreHarness::all().await {
        for target in ["a", "b", "c"] {
            put(&harness, target, deferred_state("nodes", Verdict::Paused, false)).await;
        }
        change_controls(&harness, true).await;
        recheck(&harness, "a").await;
        put(&harness, "b", state_with_last_resolve("b")).await;
        put(&harness, "b", deferred_state("nodes", Verdict::Paused, false)).await;
        assert_eq!(due(&harness).await, ["c"], "b was deferred under the new controls");
        put(&harness, "c", TargetState::default()).await;
        assert_eq!(due(&harness).await, [""; 0]);
        assert!(!is_due_now(&harness));
        change_controls(&harness, true).await;
        assert_eq!(due(&harness).await, ["a", "b"]);
    }
}

#[tokio::test]
async fn one_transaction_may_change_the_controls_and_recheck_a_target_under_them() {
    for harness in StoreHarness::all().await {
        put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
        harness
            .write(&["a"], |view| Changes {
                states: vec![(key("b"), deferred_state("nodes", Verdict::Held, false))],
                controls: Some(changed(&view.controls, true)),
                rechecked: vec![key("a")],
                ..Changes::default()
            })
            .await;
        assert_eq!(due(&harness).await, ["b"]);
    }
}

#[tokio::test]
async fn targets_due_by_time_come_before_those_in_the_recheck_queue() {
    for harness in StoreHarness::all().await {
        put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
        let mut late = state_with_last_resolve("b");
        late.cooldowns.after_increase = Some(Time::from_nanos(1));
        put(&harness, "b", late).await;
        let mut both = deferred_state("nodes", Verdict::Paused, false);
        both.cooldowns.after_increase = Some(Time::from_nanos(2));
        put(&harness, "c", both).await;
        change_controls(&harness, true).await;
        assert_eq!(due(&harness).await, ["b", "c", "a"]);
        assert_eq!(*harness.store.next_due().borrow(), Some(Time::from_nanos(1)));
    }
}

#[tokio::test]
async fn all_that_depend_on_controls_are_due_once_after_a_restart() {
    let mut harness = StoreHarness::sqlite();
    put(&harness, "a", deferred_state("nodes", Verdict::Paused, false)).await;
    put(&harness, "b", state_with_last_resolve("b")).await;
    put(&harness, "c", deferred_state("nodes", Verdict::Paused, false)).await;
    put(&harness, "c", TargetState::default()).await;
    harness.restart().await;
    assert!(is_due_now(&harness));
    assert_eq!(due(&harness).await, ["a"]);
    recheck(&harness, "a").await;
    assert_eq!(due(&harness).await, [""; 0]);
    harness.restart().await;
    assert_eq!(due(&harness).await, ["a"]);
}
