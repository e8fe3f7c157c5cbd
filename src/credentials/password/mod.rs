//! Users and passwords: files of bcrypt hashes, and comparisons that cannot be used to starve the bridge.

mod compare;
mod queue;
mod table;

pub(super) use compare::{Attempt, Comparisons, Outcome};
pub(super) use table::UserTable;
