//! What the destinations and sources in AWS share: settings, credentials and clients, error classes, ARNs and IAM
//! permissions.

mod arn;
mod clients;
mod credentials;
mod errors;
mod page;
mod permission;
mod queue;
mod response;
mod settings;

pub(crate) use arn::{Arn, is_identifier};
pub(crate) use clients::{Configs, ConnectError, Key, SharedClients};
pub(crate) use credentials::{CredentialsHandle, CredentialsReload};
pub(crate) use errors::{entry_failure, entry_failure_without_fault, is_code, missing_answer};
pub(crate) use permission::{ArnDefaults, Permission, partition};
pub(crate) use queue::{QUEUE_URL, queue_arn, queue_region, queue_url};
pub(crate) use response::{BOUNDED_RESPONSE, ResponseLimit};
#[cfg(test)]
pub(crate) use settings::Role;
pub(crate) use settings::{Access, effective_region, endpoint, role};
