//! Prometheus and Alertmanager, as in the tests of the bridge.

#[path = "../../../../tests/it/support/prometheus.rs"]
pub(crate) mod prometheus;
#[path = "../../../../tests/it/support/tools.rs"]
pub(crate) mod tools;
