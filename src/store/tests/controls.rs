//! Controls are kept, and whoever watches them is woken.

use std::sync::Arc;

use super::*;
use crate::domain::control::{Controls, Heartbeat, Pause};

/// The same controls with one thing more; waking or not.
pub(super) fn changed(controls: &Controls, wakes: bool) -> Arc<Controls> {
    let mut controls = controls.clone();
    let pause = Pause {
        id: 0,
        rule: None,
        target: None,
        direction: None,
        since: Time::from_nanos(0),
        until: None,
        author: "ann".into(),
        reason: "a try".into(),
    };
    let id = controls.pause(pause);
    if wakes {
        controls.resume(id);
    }
    Arc::new(controls)
}

pub(super) async fn change(house: &House, wakes: bool) {
    house
        .write(&[], move |view| Changes {
            controls: Some(changed(&view.controls, wakes)),
            ..Changes::default()
        })
        .await;
}

pub(super) async fn put(house: &House, target: &str, state: TargetState) {
    let key = key(target);
    house
        .write(&[target], move |_| Changes {
            states: vec![(key.clone(), state.clone())],
            ..Changes::default()
        })
        .await;
}

pub(super) async fn look_at(house: &House, target: &str) {
    let key = key(target);
    house.write(&[target], move |_| Changes { looked_at: vec![key.clone()], ..Changes::default() }).await;
}

pub(super) async fn due(house: &House) -> Vec<String> {
    let due = house.store.due(10).await.unwrap();
    due.iter().map(|key| key.as_str().to_owned()).collect()
}

pub(super) fn is_due_now(house: &House) -> bool {
    house.store.next_due().borrow().is_some_and(|due| due <= house.store.now())
}

#[tokio::test]
async fn controls_are_seen_by_whoever_comes_next_also_after_a_restart() {
    for mut house in House::both() {
        assert_eq!(*house.store.controls(), Controls::default());
        change(&house, false).await;
        house.restart().await;
        assert_eq!(house.store.controls().version, 1);
        house
            .write(&[], |view| {
                assert_eq!(view.controls.pauses(view.now).count(), 1);
                Changes::default()
            })
            .await;
        change(&house, false).await;
        assert_eq!(house.store.controls().version, 2);
        assert_eq!(house.store.controls().heartbeat(&name("prod")), Heartbeat::default());
    }
}

#[tokio::test]
async fn a_change_that_frees_something_wakes_all_that_watch_and_no_other() {
    for house in House::both() {
        put(&house, "a", waiting("nodes", Verdict::Paused, false)).await;
        put(&house, "b", waiting("nodes", Verdict::CoolingDown, false)).await;
        put(&house, "c", waiting("nodes", Verdict::Stabilizing, true)).await;
        change(&house, false).await;
        assert_eq!(due(&house).await, [""; 0]);
        assert!(!is_due_now(&house));
        change(&house, true).await;
        assert_eq!(due(&house).await, ["a", "c"]);
        assert!(is_due_now(&house));
        assert_eq!(house.store.due(1).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn what_was_looked_at_or_watches_no_more_is_off_the_list() {
    for house in House::both() {
        for target in ["a", "b", "c"] {
            put(&house, target, waiting("nodes", Verdict::Paused, false)).await;
        }
        change(&house, true).await;
        look_at(&house, "a").await;
        put(&house, "b", remembering("b")).await;
        put(&house, "b", waiting("nodes", Verdict::Paused, false)).await;
        assert_eq!(due(&house).await, ["c"], "b began to watch under the new controls");
        put(&house, "c", TargetState::default()).await;
        assert_eq!(due(&house).await, [""; 0]);
        assert!(!is_due_now(&house));
        change(&house, true).await;
        assert_eq!(due(&house).await, ["a", "b"]);
    }
}

#[tokio::test]
async fn one_transaction_may_change_the_controls_and_look_at_a_target_under_them() {
    for house in House::both() {
        put(&house, "a", waiting("nodes", Verdict::Paused, false)).await;
        house
            .write(&["a"], |view| Changes {
                states: vec![(key("b"), waiting("nodes", Verdict::Held, false))],
                controls: Some(changed(&view.controls, true)),
                looked_at: vec![key("a")],
                ..Changes::default()
            })
            .await;
        assert_eq!(due(&house).await, ["b"]);
    }
}

#[tokio::test]
async fn those_whose_time_has_come_are_due_before_those_that_were_woken() {
    for house in House::both() {
        put(&house, "a", waiting("nodes", Verdict::Paused, false)).await;
        let mut late = remembering("b");
        late.cooldowns.after_increase = Some(Time::from_nanos(1));
        put(&house, "b", late).await;
        let mut both = waiting("nodes", Verdict::Paused, false);
        both.cooldowns.after_increase = Some(Time::from_nanos(2));
        put(&house, "c", both).await;
        change(&house, true).await;
        assert_eq!(due(&house).await, ["b", "c", "a"]);
        assert_eq!(*house.store.next_due().borrow(), Some(Time::from_nanos(1)));
    }
}

#[tokio::test]
async fn all_that_watch_are_due_once_after_a_restart() {
    let mut house = House::sqlite();
    put(&house, "a", waiting("nodes", Verdict::Paused, false)).await;
    put(&house, "b", remembering("b")).await;
    put(&house, "c", waiting("nodes", Verdict::Paused, false)).await;
    put(&house, "c", TargetState::default()).await;
    house.restart().await;
    assert!(is_due_now(&house));
    assert_eq!(due(&house).await, ["a"]);
    look_at(&house, "a").await;
    assert_eq!(due(&house).await, [""; 0]);
    house.restart().await;
    assert_eq!(due(&house).await, ["a"]);
}
