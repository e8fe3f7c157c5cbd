//! Test support: a bridge, a local AWS, Prometheus and Alertmanager.

pub(crate) mod bridge;
pub(crate) mod disk;
pub(crate) mod ledger;
pub(crate) mod load;
pub(crate) mod queue;
pub(crate) mod schema;
pub(crate) mod sources;
pub(crate) mod sqs_stub;
pub(crate) mod tools;
