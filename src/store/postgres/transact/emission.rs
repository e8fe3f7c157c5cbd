//! The events of a batch with their deliveries. A delivery is open, unless the destination gets nothing that the event takes
//! back, or has too many undelivered events.

use std::collections::BTreeSet;

use tokio_postgres::types::Type;

use super::tracked::{Compensated, EventWrite};
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::time::ClockReading;
use crate::store::dead_letters::BACKLOG_FULL;
use crate::store::fast_map::Map;
use crate::store::postgres::deliveries::{CountChanges, limits_of};
use crate::store::postgres::destinations::{Class, Destinations};
use crate::store::postgres::error::DbError;
use crate::store::postgres::queries::records::NewRecord;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::withdrawn;

/// In the order of their numbers under the locks of the targets, so that the numbers of a target ascend.
pub(super) const NUMBERS: &str = "SELECT nextval('events_seq_seq') FROM generate_series(1, $1)";
const INSERT_EVENTS: &str = "
    INSERT INTO events (seq, id, target, at, destinations, acting, may_decrease, episode, phase, compensates, tracked, body)
    OVERRIDING SYSTEM VALUE
    SELECT seq, id, target, at, string_to_array(destinations, ','), string_to_array(acting, ','), may_decrease, episode,
           phase, compensates::bigint[], tracked, body
    FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bool[], $8::text[],
                $9::smallint[], $10::text[], $11::bool[], $12::text[])
        AS n (seq, id, target, at, destinations, acting, may_decrease, episode, phase, compensates, tracked, body)";
/// A destination that the database does not know gets nothing. After the targets were written.
const INSERT_DELIVERIES: &str = "
    INSERT INTO deliveries (destination, event, target, state, due, open_from, age_from, ended_at, expirytime, decreases,
                            error)
    SELECT d.id, n.event, n.target, n.state, n.due, (SELECT t.open_from FROM targets t WHERE t.id = n.target), n.age_from,
           n.ended_at, n.expirytime, n.decreases, n.error
    FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::smallint[], $5::bigint[], $6::bigint[], $7::bigint[],
                $8::bigint[], $9::bool[], $10::text[])
        AS n (destination, event, target, state, due, age_from, ended_at, expirytime, decreases, error)
    JOIN destinations d ON d.name = n.destination";

/// `deliveries.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NewState {
    Open = 0,
    Dead = 2,
    Withdrawn = 4,
}

/// A delivery of a new event.
#[derive(Debug)]
pub(super) struct NewDelivery {
    pub destination: Name,
    /// The index of its event.
    pub event: usize,
    pub state: NewState,
    error: Option<&'static str>,
}

/// The deliveries of new events.
#[derive(Default)]
pub(super) struct Emission {
    pub deliveries: Vec<NewDelivery>,
    /// Of withdrawn deliveries.
    pub records: Vec<NewRecord>,
    /// `targets.id`: a delivery has ended before the decision could know of it.
    pub ended: Vec<i64>,
}

impl Emission {
    /// Plans the deliveries. `is_full` says whether a destination has reached its limit, with this number of further
    /// undelivered events.
    pub(super) fn new(events: &[EventWrite], is_full: impl Fn(&Name, u64) -> bool) -> Self {
        let mut emission = Self::default();
        let mut added: Map<Name, u64> = Map::default();
        for (index, write) in events.iter().enumerate() {
            for name in write.event.destinations.iter() {
                let added = added.entry(name.clone()).or_default();
                let (state, error) = if !write.is_routed_to(name, events) {
                    emission.records.push(write.withdrawal(name));
                    (NewState::Withdrawn, Some(withdrawn::NEVER_ROUTED))
                } else if is_full(name, *added) {
                    (NewState::Dead, Some(BACKLOG_FULL))
                } else {
                    *added += 1;
                    (NewState::Open, None)
                };
                if state != NewState::Open {
                    emission.ended.push(write.target);
                }
                emission.deliveries.push(NewDelivery {
                    destination: name.clone(),
                    event: index,
                    state,
                    error,
                });
            }
        }
        emission
    }

    /// The destinations that have something to claim.
    pub(super) fn open_destinations(&self) -> BTreeSet<&Name> {
        let open = self.deliveries.iter().filter(|delivery| delivery.state == NewState::Open);
        open.map(|delivery| &delivery.destination).collect()
    }

    /// How the statistics of the destinations change.
    pub(super) fn counts(
        &self,
        destinations: &Destinations,
        events: &[EventWrite],
        numbers: &[i64],
    ) -> CountChanges {
        let mut counts = CountChanges::default();
        for delivery in &self.deliveries {
            let class = match delivery.state {
                NewState::Open => Class::Unsettled { has_failed: false },
                NewState::Dead => Class::Dead,
                NewState::Withdrawn => continue,
            };
            if let Some(destination) = destinations.get(&delivery.destination) {
                let emitted = events[delivery.event].clock;
                counts.insert(destination.id, numbers[delivery.event], emitted, class);
            }
        }
        counts
    }

    /// Whether a destination has reached its limit in this process.
    pub(super) fn is_full(destinations: &Destinations) -> impl Fn(&Name, u64) -> bool + '_ {
        |name, added| destinations.get(name).is_some_and(|destination| destination.is_full(added))
    }
}

impl EventWrite {
    /// Whether a destination can have received what the event takes back, if it takes something back.
    fn is_routed_to(&self, name: &Name, events: &[Self]) -> bool {
        self.compensates.as_ref().is_none_or(|compensates| {
            compensates.iter().any(|one| match one {
                Compensated::Stored(_, destinations) => destinations.contains(name),
                Compensated::New(index) => {
                    events.get(*index).is_some_and(|event| event.event.destinations.contains(name))
                }
            })
        })
    }

    fn withdrawal(&self, name: &Name) -> NewRecord {
        let ClockReading { wall, .. } = self.clock;
        let body = withdrawn::withdrawal_record(wall, &self.event.body, name, withdrawn::NEVER_ROUTED);
        NewRecord { at: wall.as_nanos(), ahead: self.clock.ahead_nanos(), targets: vec![self.target], body }
    }

    /// The list of the events that it takes back, as PostgreSQL reads it.
    fn compensates_text(&self, numbers: &[i64]) -> Option<String> {
        let compensates = self.compensates.as_ref()?;
        let number = |one: &Compensated| match one {
            Compensated::Stored(seq, _) => Some(*seq),
            Compensated::New(index) => numbers.get(*index).copied(),
        };
        let numbers: Vec<String> = compensates.iter().filter_map(number).map(|seq| seq.to_string()).collect();
        Some(format!("{{{}}}", numbers.join(",")))
    }
}

fn list(names: &[Name]) -> String {
    let names: Vec<&str> = names.iter().map(Name::as_str).collect();
    names.join(",")
}

/// Inserts events with these numbers. One statement.
pub(super) async fn insert_events(
    transaction: &Transaction,
    events: &[EventWrite],
    numbers: &[i64],
) -> Result<(), DbError> {
    fn column<'a, T>(events: &'a [EventWrite], read: impl Fn(&'a EventWrite) -> T) -> Vec<T> {
        events.iter().map(read).collect()
    }
    let phase = |write: &EventWrite| {
        write.event.episode_phase.as_ref().map(|phase| match phase.phase {
            Phase::Firing => 1_i16,
            Phase::Resolved => 2,
        })
    };
    let params: [Param<'_>; 12] = [
        (&numbers, Type::INT8_ARRAY),
        (&column(events, |write| &*write.id), Type::TEXT_ARRAY),
        (&column(events, |write| write.target), Type::INT8_ARRAY),
        (&column(events, |write| write.clock.now.as_nanos()), Type::INT8_ARRAY),
        (&column(events, |write| list(&write.event.destinations)), Type::TEXT_ARRAY),
        (&column(events, |write| list(&write.event.acting)), Type::TEXT_ARRAY),
        (&column(events, |write| write.event.may_decrease_capacity), Type::BOOL_ARRAY),
        (
            &column(events, |write| write.event.episode_phase.as_ref().map(|phase| &*phase.episode)),
            Type::TEXT_ARRAY,
        ),
        (&column(events, phase), Type::INT2_ARRAY),
        (&column(events, |write| write.compensates_text(numbers)), Type::TEXT_ARRAY),
        (&column(events, |write| write.is_tracked), Type::BOOL_ARRAY),
        (&column(events, |write| &*write.event.body), Type::TEXT_ARRAY),
    ];
    transaction.execute(INSERT_EVENTS, &params).await.map(drop)
}

/// Inserts the deliveries of events. One statement.
pub(super) async fn insert_deliveries(
    transaction: &Transaction,
    deliveries: &[NewDelivery],
    events: &[EventWrite],
    numbers: &[i64],
) -> Result<(), DbError> {
    let column = |read: &dyn Fn(&NewDelivery, &EventWrite) -> i64| -> Vec<i64> {
        deliveries.iter().map(|delivery| read(delivery, &events[delivery.event])).collect()
    };
    let names: Vec<&str> = deliveries.iter().map(|delivery| delivery.destination.as_str()).collect();
    let states: Vec<i16> = deliveries.iter().map(|delivery| delivery.state as i16).collect();
    let wall = |delivery: &NewDelivery| events[delivery.event].clock.wall.as_nanos();
    let ended: Vec<Option<i64>> = deliveries
        .iter()
        .map(|delivery| (delivery.state != NewState::Open).then(|| wall(delivery)))
        .collect();
    let errors: Vec<Option<&str>> = deliveries.iter().map(|delivery| delivery.error).collect();
    let limits: Vec<(i64, bool)> = events.iter().map(|event| limits_of(&event.event.body)).collect();
    let decreases: Vec<bool> = deliveries.iter().map(|delivery| limits[delivery.event].1).collect();
    let params: [Param<'_>; 10] = [
        (&names, Type::TEXT_ARRAY),
        (&column(&|delivery, _| numbers[delivery.event]), Type::INT8_ARRAY),
        (&column(&|_, event| event.target), Type::INT8_ARRAY),
        (&states, Type::INT2_ARRAY),
        // By the server's clock: claims compare it with that.
        (&column(&|_, event| event.clock.wall.as_nanos()), Type::INT8_ARRAY),
        (&column(&|_, event| event.clock.now.as_nanos()), Type::INT8_ARRAY),
        (&ended, Type::INT8_ARRAY),
        (&column(&|delivery, _| limits[delivery.event].0), Type::INT8_ARRAY),
        (&decreases, Type::BOOL_ARRAY),
        (&errors, Type::TEXT_ARRAY),
    ];
    transaction.execute(INSERT_DELIVERIES, &params).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::target::TargetKey;
    use crate::domain::time::Time;
    use crate::store::NewEvent;

    fn write(target: i64, to: &[&str], compensates: Option<Vec<Compensated>>) -> EventWrite {
        let destinations: Arc<[Name]> = to.iter().map(|name| Name::new(name).unwrap()).collect();
        let event = NewEvent {
            target: TargetKey::from_stored("a"),
            acting: destinations.clone(),
            destinations,
            may_decrease_capacity: false,
            reverts: Arc::default(),
            episode_phase: None,
            body: "{}".into(),
        };
        let clock = ClockReading { now: Time::from_nanos(7), wall: Time::from_nanos(5) };
        EventWrite { target, clock, id: "id".into(), event, is_tracked: false, compensates }
    }

    fn planned(emission: &Emission) -> Vec<(&str, usize, NewState)> {
        let deliveries = emission.deliveries.iter();
        deliveries.map(|delivery| (delivery.destination.as_str(), delivery.event, delivery.state)).collect()
    }

    #[test]
    fn a_destination_that_was_never_sent_what_is_taken_back_gets_nothing() {
        let queue = vec![Name::new("queue").unwrap()];
        let events = [
            write(1, &["journal"], None),
            write(
                2,
                &["queue", "journal", "file"],
                Some(vec![Compensated::Stored(9, queue), Compensated::New(0)]),
            ),
            write(3, &["queue"], Some(Vec::new())),
        ];
        let emission = Emission::new(&events, |_, _| false);
        let expected = [
            ("journal", 0, NewState::Open),
            ("queue", 1, NewState::Open),
            ("journal", 1, NewState::Open),
            ("file", 1, NewState::Withdrawn),
            ("queue", 2, NewState::Withdrawn),
        ];
        assert_eq!(planned(&emission), expected);
        assert_eq!(emission.ended, [2, 3], "their decisions do not know it");
        let records: Vec<_> =
            emission.records.iter().map(|record| (record.targets.clone(), record.at)).collect();
        assert_eq!(records, [(vec![2], 5), (vec![3], 5)]);
        assert_eq!(events[1].compensates_text(&[40, 41, 42]).as_deref(), Some("{9,40}"));
        assert_eq!(
            (events[0].compensates_text(&[]), events[2].compensates_text(&[]).as_deref()),
            (None, Some("{}"))
        );
    }

    #[test]
    fn a_destination_takes_as_many_events_of_a_batch_as_it_has_room_for() {
        let events =
            [write(1, &["queue"], None), write(2, &["queue", "file"], None), write(3, &["queue"], None)];
        let emission = Emission::new(&events, |name, added| name.as_str() == "queue" && added >= 2);
        let states: Vec<NewState> = emission.deliveries.iter().map(|delivery| delivery.state).collect();
        assert_eq!(states, [NewState::Open, NewState::Open, NewState::Open, NewState::Dead]);
        assert_eq!((emission.ended, emission.records.len()), (vec![3], 0));
    }
}
