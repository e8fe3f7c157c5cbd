//! The operations of the store that a retirement needs. Nothing else in it claims and settles.

use super::state::Event;
use crate::dispatch::outbox::RetirementOutbox;
use crate::domain::delivery::GiveUp;
use crate::domain::name::Name;
use crate::store::{Claimed, Error, Lease, Settlement};

/// Deliveries that are drained in one transaction.
pub(super) const MAX_BATCH_SIZE: usize = 1000;

/// The error of dead letters, and the reason of withdrawn deliveries.
const REASON: &str =
    "destination_removed: the destination was removed from the configuration; add it again to redrive";

/// Drains a destination whose worker has ended.
pub(super) struct Drain<O> {
    pub destination: Name,
    pub outbox: O,
}

impl<O: RetirementOutbox> Drain<O> {
    /// Settles the next deliveries. Those that an interrupted or failed attempt has claimed are claimed again, and no
    /// retry is waited for.
    pub(super) async fn drain_batch(&self) -> Event {
        self.event(self.try_drain_batch().await)
    }

    async fn try_drain_batch(&self) -> Result<Event, Error> {
        let Self { destination, outbox } = self;
        outbox.release_all(destination)?;
        let claimed = outbox.claim(destination, MAX_BATCH_SIZE).await?;
        if claimed.is_empty() {
            return Ok(match outbox.undelivered_at(destination) {
                0 => Event::Empty,
                _ => Event::NothingClaimable,
            });
        }
        let count = claimed.len() as u64;
        outbox.settle(destination, claimed.into_iter().map(not_delivered).collect()).await?;
        Ok(Event::Drained(count))
    }

    /// Completes when deliveries may be claimable.
    pub(super) async fn wait(&self) {
        self.outbox.wait(&self.destination).await;
    }

    /// Closes the lane.
    pub(super) async fn close_lane(&self) -> Event {
        let Self { destination, outbox } = self;
        let count = outbox.undelivered_at(destination);
        if count > 0 {
            tracing::warn!(%destination, count, "deliveries of a removed destination not found");
        }
        self.event(outbox.remove_destination(destination).await.map(|()| Event::LaneClosed))
    }

    fn event(&self, result: Result<Event, Error>) -> Event {
        result.unwrap_or_else(|error| {
            tracing::warn!(%error, destination = %self.destination, "removing destination failed, retrying");
            Event::StoreFailed
        })
    }

    /// A worker that ended without settling its claims has failed; its successor sends them.
    pub(super) fn release_claims(&self) {
        if let Err(error) = self.outbox.release_claims(&self.destination) {
            tracing::error!(%error, destination = %self.destination, "releasing claimed deliveries failed");
        }
    }
}

/// The settlement of a delivery to a removed destination.
fn not_delivered(claimed: Claimed) -> (Lease, Settlement) {
    let settlement = match claimed.nothing_to_compensate {
        true => Settlement::Withdrawn { reason: REASON.to_owned() },
        false => Settlement::Dead {
            error: REASON.to_owned(),
            cause: GiveUp::Rejected,
            called: false,
            uncertain: false,
        },
    };
    (claimed.lease, settlement)
}
