//! Where keys come from.

use std::sync::Arc;
use std::time::Duration;

use super::Rejection;
use super::keys::{Keys, MAX_KEY_SET_BYTES};
use super::remote::RemoteKeys;
use crate::config::access::JwksLocation;
use crate::credentials::file::{MAX_AGE, SecretFile};

/// A key set, read again when its file changes, or fetched again from time to time.
pub(in crate::credentials) enum KeySet {
    File(Arc<SecretFile<Keys>>),
    Url(Arc<RemoteKeys>),
}

impl KeySet {
    pub(in crate::credentials) fn load(location: &JwksLocation, used_by: &str) -> Self {
        match location {
            JwksLocation::File(path) => {
                Self::File(SecretFile::load(path, MAX_KEY_SET_BYTES, used_by, |text, _| Keys::parse(text)))
            }
            JwksLocation::Url { url, http } => Self::Url(RemoteKeys::start(url, http, used_by)),
        }
    }

    pub(in crate::credentials) fn set_used_by(&self, used_by: &str) {
        match self {
            Self::File(file) => file.set_used_by(used_by),
            Self::Url(keys) => keys.set_used_by(used_by),
        }
    }

    /// The keys, fetched now if there are none yet.
    pub(super) async fn current(&self) -> Result<Arc<Keys>, Rejection> {
        match self {
            Self::File(file) => file.current(MAX_AGE).await.map_err(Rejection::Unavailable),
            Self::Url(keys) => keys.current().await,
        }
    }

    /// The keys that have replaced `known`, for a token whose key is not among these.
    pub(super) async fn newer_than(&self, known: &Arc<Keys>) -> Result<Option<Arc<Keys>>, Rejection> {
        match self {
            Self::File(file) => {
                let keys = file.current(Duration::ZERO).await.map_err(Rejection::Unavailable)?;
                Ok((!Arc::ptr_eq(&keys, known)).then_some(keys))
            }
            Self::Url(keys) => keys.newer_than(known).await,
        }
    }

    /// The keys that are there.
    pub(super) fn cached(&self) -> Option<Arc<Keys>> {
        match self {
            Self::File(file) => file.last().ok(),
            Self::Url(keys) => keys.cached(),
        }
    }
}
