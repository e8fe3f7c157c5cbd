//! The credentials in force, and which of the bridge's own secrets cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::config::access::SourceAuth;
use crate::credentials::{
    AdminCredentials, Check, Denied, Presented, Principal, SignedRequest, SourceCredentials,
};
use crate::domain::name::Name;
use crate::kinds::Settings;

/// The credentials of the active settings. A reload replaces them.
pub(crate) struct ActiveCredentials {
    sources: ArcSwap<OfSources>,
    admin: ArcSwap<AdminCredentials>,
    unreadable: Mutex<Unreadable>,
    /// Whether `unreadable` has an entry: most checks do not lock.
    has_unreadable: AtomicBool,
}

/// The credentials of all configured sources.
struct OfSources {
    credentials: SourceCredentials,
    /// Those that accept requests.
    configured: BTreeSet<Name>,
}

/// What could not be read by the last check that needed it: a file or URL with the cause. By source; `None` is the admin
/// listener.
type Unreadable = BTreeMap<Option<Name>, String>;

impl ActiveCredentials {
    /// The credentials of the settings, made within the runtime.
    pub(crate) fn new(settings: &Settings) -> Self {
        let web_config = settings.server.access.web_config.as_ref();
        let sources = OfSources {
            credentials: SourceCredentials::new(&settings.source_auth, web_config),
            configured: settings.source_auth.keys().cloned().collect(),
        };
        let admin = AdminCredentials::new(&settings.admin.auth, settings.admin.access.web_config.as_ref());
        Self {
            sources: ArcSwap::from_pointee(sources),
            admin: ArcSwap::from_pointee(admin),
            unreadable: Mutex::default(),
            has_unreadable: AtomicBool::new(false),
        }
    }

    /// Replaces the credentials by those of reloaded settings.
    pub(crate) fn reload(&self, settings: &Settings) {
        let web_config = settings.server.access.web_config.as_ref();
        let sources = OfSources {
            credentials: self.sources.load().credentials.reloaded(&settings.source_auth, web_config),
            configured: settings.source_auth.keys().cloned().collect(),
        };
        self.sources.store(Arc::new(sources));
        let admin = self.admin.load();
        let web_config = settings.admin.access.web_config.as_ref();
        self.admin.store(admin.reloaded(&settings.admin.auth, web_config).into());
        // What is still unreadable is found by the next check.
        self.unreadable.lock().clear();
        self.has_unreadable.store(false, Ordering::Relaxed);
    }

    /// Whether a request with these credentials may send to `source`.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) async fn check_source(
        &self,
        source: &Name,
        presented: Presented<'_>,
    ) -> Result<Check, Denied> {
        let sources = self.sources.load_full();
        let OfSources { credentials, configured } = &*sources;
        if !configured.contains(source) {
            // It is being removed by a reload.
            return Err(Denied::Busy);
        }
        if credentials.is_open(source) {
            return Ok(Check::Passed);
        }
        let checked = credentials.check(source, presented).await;
        // Of a signature, nothing has been read yet.
        if !matches!(checked, Ok(Check::Signed(_))) {
            self.remember(|| Some(source.clone()), &checked);
        }
        checked
    }

    /// Whether a request to `source` may send this body, as it was sent.
    ///
    /// # Errors
    /// Why it may not.
    pub(crate) async fn check_signature(
        &self,
        source: &Name,
        request: &SignedRequest,
        body: &Bytes,
    ) -> Result<(), Denied> {
        let checked = request.check(body).await;
        self.remember(|| Some(source.clone()), &checked);
        checked
    }

    /// Who uses the admin listener with these credentials; `None` if it asks for none.
    ///
    /// # Errors
    /// Why the request is denied.
    pub(crate) async fn check_admin(&self, presented: Presented<'_>) -> Result<Option<Principal>, Denied> {
        let credentials = self.admin.load_full();
        if credentials.is_open() {
            return Ok(None);
        }
        let checked = credentials.check(presented).await;
        self.remember(|| None, &checked);
        checked.map(Some)
    }

    /// Only a request that is accepted shows that everything can be read.
    fn remember<T>(&self, place: impl FnOnce() -> Option<Name>, checked: &Result<T, Denied>) {
        match checked {
            Err(Denied::Unavailable(error)) => {
                self.unreadable.lock().insert(place(), error.clone());
                self.has_unreadable.store(true, Ordering::Relaxed);
            }
            Ok(_) if self.has_unreadable.load(Ordering::Relaxed) => {
                let mut unreadable = self.unreadable.lock();
                unreadable.remove(&place());
                self.has_unreadable.store(!unreadable.is_empty(), Ordering::Relaxed);
            }
            _ => {}
        }
    }

    /// What cannot be read for a source.
    pub(super) fn unreadable(&self, source: &Name) -> Option<String> {
        self.unreadable.lock().get(&Some(source.clone())).cloned()
    }

    /// What cannot be read, by source, or `admin.listen`.
    pub(super) fn all_unreadable(&self) -> BTreeMap<String, String> {
        let place = |place: &Option<Name>| {
            place.as_ref().map_or_else(|| "admin.listen".to_owned(), ToString::to_string)
        };
        self.unreadable.lock().iter().map(|(at, error)| (place(at), error.clone())).collect()
    }
}

/// The kinds of credentials that a source accepts; empty if it asks for none.
pub(super) fn kinds_of_source(settings: &Settings, source: &Name) -> Vec<&'static str> {
    let auth = settings.source_auth.get(source).filter(|auth| !auth.is_empty());
    let Some(SourceAuth { bearer_token_files, basic_auth_users_file, client_cert, jwt, hmac }) = auth else {
        let web_config = settings.server.access.web_config.as_ref();
        let has_users = web_config.is_some_and(|config| !config.basic_auth_users.is_empty());
        return if has_users { vec!["basic"] } else { Vec::new() };
    };
    let kinds = [
        ("bearer", !bearer_token_files.is_empty()),
        ("basic", basic_auth_users_file.is_some()),
        ("client_cert", client_cert.is_some()),
        ("jwt", jwt.is_some()),
        ("hmac", hmac.is_some()),
    ];
    kinds.into_iter().filter(|(_, accepted)| *accepted).map(|(kind, _)| kind).collect()
}
