//! The identity of a heartbeat.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::name::Name;

/// The identity of a heartbeat: a source, and the values of the labels in its `heartbeat: { equal: … }`.
///
/// As text it is the source's name, followed by `/` and the percent-encoded value for each of these labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeartbeatKey(Arc<str>);

impl HeartbeatKey {
    /// The heartbeat of a source with these values of the labels in `equal`.
    pub fn with_values<'v>(source: &Name, values: impl Iterator<Item = &'v str>) -> Self {
        let mut key = source.as_str().to_owned();
        for value in values {
            key.push('/');
            key.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        Self(key.into())
    }

    /// The only heartbeat of a source without `equal`.
    pub fn for_source(source: &Name) -> Self {
        Self(source.as_str().into())
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its source.
    pub fn source(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The number of its values of labels in `equal`.
    pub fn value_count(&self) -> usize {
        self.0.matches('/').count()
    }

    /// Whether it is a heartbeat of this source.
    pub fn is_of(&self, source: &Name) -> bool {
        self.0.strip_prefix(source.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for HeartbeatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
