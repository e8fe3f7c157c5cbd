//! Platforms without emulators, against servers of our own that speak their protocols: Kubernetes and Nomad. The tests of
//! `kubectl` check that the first one is what real clients expect.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod api_server;
#[allow(dead_code, reason = "the bridge's tests use more of it")]
#[path = "../../../../tests/it/support/certificates.rs"]
mod certificates;
mod eks;
mod kubectl;
mod kubernetes;
mod nomad;
mod nomad_server;
mod rbac;
mod whole;
mod wire;
