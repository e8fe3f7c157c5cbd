//! The operations of the store that a retirement uses.

use crate::domain::name::Name;
use crate::store::{DeliveryQueue, Error, Store};

/// The operations of the store that a retirement uses, in addition to those of a worker.
pub(super) trait RetirementOutbox: DeliveryQueue {
    /// Makes the claimed deliveries of a worker that has ended claimable.
    fn release_claims(&self, destination: &Name) -> Result<(), Error>;

    /// Makes claimed deliveries and those that wait for a retry claimable. The caller is the only one that claims.
    fn release_all(&self, destination: &Name) -> Result<(), Error>;

    /// Stores the position of the destination and closes its lane.
    fn remove_destination(&self, destination: &Name) -> impl Future<Output = Result<(), Error>> + Send;
}

impl RetirementOutbox for Store {
    fn release_claims(&self, destination: &Name) -> Result<(), Error> {
        Self::release_claims(self, destination)
    }

    fn release_all(&self, destination: &Name) -> Result<(), Error> {
        Self::release_all(self, destination)
    }

    async fn remove_destination(&self, destination: &Name) -> Result<(), Error> {
        Self::remove_destination(self, destination).await
    }
}
