//! The SDK configuration of the clients, and the credentials of roles.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;

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
///   if several share it). The SDK caches them and renews them before they expire.
/// - The SDK's retries are disabled: they could send an event that has expired meanwhile, and would
///   occupy a call of the worker.
/// - Two timeouts apply: for connecting, and for the whole call. They bound a hanging connection, so the
///   SDK's stalled stream protection, which costs a task and a timer per call, is disabled.
#[derive(Debug, Default)]
pub(in crate::dispatch) struct Configs {
    base_configs: HashMap<Option<String>, SdkConfig>,
    role_configs: HashMap<(Option<String>, Role), SdkConfig>,
}

/// Destinations of a kind with equal keys share a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::dispatch) struct Key {
    access: Access,
    timeout: Duration,
}

/// The clients of one service. Destinations with the same region, endpoint, role and timeout share one and
/// its connections. The pool is the SDK's default, which closes connections that are idle for 90 seconds; the
/// concurrency of the workers bounds their number.
pub(in crate::dispatch) type SharedClients<C> = HashMap<Key, C>;

/// Why a destination cannot be connected. Missing queues and functions are not detected here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("destination `{0}` has no region: set its `region` or AWS_REGION")]
    NoRegion(Name),
}

impl Key {
    pub(in crate::dispatch) fn new(access: &Access, timeout: Duration) -> Self {
        Self { access: access.clone(), timeout }
    }

    /// The endpoint that takes precedence over those of the SDK.
    pub(in crate::dispatch) fn endpoint_url(&self) -> Option<&str> {
        self.access.endpoint_url.as_deref()
    }

    /// The timeouts of one call. Without retries, the operation has a single attempt.
    pub(in crate::dispatch) fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(self.timeout).build()
    }
}

impl Configs {
    /// The client of `key` in `clients`, or a new one. The connection is opened by the first call.
    pub(in crate::dispatch) async fn client<C: Clone>(
        &mut self,
        clients: &mut SharedClients<C>,
        destination: &Name,
        key: &Key,
        build: impl FnOnce(&SdkConfig) -> C,
    ) -> Result<C, ConnectError> {
        if let Some(client) = clients.get(key) {
            return Ok(client.clone());
        }
        let client = build(&self.config_for(destination, &key.access).await?);
        clients.insert(key.clone(), client.clone());
        Ok(client)
    }

    /// The base configuration with the credentials of the destination's role.
    async fn config_for(&mut self, name: &Name, access: &Access) -> Result<SdkConfig, ConnectError> {
        let base_config = self.base_config(name, access.region.as_ref()).await?.clone();
        let Some(role) = &access.role else { return Ok(base_config) };
        let role_key = (access.region.clone(), role.clone());
        if !self.role_configs.contains_key(&role_key) {
            let mut provider = AssumeRoleProvider::builder(&role.arn)
                .session_name(session_name(name))
                .configure(&base_config);
            if let Some(external_id) = &role.external_id {
                provider = provider.external_id(external_id);
            }
            let provider = SharedCredentialsProvider::new(provider.build().await);
            let role_config = base_config.into_builder().credentials_provider(provider).build();
            self.role_configs.insert(role_key.clone(), role_config);
        }
        Ok(self.role_configs[&role_key].clone())
    }

    async fn base_config(
        &mut self,
        name: &Name,
        region: Option<&String>,
    ) -> Result<&SdkConfig, ConnectError> {
        let key = region.cloned();
        if !self.base_configs.contains_key(&key) {
            let mut loader = aws_config::defaults(BehaviorVersion::latest())
                .retry_config(RetryConfig::disabled())
                .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
            if let Some(region) = region {
                loader = loader.region(Region::new(region.clone()));
            }
            self.base_configs.insert(key.clone(), loader.load().await);
        }
        self.base_configs
            .get(&key)
            .filter(|config| config.region().is_some())
            .ok_or_else(|| ConnectError::NoRegion(name.clone()))
    }
}

#[cfg(test)]
impl Configs {
    /// Configurations whose base for `region` is `config`.
    pub(in crate::dispatch) fn with_base(region: &str, config: SdkConfig) -> Self {
        let base_configs = HashMap::from([(Some(region.to_owned()), config)]);
        Self { base_configs, ..Self::default() }
    }

    /// The numbers of base configurations and of roles.
    pub(in crate::dispatch) fn counts(&self) -> (usize, usize) {
        (self.base_configs.len(), self.role_configs.len())
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
