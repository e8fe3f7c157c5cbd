//! What decisions know about the delivery of events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::row::State;
use crate::domain::delivery::GiveUp;
use crate::domain::engine::DeliveryFeedback;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::TargetState;
use crate::domain::target::TargetKey;
use crate::domain::time::{ClockReading, Time};
use crate::store::EventSeq;
use crate::store::postgres::Shared;
use crate::store::postgres::error::DbError;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::tracking::{self, Status};

/// In this form each is found by an index, whatever the planner knows about the tables.
const SELECT: &str = "
    SELECT e.target, e.seq, e.id, e.destinations, e.acting, e.episode, e.phase, n.name, d.state,
           d.token IS NOT NULL, d.is_called, d.is_uncertain, d.is_expired, d.ended_at, n.last_success
    FROM unnest($1::bigint[]) AS t (id)
    CROSS JOIN LATERAL (
        SELECT o.target, o.seq, o.id, o.destinations, o.acting, o.episode, o.phase FROM events o
        WHERE o.target = t.id AND o.tracked OFFSET 0
    ) AS e
    LEFT JOIN LATERAL (
        SELECT o.destination, o.state, o.token, o.is_called, o.is_uncertain, o.is_expired, o.ended_at
        FROM deliveries o WHERE o.event = e.seq OFFSET 0
    ) AS d ON true
    LEFT JOIN destinations n ON n.id = d.destination
    ORDER BY e.target, e.seq";
const SELECT_SUCCESSES: &str = "SELECT name, last_success FROM destinations WHERE last_success IS NOT NULL";

/// A target of a decision, which is locked.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::postgres) struct DecidedTarget<'a> {
    /// `targets.id`.
    pub id: i64,
    pub key: &'a TargetKey,
    pub state: &'a TargetState,
}

/// An event to which the state of its target refers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store::postgres) struct TrackedEvent {
    pub seq: EventSeq,
    pub id: Arc<str>,
    pub destinations: Vec<Name>,
    pub acting: Vec<Name>,
    /// The episode that it is about, and its end.
    pub episode: Option<(String, Phase)>,
}

/// What was read for a decision.
#[derive(Debug, Default)]
pub(in crate::store::postgres) struct Feedback {
    pub deliveries: DeliveryFeedback,
    /// By `targets.id`, in the order of the events.
    pub tracked: BTreeMap<i64, Vec<TrackedEvent>>,
}

/// Reads the delivery of the events that these targets track. One round trip, whatever their number.
pub(in crate::store::postgres) async fn read(
    shared: &Shared,
    transaction: &Transaction,
    targets: &[DecidedTarget<'_>],
) -> Result<Feedback, DbError> {
    if targets.is_empty() {
        return Ok(Feedback::default());
    }
    let ids: Vec<i64> = targets.iter().map(|target| target.id).collect();
    let params: [Param<'_>; 1] = [(&ids, Type::INT8_ARRAY)];
    let (rows, successes) = futures_util::future::try_join(
        transaction.query(SELECT, &params),
        transaction.query(SELECT_SUCCESSES, &[]),
    )
    .await?;
    let mut feedback = Feedback::default();
    let mut statuses: BTreeMap<i64, Vec<Status>> = BTreeMap::new();
    for row in &rows {
        let events = feedback.tracked.entry(row.get(0)).or_default();
        let seq: i64 = row.get(1);
        if events.last().is_none_or(|last| last.seq.0 != seq) {
            events.push(tracked_event(row));
        }
        let Some(event) = events.last() else { continue };
        if let Some((name, status)) = delivery(row)?.filter(|(name, _)| event.acting.contains(name)) {
            drop(name);
            statuses.entry(seq).or_default().push(status);
        }
    }
    for target in targets {
        let tracked = feedback.tracked.get(&target.id).map_or(&[][..], Vec::as_slice);
        let wanted: BTreeSet<&Arc<str>> = target.state.tracked_events().collect();
        let events = tracked.iter().filter(|event| wanted.contains(&event.id)).filter_map(|event| {
            let of_event = statuses.get(&event.seq.0)?;
            Some((event.id.clone(), tracking::combine(of_event.iter().copied())))
        });
        let events: BTreeMap<_, _> = events.collect();
        // Without any, nothing is known about the events any more.
        if !events.is_empty() {
            feedback.deliveries.events.insert(target.key.clone(), events);
        }
    }
    let known = shared.destinations.all();
    let awaits = |state: &TargetState| known.keys().any(|name| state.awaits_destination(name));
    if !feedback.deliveries.events.is_empty() || targets.iter().any(|target| awaits(target.state)) {
        let successes =
            successes.iter().filter_map(|row| Some((name(row.get(0))?, Time::from_nanos(row.get(1)))));
        feedback.deliveries.last_success = successes.collect();
    }
    Ok(feedback)
}

fn name(text: &str) -> Option<Name> {
    Name::new(text).ok()
}

fn tracked_event(row: &Row) -> TrackedEvent {
    let names = |names: Vec<&str>| names.into_iter().filter_map(name).collect();
    let phase = match row.get(6) {
        Some(1_i16) => Some(Phase::Firing),
        Some(2) => Some(Phase::Resolved),
        _ => None,
    };
    TrackedEvent {
        seq: EventSeq(row.get(1)),
        id: row.get::<_, &str>(2).into(),
        destinations: names(row.get(3)),
        acting: names(row.get(4)),
        episode: row.get::<_, Option<String>>(5).zip(phase),
    }
}

/// The delivery to a destination; `None` if the event has none.
fn delivery(row: &Row) -> Result<Option<(Name, Status)>, DbError> {
    let (Some(name), Some(state)) = (row.get::<_, Option<&str>>(7).and_then(name), row.get(8)) else {
        return Ok(None);
    };
    let stored = StoredDelivery {
        state: State::read(state)?,
        is_leased: row.get(9),
        is_called: row.get(10),
        is_uncertain: row.get(11),
        is_expired: row.get(12),
        ended_at: row.get::<_, Option<i64>>(13).map_or(Time::from_nanos(0), Time::from_nanos),
        last_success: row.get::<_, Option<i64>>(14).map(Time::from_nanos),
    };
    Ok(Some((name, stored.status())))
}

/// What decides about the status of a delivery.
#[derive(Debug, Clone, Copy)]
struct StoredDelivery {
    state: State,
    is_leased: bool,
    is_called: bool,
    is_uncertain: bool,
    is_expired: bool,
    ended_at: Time,
    last_success: Option<Time>,
}

impl StoredDelivery {
    fn status(self) -> Status {
        // The outcome of a call that goes on is not known either.
        let is_uncertain = self.is_uncertain || self.is_called;
        match self.state {
            State::Open => Status::Pending { is_uncertain },
            // Its call can go on.
            State::Superseded if self.is_leased => Status::Pending { is_uncertain },
            State::Delivered => Status::Arrived(self.ended_at),
            State::Dead => {
                let cause = if self.is_expired { GiveUp::Expired } else { GiveUp::Rejected };
                let last_success = self.last_success.map(ClockReading::equal);
                let later_success = tracking::later_success(last_success, self.ended_at);
                Status::Dead { cause, is_uncertain, later_success }
            }
            State::Superseded | State::Withdrawn | State::Discarded | State::Replaced => {
                Status::NotDelivered { is_uncertain }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(state: State) -> StoredDelivery {
        StoredDelivery {
            state,
            is_leased: false,
            is_called: false,
            is_uncertain: false,
            is_expired: false,
            ended_at: Time::from_nanos(10),
            last_success: None,
        }
    }

    #[test]
    fn the_outcome_of_a_call_that_goes_on_is_uncertain_and_what_is_cancelled_meanwhile_is_pending() {
        let called = StoredDelivery { is_called: true, is_leased: true, ..stored(State::Open) };
        assert_eq!(called.status(), Status::Pending { is_uncertain: true });
        let cancelled = StoredDelivery { is_leased: true, ..stored(State::Superseded) };
        assert_eq!(cancelled.status(), Status::Pending { is_uncertain: false });
        let ended = StoredDelivery { is_uncertain: true, ..stored(State::Superseded) };
        assert_eq!(ended.status(), Status::NotDelivered { is_uncertain: true });
    }

    #[test]
    fn a_success_counts_for_a_dead_letter_unless_it_was_before_the_give_up() {
        let later_success = |last: i64| {
            let last_success = Some(Time::from_nanos(last));
            match (StoredDelivery { last_success, is_expired: true, ..stored(State::Dead) }).status() {
                Status::Dead { cause: GiveUp::Expired, later_success, .. } => {
                    later_success.map(Time::as_nanos)
                }
                other => panic!("{other:?}"),
            }
        };
        assert_eq!([9, 10, 11].map(later_success), [None, Some(10), Some(11)]);
    }

    #[test]
    fn a_delivery_has_arrived_when_it_was_settled() {
        assert_eq!(stored(State::Delivered).status(), Status::Arrived(Time::from_nanos(10)));
    }
}
