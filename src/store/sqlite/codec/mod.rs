//! Stored forms of states, events, records and lists; no SQL but that of event blocks.

pub(crate) mod compression;
pub(crate) mod event_blocks;
pub(crate) mod firing_events;
pub(crate) mod states;
