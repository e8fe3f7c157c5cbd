//! A cache of what decisions do not read: for metrics, status, and as hints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::tally;
use crate::domain::control::Controls;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{Replicas, Rewinds, Snapshot, Tally, UnreadableRow};

/// A replica that gives no sign of life for longer is lost.
pub(super) const MAX_SILENCE: Duration = Duration::from_secs(5);

/// What was read when the store was opened.
pub(in crate::store::postgres) struct Opened {
    pub now: Time,
    pub created: Time,
    pub incarnation: i64,
    pub controls: Controls,
    /// When a replica was last ready; `None` if the store is new, or if one is ready now.
    pub last_stored: Option<Time>,
    pub last_kept: BTreeMap<Name, Time>,
    /// The SQL expression that says which server and database this is.
    pub server: &'static str,
}

/// The cache. Own commits change it at once, and a refresh replaces it.
pub(in crate::store::postgres) struct FleetView {
    /// When the store was created.
    pub created: Time,
    last_stored: Option<Time>,
    last_kept: Mutex<BTreeMap<Name, Time>>,
    incarnation: AtomicI64,
    /// The number of this process's configuration; 0 until it is known.
    pub configuration: AtomicI64,
    /// Whether another process had a newer one when this was last read.
    pub has_newer_configuration: AtomicBool,
    controls: RwLock<Arc<Controls>>,
    tally: Mutex<CountedTally>,
    /// Targets whose states cannot be read, by `targets.id`.
    pub unreadable: Mutex<BTreeMap<i64, UnreadableRow>>,
    next_due: watch::Sender<Option<Time>>,
    /// How often a due time was added.
    due_changes: AtomicU64,
    /// Whether this process accepts notifications.
    pub is_ready: AtomicBool,
    /// Whether another replica does.
    pub others_are_ready: AtomicBool,
    /// Another replica has changed what a refresh reads.
    pub refresh_now: Arc<Notify>,
    /// See [`Opened::server`].
    pub server: &'static str,
    /// A decision has met a server with which no replica has worked yet.
    pub beat_now: Arc<Notify>,
    /// Held by what writes the row of this process, so that a sign of life which was begun before it was ready does not
    /// overwrite that it is.
    pub row: tokio::sync::Mutex<()>,
    /// When the last sign of life was confirmed.
    last_beat: Mutex<Instant>,
    /// How often this process was the first to notice that the database came back behind.
    pub rewinds: Mutex<Rewinds>,
    /// The replicas; `None` until they are read.
    pub replicas: Mutex<Option<Replicas>>,
    /// The wall clock of this process minus the server's, in nanoseconds; 0 until it is measured.
    pub clock_offset: AtomicI64,
}

/// Counts with the changes since the current refresh has begun, which it may not have seen.
#[derive(Default)]
struct CountedTally {
    tally: Tally,
    since_refresh: Vec<(String, i64)>,
}

impl FleetView {
    pub(in crate::store::postgres) fn new(opened: Opened) -> Self {
        let Opened { now: _, created, incarnation, controls, last_stored, last_kept, server } = opened;
        Self {
            created,
            last_stored,
            last_kept: Mutex::new(last_kept),
            incarnation: AtomicI64::new(incarnation),
            configuration: AtomicI64::new(0),
            has_newer_configuration: AtomicBool::new(false),
            controls: RwLock::new(Arc::new(controls)),
            tally: Mutex::default(),
            unreadable: Mutex::default(),
            next_due: watch::Sender::new(None),
            due_changes: AtomicU64::new(0),
            refresh_now: Arc::default(),
            server,
            beat_now: Arc::default(),
            row: tokio::sync::Mutex::default(),
            last_beat: Mutex::new(Instant::now()),
            is_ready: AtomicBool::new(false),
            others_are_ready: AtomicBool::new(false),
            rewinds: Mutex::default(),
            replicas: Mutex::default(),
            clock_offset: AtomicI64::new(0),
        }
    }

    pub(in crate::store::postgres) fn controls(&self) -> Arc<Controls> {
        self.controls.read().clone()
    }

    /// Sets the controls, unless it has newer ones.
    pub(in crate::store::postgres) fn set_controls(&self, controls: Arc<Controls>) {
        let mut known = self.controls.write();
        if controls.version >= known.version {
            *known = controls;
        }
    }

    /// Sets the controls that the database has, also if they are older: it came back behind.
    pub(super) fn replace_controls(&self, controls: Controls) {
        *self.controls.write() = Arc::new(controls);
    }

    pub(super) fn incarnation(&self) -> i64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// A sign of life of this process was confirmed.
    pub(super) fn beat_confirmed(&self) {
        *self.last_beat.lock() = Instant::now();
    }

    #[cfg(test)]
    pub(super) fn forget_beat(&self) {
        *self.last_beat.lock() = Instant::now().checked_sub(2 * MAX_SILENCE).unwrap();
    }

    /// Whether this process accepts notifications, and has given no sign of life for so long that it counts as lost.
    pub(in crate::store::postgres) fn is_missed(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed) && self.last_beat.lock().elapsed() > MAX_SILENCE
    }

    pub(super) fn set_incarnation(&self, incarnation: i64) {
        self.incarnation.store(incarnation, Ordering::Relaxed);
    }

    pub(in crate::store::postgres) fn last_stored(&self) -> Option<Time> {
        self.last_stored
    }

    pub(in crate::store::postgres) fn last_kept(&self) -> BTreeMap<Name, Time> {
        self.last_kept.lock().clone()
    }

    pub(super) fn set_last_kept(&self, last_kept: BTreeMap<Name, Time>) {
        *self.last_kept.lock() = last_kept;
    }

    pub(in crate::store::postgres) fn next_due(&self) -> watch::Receiver<Option<Time>> {
        self.next_due.subscribe()
    }

    /// To be read before the next due time is, see [`Self::set_next_due`].
    pub(in crate::store::postgres) fn due_mark(&self) -> u64 {
        self.due_changes.load(Ordering::Acquire)
    }

    /// Sets the time at which the next target is due; `None` if there is none. A target that was added since the mark may
    /// be missing in it.
    pub(in crate::store::postgres) fn set_next_due(&self, mark: u64, next: Option<Time>) {
        self.next_due.send_if_modified(|known| {
            let is_complete = self.due_mark() == mark;
            let next = if is_complete { next } else { next.into_iter().chain(*known).min() };
            std::mem::replace(known, next) != next
        });
    }

    /// A target is due at this time.
    pub(in crate::store::postgres) fn add_due(&self, due: Time) {
        self.next_due.send_if_modified(|known| {
            self.due_changes.fetch_add(1, Ordering::AcqRel);
            let next = known.map_or(due, |known| known.min(due));
            known.replace(next) != Some(next)
        });
    }

    /// What a target adds to the counts has changed.
    pub(in crate::store::postgres) fn change_tally(&self, before: Option<&str>, after: Option<&str>) {
        if before == after {
            return;
        }
        let mut counted = self.tally.lock();
        for (text, change) in before.map(|text| (text, -1)).into_iter().chain(after.map(|text| (text, 1))) {
            tally::add(&mut counted.tally, text, change);
            counted.since_refresh.push((text.to_owned(), change));
        }
    }

    /// The counts are about to be read.
    pub(super) fn begin_counting(&self) {
        self.tally.lock().since_refresh.clear();
    }

    /// The counts were read. Changes since [`Self::begin_counting`] are added: they may count twice until the next time.
    pub(super) fn set_tally(&self, mut read: Tally) {
        let mut counted = self.tally.lock();
        counted.since_refresh.iter().for_each(|(text, change)| tally::add(&mut read, text, *change));
        counted.tally = read;
    }

    pub(in crate::store::postgres) fn snapshot(&self) -> Snapshot {
        Snapshot {
            controls: self.controls(),
            tally: self.tally.lock().tally.clone(),
            unreadable_rows: self.unreadable.lock().values().cloned().collect(),
        }
    }
}
