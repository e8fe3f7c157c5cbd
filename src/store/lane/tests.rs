//! Unit tests of the lane without a store.

use super::*;
use crate::store::fast_map::Set;
use crate::store::{Backlog, RefusalReason};

fn at(seconds: i64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn new_delivery(seq: i64, group: Group) -> NewDelivery {
    NewDelivery { seq: EventSeq(seq), group, emitted_at: at(0), compensates: false, body: "{}".into() }
}

fn pending_retry(seq: i64, group: Group, attempts: u32, due: i64) -> PendingRetry {
    PendingRetry {
        seq: EventSeq(seq),
        group,
        emitted_at: at(0),
        age_from: at(0),
        compensates: false,
        attempts,
        marks: Marks::default(),
        due: at(due),
    }
}

fn lane(groups: &[Group]) -> Lane {
    let mut lane = Lane::new(Position::default());
    for (index, group) in groups.iter().enumerate() {
        lane.push(new_delivery(index as i64 + 1, *group));
        lane.add_enqueued(1, 0, 0);
    }
    lane
}

fn claim(lane: &mut Lane, now: i64) -> Vec<i64> {
    lane.claim(10, at(now)).into_iter().map(|claims| claims.lease.seq().0).collect()
}

#[test]
fn one_event_of_a_target_is_claimed_at_a_time_and_in_order() {
    let mut lane = lane(&[7, 7, 8]);
    assert_eq!(claim(&mut lane, 0), [1, 3]);
    assert_eq!(claim(&mut lane, 0), [0i64; 0]);
    lane.mark_arrived(EventSeq(1), at(0));
    assert_eq!(claim(&mut lane, 0), [2]);
}

#[test]
fn a_failed_delivery_holds_its_target_back_and_no_other() {
    let mut lane = lane(&[7, 7, 8, 8]);
    assert_eq!(claim(&mut lane, 0), [1, 3]);
    lane.schedule_retry(EventSeq(1), at(5), false);
    lane.mark_arrived(EventSeq(3), at(0));
    assert_eq!(claim(&mut lane, 4), [4]);
    lane.mark_arrived(EventSeq(4), at(0));
    assert_eq!(claim(&mut lane, 4), [0i64; 0]);
    assert_eq!(lane.next_due(), Some(at(5)));
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 1, dead: 0 });
    assert_eq!(claim(&mut lane, 5), [1]);
    assert_eq!(lane.row_change(EventSeq(1), Outcome::Delivered), RowChange::Delete);
    lane.mark_arrived(EventSeq(1), at(0));
    assert_eq!(claim(&mut lane, 5), [2]);
}

#[test]
fn a_dead_letter_releases_its_target() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.mark_dead(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 1 });
}

#[test]
fn the_cursor_stops_before_the_first_that_is_neither_settled_nor_a_row() {
    let mut lane = lane(&[1, 2, 3, 4]);
    claim(&mut lane, 0);
    let predicted = lane.position_after(&Set::from_iter([1, 3]), 0, 0);
    lane.mark_arrived(EventSeq(3), at(0));
    assert_eq!(lane.position().cursor, 0);
    lane.mark_arrived(EventSeq(1), at(0));
    assert_eq!((lane.position().cursor, lane.position().settled_below_cursor), (1, 1));
    assert_eq!((predicted.cursor, predicted.settled_below_cursor), (1, 1));
    lane.schedule_retry(EventSeq(2), at(9), false);
    assert_eq!((lane.position().cursor, lane.position().settled_below_cursor), (3, 3));
    lane.mark_arrived(EventSeq(4), at(0));
    assert_eq!(lane.position().cursor, 4);
    assert_eq!(lane.backlog(), Backlog { pending: 0, retrying: 1, dead: 0 });
}

#[test]
fn tries_are_counted_while_an_earlier_event_holds_the_cursor() {
    let mut lane = lane(&[7, 8]);
    claim(&mut lane, 0);
    for attempts in 1..4 {
        assert_eq!(
            lane.row_change(EventSeq(2), Outcome::Retry { is_uncertain: false }),
            RowChange::Put { attempts }
        );
        lane.schedule_retry(EventSeq(2), at(0), false);
        let claims = lane.claim(10, at(0));
        assert_eq!((claims[0].lease.seq().0, claims[0].attempts), (2, attempts));
    }
}

#[test]
fn deliveries_blocked_by_a_retry_do_not_hold_the_cursor() {
    let mut lane = lane(&[7, 7, 8, 7, 9]);
    claim(&mut lane, 0);
    lane.schedule_retry(EventSeq(1), at(5), false);
    assert_eq!(lane.blocked_by_retry(&Set::default()), [0i64; 0], "no later delivery is settled");
    assert_eq!(lane.blocked_by_retry(&Set::from_iter([3])), [2, 4]);
    lane.mark_parked(EventSeq(2));
    lane.mark_parked(EventSeq(4));
    lane.mark_arrived(EventSeq(3), at(0));
    assert_eq!(lane.position().cursor, 4);
    assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 1, dead: 0 });
    assert_eq!(claim(&mut lane, 5), [1]);
    lane.mark_arrived(EventSeq(1), at(0));
    let claims = lane.claim(10, at(5));
    assert_eq!((claims[0].lease.seq().0, claims[0].attempts, claims.len()), (2, 0, 1));
    assert_eq!(lane.row_change(EventSeq(2), Outcome::Delivered), RowChange::Delete);
    lane.mark_arrived(EventSeq(2), at(0));
    assert_eq!(claim(&mut lane, 5), [4]);
}

#[test]
fn a_target_that_fails_does_not_fill_the_window_for_others() {
    let mut lane = lane(&[7; MAX_WINDOW_EVENTS]);
    claim(&mut lane, 0);
    lane.schedule_retry(EventSeq(1), at(5), false);
    lane.push(new_delivery(MAX_WINDOW_EVENTS as i64 + 1, 7));
    assert!(!lane.has_room());
    lane.blocked_by_retry(&Set::default()).into_iter().for_each(|seq| lane.mark_parked(EventSeq(seq)));
    assert!(lane.has_room());
}

#[test]
fn a_delivery_settled_twice_counts_once() {
    let mut lane = lane(&[6, 7, 7, 7]);
    assert_eq!(claim(&mut lane, 0), [1, 2]);
    lane.mark_arrived(EventSeq(2), at(0));
    assert_eq!(claim(&mut lane, 0), [3]);
    lane.mark_arrived(EventSeq(2), at(0));
    lane.mark_dead(EventSeq(2));
    assert_eq!(claim(&mut lane, 0), [0i64; 0], "3 is claimed");
    assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 0, dead: 0 });
}

#[test]
fn a_restored_delivery_comes_before_newer_ones() {
    let mut lane = Lane::new(Position { cursor: 5, enqueued: 6, settled_below_cursor: 5, dead: 0 });
    lane.restore(pending_retry(3, 7, 2, 10));
    lane.push(new_delivery(6, 7));
    assert_eq!(claim(&mut lane, 9), [0i64; 0]);
    assert_eq!(claim(&mut lane, 10), [3]);
    assert_eq!(
        lane.row_change(EventSeq(3), Outcome::Retry { is_uncertain: false }),
        RowChange::Put { attempts: 3 }
    );
    lane.mark_arrived(EventSeq(3), at(0));
    assert_eq!(claim(&mut lane, 10), [6]);
}

#[test]
fn a_delivery_cancelled_in_the_window_is_not_claimed_and_the_next_is() {
    let mut lane = lane(&[7, 7, 7, 8]);
    claim(&mut lane, 0);
    lane.cancel(EventSeq(2));
    assert_eq!(claim(&mut lane, 0), [0i64; 0], "1 is claimed");
    lane.mark_arrived(EventSeq(1), at(0));
    assert_eq!(claim(&mut lane, 0), [3]);
    assert_eq!((lane.position().cursor, lane.position().settled_below_cursor), (2, 2));
    assert_eq!(lane.backlog(), Backlog { pending: 2, retrying: 0, dead: 0 });
}

#[test]
fn a_delivery_cancelled_while_it_backs_off_unblocks_its_target() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.schedule_retry(EventSeq(1), at(5), false);
    lane.cancel(EventSeq(1));
    assert_eq!(lane.next_due(), None);
    assert_eq!(claim(&mut lane, 0), [2]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 0 });
}

#[test]
fn a_claimed_delivery_that_is_cancelled_may_arrive_and_is_not_retried() {
    for fails in [false, true] {
        let mut lane = lane(&[7, 7]);
        claim(&mut lane, 0);
        lane.cancel(EventSeq(1));
        assert_eq!(claim(&mut lane, 0), [0i64; 0], "it blocks its target");
        if fails {
            assert_eq!(lane.row_change(EventSeq(1), Outcome::Retry { is_uncertain: false }), RowChange::None);
            lane.schedule_retry(EventSeq(1), at(5), false);
        } else {
            assert_eq!(lane.row_change(EventSeq(1), Outcome::Delivered), RowChange::Delete);
            lane.mark_arrived(EventSeq(1), at(0));
        }
        assert_eq!(claim(&mut lane, 9), [2]);
        assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 0 });
    }
}

#[test]
fn a_claimed_delivery_that_is_cancelled_and_unclaimed_is_settled() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.cancel(EventSeq(1));
    lane.unclaim(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
}

#[test]
fn a_claimed_delivery_that_is_cancelled_and_dead_lettered_is_a_dead_letter() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.cancel(EventSeq(1));
    assert_eq!(
        lane.row_change(EventSeq(1), Outcome::Dead { was_called: true }),
        RowChange::Put { attempts: 1 }
    );
    lane.mark_dead(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 1 });
}

#[test]
fn a_delivery_cancelled_before_the_window_reaches_it_is_skipped() {
    let mut lane = lane(&[7]);
    lane.add_enqueued(2, 0, 0);
    lane.cancel(EventSeq(2));
    assert_eq!(lane.backlog(), Backlog { pending: 2, retrying: 0, dead: 0 });
    lane.push(new_delivery(2, 7));
    lane.push(new_delivery(3, 7));
    assert_eq!(claim(&mut lane, 0), [1]);
    lane.mark_arrived(EventSeq(1), at(0));
    assert_eq!(claim(&mut lane, 0), [3]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 0 });
}

/// Rows above the cursor: the window reads their events again.
#[test]
fn a_delivery_restored_beyond_the_cursor_takes_its_place_in_its_targets_order() {
    let mut lane = Lane::new(Position { cursor: 0, enqueued: 4, settled_below_cursor: 0, dead: 1 });
    lane.restore(pending_retry(2, 7, 1, 5));
    lane.restore_counts(1, 0);
    assert_eq!(lane.backlog(), Backlog { pending: 2, retrying: 1, dead: 1 });
    assert_eq!(lane.undelivered(), 3);
    for seq in 1..=4 {
        match seq {
            3 => lane.push_known(&new_delivery(3, 7)),
            _ => lane.push(new_delivery(seq, 7)),
        }
    }
    assert_eq!(claim(&mut lane, 9), [1], "no row says that it was delivered");
    lane.mark_arrived(EventSeq(1), at(0));
    assert_eq!(claim(&mut lane, 9), [2]);
    lane.mark_arrived(EventSeq(2), at(0));
    assert_eq!(claim(&mut lane, 9), [4]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 1 });
}

#[test]
fn a_redriven_delivery_takes_its_place_among_the_undelivered_of_its_target() {
    let mut lane = lane(&[7, 7, 7, 8]);
    claim(&mut lane, 0);
    lane.mark_dead(EventSeq(1));
    lane.redrive(pending_retry(1, 7, 1, 0));
    lane.redrive(pending_retry(1, 7, 1, 0));
    assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 1, dead: 0 });
    assert_eq!(claim(&mut lane, 0), [1], "2 was not claimed yet");
    lane.mark_dead(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
    lane.redrive(pending_retry(1, 7, 2, 0));
    assert_eq!(claim(&mut lane, 0), [0i64; 0], "2 is claimed");
    lane.mark_arrived(EventSeq(2), at(0));
    assert_eq!(claim(&mut lane, 0), [1]);
    lane.mark_arrived(EventSeq(1), at(0));
    assert_eq!(claim(&mut lane, 0), [3]);
    assert_eq!(lane.undelivered(), 2);
}

#[test]
fn deliveries_settled_at_commit_are_skipped_wherever_the_window_is() {
    let mut lane = lane(&[7]);
    lane.add_enqueued(3, 2, 1);
    assert_eq!((lane.undelivered(), lane.backlog().pending), (2, 2));
    lane.redrive(pending_retry(3, 7, 0, 0));
    lane.push_known(&new_delivery(2, 7));
    lane.push_known(&new_delivery(3, 7));
    lane.push(new_delivery(4, 7));
    assert_eq!((lane.undelivered(), lane.backlog().pending), (3, 3));
    for seq in [1, 3, 4] {
        assert_eq!(claim(&mut lane, 0), [seq]);
        lane.mark_arrived(EventSeq(seq), at(0));
    }
    assert_eq!((lane.undelivered(), lane.position().cursor, lane.position().settled_below_cursor), (0, 4, 4));
}

#[test]
fn a_lease_ends_with_the_settlement_or_the_release_and_a_claim_is_a_new_one() {
    let mut lane = lane(&[7]);
    let lease = |lane: &mut Lane| lane.claim(10, at(0))[0].lease;
    let first = lease(&mut lane);
    assert!(lane.holds(first));
    lane.release_claims(false);
    assert!(!lane.holds(first));
    let second = lease(&mut lane);
    assert!(lane.holds(second) && !lane.holds(first));
    lane.schedule_retry(EventSeq(1), at(0), false);
    assert!(!lane.holds(second));
    let third = lease(&mut lane);
    let reasons = [first, second, third].map(|lease| lane.refusal_reason(lease));
    assert_eq!(reasons, [Some(RefusalReason::LeaseEnded), Some(RefusalReason::LeaseEnded), None]);
    lane.cancel(EventSeq(1));
    assert!(lane.holds(third), "its outcome still counts");
    assert_eq!(lane.refusal_reason(third), Some(RefusalReason::Superseded), "but it is not sent");
    lane.mark_arrived(EventSeq(1), at(0));
    assert!(!lane.holds(third));
}
