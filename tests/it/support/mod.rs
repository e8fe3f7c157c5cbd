//! What tests are written with: a bridge, a local AWS, Prometheus and Alertmanager.

pub mod bridge;
pub mod queue;
pub mod tools;
