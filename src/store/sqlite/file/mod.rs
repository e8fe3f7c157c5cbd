//! The database file: its schema, opening and locking it, where it may be, and checkpoints.

pub(crate) mod attachment;
pub(crate) mod checkpoint;
pub(crate) mod delivery_state;
mod file_system;
mod length;
pub(crate) mod lock;
pub(crate) mod migrations;
pub(crate) mod schema;
