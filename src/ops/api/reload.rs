//! Reloads.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The result of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ReloadReport {
    /// Changes that were applied; empty if nothing has changed.
    pub changed: Vec<String>,
    /// Sections that have changed in the files and need a restart to take effect.
    pub needs_restart: Vec<String>,
    /// Warnings about the configuration, one diagnostic each.
    pub warnings: Vec<String>,
}
