//! What the decisions of a batch read: the clock after the locks, the controls, the rates, and the states of each command.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::FixedState;
use futures_util::future::{try_join, try_join3};
use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::caches::Caches;
use super::command::{Command, Hash};
use super::rows::LockedRows;
use crate::domain::control::Controls;
use crate::domain::direction::Direction;
use crate::domain::engine::{DeliveryFeedback, States};
use crate::domain::rate::Rates;
use crate::domain::time::Time;
use crate::store::fast_map::Set;
use crate::store::postgres::Shared;
use crate::store::postgres::deliveries::feedback::{self, DecidedTarget, Feedback};
use crate::store::postgres::error::DbError;
use crate::store::postgres::fleet::IS_OUTDATED;
use crate::store::postgres::queries::target_hash;
use crate::store::postgres::transaction::{Param, Transaction};
use crate::store::{UnreadableStates, View};

/// The controls are sent only if they are not those that this process has read last.
fn read_statement(server: &str) -> String {
    format!(
        "SELECT now_ns(), pg_current_xact_id()::text::bigint, s.incarnation, md5(c.body),
                CASE WHEN md5(c.body) <> $1 THEN c.body END, o.body, i.body, s.server = {server}, {IS_OUTDATED}
         FROM store s, controls c, rates o, rates i WHERE o.direction = 1 AND i.direction = 2"
    )
}
/// After the locks: who adds an alert to a target has it locked.
const LOCATE: &str = "
    SELECT n.alert, found.target FROM unnest($1::bytea[]) AS n (alert)
    CROSS JOIN LATERAL (SELECT a.target FROM target_alerts a WHERE a.alert = n.alert OFFSET 0) AS found";
const LOCK_CONTROLS: &str =
    "SELECT md5(body), CASE WHEN md5(body) <> $1 THEN body END FROM controls FOR NO KEY UPDATE";
const LOCK_RATES: &str = "
    SELECT direction, body FROM rates WHERE direction = ANY ($1) ORDER BY direction FOR NO KEY UPDATE";

/// What all decisions of a batch read.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// The server's clock.
    pub wall: Time,
    /// The transaction's id.
    pub xid: i64,
    pub incarnation: u64,
    pub controls: Arc<Controls>,
    pub rates: Rates,
    /// Whether a replica has seen that the database is not behind. Until then its incarnation may have to change.
    pub is_known_server: bool,
    /// See [`View::has_newer_configuration`].
    pub has_newer_configuration: bool,
}

/// The rows of `controls` and `rates` that are locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Locks {
    pub controls: bool,
    /// In the order of [`Direction::ALL`].
    pub rates: [bool; 2],
}

impl Locks {
    pub(super) const ALL: Self = Self { controls: true, rates: [true; 2] };

    /// Whether these rows include those.
    pub(super) fn contain(self, other: Self) -> bool {
        let has = |(own, other): (bool, bool)| own || !other;
        has((self.controls, other.controls)) && self.rates.into_iter().zip(other.rates).all(has)
    }

    fn directions(self) -> Vec<i16> {
        [1, 2].into_iter().zip(self.rates).filter(|(_, is_locked)| *is_locked).map(|(row, _)| row).collect()
    }
}

/// What one command reads.
pub(super) struct Slot {
    pub view: View,
    /// `targets.id` of its targets and of those of its alerts, without duplicates.
    pub targets: Vec<i64>,
}

/// What a command reads cannot be shown to it.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// An earlier command of the batch has one of its targets.
    Shared,
    /// Rows that it needs cannot be read.
    Unreadable(UnreadableStates),
}

/// What a batch has read.
pub(super) struct Read {
    pub shown: Shown,
    pub feedback: Feedback,
    /// The targets of each alert.
    pub located: HashMap<Hash, Vec<i64>, FixedState>,
}

/// Reads what the decisions of a batch need, after its targets are locked. One round trip.
pub(super) async fn read(
    shared: &Shared,
    transaction: &Transaction,
    commands: &[Command],
    rows: &LockedRows,
    locks: Locks,
) -> Result<Read, DbError> {
    let caches = &shared.transactions.caches;
    let alerts: Vec<&[u8]> =
        commands.iter().flat_map(|command| &command.alerts).map(Hash::as_slice).collect();
    let alerts: [Param<'_>; 1] = [(&alerts, Type::BYTEA_ARRAY)];
    let locate = async {
        match commands.iter().all(|command| command.alerts.is_empty()) {
            true => Ok(Vec::new()),
            false => transaction.query(LOCATE, &alerts).await,
        }
    };
    let (digest, known) = caches.controls();
    let configuration = shared.fleet.configuration.load(Ordering::Relaxed);
    let digest_param: [Param<'_>; 2] = [(&digest, Type::TEXT), (&configuration, Type::INT8)];
    let states: Vec<DecidedTarget<'_>> = rows.states().collect();
    let statement = read_statement(shared.fleet.server);
    let shown = transaction.query_one(&statement, &digest_param);
    let lock = lock(transaction, &digest, locks);
    let feedback = feedback::read(shared, transaction, &states);
    let (_, (row, located, feedback)) = try_join(lock, try_join3(shown, locate, feedback)).await?;
    let controls = match row.get(4) {
        None => known,
        Some(body) => caches.read_controls(row.get(3), body)?,
    };
    let shown = Shown {
        wall: Time::from_nanos(row.get(0)),
        xid: row.get(1),
        incarnation: row.get::<_, i64>(2).cast_unsigned(),
        controls,
        rates: caches.rates([row.get(5), row.get(6)])?,
        is_known_server: row.get(7),
        has_newer_configuration: row.get(8),
    };
    shared.fleet.has_newer_configuration.store(shown.has_newer_configuration, Ordering::Relaxed);
    let mut by_alert = HashMap::<_, Vec<i64>, _>::default();
    for row in &located {
        if let Ok(alert) = Hash::try_from(row.get::<_, &[u8]>(0)) {
            by_alert.entry(alert).or_default().push(row.get(1));
        }
    }
    Ok(Read { shown, feedback, located: by_alert })
}

/// Locks rows of `controls` and `rates`.
async fn lock(
    transaction: &Transaction,
    digest: &str,
    locks: Locks,
) -> Result<(Vec<Row>, Vec<Row>), DbError> {
    let directions = locks.directions();
    let controls = async {
        match locks.controls {
            true => transaction.query(LOCK_CONTROLS, &[(&digest, Type::TEXT)]).await,
            false => Ok(Vec::new()),
        }
    };
    let rates = async {
        match directions.is_empty() {
            true => Ok(Vec::new()),
            false => transaction.query(LOCK_RATES, &[(&directions, Type::INT2_ARRAY)]).await,
        }
    };
    try_join(controls, rates).await
}

impl Shown {
    /// Locks the rows of controls and rates, and reads them again. Returns whether one has changed. One round trip.
    pub(super) async fn lock(
        &mut self,
        transaction: &Transaction,
        caches: &Caches,
        locks: Locks,
    ) -> Result<bool, DbError> {
        let (digest, known) = caches.controls();
        let (controls, rates) = lock(transaction, &digest, locks).await?;
        let mut has_changed = false;
        if let Some(row) = controls.first() {
            let now = match row.get(1) {
                None => known,
                Some(body) => caches.read_controls(row.get(0), body)?,
            };
            has_changed |= now != self.controls;
            self.controls = now;
        }
        for row in &rates {
            let index = usize::from(row.get::<_, i16>(0) == 2);
            let direction = Direction::ALL[index];
            let now = caches.rate(direction, row.get(1))?;
            has_changed |= now != *self.rates.rate(direction);
            *self.rates.rate_mut(direction) = now;
        }
        Ok(has_changed)
    }
}

impl Read {
    /// Whether the targets of all alerts are locked, and all targets were found.
    pub(super) fn is_complete(&self, commands: &[Command], rows: &LockedRows) -> bool {
        let is_locked = |id: &i64| rows.targets.contains_key(id) || rows.damaged.contains_key(id);
        self.located.values().flatten().all(is_locked)
            && commands.iter().flat_map(Command::wanted).all(|(hash, _)| rows.by_hash.contains_key(hash))
    }

    /// What a command reads. `taken` are the targets of the commands before it; those of this one are added.
    pub(super) fn slot(
        &mut self,
        command: &Command,
        rows: &LockedRows,
        created: Time,
        taken: &mut Set<i64>,
    ) -> Result<Slot, Obstacle> {
        let own = command.wanted().filter_map(|(hash, _)| rows.by_hash.get(hash)).copied();
        let of_alerts = command.alerts.iter().filter_map(|hash| self.located.get(hash)).flatten().copied();
        let mut targets: Vec<i64> = own.chain(of_alerts).collect();
        targets.sort_unstable();
        targets.dedup();
        if targets.iter().any(|id| rows.damaged.contains_key(id)) {
            return Err(Obstacle::Unreadable(self.unreadable(command, rows)));
        }
        if targets.iter().any(|id| taken.contains(id)) {
            return Err(Obstacle::Shared);
        }
        taken.extend(&targets);
        let Shown { wall, incarnation, controls, rates, has_newer_configuration, .. } = self.shown.clone();
        let locked = targets.iter().filter_map(|id| rows.targets.get(id));
        let now = locked.clone().map(|target| target.last_at).chain([wall]).max().unwrap_or(wall);
        let mut deliveries = DeliveryFeedback::default();
        let mut awaits_destination = false;
        for target in locked {
            if let Some(events) = self.feedback.deliveries.events.remove(&target.key) {
                deliveries.events.insert(target.key.clone(), events);
            }
            awaits_destination |=
                target.state.as_ref().is_some_and(|state| state.destination_waits().next().is_some());
        }
        if awaits_destination || !deliveries.events.is_empty() {
            deliveries.last_success.clone_from(&self.feedback.deliveries.last_success);
        }
        let states = self.states(command, rows);
        let rates = Some(rates);
        Ok(Slot {
            view: View {
                now,
                wall,
                created,
                states,
                controls,
                deliveries,
                rates,
                incarnation,
                has_newer_configuration,
            },
            targets,
        })
    }

    /// What the targets of a command's alerts are found by.
    pub(super) fn located_hashes(&self, command: &Command, rows: &LockedRows) -> Vec<Hash> {
        let located = command.alerts.iter().filter_map(|hash| self.located.get(hash)).flatten();
        located.filter_map(|id| rows.targets.get(id)).map(|target| target_hash(&target.key)).collect()
    }

    fn states(&self, command: &Command, rows: &LockedRows) -> States {
        let mut states = States::default();
        for (alert, hash) in command.keys.alerts.iter().zip(&command.alerts) {
            for target in self.located.get(hash).into_iter().flatten().filter_map(|id| rows.targets.get(id)) {
                if let Some(state) = &target.state {
                    states.alerts.entry(alert.clone()).or_default().push(target.key.clone());
                    states.targets.insert(target.key.clone(), state.clone());
                }
            }
        }
        for (key, hash) in command.keys.targets.iter().zip(&command.targets) {
            let target = rows.by_hash.get(hash).and_then(|id| rows.targets.get(id));
            if let Some(state) = target.and_then(|target| target.state.as_ref()) {
                states.targets.insert(key.clone(), state.clone());
            }
        }
        // The engine takes the first of an alert's targets where any would do.
        states.alerts.values_mut().for_each(|targets| targets.sort_unstable());
        states
    }

    /// The keys of a command that refer to rows which cannot be read.
    fn unreadable(&self, command: &Command, rows: &LockedRows) -> UnreadableStates {
        let mut unreadable = UnreadableStates::default();
        for (hash, key) in command.wanted() {
            if rows.by_hash.get(hash).is_some_and(|id| rows.damaged.contains_key(id)) {
                unreadable.targets.insert(key.clone());
            }
        }
        for (alert, hash) in command.keys.alerts.iter().zip(&command.alerts) {
            for damaged in self.located.get(hash).into_iter().flatten().filter_map(|id| rows.damaged.get(id))
            {
                unreadable.targets.insert(damaged.key.clone());
                unreadable.alerts.insert(alert.clone());
            }
        }
        unreadable
    }
}
