//! A lane by hand.

use super::*;
use crate::store::Backlog;

fn at(seconds: i64) -> Time {
    Time::from_millis(seconds * 1000)
}

fn offered(seq: i64, group: Group) -> Offered {
    Offered { seq: EventSeq(seq), group, emitted_at: at(0), undoes: false, body: "{}".into() }
}

fn waiting(seq: i64, group: Group, attempts: u32, due: i64) -> Waiting {
    Waiting { seq: EventSeq(seq), group, emitted_at: at(0), undoes: false, attempts, due: at(due) }
}

fn lane(groups: &[Group]) -> Lane {
    let mut lane = Lane::new(Position::default());
    for (index, group) in groups.iter().enumerate() {
        lane.offer(offered(index as i64 + 1, *group));
        lane.given(1, 0, 0);
    }
    lane
}

fn claim(lane: &mut Lane, now: i64) -> Vec<i64> {
    lane.claim(10, at(now)).into_iter().map(|handed| handed.seq.0).collect()
}

#[test]
fn one_event_a_target_is_out_at_a_time_and_in_order() {
    let mut lane = lane(&[7, 7, 8]);
    assert_eq!(claim(&mut lane, 0), [1, 3]);
    assert_eq!(claim(&mut lane, 0), [0i64; 0]);
    lane.delivered(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
}

#[test]
fn a_failed_delivery_holds_its_target_back_and_no_other() {
    let mut lane = lane(&[7, 7, 8]);
    claim(&mut lane, 0);
    lane.retry(EventSeq(1), at(5));
    lane.delivered(EventSeq(3));
    assert_eq!(claim(&mut lane, 4), [0i64; 0]);
    assert_eq!(lane.next_due(), Some(at(5)));
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 1, dead: 0 });
    assert_eq!(claim(&mut lane, 5), [1]);
    assert_eq!(lane.row(EventSeq(1), End::Arrived), Row::Delete);
    lane.delivered(EventSeq(1));
    assert_eq!(claim(&mut lane, 5), [2]);
}

#[test]
fn a_dead_letter_releases_its_target() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.dead(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 1 });
}

#[test]
fn the_cursor_stops_before_the_first_that_is_neither_settled_nor_a_row() {
    let mut lane = lane(&[1, 2, 3, 4]);
    claim(&mut lane, 0);
    let foreseen = lane.position_after(&Set::from_iter([1, 3]), 0, 0);
    lane.delivered(EventSeq(3));
    assert_eq!(lane.position().cursor, 0);
    lane.delivered(EventSeq(1));
    assert_eq!((lane.position().cursor, lane.position().passed), (1, 1));
    assert_eq!((foreseen.cursor, foreseen.passed), (1, 1));
    lane.retry(EventSeq(2), at(9));
    assert_eq!((lane.position().cursor, lane.position().passed), (3, 3));
    lane.delivered(EventSeq(4));
    assert_eq!(lane.position().cursor, 4);
    assert_eq!(lane.backlog(), Backlog { pending: 0, retrying: 1, dead: 0 });
}

#[test]
fn tries_are_counted_while_an_earlier_event_holds_the_cursor() {
    let mut lane = lane(&[7, 8]);
    claim(&mut lane, 0);
    for attempts in 1..4 {
        assert_eq!(lane.row(EventSeq(2), End::Retry), Row::Put { attempts });
        lane.retry(EventSeq(2), at(0));
        let handed = lane.claim(10, at(0));
        assert_eq!((handed[0].seq.0, handed[0].attempts), (2, attempts));
    }
}

#[test]
fn what_waits_behind_a_failed_delivery_does_not_hold_the_cursor() {
    let mut lane = lane(&[7, 7, 8, 7, 9]);
    claim(&mut lane, 0);
    lane.retry(EventSeq(1), at(5));
    assert_eq!(lane.to_park(&Set::default()), [0i64; 0], "nothing was delivered behind it");
    assert_eq!(lane.to_park(&Set::from_iter([3])), [2, 4]);
    lane.parked(EventSeq(2));
    lane.parked(EventSeq(4));
    lane.delivered(EventSeq(3));
    assert_eq!(lane.position().cursor, 4);
    assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 1, dead: 0 });
    assert_eq!(claim(&mut lane, 5), [1]);
    lane.delivered(EventSeq(1));
    let handed = lane.claim(10, at(5));
    assert_eq!((handed[0].seq.0, handed[0].attempts, handed.len()), (2, 0, 1));
    assert_eq!(lane.row(EventSeq(2), End::Arrived), Row::Delete);
    lane.delivered(EventSeq(2));
    assert_eq!(claim(&mut lane, 5), [4]);
}

#[test]
fn a_target_that_fails_does_not_fill_the_window_for_others() {
    let mut lane = lane(&[7; WINDOW]);
    claim(&mut lane, 0);
    lane.retry(EventSeq(1), at(5));
    lane.offer(offered(WINDOW as i64 + 1, 7));
    assert!(!lane.has_room());
    lane.to_park(&Set::default()).into_iter().for_each(|seq| lane.parked(EventSeq(seq)));
    assert!(lane.has_room());
}

#[test]
fn what_is_settled_twice_counts_once() {
    let mut lane = lane(&[6, 7, 7, 7]);
    assert_eq!(claim(&mut lane, 0), [1, 2]);
    lane.delivered(EventSeq(2));
    assert_eq!(claim(&mut lane, 0), [3]);
    lane.delivered(EventSeq(2));
    lane.dead(EventSeq(2));
    assert_eq!(claim(&mut lane, 0), [0i64; 0], "3 is out");
    assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 0, dead: 0 });
}

#[test]
fn what_is_restored_comes_before_what_is_newer() {
    let mut lane = Lane::new(Position { cursor: 5, given: 6, passed: 5, dead: 0 });
    lane.restore(waiting(3, 7, 2, 10));
    lane.offer(offered(6, 7));
    assert_eq!(claim(&mut lane, 9), [0i64; 0]);
    assert_eq!(claim(&mut lane, 10), [3]);
    assert_eq!(lane.row(EventSeq(3), End::Retry), Row::Put { attempts: 3 });
    lane.delivered(EventSeq(3));
    assert_eq!(claim(&mut lane, 10), [6]);
}

#[test]
fn what_is_cancelled_in_the_window_is_not_handed_out_and_what_is_behind_it_is() {
    let mut lane = lane(&[7, 7, 7, 8]);
    claim(&mut lane, 0);
    lane.cancel(EventSeq(2));
    assert_eq!(claim(&mut lane, 0), [0i64; 0], "1 is out");
    lane.delivered(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [3]);
    assert_eq!((lane.position().cursor, lane.position().passed), (2, 2));
    assert_eq!(lane.backlog(), Backlog { pending: 2, retrying: 0, dead: 0 });
}

#[test]
fn what_is_cancelled_while_it_waits_for_another_try_lets_its_target_go_on() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.retry(EventSeq(1), at(5));
    lane.cancel(EventSeq(1));
    assert_eq!(lane.next_due(), None);
    assert_eq!(claim(&mut lane, 0), [2]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 0 });
}

#[test]
fn what_is_cancelled_on_its_way_may_arrive_and_is_not_tried_again() {
    for fails in [false, true] {
        let mut lane = lane(&[7, 7]);
        claim(&mut lane, 0);
        lane.cancel(EventSeq(1));
        assert_eq!(claim(&mut lane, 0), [0i64; 0], "its target waits for it");
        if fails {
            assert_eq!(lane.row(EventSeq(1), End::Retry), Row::None);
            lane.retry(EventSeq(1), at(5));
        } else {
            assert_eq!(lane.row(EventSeq(1), End::Arrived), Row::Arrived { attempts: 1 });
            lane.delivered(EventSeq(1));
        }
        assert_eq!(claim(&mut lane, 9), [2]);
        assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 0 });
    }
}

#[test]
fn what_is_cancelled_on_its_way_and_given_back_is_over() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.cancel(EventSeq(1));
    lane.unclaim(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
}

#[test]
fn what_is_cancelled_on_its_way_and_given_up_is_a_dead_letter() {
    let mut lane = lane(&[7, 7]);
    claim(&mut lane, 0);
    lane.cancel(EventSeq(1));
    assert_eq!(lane.row(EventSeq(1), End::Dead), Row::Put { attempts: 1 });
    lane.dead(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 1 });
}

#[test]
fn what_is_cancelled_before_the_window_reaches_it_is_passed_over() {
    let mut lane = lane(&[7]);
    lane.given(2, 0, 0);
    lane.cancel(EventSeq(2));
    assert_eq!(lane.backlog(), Backlog { pending: 2, retrying: 0, dead: 0 });
    lane.offer(offered(2, 7));
    lane.offer(offered(3, 7));
    assert_eq!(claim(&mut lane, 0), [1]);
    lane.delivered(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [3]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 0 });
}

#[test]
fn nothing_of_a_withheld_target_is_handed_out_until_it_is_released() {
    let mut lane = lane(&[7, 8]);
    lane.withhold(7);
    assert_eq!(claim(&mut lane, 0), [2]);
    lane.offer(offered(3, 7));
    assert_eq!(claim(&mut lane, 0), [0i64; 0]);
    lane.release();
    assert_eq!(claim(&mut lane, 0), [1]);
}

/// Rows of what lies beyond the cursor: the events come by again.
#[test]
fn what_is_restored_beyond_the_cursor_takes_its_place_in_its_targets_order() {
    let mut lane = Lane::new(Position { cursor: 0, given: 4, passed: 0, dead: 1 });
    lane.restore(waiting(2, 7, 1, 5));
    lane.restore_counts(1, 0);
    assert_eq!(lane.backlog(), Backlog { pending: 2, retrying: 1, dead: 1 });
    assert_eq!(lane.left(), 3);
    for seq in 1..=4 {
        match seq {
            3 => lane.offer_with_row(&offered(3, 7)),
            _ => lane.offer(offered(seq, 7)),
        }
    }
    assert_eq!(claim(&mut lane, 9), [1], "it was not known to have arrived");
    lane.delivered(EventSeq(1));
    assert_eq!(claim(&mut lane, 9), [2]);
    lane.delivered(EventSeq(2));
    assert_eq!(claim(&mut lane, 9), [4]);
    assert_eq!(lane.backlog(), Backlog { pending: 1, retrying: 0, dead: 1 });
}

#[test]
fn what_is_redriven_takes_its_place_among_what_is_left_of_its_target() {
    let mut lane = lane(&[7, 7, 7, 8]);
    claim(&mut lane, 0);
    lane.dead(EventSeq(1));
    lane.redrive(waiting(1, 7, 1, 0));
    lane.redrive(waiting(1, 7, 1, 0));
    assert_eq!(lane.backlog(), Backlog { pending: 3, retrying: 1, dead: 0 });
    assert_eq!(claim(&mut lane, 0), [1], "2 had not been handed out yet");
    lane.dead(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [2]);
    lane.redrive(waiting(1, 7, 2, 0));
    assert_eq!(claim(&mut lane, 0), [0i64; 0], "2 is on its way");
    lane.delivered(EventSeq(2));
    assert_eq!(claim(&mut lane, 0), [1]);
    lane.delivered(EventSeq(1));
    assert_eq!(claim(&mut lane, 0), [3]);
    assert_eq!(lane.left(), 2);
}

#[test]
fn what_is_refused_at_once_is_passed_over_wherever_the_window_is() {
    let mut lane = lane(&[7]);
    lane.given(3, 2, 1);
    assert_eq!((lane.left(), lane.backlog().pending), (2, 2));
    lane.redrive(waiting(3, 7, 0, 0));
    lane.offer_with_row(&offered(2, 7));
    lane.offer_with_row(&offered(3, 7));
    lane.offer(offered(4, 7));
    assert_eq!((lane.left(), lane.backlog().pending), (3, 3));
    for seq in [1, 3, 4] {
        assert_eq!(claim(&mut lane, 0), [seq]);
        lane.delivered(EventSeq(seq));
    }
    assert_eq!((lane.left(), lane.position().cursor, lane.position().passed), (0, 4, 4));
}
