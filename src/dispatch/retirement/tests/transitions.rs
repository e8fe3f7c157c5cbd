//! The table of transitions: each state with each event.

use tokio::time::Instant;

use super::super::state::{
    Event, Progress, RETIRED_RULES_TIMEOUT, STORE_RETRY_DELAY, State, Successor, WITHHELD_TIMEOUT,
};

const EVENTS: [Event; 13] = [
    Event::Removed,
    Event::Orphaned,
    Event::Replaced,
    Event::RulesReleased,
    Event::TimedOut,
    Event::WorkerEnded,
    Event::Drained(5),
    Event::NothingClaimable,
    Event::Woken,
    Event::Empty,
    Event::LaneClosed,
    Event::StoreFailed,
    Event::ProcessStops,
];

/// The changes of all states, by state and event; all other events change nothing.
fn check(state: State, now: Instant, changes: &[(Event, State)]) {
    for event in EVENTS {
        let expected = changes.iter().find(|(of, _)| *of == event).map_or(state, |(_, after)| *after);
        assert_eq!(state.after(event, now), expected, "{state:?} after {event:?}");
    }
}

#[test]
fn each_event_changes_the_states_that_it_belongs_to() {
    let now = Instant::now();
    let (progress, fresh) = (Progress { drained: 7, withheld_deadline: None }, Progress::default());
    let interrupted = (Event::ProcessStops, State::Interrupted);
    let backing_off = State::BackingOff { progress, retry_at: now + STORE_RETRY_DELAY };
    let withheld_until = now + WITHHELD_TIMEOUT;
    let withheld = State::Withheld { progress, deadline: withheld_until };
    let has_waited = Progress { withheld_deadline: Some(withheld_until), ..progress };
    let more = Progress { drained: 12, withheld_deadline: None };

    check(
        State::Active,
        now,
        &[
            (Event::Removed, State::Quiescing { deadline: now + RETIRED_RULES_TIMEOUT }),
            (Event::Orphaned, State::Draining(fresh)),
            (Event::Replaced, State::Stopping(Successor::Worker)),
            interrupted,
        ],
    );
    let stopping = State::Stopping(Successor::None);
    check(
        State::Quiescing { deadline: now },
        now,
        &[(Event::RulesReleased, stopping), (Event::TimedOut, stopping), interrupted],
    );
    check(stopping, now, &[(Event::WorkerEnded, State::Draining(fresh)), interrupted]);
    check(State::Stopping(Successor::Worker), now, &[(Event::WorkerEnded, State::HandedOver), interrupted]);
    let drained = (Event::Drained(5), State::Draining(more));
    check(
        State::Draining(progress),
        now,
        &[
            drained,
            (Event::NothingClaimable, withheld),
            (Event::Empty, State::ClosingLane(progress)),
            (Event::StoreFailed, backing_off),
            interrupted,
        ],
    );
    // The time without progress is limited in total, however often the drain is woken.
    check(
        State::Draining(has_waited),
        withheld_until,
        &[
            drained,
            (Event::NothingClaimable, State::ClosingLane(has_waited)),
            (Event::Empty, State::ClosingLane(has_waited)),
            (
                Event::StoreFailed,
                State::BackingOff { progress, retry_at: withheld_until + STORE_RETRY_DELAY },
            ),
            interrupted,
        ],
    );
    check(
        withheld,
        now,
        &[
            (Event::Woken, State::Draining(has_waited)),
            (Event::TimedOut, State::ClosingLane(progress)),
            interrupted,
        ],
    );
    check(backing_off, now, &[(Event::TimedOut, State::Draining(progress)), interrupted]);
    check(
        State::ClosingLane(progress),
        now,
        &[(Event::LaneClosed, State::Retired { drained: 7 }), (Event::StoreFailed, backing_off), interrupted],
    );
}

#[test]
fn nothing_changes_a_final_state() {
    for state in [State::Retired { drained: 7 }, State::HandedOver, State::Interrupted] {
        assert!(state.is_final());
        check(state, Instant::now(), &[]);
    }
}
