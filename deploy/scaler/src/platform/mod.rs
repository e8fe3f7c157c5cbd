//! The platforms: each reads and sets the capacity of one target.

mod call;
pub mod kubernetes;
pub mod nomad;
