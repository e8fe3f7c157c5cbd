//! Many replicas on one PostgreSQL database.

mod clocks;
mod failover;
mod faults;
mod twins;
