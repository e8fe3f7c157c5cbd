//! The tables that commands change. Each function gets the connection and the batch; it writes rows at once, and
//! stages what the commit publishes in memory.

pub(crate) mod audit;
pub(crate) mod compensation;
pub(crate) mod dead_letters;
pub(crate) mod deliveries;
pub(crate) mod delivery_changes;
pub(crate) mod delivery_status;
pub(crate) mod events;
pub(crate) mod history;
pub(crate) mod notifications;
pub(crate) mod receipts;
pub(crate) mod routes;
pub(crate) mod states;
