//! Keys of an identity provider, fetched by HTTP.
//!
//! They are fetched at the start, then every [`REFRESH_INTERVAL`]; if that fails the last keys stay valid. A token with
//! an unknown key fetches them too, at most once in [`DEMAND_INTERVAL`]: a sender of tokens with random key
//! ids must not make the bridge overload the provider. Until they may be fetched again, such a token may be forged or be
//! signed with a new key, so the answer is 503 and its sender retries.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::Rejection;
use super::keys::{Keys, MAX_KEY_SET_BYTES};
use crate::config::access::HttpClient;
use crate::config::byte_order_mark;
use crate::credentials::outgoing::{OutgoingClient, shown_url};

/// The interval of fetching in the background.
const REFRESH_INTERVAL: Duration = Duration::from_secs(5 * 60);

/// The same after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// The minimum interval of fetches that requests cause.
const DEMAND_INTERVAL: Duration = Duration::from_secs(60);

/// The same as long as there are no keys at all.
const FIRST_DEMAND_INTERVAL: Duration = Duration::from_secs(10);

/// The timeout of a fetch.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for a fetch: shorter than the timeout of Alertmanager, which then sends it again.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Requests that wait for a fetch. More than that would hold the places of other requests.
const MAX_WAITING: usize = 16;

pub(in crate::credentials) struct RemoteKeys {
    url: String,
    client: OutgoingClient,
    used_by: Mutex<String>,
    state: Mutex<State>,
    /// Held by the one task that fetches.
    fetching: Arc<tokio::sync::Mutex<()>>,
    waiting: Semaphore,
    background: OnceLock<AbortHandle>,
}

#[derive(Default)]
struct State {
    keys: Option<Arc<Keys>>,
    /// Why the last fetch failed, with the URL.
    error: Option<Arc<str>>,
    fetched_at: Option<Instant>,
    demanded_at: Option<Instant>,
}

impl RemoteKeys {
    /// Starts fetching, and fetches again in the background until it is dropped. Outside of a runtime, only requests
    /// fetch.
    pub(super) fn start(url: &str, http: &HttpClient, used_by: &str) -> Arc<Self> {
        let remote = Arc::new(Self {
            url: url.to_owned(),
            client: OutgoingClient::new(http.clone()),
            used_by: Mutex::new(used_by.to_owned()),
            state: Mutex::default(),
            fetching: Arc::default(),
            waiting: Semaphore::new(MAX_WAITING),
            background: OnceLock::new(),
        });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let weak = Arc::downgrade(&remote);
            let task = runtime.spawn(async move {
                while let Some(remote) = weak.upgrade() {
                    remote.fetch().await;
                    let has_failed = remote.state.lock().error.is_some();
                    drop(remote);
                    tokio::time::sleep(if has_failed { RETRY_INTERVAL } else { REFRESH_INTERVAL }).await;
                }
            });
            // It is set only here.
            let _ = remote.background.set(task.abort_handle());
        }
        remote
    }

    pub(super) fn set_used_by(&self, used_by: &str) {
        used_by.clone_into(&mut self.used_by.lock());
    }

    pub(super) fn cached(&self) -> Option<Arc<Keys>> {
        self.state.lock().keys.clone()
    }

    pub(super) async fn current(self: &Arc<Self>) -> Result<Arc<Keys>, Rejection> {
        if let Some(keys) = self.cached() {
            return Ok(keys);
        }
        self.demand(FIRST_DEMAND_INTERVAL).await?;
        self.cached().ok_or_else(|| self.unavailable("the keys have not been fetched yet"))
    }

    pub(super) async fn newer_than(
        self: &Arc<Self>,
        known: &Arc<Keys>,
    ) -> Result<Option<Arc<Keys>>, Rejection> {
        let newer = || self.cached().filter(|keys| !Arc::ptr_eq(keys, known));
        if let Some(keys) = newer() {
            return Ok(Some(keys));
        }
        // Not unavailable: there are keys, and a stranger whose key is unknown must not make gaps while the provider is
        // down.
        self.demand(DEMAND_INTERVAL).await.map_err(|_| Rejection::Busy)?;
        newer().map(Some).ok_or(Rejection::Busy)
    }

    /// Fetches the keys, or waits for a fetch, unless a request has demanded that within `interval`. An error if the
    /// last fetch has failed.
    async fn demand(self: &Arc<Self>, interval: Duration) -> Result<(), Rejection> {
        let now = Instant::now();
        let is_due = {
            let mut state = self.state.lock();
            let is_due = state.demanded_at.is_none_or(|at| now.saturating_duration_since(at) >= interval);
            if is_due {
                state.demanded_at = Some(now);
            }
            is_due
        };
        if is_due || self.fetching.try_lock().is_err() {
            let Ok(_place) = self.waiting.try_acquire() else { return Err(Rejection::Busy) };
            if tokio::time::timeout(MAX_WAIT, self.fetch()).await.is_err() {
                return Err(self.unavailable(&format!("no answer within {} s", MAX_WAIT.as_secs())));
            }
        }
        let error = self.state.lock().error.clone();
        error.map_or(Ok(()), |error| Err(Rejection::Unavailable(error)))
    }

    fn unavailable(&self, cause: &str) -> Rejection {
        Rejection::Unavailable(format!("{}: {cause}", shown_url(&self.url)).into())
    }

    /// Fetches the keys, unless another task has done so in the meantime.
    async fn fetch(self: &Arc<Self>) {
        let asked_at = Instant::now();
        let guard = self.fetching.clone().lock_owned().await;
        let is_fetched = self.state.lock().fetched_at.is_some_and(|at| at > asked_at);
        if is_fetched {
            return;
        }
        let remote = self.clone();
        // A task of its own: a request that gives up does not stop it, and the guard is held until it ends.
        let fetch = tokio::spawn(async move {
            let _guard = guard;
            let body = remote.client.get(&remote.url, MAX_KEY_SET_BYTES, FETCH_TIMEOUT).await;
            let text = body.map_err(|error| error.to_string()).and_then(|mut body| {
                byte_order_mark::strip(&mut body);
                String::from_utf8(body).map_err(|_| "the key set is not UTF-8 text".to_owned())
            });
            remote.store(text.and_then(|text| Keys::parse(&text)));
        });
        if let Err(error) = fetch.await
            && error.is_panic()
        {
            tracing::error!(url = shown_url(&self.url), %error, "fetching keys failed");
        }
    }

    fn store(&self, keys: Result<Keys, String>) {
        let (url, used_by) = (shown_url(&self.url), self.used_by.lock().clone());
        let mut state = self.state.lock();
        state.fetched_at = Some(Instant::now());
        match keys {
            Ok(keys) => {
                if state.error.take().is_some() {
                    tracing::info!(url, used_by, "key set available again");
                }
                state.keys = Some(Arc::new(keys));
            }
            Err(cause) => {
                if state.error.is_none() {
                    let has_keys = state.keys.is_some();
                    tracing::error!(url, used_by, error = cause, has_keys, "key set unavailable, retrying");
                }
                state.error = Some(format!("{url}: {cause}").into());
            }
        }
    }
}

impl Drop for RemoteKeys {
    fn drop(&mut self) {
        if let Some(background) = self.background.get() {
            background.abort();
        }
    }
}
