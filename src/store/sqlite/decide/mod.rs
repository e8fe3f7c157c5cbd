//! Decisions as data: what a decision has read, and what it writes.

pub(crate) mod read_set;
pub(crate) mod write_set;
