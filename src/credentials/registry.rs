//! The files and key sets that the credentials of one listener use. What several sources name is read once, and what a
//! reload leaves as it was keeps its caches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{FileError, MAX_AGE, MAX_SECRET_BYTES, SecretFile};
use super::jwt::{KeySet, Verifier};
use super::password::{Comparisons, UserTable};
use super::signature::{KeyFile, VerifyingKey};
use super::tls::crypto_provider;
use super::token::TokenDigest;
use crate::config::access::{JwksLocation, JwtAuth, WebConfig};

pub(super) type TokenFile = Arc<SecretFile<TokenDigest>>;

pub(super) struct Registry {
    tokens: BTreeMap<PathBuf, TokenFile>,
    verifying_keys: BTreeMap<PathBuf, KeyFile>,
    users: BTreeMap<PathBuf, Arc<SecretFile<UserTable>>>,
    keys: Vec<(JwksLocation, Arc<KeySet>)>,
    web_users: Option<(WebConfig, Arc<WebUsers>)>,
    pub comparisons: Arc<Comparisons>,
}

/// The users of a `web_config_file`, which are in the settings.
pub(super) struct WebUsers(Result<Arc<UserTable>, FileError>);

/// Users and their passwords.
#[derive(Clone)]
pub(super) enum Users {
    File(Arc<SecretFile<UserTable>>),
    Web(Arc<WebUsers>),
}

impl Users {
    pub(super) async fn table(&self, max_age: std::time::Duration) -> Result<Arc<UserTable>, FileError> {
        match self {
            Self::File(file) => file.current(max_age).await,
            Self::Web(users) => users.0.clone(),
        }
    }

    /// The table, as usual.
    pub(super) async fn current(&self) -> Result<Arc<UserTable>, FileError> {
        self.table(MAX_AGE).await
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        Self::with(Arc::new(Comparisons::new(random_key())))
    }

    fn with(comparisons: Arc<Comparisons>) -> Self {
        Self {
            tokens: BTreeMap::new(),
            verifying_keys: BTreeMap::new(),
            users: BTreeMap::new(),
            keys: Vec::new(),
            web_users: None,
            comparisons,
        }
    }

    /// An empty registry for reloaded settings, to be filled with `self` as the old one.
    pub(super) fn successor(&self) -> Self {
        Self::with(self.comparisons.clone())
    }

    /// The file with a token at `path`.
    pub(super) fn token(&mut self, old: &Self, path: &Path, used_by: &str) -> TokenFile {
        let load = || SecretFile::load(path, MAX_SECRET_BYTES, used_by, |text, _| TokenDigest::parse(text));
        let reuse = |file: &TokenFile| {
            file.set_used_by(used_by);
            file.clone()
        };
        let file = || old.tokens.get(path).map_or_else(load, reuse);
        self.tokens.entry(path.to_owned()).or_insert_with(file).clone()
    }

    /// The file with a key of senders at `path`.
    pub(super) fn verifying_key(&mut self, old: &Self, path: &Path, used_by: &str) -> KeyFile {
        let load = || SecretFile::load(path, MAX_SECRET_BYTES, used_by, |text, _| VerifyingKey::parse(text));
        let reuse = |file: &KeyFile| {
            file.set_used_by(used_by);
            file.clone()
        };
        let file = || old.verifying_keys.get(path).map_or_else(load, reuse);
        self.verifying_keys.entry(path.to_owned()).or_insert_with(file).clone()
    }

    /// The file with users at `path`.
    pub(super) fn users(&mut self, old: &Self, path: &Path, used_by: &str) -> Users {
        let load = || SecretFile::load(path, MAX_SECRET_BYTES, used_by, UserTable::parse);
        let reuse = |file: &Arc<SecretFile<UserTable>>| {
            file.set_used_by(used_by);
            file.clone()
        };
        let file = || old.users.get(path).map_or_else(load, reuse);
        Users::File(self.users.entry(path.to_owned()).or_insert_with(file).clone())
    }

    /// The users of a `web_config_file`, if it has any.
    pub(super) fn web_users(&mut self, old: &Self, config: Option<&WebConfig>) -> Option<Users> {
        let config = config.filter(|config| !config.basic_auth_users.is_empty())?;
        let unchanged = old.web_users.as_ref().filter(|(known, _)| known == config);
        let users = unchanged.map_or_else(
            || {
                let last = old.web_users.as_ref().and_then(|(_, users)| users.0.as_deref().ok());
                let table = UserTable::new(&config.basic_auth_users, last).map(Arc::new);
                let file = config.path.display();
                Arc::new(WebUsers(table.map_err(|cause| {
                    tracing::error!(%file, error = cause, "users unavailable, requests are denied with 503");
                    format!("{file}: basic_auth_users: {cause}").into()
                })))
            },
            |(_, users)| users.clone(),
        );
        self.web_users = Some((config.clone(), users.clone()));
        Some(Users::Web(users))
    }

    /// The verifier of tokens of these settings.
    pub(super) fn verifier(&mut self, old: &Self, settings: &JwtAuth, used_by: &str) -> Verifier {
        let at_location =
            |known: &Self| known.keys.iter().find(|(location, _)| *location == settings.keys).cloned();
        let keys = at_location(self).map(|(_, keys)| keys).unwrap_or_else(|| {
            let keys = match at_location(old) {
                Some((_, keys)) => {
                    keys.set_used_by(used_by);
                    keys
                }
                None => Arc::new(KeySet::load(&settings.keys, used_by)),
            };
            self.keys.push((settings.keys.clone(), keys.clone()));
            keys
        });
        Verifier { settings: settings.clone(), keys }
    }
}

/// A key for the hashes of passwords, of this process alone.
fn random_key() -> [u8; 32] {
    let mut key = [0; 32];
    // Without randomness from the system there is no TLS either. The hashes never leave the process: a known key makes
    // nothing guessable from outside.
    if crypto_provider().secure_random.fill(&mut key).is_err() {
        tracing::error!("the system provides no random numbers");
    }
    key
}
