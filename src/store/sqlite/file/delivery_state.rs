//! The values of `deliveries.state`.

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
    /// Arrived, with an answer.
    Answered = 4,
    /// Not sent, because there was nothing to compensate.
    Withdrawn = 5,
    /// A discarded dead letter. The row shows that it never arrived.
    Discarded = 6,
    /// Arrived after it was cancelled.
    Arrived = 7,
}

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
