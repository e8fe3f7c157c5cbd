//! Stored forms of states, events, records and lists; no SQL but the two tables of compressed texts.

pub(crate) mod compression;
pub(crate) mod dictionaries;
pub(crate) mod event_blocks;
pub(crate) mod firing_events;
