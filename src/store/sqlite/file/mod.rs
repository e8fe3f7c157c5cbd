//! The database file: its schema, opening and locking it, and checkpoints.

pub(crate) mod checkpoint;
pub(crate) mod delivery_state;
pub(crate) mod migrations;
pub(crate) mod schema;
