//! The integration tests: one binary, one file for each promise, all through public doors.

mod delivery;
mod end_to_end;
mod layers;
mod serve;
mod store;
mod support;
mod survival;
mod webhook;
