//! Takes over everything that another store has, in one transaction, while no bridge uses the database.

mod statements;

use std::collections::BTreeMap;

use tokio_postgres::types::Type;

use super::error::{DbError, Stage};
use super::fleet::tally;
use super::queries::target_hash;
use super::schedule::DestinationWaits;
use super::transact::alert_hash;
use super::transaction::{Param, Transaction};
use super::{Pool, Settings, schema};
use crate::domain::name::Name;
use crate::domain::state::TargetState;
use crate::domain::time::Time;
use crate::store::tracking::Watch;
use crate::store::transfer::{
    Overview, TransferredAuditEntry, TransferredDelivery, TransferredEvent, TransferredNotification,
    TransferredRecord, TransferredState, TransferredTarget,
};
use crate::store::{DeliveryState, Error};
use statements::{
    CHECK, FINISH, INSERT_ALERTS, INSERT_AUDIT, INSERT_CLOCK_STEPS, INSERT_DELIVERIES, INSERT_DESTINATIONS,
    INSERT_EVENTS, INSERT_NOTIFICATIONS, INSERT_RECORDS, INSERT_REPLICA, INSERT_TARGETS, UPDATE_CONTROLS,
};

/// How long ago a replica was last heard that may still be running.
const REPLICA_NANOS: i64 = 60_000_000_000;

/// A transaction that fills an empty database. Without [`Import::finish`], nothing stays.
pub(in crate::store) struct Import {
    transaction: Transaction,
    /// Ids by name.
    destinations: BTreeMap<Name, i32>,
    overview: Overview,
    /// The last position of a notification.
    notification: i64,
    /// The server's clock.
    now: i64,
}

impl Import {
    /// Begins the transaction, after the schema was created if there was none.
    ///
    /// # Errors
    /// The database cannot be used, has data, or a bridge uses it.
    pub(in crate::store) async fn begin(settings: Settings, overview: Overview) -> Result<Self, Error> {
        let pool = Pool::unlimited(settings.connector)?;
        schema::migrate(&pool).await?;
        let transaction = Transaction::begin(&pool).await.map_err(|error| error.into_store(Stage::Open))?;
        let params: [Param<'_>; 1] = [(&REPLICA_NANOS, Type::INT8)];
        let row = transaction.query_one(CHECK, &params).await.map_err(use_error)?;
        if row.get(0) {
            return Err(Error::Unusable(
                "the PostgreSQL database has data of a bridge already; copy into a new, empty database"
                    .to_owned(),
            ));
        }
        if row.get(1) {
            return Err(Error::Unusable(
                "a bridge uses the PostgreSQL database; stop all replicas, wait a minute, and try again"
                    .to_owned(),
            ));
        }
        let names: Vec<&str> = overview.destinations.iter().map(Name::as_str).collect();
        let params: [Param<'_>; 1] = [(&names, Type::TEXT_ARRAY)];
        let rows = transaction.query(INSERT_DESTINATIONS, &params).await.map_err(use_error)?;
        let ids = rows.iter().filter_map(|row| Some((Name::new(row.get(0)).ok()?, row.get(1))));
        let now = row.get(2);
        Ok(Self { destinations: ids.collect(), transaction, overview, notification: 0, now })
    }

    /// By how many seconds the last time of the other store is ahead of the server's clock.
    pub(in crate::store) fn seconds_ahead(&self) -> u64 {
        self.overview.last_stored.since(Time::from_nanos(self.now)).as_secs()
    }

    /// When a delivery can be claimed. One that does not wait for a retry can be at once, whatever the clocks show.
    fn due(&self, delivery: &TransferredDelivery) -> i64 {
        if delivery.attempts == 0 { delivery.due.min(self.now) } else { delivery.due }
    }

    pub(in crate::store) async fn put_targets(&self, targets: &[TransferredTarget]) -> Result<(), Error> {
        self.insert_targets(targets).await.map_err(use_error)
    }

    async fn insert_targets(&self, targets: &[TransferredTarget]) -> Result<(), DbError> {
        let rows = targets.iter().map(|target| self.target_row(target)).collect::<Result<Vec<_>, _>>()?;
        let hashes: Vec<[u8; 16]> = targets.iter().map(|target| target_hash(&target.key)).collect();
        let hashes: Vec<&[u8]> = hashes.iter().map(<[u8; 16]>::as_slice).collect();
        let params: [Param<'_>; 11] = [
            (&column(targets, |target| target.id), Type::INT8_ARRAY),
            (&hashes, Type::BYTEA_ARRAY),
            (&column(targets, |target| target.key.as_str().to_owned()), Type::TEXT_ARRAY),
            (&column(&rows, |row| row.last_at), Type::INT8_ARRAY),
            (&column(&rows, |row| row.due), Type::INT8_ARRAY),
            (&column(targets, |target| target.recheck), Type::BOOL_ARRAY),
            (&column(&rows, |row| row.depends_on_controls), Type::BOOL_ARRAY),
            (&column(&rows, |row| row.watch), Type::INT2_ARRAY),
            (&column(&rows, |row| row.waits.clone()), Type::TEXT_ARRAY),
            (&column(&rows, |row| row.tally.clone()), Type::TEXT_ARRAY),
            (&column(&rows, |row| row.state.clone()), Type::TEXT_ARRAY),
        ];
        self.transaction.execute(INSERT_TARGETS, &params).await?;
        let mut alerts: Vec<([u8; 16], i64)> = Vec::new();
        for target in targets {
            if let TransferredState::Readable(state) = &target.state {
                alerts.extend(state.alerts().map(|alert| (alert_hash(alert), target.id)));
            }
        }
        let ids: Vec<i64> = alerts.iter().map(|(_, target)| *target).collect();
        let alerts: Vec<&[u8]> = alerts.iter().map(|(alert, _)| alert.as_slice()).collect();
        let params: [Param<'_>; 2] = [(&alerts, Type::BYTEA_ARRAY), (&ids, Type::INT8_ARRAY)];
        self.transaction.execute(INSERT_ALERTS, &params).await.map(drop)
    }

    fn target_row(&self, target: &TransferredTarget) -> Result<TargetRow, DbError> {
        let last_at = self.overview.last_stored.as_nanos();
        let state = match &target.state {
            TransferredState::Empty => return Ok(TargetRow { last_at, ..TargetRow::default() }),
            // No JSON.
            TransferredState::Unreadable => {
                return Ok(TargetRow { last_at, state: Some(String::new()), ..TargetRow::default() });
            }
            TransferredState::Readable(state) => state,
        };
        let text = serde_json::to_string::<TargetState>(state).map_err(|error| {
            DbError::Damaged(format!("the state of {} cannot be written: {error}", target.key))
        })?;
        let watch = Watch::of(state, []);
        Ok(TargetRow {
            last_at,
            due: state.due().map(Time::as_nanos),
            depends_on_controls: state.depends_on_controls(),
            watch: i16::from(watch.tracks_events) | i16::from(watch.awaits_delivery) << 1,
            waits: DestinationWaits::of(state, &BTreeMap::new()),
            tally: tally::encode(state),
            state: Some(text),
        })
    }

    /// Returns the number of deliveries.
    pub(in crate::store) async fn put_events(&self, events: &[TransferredEvent]) -> Result<usize, Error> {
        self.insert_events(events).await.map_err(use_error)
    }

    async fn insert_events(&self, events: &[TransferredEvent]) -> Result<usize, DbError> {
        let phase = |event: &TransferredEvent| {
            event.episode.as_ref().map(|_| if event.is_firing { 1_i16 } else { 2 })
        };
        let params: [Param<'_>; 12] = [
            (&column(events, |event| event.seq), Type::INT8_ARRAY),
            (&column(events, |event| event.id.clone()), Type::TEXT_ARRAY),
            (&column(events, |event| event.target), Type::INT8_ARRAY),
            (&column(events, |event| event.at.as_nanos()), Type::INT8_ARRAY),
            (&column(events, |event| list(&event.destinations)), Type::TEXT_ARRAY),
            (&column(events, |event| list(&event.acting)), Type::TEXT_ARRAY),
            (&column(events, |event| event.may_decrease), Type::BOOL_ARRAY),
            (&column(events, |event| event.episode.clone()), Type::TEXT_ARRAY),
            (&column(events, phase), Type::INT2_ARRAY),
            (&column(events, |event| event.compensates.as_deref().map(list)), Type::TEXT_ARRAY),
            (&column(events, |event| event.tracked), Type::BOOL_ARRAY),
            (&column(events, |event| event.body.clone()), Type::TEXT_ARRAY),
        ];
        self.transaction.execute(INSERT_EVENTS, &params).await?;
        let deliveries: Vec<(i32, &TransferredEvent, &TransferredDelivery)> = events
            .iter()
            .flat_map(|event| event.deliveries.iter().map(move |delivery| (event, delivery)))
            .filter_map(|(event, delivery)| {
                Some((*self.destinations.get(&delivery.destination)?, event, delivery))
            })
            .collect();
        let params: [Param<'_>; 14] = [
            (&column(&deliveries, |(destination, ..)| *destination), Type::INT4_ARRAY),
            (&column(&deliveries, |(_, event, _)| event.seq), Type::INT8_ARRAY),
            (&column(&deliveries, |(_, event, _)| event.target), Type::INT8_ARRAY),
            (&column(&deliveries, |(.., delivery)| state_number(delivery.state)), Type::INT2_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.attempts), Type::INT4_ARRAY),
            (&column(&deliveries, |(.., delivery)| self.due(delivery)), Type::INT8_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.age_from), Type::INT8_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.expiry), Type::INT8_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.ended_at), Type::INT8_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.is_suspended), Type::BOOL_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.is_uncertain), Type::BOOL_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.is_expired), Type::BOOL_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.error.clone()), Type::TEXT_ARRAY),
            (&column(&deliveries, |(.., delivery)| delivery.answer.clone()), Type::TEXT_ARRAY),
        ];
        self.transaction.execute(INSERT_DELIVERIES, &params).await?;
        Ok(deliveries.len())
    }

    pub(in crate::store) async fn put_records(&self, records: &[TransferredRecord]) -> Result<(), Error> {
        let targets =
            records.iter().flat_map(|record| record.targets.iter().map(|target| (*target, record.id)));
        let targets: Vec<(i64, i64)> = targets.collect();
        let params: [Param<'_>; 6] = [
            (&column(records, |record| record.id), Type::INT8_ARRAY),
            (&column(records, |record| record.at), Type::INT8_ARRAY),
            (&column(records, |record| record.ahead), Type::INT8_ARRAY),
            (&column(records, |record| record.body.as_str()), Type::TEXT_ARRAY),
            (&column(&targets, |(target, _)| *target), Type::INT8_ARRAY),
            (&column(&targets, |(_, record)| *record), Type::INT8_ARRAY),
        ];
        self.transaction.execute(INSERT_RECORDS, &params).await.map(drop).map_err(use_error)
    }

    pub(in crate::store) async fn put_clock_steps(&self, records: Vec<i64>) -> Result<(), Error> {
        let params: [Param<'_>; 1] = [(&records, Type::INT8_ARRAY)];
        self.transaction.execute(INSERT_CLOCK_STEPS, &params).await.map(drop).map_err(use_error)
    }

    pub(in crate::store) async fn put_audit(&self, entries: &[TransferredAuditEntry]) -> Result<(), Error> {
        let params: [Param<'_>; 6] = [
            (&column(entries, |one| one.id), Type::INT8_ARRAY),
            (&column(entries, |one| one.at), Type::INT8_ARRAY),
            (&column(entries, |one| one.ahead), Type::INT8_ARRAY),
            (&column(entries, |one| one.entry.actor.as_str()), Type::TEXT_ARRAY),
            (&column(entries, |one| one.entry.act.as_str()), Type::TEXT_ARRAY),
            (&column(entries, |one| one.entry.body.as_str()), Type::TEXT_ARRAY),
        ];
        self.transaction.execute(INSERT_AUDIT, &params).await.map(drop).map_err(use_error)
    }

    pub(in crate::store) async fn put_notifications(
        &mut self,
        notifications: &[TransferredNotification],
    ) -> Result<(), Error> {
        let first = self.notification + 1;
        self.notification += i64::try_from(notifications.len()).unwrap_or(0);
        let ids: Vec<i64> = (first..=self.notification).collect();
        let params: [Param<'_>; 5] = [
            (&ids, Type::INT8_ARRAY),
            (&column(notifications, |one| one.at), Type::INT8_ARRAY),
            (&column(notifications, |one| one.ahead), Type::INT8_ARRAY),
            (&column(notifications, |one| one.source.as_str()), Type::TEXT_ARRAY),
            (&column(notifications, |one| one.body.as_slice()), Type::BYTEA_ARRAY),
        ];
        self.transaction.execute(INSERT_NOTIFICATIONS, &params).await.map(drop).map_err(use_error)
    }

    /// Commits. When this returns `Ok`, everything is on disk.
    pub(in crate::store) async fn finish(self) -> Result<(), Error> {
        let Self { transaction, overview, .. } = self;
        let controls = serde_json::to_string(&overview.controls)
            .map_err(|error| Error::Unusable(format!("the controls cannot be written: {error}")))?;
        let (version, generation) =
            (overview.controls.version.cast_signed(), overview.controls.generation.cast_signed());
        let params: [Param<'_>; 3] =
            [(&version, Type::INT8), (&generation, Type::INT8), (&controls, Type::TEXT)];
        if version > 0 {
            transaction.execute(UPDATE_CONTROLS, &params).await.map_err(use_error)?;
        }
        let params: [Param<'_>; 4] = [
            (&fastrand::i64(1..), Type::INT8),
            (&overview.created.as_nanos(), Type::INT8),
            (&overview.last_stored.as_nanos(), Type::INT8),
            (&schema::SCHEMA_STEP, Type::INT4),
        ];
        transaction.execute(INSERT_REPLICA, &params).await.map_err(use_error)?;
        let params: [Param<'_>; 2] =
            [(&overview.last_event, Type::INT8), (&overview.created.as_nanos(), Type::INT8)];
        transaction.query(FINISH, &params).await.map_err(use_error)?;
        transaction.commit().await.map_err(use_error)
    }
}

/// The columns of a target that are derived from its state.
#[derive(Default)]
struct TargetRow {
    last_at: i64,
    due: Option<i64>,
    depends_on_controls: bool,
    watch: i16,
    waits: Option<String>,
    tally: Option<String>,
    state: Option<String>,
}

fn use_error(error: DbError) -> Error {
    error.into_store(Stage::Use)
}

fn column<'r, R, C>(rows: &'r [R], read: impl Fn(&'r R) -> C) -> Vec<C> {
    rows.iter().map(read).collect()
}

/// A list as the server reads it from a text. Its items have no character that needs quotation marks.
fn list<T: ToString>(items: &[T]) -> String {
    format!("{{{}}}", items.iter().map(T::to_string).collect::<Vec<_>>().join(","))
}

/// `deliveries.state`.
fn state_number(state: DeliveryState) -> i16 {
    match state {
        DeliveryState::Pending | DeliveryState::Retrying => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Dead => 2,
        DeliveryState::Superseded => 3,
        DeliveryState::Withdrawn => 4,
        DeliveryState::Discarded => 5,
        DeliveryState::Replaced => 6,
    }
}
