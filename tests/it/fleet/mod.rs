//! Many replicas on one PostgreSQL database.

mod alertmanagers;
mod clocks;
mod controls;
mod failover;
mod faults;
mod gaps;
mod twins;
