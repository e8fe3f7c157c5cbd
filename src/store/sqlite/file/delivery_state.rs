//! The values of `deliveries.state` and `deliveries.flags`.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use rusqlite::{Result, ToSql};

/// The state of a delivery that has a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryState {
    /// Waits for a retry, or for an earlier delivery of its target that does.
    Retry = 1,
    /// A dead letter.
    Dead = 2,
    /// Cancelled. The row shows that it never arrived.
    Cancelled = 3,
    /// Arrived, with an answer. Written before schema 9, which has `receipts`.
    Answered = 4,
    /// Not sent, because there was nothing to compensate.
    Withdrawn = 5,
    /// A dead letter that was discarded or replaced. The row shows that it never arrived.
    Discarded = 6,
    /// Arrived after it was cancelled. Written before schema 9.
    Arrived = 7,
}

/// `deliveries.flags`: not called until it is resumed.
pub(crate) const SUSPENDED: i64 = 1;
/// `deliveries.flags`: a call may have arrived although no answer said so.
pub(crate) const UNCERTAIN: i64 = 2;
/// `deliveries.flags`: a call has begun. Its outcome is unknown if the process ends before it is settled.
pub(crate) const CALLED: i64 = 4;
/// `deliveries.flags` of a dead letter: given up as `GiveUp::Expired`.
pub(crate) const EXPIRED: i64 = 8;
/// `deliveries.flags` of [`DeliveryState::Discarded`]: replaced by a new event, not discarded by an operator.
pub(crate) const REPLACED: i64 = 16;

impl ToSql for DeliveryState {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok((*self as i64).into())
    }
}

impl FromSql for DeliveryState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        Ok(match value.as_i64()? {
            1 => Self::Retry,
            2 => Self::Dead,
            3 => Self::Cancelled,
            4 => Self::Answered,
            5 => Self::Withdrawn,
            6 => Self::Discarded,
            7 => Self::Arrived,
            other => return Err(FromSqlError::OutOfRange(other)),
        })
    }
}
