//! A delivery as it is stored, and what claims, outcomes and decisions make of it. No IO and no clock.

use std::time::Duration;

use tokio_postgres::Row;

use crate::domain::delivery::{DeliveryChangeKind, GiveUp};
use crate::domain::time::{ClockReading, Time};
use crate::store::Settlement;
use crate::store::expiry::after_renewal;
use crate::store::postgres::destinations::Class;
use crate::store::postgres::error::DbError;

/// How long a claim is valid unless it is renewed.
pub(super) const LEASE: Duration = Duration::from_secs(60);
/// How long a delivery behind another one of its target is not looked at. It is earlier when that one ends.
const PARKED: Duration = Duration::from_secs(300);

/// What [`DeliveryRow::read`] reads, of `deliveries d`.
pub(super) const COLUMNS: &str =
    "d.destination, d.event, d.target, d.state, d.attempts, d.due, d.token, d.age_from,
    d.expiry, d.ended_at, d.is_suspended, d.is_aside, d.is_called, d.is_uncertain, d.is_expired, d.is_parked";
/// The number of [`COLUMNS`].
pub(super) const COLUMN_COUNT: usize = 16;

/// `deliveries.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not settled.
    Open = 0,
    Delivered = 1,
    Dead = 2,
    /// Cancelled by a decision. With a lease, a call may be under way.
    Superseded = 3,
    Withdrawn = 4,
    Discarded = 5,
    Replaced = 6,
}

impl State {
    pub(super) fn read(number: i16) -> Result<Self, DbError> {
        use State::{Dead, Delivered, Discarded, Open, Replaced, Superseded, Withdrawn};
        let all = [Open, Delivered, Dead, Superseded, Withdrawn, Discarded, Replaced];
        let found = all.into_iter().find(|state| *state as i16 == number);
        found.ok_or_else(|| DbError::Damaged(format!("a delivery has the unknown state {number}")))
    }
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeliveryRow {
    pub destination: i32,
    pub event: i64,
    pub target: i64,
    pub state: State,
    pub attempts: i32,
    pub due: i64,
    pub token: Option<i64>,
    pub age_from: i64,
    pub expiry: Option<i64>,
    pub ended_at: Option<i64>,
    pub is_suspended: bool,
    pub is_aside: bool,
    pub is_called: bool,
    pub is_uncertain: bool,
    pub is_expired: bool,
    pub is_parked: bool,
    /// The new error; `None` if it stays as it is.
    pub error: Option<Option<String>>,
    pub answer: Option<String>,
}

/// What a settlement has made of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It has arrived.
    Arrived,
    /// It has ended without arriving.
    NotDelivered,
    /// It is tried again, or it is still to be called.
    Postponed,
}

impl DeliveryRow {
    /// Reads the [`COLUMNS`] from a row that begins with them.
    pub(super) fn read(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            destination: row.get(0),
            event: row.get(1),
            target: row.get(2),
            state: State::read(row.get(3))?,
            attempts: row.get(4),
            due: row.get(5),
            token: row.get(6),
            age_from: row.get(7),
            expiry: row.get(8),
            ended_at: row.get(9),
            is_suspended: row.get(10),
            is_aside: row.get(11),
            is_called: row.get(12),
            is_uncertain: row.get(13),
            is_expired: row.get(14),
            is_parked: row.get(15),
            error: None,
            answer: None,
        })
    }

    /// Whether a replica may be calling it.
    fn is_in_flight(&self, wall: Time) -> bool {
        self.token.is_some() && self.due > wall.as_nanos()
    }

    /// Whether it keeps later deliveries of its target from being sent.
    fn blocks(&self, wall: Time) -> bool {
        let is_away = self.is_suspended || self.is_aside && self.due > wall.as_nanos();
        self.state == State::Open && !is_away
    }

    /// Whether the change from `before` to `self` lets another delivery of its target be sent.
    pub(super) fn frees_queue_of(&self, before: &Self, wall: Time) -> bool {
        before.is_in_flight(wall) && !self.is_in_flight(wall) || before.blocks(wall) && !self.blocks(wall)
    }

    /// A delivery that was cancelled counts until its call is over.
    pub(super) fn class(&self) -> Class {
        match self.state {
            State::Open => Class::Unsettled { has_failed: self.attempts > 0 },
            State::Superseded if self.token.is_some() => Class::Unsettled { has_failed: self.attempts > 0 },
            State::Dead => Class::Dead,
            _ => Class::Other,
        }
    }

    /// A replica claims it.
    pub(super) fn claim(&mut self, wall: Time, token: i64) {
        self.end_call();
        (self.is_aside, self.is_parked) = (false, false);
        self.lease(wall, token);
    }

    /// It is leased, and keeps its place.
    pub(super) fn lease(&mut self, wall: Time, token: i64) {
        self.token = Some(token);
        self.due = wall.after(LEASE).as_nanos();
    }

    /// Another delivery of its target has to end first.
    pub(super) fn park(&mut self, wall: Time) {
        self.end_call();
        (self.token, self.is_aside, self.is_parked) = (None, false, true);
        self.due = wall.after(PARKED).as_nanos();
    }

    /// It cannot be claimed before `due`, and later deliveries of its target can.
    pub(super) fn stand_aside(&mut self, due: Time) {
        self.end_call();
        (self.token, self.is_aside, self.is_parked) = (None, true, false);
        self.due = due.as_nanos();
    }

    /// Its call begins.
    pub(super) fn begin_call(&mut self, wall: Time) {
        self.is_called = true;
        self.due = self.due.max(wall.after(LEASE).as_nanos());
    }

    /// Its lease ends without an outcome.
    pub(super) fn release(&mut self, wall: Time) {
        self.end_call();
        self.token = None;
        self.due = wall.as_nanos();
    }

    /// The outcome of a call that may have begun is not known.
    fn end_call(&mut self) {
        self.is_uncertain |= std::mem::take(&mut self.is_called);
    }

    /// The outcome of the claim by which it is leased.
    pub(super) fn settle(&mut self, clock: ClockReading, settlement: Settlement) -> Settled {
        (self.token, self.is_called, self.is_parked) = (None, false, false);
        let is_cancelled = self.state == State::Superseded;
        match settlement {
            Settlement::Delivered { answer } => {
                self.end(State::Delivered, clock.now, None);
                self.attempts = self.attempts.saturating_add(1);
                (self.answer, self.is_uncertain) = (answer, false);
                return Settled::Arrived;
            }
            // It was superseded, so it is neither tried again nor a dead letter that can be redriven.
            Settlement::Retry { uncertain, .. } | Settlement::Dead { uncertain, .. } if is_cancelled => {
                self.is_uncertain |= uncertain;
            }
            Settlement::NotCalled { .. } | Settlement::Withdrawn { .. } if is_cancelled => {}
            Settlement::Retry { delay, error, uncertain } => {
                self.attempts = self.attempts.saturating_add(1);
                self.error = Some(Some(error));
                self.is_uncertain |= uncertain;
                self.postpone(clock.wall, delay, false);
                return Settled::Postponed;
            }
            Settlement::NotCalled { delay, stands_aside } => {
                self.postpone(clock.wall, delay, stands_aside);
                return Settled::Postponed;
            }
            Settlement::Withdrawn { reason } => self.end(State::Withdrawn, clock.wall, Some(reason)),
            Settlement::Dead { error, cause, called, uncertain } => {
                self.end(State::Dead, clock.wall, Some(error));
                self.attempts = self.attempts.saturating_add(i32::from(called));
                self.is_expired = cause == GiveUp::Expired;
                self.is_uncertain |= uncertain;
            }
        }
        Settled::NotDelivered
    }

    /// A suspended delivery waits until it is resumed instead.
    fn postpone(&mut self, wall: Time, delay: Duration, stands_aside: bool) {
        self.is_aside = stands_aside && !self.is_suspended;
        self.due = if self.is_suspended { wall } else { wall.after(delay) }.as_nanos();
    }

    fn end(&mut self, state: State, at: Time, error: Option<String>) {
        (self.state, self.ended_at, self.error) = (state, Some(at.as_nanos()), Some(error));
        (self.is_suspended, self.is_aside, self.is_parked) = (false, false, false);
    }

    /// Applies a change by a decision. `emitted_at` is that of the event. `is_known` is whether this process delivers to
    /// the destination: nothing else gives a renewed delivery up again.
    pub(super) fn change(
        &mut self,
        clock: ClockReading,
        kind: DeliveryChangeKind,
        emitted_at: i64,
        is_known: bool,
    ) {
        use DeliveryChangeKind::{Cancel, EndRenewal, Renew, Replace, Resume, Suspend};
        match (kind, self.state) {
            (Cancel, State::Open) => self.cancel(clock.wall),
            (Suspend, State::Open) => {
                (self.is_suspended, self.is_aside, self.is_parked) = (true, false, false);
            }
            (Resume, State::Open) if self.is_suspended => {
                (self.is_suspended, self.age_from) = (false, clock.now.as_nanos());
                if !self.is_in_flight(clock.wall) {
                    self.due = clock.wall.as_nanos();
                }
            }
            (EndRenewal, State::Open) => (self.age_from, self.expiry) = (emitted_at, None),
            (Renew { expires_after }, State::Dead) if self.is_expired && is_known => {
                let before = self.expiry.map(Time::from_nanos);
                self.deliver_again(clock, Some(after_renewal(clock.wall.after(expires_after), before)));
            }
            (Replace, State::Dead) => self.state = State::Replaced,
            _ => {}
        }
    }

    /// A call that is under way can still be settled by its lease.
    fn cancel(&mut self, wall: Time) {
        (self.state, self.ended_at) = (State::Superseded, Some(wall.as_nanos()));
        (self.is_suspended, self.is_aside, self.is_parked) = (false, false, false);
        if self.token.is_none() {
            self.end_call();
        }
    }

    /// A dead letter is delivered again, with this `expirytime`, as it is stored, if there is one.
    pub(super) fn deliver_again(&mut self, clock: ClockReading, expirytime: Option<Time>) {
        (self.state, self.ended_at, self.is_expired) = (State::Open, None, false);
        (self.due, self.age_from) = (clock.wall.as_nanos(), clock.now.as_nanos());
        self.expiry = expirytime.map(Time::as_nanos).or(self.expiry);
    }
}

#[cfg(test)]
mod tests;
