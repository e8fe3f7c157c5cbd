//! Decisions as data: what a decision has read, what it writes, and deciding before the writer does.

pub(crate) mod optimistic;
pub(crate) mod read_set;
pub(crate) mod write_set;
