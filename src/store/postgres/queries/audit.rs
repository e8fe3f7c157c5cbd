//! The audit trail.

use crate::store::postgres::Shared;
use crate::store::{AuditPage, AuditQuery, AuditWrite, Error};

pub(in crate::store::postgres) async fn write(_shared: &Shared, _write: AuditWrite) -> Result<i64, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}

pub(in crate::store::postgres) async fn page(
    _shared: &Shared,
    _query: AuditQuery,
) -> Result<AuditPage, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}
