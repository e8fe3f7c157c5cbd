//! What tests are written with: a bridge, a local AWS, Prometheus and Alertmanager.

pub mod bridge;
pub mod disk;
pub mod ledger;
pub mod load;
pub mod queue;
pub mod schema;
pub mod sqs_stub;
pub mod tools;
