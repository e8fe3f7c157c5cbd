//! Kept notifications.

use crate::store::postgres::Shared;
use crate::store::{Error, NotificationPage, NotificationQuery};

pub(in crate::store::postgres) async fn page(
    _shared: &Shared,
    _query: NotificationQuery,
) -> Result<NotificationPage, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
