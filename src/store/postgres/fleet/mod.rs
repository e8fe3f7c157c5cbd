//! What this process knows about the fleet between two questions, and what the fleet knows about this process.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use super::Shared;
use super::connect::Pool;
use super::error::Place;
use super::transaction::Transaction;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{Error, Snapshot, Tally, UnreadableRow};

/// What was read when the store was opened.
pub(super) struct Opened {
    pub now: Time,
    pub created: Time,
    pub last_stored: Option<Time>,
    pub last_kept: BTreeMap<Name, Time>,
}

/// A cache of what decisions do not use. Own commits change it at once, [`refresh`] replaces it.
pub(super) struct FleetView {
    /// When the store was created.
    pub created: Time,
    last_stored: Option<Time>,
    last_kept: BTreeMap<Name, Time>,
    controls: RwLock<Arc<Controls>>,
    pub tally: Mutex<Tally>,
    /// Targets whose states cannot be read, by `targets.id`.
    pub unreadable: Mutex<BTreeMap<i64, UnreadableRow>>,
    next_due: watch::Sender<Option<Time>>,
}

impl FleetView {
    pub(super) fn new(opened: Opened) -> Self {
        let Opened { now: _, created, last_stored, last_kept } = opened;
        Self {
            created,
            last_stored,
            last_kept,
            controls: RwLock::default(),
            tally: Mutex::default(),
            unreadable: Mutex::default(),
            next_due: watch::Sender::new(None),
        }
    }

    pub(super) fn controls(&self) -> Arc<Controls> {
        self.controls.read().clone()
    }

    /// Sets the controls, unless it has newer ones.
    pub(super) fn set_controls(&self, controls: Arc<Controls>) {
        let mut known = self.controls.write();
        if controls.version >= known.version {
            *known = controls;
        }
    }

    pub(super) fn last_stored(&self) -> Option<Time> {
        self.last_stored
    }

    pub(super) fn last_kept(&self) -> BTreeMap<Name, Time> {
        self.last_kept.clone()
    }

    pub(super) fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.next_due.subscribe()
    }

    /// Sets the time at which the next target is due; `None` if there is none.
    pub(super) fn set_next_due(&self, next: Option<Time>) {
        self.next_due.send_if_modified(|known| std::mem::replace(known, next) != next);
    }

    /// A target is due at this time.
    pub(super) fn add_due(&self, due: Time) {
        self.next_due.send_if_modified(|known| {
            let next = known.map_or(due, |known| known.min(due));
            known.replace(next) != Some(next)
        });
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot {
            controls: self.controls(),
            tally: self.tally.lock().clone(),
            unreadable_rows: self.unreadable.lock().values().cloned().collect(),
        }
    }
}

/// Reads what a store needs to know at its start.
pub(super) async fn open(pool: &Pool) -> Result<Opened, Error> {
    let at_open = |error: super::error::DbError| error.into_store(Place::Open);
    let transaction = Transaction::begin(pool).await.map_err(at_open)?;
    let row = transaction.query_one("SELECT now_ns(), created FROM store", &[]).await.map_err(at_open)?;
    let (now, created) = (Time::from_nanos(row.get(0)), Time::from_nanos(row.get(1)));
    transaction.commit().await.map_err(at_open)?;
    Ok(Opened { now, created, last_stored: None, last_kept: BTreeMap::new() })
}

/// Reads the controls, the counts and the clock anew.
pub(super) async fn refresh(_shared: &Shared) -> Result<(), Error> {
    Ok(())
}

pub(super) fn start(_shared: &Arc<Shared>) {}

pub(super) async fn close(_shared: &Shared) {}
