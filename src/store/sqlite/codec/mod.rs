//! Stored forms of states, events, records and lists; no SQL but that of event blocks.

pub(crate) mod any;
pub(crate) mod compression;
pub(crate) mod event_blocks;
pub(crate) mod firing_events;
pub(crate) mod receipts;
pub(crate) mod states;
pub(crate) mod tracked_events;
mod varint;
