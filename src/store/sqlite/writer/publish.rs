//! Publication of a committed batch to the index, the lanes and the committed view, and what follows it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;

use rusqlite::Connection;
use tokio::sync::watch;

use super::Writer;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::Tally;
use crate::store::fast_map::Map;
use crate::store::lane::Lane;
use crate::store::sqlite::committed::controls::CommittedView;
use crate::store::sqlite::committed::index::CachedTarget;
use crate::store::sqlite::committed::lane_changes::LaneChanges;
use crate::store::sqlite::committed::staged::{CommittedEvent, StagedChanges, WriteBatch};
use crate::store::sqlite::file::checkpoint::{self, HandOver};
use crate::store::sqlite::tally;

/// Tells other threads about commits.
pub(crate) struct Publisher {
    /// When the next target is due.
    pub due: watch::Sender<Option<Time>>,
    /// Wakes the checkpoint thread.
    pub checkpoints: SyncSender<()>,
    pub hand_over: HandOver,
}

/// Writes the counts that the batch changes.
pub(super) fn write_tally(
    connection: &Connection,
    committed: &CommittedView,
    staged: &StagedChanges,
) -> rusqlite::Result<()> {
    match &staged.recounted {
        None => committed.tally(|before| staged.tally.write(connection, before)),
        Some(recounted) => {
            tally::clear(connection)?;
            recounted.write(connection, &Tally::default())?;
            staged.tally.write(connection, &recounted.totals())
        }
    }
}

impl Writer {
    /// Publishes a committed batch. Returns the states that are not cached.
    pub(super) fn publish(&mut self, batch: WriteBatch) -> Vec<Arc<CachedTarget>> {
        let last_before = self.next.event - 1;
        let (staged, next) = batch.into_parts();
        self.next = next;
        let StagedChanges { index, controls, tally, recounted, events, lanes, routes, .. } = staged;
        self.outbox.routes.extend(routes);
        let uncached = self.states.index.merge(index);
        staged.dropped.into_iter().for_each(|id| self.states.quarantine.remove(id));
        let committed = &self.states.committed;
        controls.into_iter().for_each(|controls| committed.set_controls(controls));
        committed.change_tally(|counts| {
            if let Some(recounted) = recounted {
                *counts = recounted.totals();
            }
            tally.apply(counts);
        });
        self.clock.last_event.store(self.next.event - 1, Ordering::Release);
        self.publish_to_lanes(&events, &lanes, last_before);
        self.publish_calls(&lanes);
        self.publish_due();
        self.checkpoint_if_needed();
        if staged.pruned_all && !checkpoint::truncate_wal(&self.connection) {
            // After a checkpoint the remainder is short enough for the next round of pruning.
            self.request_checkpoint();
        }
        uncached
    }

    /// Notifies if the time at which the next target is due has changed.
    pub(super) fn publish_due(&self) {
        let next_due = self.states.index.next_due();
        self.publisher.due.send_if_modified(|due| std::mem::replace(due, next_due) != next_due);
    }

    /// Pushes the new events to the lanes that have caught up; others read them from the file later.
    fn publish_to_lanes(&self, events: &[CommittedEvent], lanes: &Map<Name, LaneChanges>, last_before: i64) {
        for handle in self.outbox.lanes.all().values() {
            let changes = lanes.get(&handle.name);
            let is_changed = changes.is_some();
            let wake = handle.with_lane(|lane| {
                changes.into_iter().for_each(|changes| changes.apply_to(lane));
                if lane.high_watermark() < last_before {
                    return is_changed;
                }
                push_events(lane, &handle.name, events, changes) || is_changed
            });
            if wake {
                handle.wake();
            }
        }
    }

    /// Queues the targets that wait for destinations to which calls have succeeded.
    fn publish_calls(&mut self, lanes: &Map<Name, LaneChanges>) {
        for (name, changes) in lanes {
            let Some(handle) = self.outbox.lanes.get(name) else { continue };
            if let Some(last) = changes.last_success {
                let successes = handle.add_successes(last);
                self.states.index.destination_succeeded(name, successes, self.clock.now());
            }
        }
    }

    fn request_checkpoint(&self) {
        // If the channel is full, a checkpoint is requested already.
        let _requested = self.publisher.checkpoints.try_send(());
    }

    fn checkpoint_if_needed(&self) {
        checkpoint::checkpoint_remainder(&self.connection, &self.publisher.hand_over);
        match checkpoint::uncheckpointed_pages(&self.connection) {
            Ok(pages) if checkpoint::is_needed(pages) => self.request_checkpoint(),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "reading the WAL size failed"),
        }
    }
}

/// Pushes events to a lane. Returns whether it has no room for all of them.
fn push_events(
    lane: &mut Lane,
    name: &Name,
    events: &[CommittedEvent],
    changes: Option<&LaneChanges>,
) -> bool {
    for CommittedEvent { delivery, destinations } in events {
        if !lane.has_room() {
            return true;
        }
        let seq = delivery.seq;
        if !destinations.contains(name) {
            lane.skip_to(seq);
        } else if changes.is_some_and(|changes| changes.settled_on_insert.contains(&seq.0)) {
            lane.push_known(delivery);
        } else {
            lane.push(delivery.clone());
        }
    }
    false
}
