//! What this process keeps in memory about the file, and the changes that a batch has staged on top of it.
//!
//! Everything here is as of the last commit: the writer publishes a batch after its commit, and other threads read
//! it without the writer.

pub(crate) mod clock;
pub(crate) mod controls;
pub(crate) mod index;
pub(crate) mod lane_changes;
pub(crate) mod quarantine;
pub(crate) mod recheck_queue;
pub(crate) mod staged;
