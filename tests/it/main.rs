//! The integration tests: one binary, one file for each promise, all through public doors.

#![expect(clippy::expect_used, reason = "a test that cannot go on says why and fails")]

mod admin_api;
mod backlog;
mod characters;
mod cli;
mod delivery;
mod docs;
mod end_to_end;
mod faults;
mod full_disk;
mod guards;
mod layers;
mod migration;
mod reload;
mod restart;
mod serve;
mod sigkill;
mod store;
mod storm;
mod support;
mod survival;
mod webhook;
