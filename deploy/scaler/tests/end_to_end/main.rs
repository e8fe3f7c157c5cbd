//! From a notification of Alertmanager to a changed capacity: the bridge and the scaler as they are built, with emulators
//! of AWS.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bridge;
mod by_lambda;
mod by_worker;
mod kills;
mod process;
mod setup;
#[allow(dead_code, reason = "the library's tests use more of it")]
#[path = "../support/mod.rs"]
mod test_support;
