//! Reading and adding what has happened.

pub(super) mod audit;
pub(super) mod events;
pub(super) mod notifications;
pub(super) mod records;
pub(super) mod states;
