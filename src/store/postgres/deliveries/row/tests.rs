use super::*;

fn at(seconds: i64) -> Time {
    Time::from_millis(seconds * 1000)
}

/// The store's clock is a second ahead of the wall clock.
fn clock(seconds: i64) -> ClockReading {
    ClockReading { now: at(seconds + 1), wall: at(seconds) }
}

fn open() -> DeliveryRow {
    DeliveryRow {
        destination: 1,
        event: 7,
        target: 3,
        state: State::Open,
        attempts: 0,
        due: 0,
        token: None,
        age_from: 0,
        expiry: None,
        ended_at: None,
        is_suspended: false,
        is_aside: false,
        is_called: false,
        is_uncertain: false,
        is_expired: false,
        is_parked: false,
        error: None,
        answer: None,
    }
}

fn claimed() -> DeliveryRow {
    let mut row = open();
    row.claim(at(10), 99);
    row
}

fn settled(mut row: DeliveryRow, settlement: Settlement) -> (DeliveryRow, Settled) {
    let settled = row.settle(clock(20), settlement);
    (row, settled)
}

fn retry(uncertain: bool) -> Settlement {
    Settlement::Retry { delay: Duration::from_secs(5), error: "no".to_owned(), uncertain }
}

fn dead(cause: GiveUp, called: bool) -> Settlement {
    Settlement::Dead { error: "refused".to_owned(), cause, called, uncertain: false }
}

#[test]
fn every_state_is_read_as_it_is_written() {
    for number in 0..7 {
        assert_eq!(State::read(number).unwrap() as i16, number);
    }
    assert!(State::read(7).is_err());
}

#[test]
fn a_claim_blocks_its_target_for_a_lease_and_a_retry_until_it_is_due() {
    let claimed = claimed();
    assert_eq!((claimed.due, claimed.token), (at(70).as_nanos(), Some(99)));
    assert!(claimed.is_in_flight(at(69)) && !claimed.is_in_flight(at(70)));
    let (row, outcome) = settled(claimed.clone(), retry(false));
    assert_eq!((outcome, row.due, row.attempts, row.token), (Settled::Postponed, at(25).as_nanos(), 1, None));
    assert!(row.blocks(at(20)) && row.frees_queue_of(&claimed, at(20)), "a redriven one may come before it");
    assert_eq!(row.class(), Class::Unsettled { has_failed: true });
}

#[test]
fn what_stands_aside_or_is_suspended_lets_others_pass() {
    let aside = Settlement::NotCalled { delay: Duration::from_secs(5), stands_aside: true };
    let (row, _) = settled(claimed(), aside.clone());
    assert!(!row.blocks(at(24)) && row.blocks(at(25)), "it returns to its place");
    assert_eq!((row.attempts, row.error), (0, None));
    let mut suspended = claimed();
    suspended.change(clock(15), DeliveryChangeKind::Suspend, 0, true);
    assert!(suspended.is_in_flight(at(15)) && !suspended.blocks(at(15)));
    for settlement in [retry(false), aside] {
        let (row, _) = settled(suspended.clone(), settlement);
        assert!(row.is_suspended && !row.is_aside && row.token.is_none());
        let mut resumed = row;
        resumed.change(clock(30), DeliveryChangeKind::Resume, 0, true);
        assert_eq!((resumed.due, resumed.age_from), (at(30).as_nanos(), at(31).as_nanos()));
        assert!(resumed.blocks(at(30)));
    }
}

#[test]
fn a_delivery_that_has_arrived_has_its_answer_and_no_error() {
    let mut row = claimed();
    row.begin_call(at(15));
    assert_eq!(row.due, at(75).as_nanos(), "the lease is renewed");
    let (row, outcome) = settled(row, Settlement::Delivered { answer: Some("ok".to_owned()) });
    assert_eq!((outcome, row.state, row.attempts), (Settled::Arrived, State::Delivered, 1));
    assert_eq!(
        (row.ended_at, row.error.clone(), row.answer.as_deref()),
        (Some(at(21).as_nanos()), Some(None), Some("ok"))
    );
    assert!(!row.is_uncertain && !row.is_called);
}

#[test]
fn a_dead_letter_has_its_cause_and_only_calls_are_attempts() {
    let (row, outcome) = settled(claimed(), dead(GiveUp::Expired, false));
    assert_eq!(
        (outcome, row.state, row.attempts, row.is_expired),
        (Settled::NotDelivered, State::Dead, 0, true)
    );
    assert_eq!(row.ended_at, Some(at(20).as_nanos()), "by the wall clock");
    assert_eq!(row.class(), Class::Dead);
    let (row, _) = settled(claimed(), dead(GiveUp::Rejected, true));
    assert_eq!((row.attempts, row.is_expired), (1, false));
}

#[test]
fn what_was_cancelled_while_it_was_claimed_ends_with_its_claim_or_arrives() {
    let mut cancelled = claimed();
    cancelled.change(clock(15), DeliveryChangeKind::Cancel, 0, true);
    assert_eq!((cancelled.state, cancelled.token), (State::Superseded, Some(99)));
    assert_eq!(cancelled.class(), Class::Unsettled { has_failed: false }, "its call can go on");
    for (settlement, is_uncertain) in
        [(retry(true), true), (retry(false), false), (dead(GiveUp::Rejected, true), false)]
    {
        let (row, outcome) = settled(cancelled.clone(), settlement);
        assert_eq!((outcome, row.state, row.token), (Settled::NotDelivered, State::Superseded, None));
        assert_eq!((row.attempts, row.is_uncertain, row.class()), (0, is_uncertain, Class::Other));
    }
    let (row, outcome) = settled(cancelled.clone(), Settlement::Delivered { answer: None });
    assert_eq!((outcome, row.state), (Settled::Arrived, State::Delivered));
    cancelled.begin_call(at(16));
    cancelled.release(at(80));
    assert!(cancelled.is_uncertain, "its call may have arrived");
}

#[test]
fn a_waiting_delivery_is_cancelled_at_once_and_keeps_what_is_known_of_its_calls() {
    let (mut row, _) = settled(claimed(), retry(true));
    let before = row.clone();
    row.change(clock(22), DeliveryChangeKind::Cancel, 0, true);
    assert_eq!((row.state, row.is_uncertain, row.class()), (State::Superseded, true, Class::Other));
    assert!(row.frees_queue_of(&before, at(22)));
    let after = row.clone();
    row.change(clock(23), DeliveryChangeKind::Suspend, 0, true);
    row.change(clock(23), DeliveryChangeKind::Cancel, 0, true);
    assert_eq!(row, after, "it has ended");
}

#[test]
fn a_dead_letter_is_renewed_only_if_its_age_was_the_cause_and_replaced_whatever_it_was() {
    let renew = DeliveryChangeKind::Renew { expires_after: Duration::from_secs(100) };
    let (expired, _) = settled(claimed(), dead(GiveUp::Expired, false));
    let mut row = expired.clone();
    row.change(clock(30), renew, 0, false);
    assert_eq!(row, expired, "nobody would deliver it");
    row.change(clock(30), renew, 0, true);
    assert_eq!((row.state, row.due, row.age_from), (State::Open, at(30).as_nanos(), at(31).as_nanos()));
    assert_eq!((row.expiry, row.ended_at), (Some(at(130).as_nanos()), None));
    row.change(clock(40), DeliveryChangeKind::EndRenewal, 5, true);
    assert_eq!((row.age_from, row.expiry), (5, None));
    let (mut rejected, _) = settled(claimed(), dead(GiveUp::Rejected, true));
    rejected.change(clock(30), renew, 0, true);
    assert_eq!(rejected.state, State::Dead);
    rejected.change(clock(30), DeliveryChangeKind::Replace, 0, true);
    assert_eq!((rejected.state, rejected.class()), (State::Replaced, Class::Other));
}

#[test]
fn a_parked_delivery_is_in_its_place_and_a_released_one_can_be_claimed() {
    let mut row = claimed();
    row.begin_call(at(11));
    row.release(at(12));
    assert_eq!((row.due, row.token, row.is_uncertain), (at(12).as_nanos(), None, true));
    row.park(at(13));
    assert!(row.blocks(at(13)) && row.is_parked && row.due > at(13).as_nanos());
    row.claim(at(14), 5);
    assert!(!row.is_parked && row.is_in_flight(at(15)));
}
