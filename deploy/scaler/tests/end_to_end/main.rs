//! From a notification of Alertmanager, or from a rule of Prometheus, to a changed capacity: the bridge and the scaler as
//! they are built, with emulators of AWS.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[allow(dead_code, reason = "the tests of the platforms use more of it")]
#[path = "../platforms/api_server/mod.rs"]
mod api_server;
mod bridge;
mod by_lambda;
mod by_stack;
mod by_worker;
#[allow(dead_code, reason = "the bridge's tests use more of it")]
#[path = "../../../../tests/it/support/certificates.rs"]
mod certificates;
mod journey;
mod kills;
mod process;
mod setup;
#[allow(dead_code, reason = "the bridge's tests use more of it")]
mod support;
#[allow(dead_code, reason = "the library's tests use more of it")]
#[path = "../support/mod.rs"]
mod test_support;
#[allow(dead_code, reason = "the tests of the platforms use more of it")]
#[path = "../platforms/wire.rs"]
mod wire;
