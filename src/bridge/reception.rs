//! Reception gaps: times in which notifications of a source could not be accepted, or were not heard.
//!
//! The [`GapTracker`] has what is not committed yet. Every decision reads it together with the controls of its
//! transaction, so no decision is made that does not know of a gap. The controls are written at most once a second for
//! gaps, however many notifications are refused: a process that ends before that leaves a gap that ends later, since
//! the bridge is not running then.

#[cfg(test)]
mod tests;
mod tracker;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Bridge, Inner};
use crate::domain::control::{Controls, GapCause};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{self, Changes, Keys};
pub(crate) use tracker::BootClock;
pub(super) use tracker::{Folded, GapTracker};

/// The interval of the task that shows that the process is running, and writes what is due.
const TICK_INTERVAL: Duration = Duration::from_secs(1);

/// A notification that is being received. Unless it is accepted, it leaves a reception gap: also if its sender closes
/// the connection before the answer.
pub(crate) struct Reception<'a> {
    bridge: &'a Bridge,
    source: &'a Name,
    cause: Option<GapCause>,
}

impl Reception<'_> {
    /// The notification was accepted.
    pub(crate) fn accept(mut self) {
        self.cause = None;
        let Inner { store, heard, .. } = &*self.bridge.0;
        heard.lock().insert(self.source.clone(), store.clock().wall);
    }

    /// The notification was refused.
    pub(crate) fn refuse(mut self, cause: GapCause) {
        self.cause = Some(cause);
    }
}

impl Drop for Reception<'_> {
    fn drop(&mut self) {
        if let Some(cause) = self.cause {
            self.bridge.0.gaps.record(self.source, cause, self.bridge.0.store.now());
        }
    }
}

impl Bridge {
    /// When the last notification of a source was accepted, by the wall clock; `None` if there was none since the start
    /// and no other process has kept one.
    pub(crate) fn last_heard(&self, source: &Name) -> Option<Time> {
        let heard = self.0.heard.lock().get(source).copied();
        heard.max(self.0.store.last_kept().get(source).copied())
    }

    /// Begins the reception gap between the last process on this store and this one, for the sources that were
    /// configured then. It lasts until [`Self::begin_reception`]. A new store has none.
    pub(crate) fn begin_downtime(&self) {
        if let Some(from) = self.0.store.last_stored() {
            let controls = self.0.store.controls();
            self.0.gaps.begin(from, |source| controls.was_receiving(source));
        }
    }

    /// Notifications are accepted from now on.
    pub(crate) async fn begin_reception(&self) {
        self.0.gaps.end(self.0.store.now());
        self.0.store.set_ready(true);
        self.0.store.announce_ready().await;
        self.commit_gaps().await;
    }

    /// No notifications are accepted from now on.
    pub(crate) fn end_reception(&self) {
        self.0.store.set_ready(false);
        // They accept what is sent from now on.
        if self.0.store.others_are_ready() {
            return;
        }
        self.0.gaps.begin(self.0.store.now(), |_| true);
    }

    /// Notifications of all sources are refused now. Called again and again while they are.
    pub(crate) fn refuse_all(&self, cause: GapCause) {
        self.0.gaps.record_for_all(cause, self.0.store.now());
    }

    /// Begins the reception gap of a source whose queue cannot be read, or was not read completely, since `from`.
    pub(crate) fn begin_unread_queue(&self, source: &Name, from: Time) {
        self.0.gaps.begin_unread(source, from);
    }

    /// Everything is read that was in the queue of `source`.
    pub(crate) fn end_unread_queue(&self, source: &Name) {
        self.0.gaps.end_unread(source, self.0.store.now());
    }

    /// A notification of `source` is being received.
    pub(crate) fn receive<'a>(&'a self, source: &'a Name) -> Reception<'a> {
        Reception { bridge: self, source, cause: Some(GapCause::Refused) }
    }

    /// The committed controls with the reception gaps that are not committed.
    pub(crate) fn controls(&self) -> Arc<Controls> {
        let controls = self.0.store.controls();
        let folded = self.0.gaps.fold(&controls, self.0.store.now());
        folded.map_or(controls, |folded| Arc::new(folded.controls))
    }

    /// Detects that the process was stopped, and commits reception gaps, until `stop` is cancelled.
    pub(crate) async fn watch_reception(&self, stop: &CancellationToken) {
        // A commit that takes long does not look like a stop.
        let watch = async { tokio::join!(self.show_activity(), self.write_gaps()) };
        stop.run_until_cancelled(watch).await;
    }

    async fn show_activity(&self) {
        loop {
            tokio::time::sleep(TICK_INTERVAL).await;
            self.0.gaps.tick(self.0.store.now());
            self.0.gaps.count_losses(self.0.store.rewinds());
        }
    }

    async fn write_gaps(&self) {
        loop {
            tokio::time::sleep(TICK_INTERVAL).await;
            let now = self.0.store.now();
            let has_receivers = !self.0.reconciliations.new_receivers().is_empty();
            if self.0.gaps.is_write_due(now) || has_receivers && self.0.gaps.can_write(now) {
                self.commit_gaps().await;
            }
            self.0.gaps.forget_ended(now);
        }
    }

    /// Commits reception gaps, that the process is running, which heartbeats are forgotten, and which receivers the
    /// notifications of sources name. What cannot be committed
    /// stays in memory, where decisions find it.
    pub(crate) async fn commit_gaps(&self) {
        let (gaps, snapshot) = (self.0.gaps.clone(), self.0.snapshot.load_full());
        let receivers = self.0.reconciliations.new_receivers();
        let added = receivers.clone();
        let committed = self.0.store.transact(Keys::default(), move |view| {
            let folded = gaps.fold(&view.controls, view.now);
            let (mut controls, folded) = match folded {
                Some(Folded { controls, gaps }) => (controls, gaps),
                None => ((*view.controls).clone(), Default::default()),
            };
            gaps.set_receiving(&mut controls);
            controls.forget_heartbeats(&snapshot.sources, view.now);
            added.iter().for_each(|(source, receivers)| controls.add_receivers(source, receivers));
            let changes = Changes { controls: Some(Arc::new(controls)), ..Changes::default() };
            (changes, (folded, view.now))
        });
        match committed.await {
            Ok((folded, now)) => {
                self.0.gaps.committed(folded, now);
                self.0.reconciliations.receivers_committed(receivers);
            }
            Err(store::Error::Closed) => {}
            Err(error) => self.0.gaps.postpone_writes(self.0.store.now(), &error),
        }
    }
}
