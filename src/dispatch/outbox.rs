//! [`Outbox`] for [`Store`].

use super::Outbox;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{Claimed, Error, EventSeq, Settlement, Store};

impl Outbox for Store {
    async fn claim(&self, destination: &Name, max: usize) -> Result<Vec<Claimed>, Error> {
        Self::claim(self, destination, max).await
    }

    async fn settle(&self, destination: &Name, settled: Vec<(EventSeq, Settlement)>) -> Result<(), Error> {
        Self::settle(self, destination, settled).await
    }

    fn is_cancelled(&self, destination: &Name, seq: EventSeq) -> bool {
        Self::is_cancelled(self, destination, seq)
    }

    async fn wait(&self, destination: &Name) {
        Self::wait(self, destination).await;
    }

    fn now(&self) -> Time {
        Self::now(self)
    }
}
