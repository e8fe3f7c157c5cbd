//! Queues of SQS with notifications: as they are, or in an envelope of SNS.
//!
//! Amazon Managed Service for Prometheus sends alerts to SNS only, and SNS keeps them in a queue while the bridge does not
//! run. [`Queue`] has the calls of SQS, [`open`] reads a message. Who polls, and what is deleted when, is in `intake`.

mod message;
mod queue;
pub(super) mod schema;
pub(super) mod settings;

pub(crate) use message::open;
pub(super) use message::parse;
pub(crate) use queue::{Clients, Queue, QueueMessage};
pub(crate) use settings::Settings;
