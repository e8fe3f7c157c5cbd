//! The SDK configuration of the clients, and the credentials of roles.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;

use super::credentials::{CredentialsHandle, CredentialsReload, RenewableCredentials};
use super::settings::{Access, Role};
use crate::domain::name::Name;

/// The time limit for a connection, including TLS. The destination's `timeout` limits the whole call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum length of a session name in STS.
const MAX_SESSION_CHARS: usize = 64;

/// The configurations of clients:
///
/// - Credentials and endpoints come from the SDK's default chain, including `AWS_ENDPOINT_URL_SQS` and
///   the like, resolved once per region. The `region` of a destination (or that of its URL or ARN) and its
///   `endpoint_url` take precedence.
/// - With a role, credentials come from STS, with a session named after the destination (the first one
///   if several share it).
/// - Credentials are cached until they expire, are refused or the configuration is reloaded, see
///   [`RenewableCredentials`]; the SDK's own cache is off.
/// - The SDK's retries are disabled: they could send an event that has expired meanwhile, and would
///   occupy a call of the worker.
/// - Two timeouts apply: for connecting, and for the whole call. They bound a hanging connection, so the
///   SDK's stalled stream protection, which costs a task and a timer per call, is disabled.
#[derive(Debug, Default)]
pub(crate) struct Configs {
    base_configs: HashMap<Option<String>, Config>,
    role_configs: HashMap<(Option<String>, Role), Config>,
    reload: CredentialsReload,
}

/// The configuration of clients, with their credentials.
#[derive(Debug, Clone)]
struct Config {
    sdk: SdkConfig,
    credentials: Vec<RenewableCredentials>,
}

/// A client and its credentials.
#[derive(Debug, Clone)]
pub(crate) struct Client<C> {
    pub(crate) sdk: C,
    pub(crate) credentials: CredentialsHandle,
}

/// Destinations of a kind with equal keys share a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    access: Access,
    timeout: Duration,
}

/// The clients of one service. Destinations with the same region, endpoint, role and timeout share one and
/// its connections. The pool is the SDK's default, which closes connections that are idle for 90 seconds; the
/// concurrency of the workers bounds their number.
pub(crate) type SharedClients<C> = HashMap<Key, Client<C>>;

/// Why a destination cannot be connected. Missing queues and functions are not detected here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("destination `{0}` has no region: set its `region` or AWS_REGION")]
    NoRegion(Name),
}

impl Key {
    pub(crate) fn new(access: &Access, timeout: Duration) -> Self {
        Self { access: access.clone(), timeout }
    }

    /// The endpoint that takes precedence over those of the SDK.
    pub(crate) fn endpoint_url(&self) -> Option<&str> {
        self.access.endpoint_url.as_deref()
    }

    /// The timeouts of one call. Without retries, the operation has a single attempt.
    pub(crate) fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(self.timeout).build()
    }
}

impl Configs {
    /// None yet. Their credentials are loaded anew on each `reload`.
    pub(crate) fn new(reload: CredentialsReload) -> Self {
        Self { reload, ..Self::default() }
    }

    /// The client of `key` in `clients`, or a new one. The connection is opened by the first call.
    pub(crate) async fn client<C: Clone>(
        &mut self,
        clients: &mut SharedClients<C>,
        destination: &Name,
        key: &Key,
        build: impl FnOnce(&SdkConfig) -> C,
    ) -> Result<Client<C>, ConnectError> {
        if let Some(client) = clients.get(key) {
            return Ok(client.clone());
        }
        let Config { sdk, credentials } = self.config_for(destination, &key.access).await?;
        let client = Client { sdk: build(&sdk), credentials: CredentialsHandle::new(credentials) };
        clients.insert(key.clone(), client.clone());
        Ok(client)
    }

    /// The base configuration with the credentials of the destination's role.
    async fn config_for(&mut self, name: &Name, access: &Access) -> Result<Config, ConnectError> {
        let base_config = self.base_config(name, access.region.as_ref()).await?.clone();
        let Some(role) = &access.role else { return Ok(base_config) };
        let role_key = (access.region.clone(), role.clone());
        if !self.role_configs.contains_key(&role_key) {
            let Config { sdk, credentials: base_credentials } = base_config;
            let session = assumed_role(role.clone(), session_name(name), sdk.clone());
            let own = RenewableCredentials::new(self.reload.clone(), session);
            let sdk = with_credentials(sdk, &own);
            let credentials = [vec![own], base_credentials].concat();
            self.role_configs.insert(role_key.clone(), Config { sdk, credentials });
        }
        Ok(self.role_configs[&role_key].clone())
    }

    async fn base_config(&mut self, name: &Name, region: Option<&String>) -> Result<&Config, ConnectError> {
        let key = region.cloned();
        if !self.base_configs.contains_key(&key) {
            let mut loader = aws_config::defaults(BehaviorVersion::latest())
                .retry_config(RetryConfig::disabled())
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
            if let Some(region) = region {
                loader = loader.region(Region::new(region.clone()));
            }
            let credentials = RenewableCredentials::new(self.reload.clone(), default_chain(key.clone()));
            let sdk =
                loader.credentials_provider(credentials.clone()).identity_cache(IdentityCache::no_cache());
            let config = Config { sdk: sdk.load().await, credentials: vec![credentials] };
            self.base_configs.insert(key.clone(), config);
        }
        self.base_configs
            .get(&key)
            .filter(|config| config.sdk.region().is_some())
            .ok_or_else(|| ConnectError::NoRegion(name.clone()))
    }
}

#[cfg(test)]
impl Configs {
    /// Configurations whose base for `region` is `config`.
    pub(crate) fn with_base(region: &str, config: SdkConfig) -> Self {
        let config = Config { sdk: config, credentials: Vec::new() };
        let base_configs = HashMap::from([(Some(region.to_owned()), config)]);
        Self { base_configs, ..Self::default() }
    }

    /// The same, whose credentials come from a file.
    #[expect(deprecated, reason = "their successors are in a crate that is no dependency")]
    pub(crate) fn with_credentials_file(
        region: &str,
        config: SdkConfig,
        file: std::path::PathBuf,
        reload: CredentialsReload,
    ) -> Self {
        use aws_config::profile::ProfileFileCredentialsProvider;
        use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
        let credentials = RenewableCredentials::new(reload.clone(), move || {
            let files = ProfileFiles::builder().with_file(ProfileFileKind::Credentials, &file).build();
            let provider = ProfileFileCredentialsProvider::builder().profile_files(files).build();
            std::future::ready(SharedCredentialsProvider::new(provider))
        });
        let config = Config { sdk: with_credentials(config, &credentials), credentials: vec![credentials] };
        Self { base_configs: HashMap::from([(Some(region.to_owned()), config)]), reload, ..Self::default() }
    }

    /// The numbers of base configurations and of roles.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.base_configs.len(), self.role_configs.len())
    }
}

/// A configuration with other credentials, which are not cached by the SDK.
fn with_credentials(config: SdkConfig, credentials: &RenewableCredentials) -> SdkConfig {
    let provider = SharedCredentialsProvider::new(credentials.clone());
    config.into_builder().credentials_provider(provider).identity_cache(IdentityCache::no_cache()).build()
}

/// Builds the SDK's default provider.
fn default_chain(
    region: Option<String>,
) -> impl Fn() -> Pin<Box<dyn Future<Output = SharedCredentialsProvider> + Send>> {
    move || {
        let mut chain = DefaultCredentialsChain::builder();
        if let Some(region) = &region {
            chain = chain.region(Region::new(region.clone()));
        }
        Box::pin(async move { SharedCredentialsProvider::new(chain.build().await) })
    }
}

/// Builds the provider of a session of a role.
fn assumed_role(
    role: Role,
    session: String,
    config: SdkConfig,
) -> impl Fn() -> Pin<Box<dyn Future<Output = SharedCredentialsProvider> + Send>> {
    move || {
        let mut provider = AssumeRoleProvider::builder(&role.arn).session_name(&session).configure(&config);
        if let Some(external_id) = &role.external_id {
            provider = provider.external_id(external_id);
        }
        Box::pin(async move { SharedCredentialsProvider::new(provider.build().await) })
    }
}

/// The session name in CloudTrail. Names consist of characters that STS allows.
fn session_name(name: &Name) -> String {
    let mut session = format!("scalebridge-{name}");
    session.truncate(MAX_SESSION_CHARS);
    session
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_after_its_destination() {
        let name = |text: &str| session_name(&Name::new(text).unwrap());
        assert_eq!(name("scaling-queue"), "scalebridge-scaling-queue");
        assert_eq!(name(&"x".repeat(63)).len(), MAX_SESSION_CHARS);
    }
}
