//! States of targets.

use crate::store::postgres::Shared;
use crate::store::{Error, StateCursor, StoredState};

pub(in crate::store::postgres) async fn page(
    _shared: &Shared,
    _after: Option<StateCursor>,
    _max: usize,
) -> Result<Vec<StoredState>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
