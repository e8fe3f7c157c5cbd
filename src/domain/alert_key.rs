//! Identity of an alert.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::name::Name;

/// The identity of an alert: its source and Alertmanager's hash of its labels.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AlertKey {
    /// The source that sent the alert.
    pub source: Name,
    /// Alertmanager's fingerprint, usually 16 hex digits.
    pub fingerprint: Arc<str>,
}

impl fmt::Debug for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.fingerprint)
    }
}
