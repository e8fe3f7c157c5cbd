//! Documents that every transaction reads, as they were read last: they are sent and parsed again only after a change.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::control::Controls;
use crate::domain::direction::Direction;
use crate::domain::rate::{Rate, Rates};
use crate::store::postgres::error::DbError;

/// The documents.
#[derive(Default)]
pub(in crate::store::postgres) struct Caches {
    controls: Mutex<(String, Arc<Controls>)>,
    rates: Mutex<[(String, Arc<Rate>); 2]>,
}

impl Caches {
    /// The controls that were read last, with their digest, by which the server decides whether to send them.
    pub(super) fn controls(&self) -> (String, Arc<Controls>) {
        self.controls.lock().clone()
    }

    /// Parses controls, and remembers them.
    pub(super) fn read_controls(&self, digest: &str, body: &str) -> Result<Arc<Controls>, DbError> {
        let controls: Controls = match body {
            "" => Controls::default(),
            body => serde_json::from_str(body)
                .map_err(|error| DbError::Damaged(format!("the stored controls cannot be read: {error}")))?,
        };
        let controls = Arc::new(controls);
        *self.controls.lock() = (digest.to_owned(), controls.clone());
        Ok(controls)
    }

    /// The rates, from the documents of the directions.
    pub(super) fn rates(&self, bodies: [&str; 2]) -> Result<Rates, DbError> {
        let mut rates = Rates::default();
        for (direction, body) in Direction::ALL.into_iter().zip(bodies) {
            *rates.rate_mut(direction) = self.rate(direction, body)?;
        }
        Ok(rates)
    }

    /// The rate of a direction, from its document.
    pub(super) fn rate(&self, direction: Direction, body: &str) -> Result<Arc<Rate>, DbError> {
        let cached = &mut self.rates.lock()[usize::from(direction == Direction::ALL[1])];
        if cached.0 != body {
            let rate: Rate = match body {
                "" => Rate::default(),
                body => serde_json::from_str(body).map_err(|error| {
                    DbError::Damaged(format!("the stored rates of {direction} cannot be read: {error}"))
                })?,
            };
            *cached = (body.to_owned(), Arc::new(rate));
        }
        Ok(cached.1.clone())
    }
}
