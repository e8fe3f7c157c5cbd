//! What the destinations in AWS share: settings, credentials and clients, error classes, ARNs and IAM
//! permissions.

mod clients;
mod credentials;
mod errors;
mod page;
mod permission;
mod response;
mod settings;

pub(super) use clients::{Configs, Key, SharedClients};
pub(super) use credentials::{CredentialsHandle, CredentialsReload};
pub(super) use errors::entry_failure;
pub(crate) use permission::{ArnDefaults, Permission, partition};
pub(super) use response::BoundedResponse;
#[cfg(test)]
pub(super) use settings::Role;
pub(super) use settings::{Access, effective_region, endpoint, host_and_path, role};
