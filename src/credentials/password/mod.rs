//! Users and passwords: files of bcrypt hashes, and comparisons that cannot be used to starve the bridge.

mod compare;
mod table;
mod users_file;

pub(super) use compare::{Comparisons, Outcome};
pub(super) use table::UserTable;
