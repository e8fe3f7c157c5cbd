//! What every ledger does. A ledger passes if [`check`] returns, on a ledger that is empty.

use scalebridge::domain::time::Time;

use super::{AppliedItem, Entries, Freeze, Frozen, Ledger, Pending, TargetItem, Written};
use crate::capacity::Request;
use crate::event::{Limits, ScalingEvent};
use crate::plan::test_support::{LATER, NOW, adjustment, event, id};

/// As many as an event can take back.
const MAX_REVERTS: u32 = 1_000;

/// Panics if the ledger does not do it.
pub(crate) async fn check(ledger: &impl Ledger) {
    knows_nothing_at_first(ledger).await;
    writes_a_target_only_at_the_version_that_was_read(ledger).await;
    keeps_targets_apart(ledger).await;
    keeps_a_pending_change_completely(ledger).await;
    keeps_the_first_applied_item(ledger).await;
    replaces_an_applied_item_if_it_is_the_one_that_was_read(ledger).await;
    reads_what_the_pending_change_and_the_reverts_have_applied(ledger).await;
    keeps_numbers_of_any_size(ledger).await;
    keeps_the_freeze_of_each_direction(ledger).await;
}

async fn knows_nothing_at_first(ledger: &impl Ledger) {
    assert_eq!(read(ledger, &of_target("empty", 1)).await, Entries::default());
    assert_eq!(ledger.read_freeze().await.unwrap(), Freeze::default());
}

async fn writes_a_target_only_at_the_version_that_was_read(ledger: &impl Ledger) {
    let event = of_target("versions", 1);
    let first = TargetItem { version: 1, sequence: 7, ..TargetItem::default() };
    let second = TargetItem { version: 2, sequence: 8, baseline: Some(3), ..TargetItem::default() };
    let late = TargetItem { sequence: 9, ..second.clone() };
    let write = async |version, item| ledger.write_target(&event.subject, version, item).await.unwrap();
    let target = async || read(ledger, &event).await.target;

    assert_eq!(write(1, &second).await, Written::Changed, "there is no version 1");
    assert_eq!(target().await, TargetItem::default());
    assert_eq!(write(0, &first).await, Written::Yes);
    assert_eq!(target().await, first);
    assert_eq!(write(0, &late).await, Written::Changed, "it exists");
    assert_eq!(write(1, &second).await, Written::Yes);
    assert_eq!(write(1, &late).await, Written::Changed, "version 1 was replaced");
    assert_eq!(write(3, &late).await, Written::Changed, "there is no version 3");
    assert_eq!(target().await, second);
}

async fn keeps_targets_apart(ledger: &impl Ledger) {
    let (one, other) = (of_target("one", 1), of_target("other", 1));
    let item = TargetItem { version: 1, sequence: 5, ..TargetItem::default() };
    assert_eq!(ledger.write_target(&one.subject, 0, &item).await.unwrap(), Written::Yes);
    assert_eq!(read(ledger, &other).await.target, TargetItem::default());
    assert_eq!(read(ledger, &one).await.target, item);
}

async fn keeps_a_pending_change_completely(ledger: &impl Ledger) {
    let event = of_target("pending", 1);
    let begun = TargetItem::default().begin(pending(&event.id));
    assert_eq!(ledger.write_target(&event.subject, 0, &begun).await.unwrap(), Written::Yes);
    assert_eq!(read(ledger, &event).await.target, begun);
    let ended = begun.end(event.sequence, true, (2, 5));
    assert_eq!(ledger.write_target(&event.subject, 1, &ended).await.unwrap(), Written::Yes);
    assert_eq!(read(ledger, &event).await.target, ended);
}

async fn keeps_the_first_applied_item(ledger: &impl Ledger) {
    let event = of_target("applied", 10_001);
    let (first, second) = (applied(&event.id, 2, 5), applied(&event.id, 5, 9));
    ledger.write_applied(&event.subject, &first).await.unwrap();
    ledger.write_applied(&event.subject, &second).await.unwrap();
    assert_eq!(read(ledger, &event).await.applied.get(&event.id), Some(&first));
}

async fn replaces_an_applied_item_if_it_is_the_one_that_was_read(ledger: &impl Ledger) {
    let event = of_target("taken-back", 50_001);
    let old = applied(&event.id, 2, 5);
    let taken = |by: &str| AppliedItem { taken_back: [(by.to_owned(), 1)].into(), ..old.clone() };
    let replace = async |by| ledger.replace_applied(&event.subject, &old, &taken(by)).await.unwrap();
    assert_eq!(replace("a").await, Written::Changed, "there is none");
    ledger.write_applied(&event.subject, &old).await.unwrap();
    assert_eq!(replace("a").await, Written::Yes);
    assert_eq!(replace("a").await, Written::Yes, "its first answer was lost");
    assert_eq!(replace("b").await, Written::Changed, "another one was faster");
    assert_eq!(read(ledger, &event).await.applied.get(&event.id), Some(&taken("a")));
}

async fn reads_what_the_pending_change_and_the_reverts_have_applied(ledger: &impl Ledger) {
    let reverts: Vec<String> = (20_000..20_000 + MAX_REVERTS).map(id).collect();
    // In each part of the list some were applied, the first one and the last one among them.
    let known: Vec<String> = reverts.iter().step_by(37).cloned().collect();
    // Another decrease, which takes increases of its own back.
    let other = id(22_000);
    let pending = Pending { reverts: vec![other.clone(), id(22_001)], ..pending(&id(21_001)) };
    let decrease = ScalingEvent { reverts: reverts.clone(), ..of_target("reverts", 21_002) };
    for id in known.iter().chain([&pending.id, &other]) {
        let item = AppliedItem { subject: decrease.subject.clone(), ..applied(id, 1, 3) };
        ledger.write_applied(&decrease.subject, &item).await.unwrap();
    }
    let target = TargetItem::default().begin(pending.clone());
    assert_eq!(ledger.write_target(&decrease.subject, 0, &target).await.unwrap(), Written::Yes);

    let entries = read(ledger, &decrease).await;
    assert_eq!(entries.target, target);
    let of = |id: &String| entries.applied.get(id).map(|item| (item.from, item.to));
    assert_eq!(of(&pending.id), Some((1, 3)), "of the pending change");
    assert_eq!((of(&other), of(&id(22_001))), (Some((1, 3)), None), "of what the pending change takes back");
    assert_eq!(entries.applied.get(&decrease.id), None, "the event was not applied");
    let added = 2 * u32::try_from(known.len()).unwrap();
    assert_eq!(entries.left_for(&decrease), added, "of the increases that it takes back");
    // An event may name itself, or one twice.
    let twice = [id(20_000), id(20_000), decrease.id.clone()].to_vec();
    let again = read(ledger, &ScalingEvent { reverts: twice, ..decrease }).await;
    assert_eq!(again.applied.get(&id(20_000)).map(|item| item.to), Some(3));
}

async fn keeps_numbers_of_any_size(ledger: &impl Ledger) {
    let event = of_target("numbers", 30_001);
    // Above what a float or a signed integer of 64 bits has.
    let item = TargetItem {
        version: 1,
        sequence: u64::MAX,
        baseline: Some(u32::MAX),
        pending: Some(Pending { worker: u64::MAX - 1, from: u32::MAX, ..pending(&event.id) }),
    };
    assert_eq!(ledger.write_target(&event.subject, 0, &item).await.unwrap(), Written::Yes);
    assert_eq!(read(ledger, &event).await.target, item);
}

async fn keeps_the_freeze_of_each_direction(ledger: &impl Ledger) {
    let event = of_target("freeze", 40_001);
    let frozen = Frozen { by: "ana".to_owned(), reason: "an incident: “42”".to_owned(), since: NOW };
    let increases = Freeze { version: 1, increases: Some(frozen.clone()), decreases: None };
    let both = Freeze { version: 2, decreases: Some(frozen), ..increases.clone() };
    let none = Freeze { version: 3, ..Freeze::default() };
    for freeze in [increases, both.clone(), none.clone()] {
        assert_eq!(ledger.write_freeze(freeze.version - 1, &freeze).await.unwrap(), Written::Yes);
        assert_eq!(ledger.read_freeze().await.unwrap(), freeze);
        assert_eq!(read(ledger, &event).await.freeze, freeze, "every plan reads it");
    }
    for stale in [0, 1, 2, 4] {
        let freeze = Freeze { version: stale + 1, ..both.clone() };
        assert_eq!(ledger.write_freeze(stale, &freeze).await.unwrap(), Written::Changed, "{stale}");
    }
    assert_eq!(ledger.read_freeze().await.unwrap(), none);
}

async fn read(ledger: &impl Ledger, event: &ScalingEvent) -> Entries {
    ledger.read(event).await.unwrap()
}

/// An event of a target of its own, so that the checks do not see each other's items.
fn of_target(name: &str, number: u32) -> ScalingEvent {
    // As in an event: parts are percent-encoded.
    let subject = format!("eks/nodegroup/-/eu-west-1/prod%2F{name}/-/workers");
    ScalingEvent { subject, ..event(number, 1, "+3") }
}

fn applied(id: &str, from: u32, to: u32) -> AppliedItem {
    AppliedItem::new(id, "eks/…", (from, to), LATER)
}

fn pending(id: &str) -> Pending {
    let limits = Limits { min_capacity: Some(2), max_capacity: None };
    Pending {
        id: id.to_owned(),
        token: format!("{id}-5"),
        called: true,
        reverts: Vec::new(),
        sequence: 1_795_366_520_062_131,
        expirytime: LATER,
        is_floor: true,
        from: 2,
        to: 5,
        cut_by: "the maximum of the group is 5".to_owned(),
        note: "planned anew: “2”".to_owned(),
        request: Request { adjustment: adjustment("+20%~3"), limits, take_back: Some(4) },
        worker: 42,
        held_since: Time::from_nanos(1_795_366_520_062_131_017),
    }
}
