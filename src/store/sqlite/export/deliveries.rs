//! The deliveries of events: rows for the exceptions, receipts, and the position of each destination.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::name::Name;
use crate::store::DeliveryState;
use crate::store::sqlite::codec::receipts::Receipt;
use crate::store::sqlite::file::delivery_state::{
    CALLED, DeliveryState as RowState, EXPIRED, REPLACED, SUSPENDED, UNCERTAIN,
};
use crate::store::sqlite::tables::receipts;
use crate::store::transfer::TransferredDelivery;

/// The destinations that the store knows.
pub(super) struct Destinations(BTreeMap<Name, Destination>);

struct Destination {
    id: i64,
    /// Events up to here are settled or have a row.
    cursor: i64,
    /// Receipts of some events, by their numbers.
    receipts: BTreeMap<i64, Receipt>,
}

impl Destinations {
    pub(super) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        let mut select = connection.prepare("SELECT name, id, cursor FROM destinations")?;
        let mut rows = select.query([])?;
        let mut found = BTreeMap::new();
        while let Some(row) = rows.next()? {
            if let Ok(name) = Name::new(row.get_ref(0)?.as_str()?) {
                let destination =
                    Destination { id: row.get(1)?, cursor: row.get(2)?, receipts: BTreeMap::new() };
                found.insert(name, destination);
            }
        }
        Ok(Self(found))
    }

    pub(super) fn names(&self) -> Vec<Name> {
        self.0.keys().cloned().collect()
    }

    /// Reads the receipts of the events with these numbers; those that were read before are forgotten.
    pub(super) fn read_receipts(
        &mut self,
        connection: &Connection,
        first: i64,
        last: i64,
    ) -> rusqlite::Result<()> {
        for destination in self.0.values_mut() {
            let found = receipts::between(connection, destination.id, first, last)?;
            destination.receipts = found.into_iter().map(|receipt| (receipt.seq.0, receipt)).collect();
        }
        Ok(())
    }

    /// The deliveries of an event that was emitted at this time, to these destinations. Its receipts have to be read.
    pub(super) fn deliveries(
        &self,
        connection: &Connection,
        names: &[Name],
        seq: i64,
        at: i64,
    ) -> rusqlite::Result<Vec<TransferredDelivery>> {
        let mut select = connection.prepare_cached(
            "SELECT state, attempts, due, error, flags, expiry, since FROM deliveries
             WHERE destination = ?1 AND event = ?2",
        )?;
        let mut found = Vec::new();
        for name in names {
            let Some(destination) = self.0.get(name) else { continue };
            let open = open(name.clone(), at);
            let row =
                select.query_row(params![destination.id, seq], |row| of_row(open.clone(), row)).optional()?;
            found.push(match (row, destination.receipts.get(&seq)) {
                (Some(of_row), _) => of_row,
                (None, Some(receipt)) => TransferredDelivery {
                    state: DeliveryState::Delivered,
                    attempts: i32::try_from(receipt.attempts).unwrap_or(i32::MAX),
                    ended_at: Some(receipt.at.as_nanos()),
                    answer: receipt.answer.clone(),
                    ..open
                },
                // It arrived before the store had receipts, or the event was deleted with its receipt.
                (None, None) if seq <= destination.cursor => TransferredDelivery {
                    state: DeliveryState::Delivered,
                    attempts: 1,
                    ended_at: Some(at),
                    ..open
                },
                (None, None) => open,
            });
        }
        Ok(found)
    }
}

/// A delivery that was never called.
fn open(destination: Name, at: i64) -> TransferredDelivery {
    TransferredDelivery {
        destination,
        state: DeliveryState::Pending,
        attempts: 0,
        due: at,
        age_from: at,
        expiry: None,
        ended_at: None,
        is_suspended: false,
        is_uncertain: false,
        is_expired: false,
        error: None,
        answer: None,
    }
}

fn of_row(open: TransferredDelivery, row: &Row<'_>) -> rusqlite::Result<TransferredDelivery> {
    let (due, flags): (i64, i64) = (row.get(2)?, row.get(4)?);
    let text: Option<String> = Some(row.get(3)?).filter(|text: &String| !text.is_empty());
    let ended_at = due.max(open.age_from);
    let delivery = TransferredDelivery {
        attempts: row.get(1)?,
        expiry: row.get(5)?,
        age_from: row.get::<_, Option<i64>>(6)?.unwrap_or(open.age_from),
        // The outcome of a call that had begun is unknown.
        is_uncertain: flags & (UNCERTAIN | CALLED) != 0,
        error: text,
        ..open
    };
    Ok(match row.get(0)? {
        RowState::Retry => TransferredDelivery {
            due: due.max(delivery.due),
            is_suspended: flags & SUSPENDED != 0,
            ..delivery
        },
        RowState::Dead => TransferredDelivery {
            state: DeliveryState::Dead,
            ended_at: Some(due),
            is_expired: flags & EXPIRED != 0,
            ..delivery
        },
        // `due` says until when the row is retained.
        RowState::Cancelled => {
            let ended_at = Some(delivery.age_from);
            TransferredDelivery { state: DeliveryState::Superseded, ended_at, ..delivery }
        }
        RowState::Discarded => {
            let state = match flags & REPLACED {
                0 => DeliveryState::Discarded,
                _ => DeliveryState::Replaced,
            };
            TransferredDelivery { state, ended_at: Some(delivery.age_from), ..delivery }
        }
        RowState::Withdrawn => {
            TransferredDelivery { state: DeliveryState::Withdrawn, ended_at: Some(ended_at), ..delivery }
        }
        RowState::Answered => TransferredDelivery {
            state: DeliveryState::Delivered,
            ended_at: Some(ended_at),
            answer: delivery.error.clone(),
            error: None,
            ..delivery
        },
        RowState::Arrived => {
            TransferredDelivery { state: DeliveryState::Delivered, ended_at: Some(ended_at), ..delivery }
        }
    })
}
