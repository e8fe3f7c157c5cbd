//! Whether an event has anything to compensate at a destination.
//!
//! `events.compensates` has the numbers of the events that it takes back. One that was pruned has arrived; one without a
//! row was never sent to the destination.

use tokio_postgres::Row;

/// What an event has to compensate at a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compensation {
    /// It compensates no event, or one that has arrived.
    Something,
    /// None of them has arrived, and one can still be delivered: it stands aside.
    Undecided,
    /// None of them ever will.
    Nothing,
}

/// Two columns, of `events e` at the destination `$1`: whether one of the compensated events has arrived, and whether one
/// is not settled; both null if it compensates none.
pub(super) const COLUMNS: &str = "
    CASE WHEN e.compensates IS NOT NULL THEN EXISTS (
        SELECT FROM unnest(e.compensates) AS c (seq)
        LEFT JOIN deliveries f ON f.event = c.seq AND f.destination = $1
        LEFT JOIN events g ON g.seq = c.seq
        WHERE f.state = 1 OR g.seq IS NULL) END AS has_arrived,
    CASE WHEN e.compensates IS NOT NULL THEN EXISTS (
        SELECT FROM unnest(e.compensates) AS c (seq)
        JOIN deliveries f ON f.event = c.seq AND f.destination = $1
        WHERE f.state = 0 OR f.token IS NOT NULL) END AS is_open";

/// Reads the [`COLUMNS`] that begin at `first`.
pub(super) fn read(row: &Row, first: usize) -> Compensation {
    let (has_arrived, is_open): (Option<bool>, Option<bool>) = (row.get(first), row.get(first + 1));
    match (has_arrived, is_open) {
        (None | Some(true), _) => Compensation::Something,
        (Some(false), Some(true)) => Compensation::Undecided,
        (Some(false), _) => Compensation::Nothing,
    }
}
