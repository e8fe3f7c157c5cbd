//! Deleting old rows.

use std::time::Duration;

use super::Shared;
use crate::store::{Error, NotificationLimits};

pub(super) async fn prune(
    _shared: &Shared,
    _decisions: Duration,
    _delivered: Duration,
) -> Result<bool, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}

pub(super) async fn prune_notifications(
    _shared: &Shared,
    _limits: NotificationLimits,
) -> Result<bool, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
