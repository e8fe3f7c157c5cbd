//! Credentials that are loaded anew when a service refuses them, and on every reload of the configuration.
//!
//! The SDK's providers read a shared credentials file once, and its cache keeps credentials without an expiry for as
//! long as the process runs. A rotated file would never be read. Here the provider itself is replaced.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, Result, SharedCredentialsProvider, future};
use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::errors;
use crate::domain::failure::Failure;

/// The minimum time between two renewals because of a refusal.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// How long before their expiry credentials are renewed, and how long those without one are kept. As in the SDK.
const EXPIRY_BUFFER: Duration = Duration::from_secs(10);
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Requests that all credentials are loaded anew. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct CredentialsReload(Arc<AtomicU64>);

impl CredentialsReload {
    /// All credentials are loaded anew before their next use.
    pub(crate) fn renew(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Builds the provider of credentials, which reads its sources again.
type Build = dyn Fn() -> Pin<Box<dyn Future<Output = SharedCredentialsProvider> + Send>> + Send + Sync;

/// A provider that caches its credentials and can be told that they are not accepted any more. Clones are the same.
#[derive(Clone)]
pub(super) struct RenewableCredentials(Arc<Inner>);

struct Inner {
    build: Box<Build>,
    reload: CredentialsReload,
    /// The number of renewals because of a refusal, and the time of the last one.
    renewals: AtomicU64,
    renewed_at: Mutex<Option<Instant>>,
    /// Locked during a load, so that there is one at a time.
    loaded: tokio::sync::Mutex<Option<Loaded>>,
}

struct Loaded {
    generation: (u64, u64),
    provider: SharedCredentialsProvider,
    /// The credentials and the time from which on newer ones are loaded.
    credentials: Option<(Credentials, SystemTime)>,
}

impl RenewableCredentials {
    pub(super) fn new<F>(reload: CredentialsReload, build: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = SharedCredentialsProvider> + Send + 'static,
    {
        Self(Arc::new(Inner {
            build: Box::new(move || Box::pin(build())),
            reload,
            renewals: AtomicU64::new(0),
            renewed_at: Mutex::new(None),
            loaded: tokio::sync::Mutex::new(None),
        }))
    }

    /// A service has refused them: they are loaded anew before their next use, at most once per interval.
    fn renew(&self) {
        let now = Instant::now();
        let mut renewed_at = self.0.renewed_at.lock();
        if renewed_at.is_none_or(|last| now.duration_since(last) >= MIN_RENEWAL_INTERVAL) {
            *renewed_at = Some(now);
            self.0.renewals.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn provide(&self) -> Result {
        let mut loaded = self.0.loaded.lock().await;
        let generation = (self.0.reload.0.load(Ordering::Relaxed), self.0.renewals.load(Ordering::Relaxed));
        if loaded.as_ref().is_none_or(|loaded| loaded.generation != generation) {
            let provider = (self.0.build)().await;
            *loaded = Some(Loaded { generation, provider, credentials: None });
        }
        let Some(Loaded { provider, credentials, .. }) = &mut *loaded else { unreachable!("set above") };
        let now = SystemTime::now();
        if let Some((credentials, _)) = credentials.as_ref().filter(|(_, until)| *until > now) {
            return Ok(credentials.clone());
        }
        let fresh = provider.provide_credentials().await?;
        let until = fresh.expiry().map_or(now + DEFAULT_LIFETIME, |expiry| expiry - EXPIRY_BUFFER);
        *credentials = Some((fresh.clone(), until));
        Ok(fresh)
    }
}

impl ProvideCredentials for RenewableCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }
}

impl fmt::Debug for RenewableCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewableCredentials")
    }
}

/// The credentials of a client: those of its role, if it has one, and those of the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct CredentialsHandle(Vec<RenewableCredentials>);

impl CredentialsHandle {
    pub(super) fn new(credentials: Vec<RenewableCredentials>) -> Self {
        Self(credentials)
    }

    /// The failure of a call. If the service refused the credentials, the next call loads them anew.
    pub(crate) fn failure<E>(&self, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        if errors::refuses_credentials(error) {
            self.0.iter().for_each(RenewableCredentials::renew);
        }
        errors::failure(error)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Credentials that count how often their provider was built.
    fn counted(reload: &CredentialsReload) -> (RenewableCredentials, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counter = count.clone();
        let credentials = RenewableCredentials::new(reload.clone(), move || {
            let key = format!("key-{}", counter.fetch_add(1, Ordering::Relaxed));
            async move { SharedCredentialsProvider::new(Credentials::new(key, "secret", None, None, "test")) }
        });
        (credentials, count)
    }

    #[tokio::test(start_paused = true)]
    async fn refused_credentials_are_loaded_anew_at_most_once_a_minute() {
        let reload = CredentialsReload::default();
        let (credentials, _) = counted(&reload);
        let key = async || credentials.provide().await.unwrap().access_key_id().to_owned();
        assert_eq!([key().await, key().await], ["key-0", "key-0"]);
        credentials.renew();
        assert_eq!([key().await, key().await], ["key-1", "key-1"]);
        credentials.renew();
        tokio::time::advance(MIN_RENEWAL_INTERVAL - Duration::from_secs(1)).await;
        credentials.renew();
        assert_eq!(key().await, "key-1");
        tokio::time::advance(Duration::from_secs(1)).await;
        credentials.renew();
        assert_eq!(key().await, "key-2");
    }

    #[tokio::test]
    async fn a_reload_loads_them_anew_at_once() {
        let reload = CredentialsReload::default();
        let (credentials, count) = counted(&reload);
        for expected in 1..4 {
            credentials.provide().await.unwrap();
            credentials.provide().await.unwrap();
            assert_eq!(count.load(Ordering::Relaxed), expected);
            reload.renew();
        }
    }
}
