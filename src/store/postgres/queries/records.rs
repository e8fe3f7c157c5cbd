//! Decision records.

use crate::domain::target::TargetKey;
use crate::domain::time::Time;
use crate::store::postgres::Shared;
use crate::store::{Error, RecordQuery, Records};

pub(in crate::store::postgres) async fn of_target(
    _shared: &Shared,
    _target: &TargetKey,
    _from: Time,
    _to: Time,
) -> Result<Vec<String>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}

pub(in crate::store::postgres) async fn page(
    _shared: &Shared,
    _query: RecordQuery,
) -> Result<Records, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
