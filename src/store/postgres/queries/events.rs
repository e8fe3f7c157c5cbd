//! Events with their deliveries.

use crate::store::postgres::Shared;
use crate::store::{DeliveryPage, DeliveryQuery, Error, StoredEvent};

pub(in crate::store::postgres) async fn find(
    _shared: &Shared,
    _id: &str,
) -> Result<Option<StoredEvent>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}

pub(in crate::store::postgres) async fn page(
    _shared: &Shared,
    _query: DeliveryQuery,
) -> Result<DeliveryPage, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
