//! Clients of AWS: for each account and region, with the credentials of the role of the account.

pub(crate) mod errors;

use std::collections::HashMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use tokio::sync::Mutex;

/// Of a connection, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Of a whole call: credentials, connection and retries of reads included. A change that is called is made within
/// [`CALL_WINDOW`](crate::plan::CALL_WINDOW) and the time of two reads and this one, which is less than
/// [`MAX_HOLD`](crate::plan::MAX_HOLD).
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// The attempts of a read. A write has one: it could be sent again when its answer is lost.
const READ_ATTEMPTS: u32 = 3;
/// In CloudTrail.
const SESSION_NAME: &str = "scalebridge-scaler";

/// A role of an account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Role {
    pub arn: String,
    /// What the role's trust policy requires.
    pub external_id: Option<String>,
}

/// The clients of all accounts and regions. Each is made once: with its connections and credentials, which the SDK
/// renews before they expire.
#[derive(Debug)]
pub struct Accounts {
    base: SdkConfig,
    known: Mutex<HashMap<(String, Option<Role>), Account>>,
}

/// The clients of one account in one region. The connections are opened by the first calls.
#[derive(Debug, Clone)]
pub struct Account {
    pub eks: aws_sdk_eks::Client,
    pub autoscaling: aws_sdk_autoscaling::Client,
    pub ecs: aws_sdk_ecs::Client,
    pub application_autoscaling: aws_sdk_applicationautoscaling::Client,
    /// Those of the clients, for what is signed without one.
    pub credentials: Option<SharedCredentialsProvider>,
    pub region: String,
}

/// The SDK's configuration, of its default sources; among them `AWS_ENDPOINT_URL` and `AWS_ENDPOINT_URL_EKS`. Without
/// `region`, that comes from them, too, if they have one.
pub async fn config(region: Option<&str>) -> SdkConfig {
    let loader = aws_config::defaults(BehaviorVersion::latest());
    match region {
        Some(region) => loader.region(Region::new(region.to_owned())),
        None => loader,
    }
    .load()
    .await
}

impl Accounts {
    /// Those that `base` has access to, itself or by roles. Its region is used nowhere.
    pub fn new(base: SdkConfig) -> Self {
        let timeouts =
            TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(CALL_TIMEOUT).build();
        let base = base
            .into_builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            // The timeout of the call bounds it; the protection costs a task and a timer for each call.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self { base, known: Mutex::default() }
    }

    /// The clients of the account that `role` belongs to, or of the scaler's own account.
    pub async fn account(&self, region: &str, role: Option<&Role>) -> Account {
        let place = (region.to_owned(), role.cloned());
        let mut known = self.known.lock().await;
        if let Some(account) = known.get(&place) {
            return account.clone();
        }
        let config = self.base.clone().into_builder().region(Region::new(region.to_owned())).build();
        let account = Account::new(&match role {
            Some(role) => assume(config, role).await,
            None => config,
        });
        known.insert(place, account.clone());
        account
    }
}

impl Account {
    pub(crate) fn new(config: &SdkConfig) -> Self {
        Self {
            eks: aws_sdk_eks::Client::new(config),
            autoscaling: aws_sdk_autoscaling::Client::new(config),
            ecs: aws_sdk_ecs::Client::new(config),
            application_autoscaling: aws_sdk_applicationautoscaling::Client::new(config),
            credentials: config.credentials_provider(),
            region: config.region().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

/// The same with the credentials of the role. It is assumed by the first call, and in the region of the calls.
async fn assume(config: SdkConfig, role: &Role) -> SdkConfig {
    let mut provider = AssumeRoleProvider::builder(&role.arn).session_name(SESSION_NAME).configure(&config);
    if let Some(external_id) = &role.external_id {
        provider = provider.external_id(external_id);
    }
    let provider = SharedCredentialsProvider::new(provider.build().await);
    config.into_builder().credentials_provider(provider).build()
}

/// What a read overrides: nothing is changed by it twice.
pub(crate) fn read_retries() -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(READ_ATTEMPTS)
        .with_initial_backoff(Duration::from_millis(200))
        .with_max_backoff(Duration::from_secs(1))
}
