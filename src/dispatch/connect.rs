//! Creates the clients of destinations from their settings.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;

use super::{ConnectedDestination, file, lambda, sqs};
use crate::config::{Destination, DestinationKind, Role};
use crate::domain::name::Name;

/// The time limit for a connection, including TLS. The destination's `timeout` limits the whole call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum length of a session name in STS.
const MAX_SESSION_CHARS: usize = 64;

/// Connects destinations. Their clients are configured as follows:
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
/// - Destinations with the same region, endpoint, role and timeout share one client and its connections.
///   The pool is the SDK's default, which closes connections that are idle for 90 seconds; the
///   concurrency of the workers bounds their number.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    base_configs: HashMap<Option<String>, SdkConfig>,
    role_configs: HashMap<(Option<String>, Role), SdkConfig>,
    sqs: HashMap<Key, aws_sdk_sqs::Client>,
    lambda: HashMap<Key, aws_sdk_lambda::Client>,
}

/// Destinations with equal keys share a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    region: Option<String>,
    endpoint_url: Option<String>,
    role: Option<Role>,
    timeout: Duration,
}

/// Why a destination cannot be connected. Missing queues and functions are not detected here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("destination `{0}` has no region: set its `region` or AWS_REGION")]
    NoRegion(Name),
}

impl Clients {
    /// Creates the client. The connection is opened by the first call.
    pub(crate) async fn connect(
        &mut self,
        destination: &Destination,
    ) -> Result<ConnectedDestination, ConnectError> {
        let Destination { name, timeout, .. } = destination;
        let key = |region: &Option<String>, endpoint_url: &Option<String>, role: &Option<Role>| Key {
            region: region.clone(),
            endpoint_url: endpoint_url.clone(),
            role: role.clone(),
            timeout: *timeout,
        };
        Ok(match &destination.kind {
            DestinationKind::Sqs(settings) => {
                let key = key(&settings.region, &settings.endpoint_url, &settings.role);
                if !self.sqs.contains_key(&key) {
                    let mut config = aws_sdk_sqs::config::Builder::from(&self.config_for(name, &key).await?);
                    config.set_timeout_config(Some(timeouts(*timeout)));
                    if let Some(endpoint) = &key.endpoint_url {
                        config.set_endpoint_url(Some(endpoint.clone()));
                    }
                    self.sqs.insert(key.clone(), aws_sdk_sqs::Client::from_conf(config.build()));
                }
                ConnectedDestination::Sqs(sqs::Sqs::new(self.sqs[&key].clone(), settings))
            }
            DestinationKind::Lambda(settings) => {
                let key = key(&settings.region, &settings.endpoint_url, &settings.role);
                if !self.lambda.contains_key(&key) {
                    let mut config =
                        aws_sdk_lambda::config::Builder::from(&self.config_for(name, &key).await?);
                    config.set_timeout_config(Some(timeouts(*timeout)));
                    if let Some(endpoint) = &key.endpoint_url {
                        config.set_endpoint_url(Some(endpoint.clone()));
                    }
                    self.lambda.insert(key.clone(), aws_sdk_lambda::Client::from_conf(config.build()));
                }
                ConnectedDestination::Lambda(lambda::Lambda::new(self.lambda[&key].clone(), settings))
            }
            DestinationKind::File(settings) => ConnectedDestination::File(file::File::new(settings)),
        })
    }

    /// The base configuration with the credentials of the destination's role.
    async fn config_for(&mut self, name: &Name, key: &Key) -> Result<SdkConfig, ConnectError> {
        let base_config = self.base_config(name, key.region.as_ref()).await?.clone();
        let Some(role) = &key.role else { return Ok(base_config) };
        let role_key = (key.region.clone(), role.clone());
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

/// The session name in CloudTrail. Names consist of characters that STS allows.
fn session_name(name: &Name) -> String {
    let mut session = format!("scalebridge-{name}");
    session.truncate(MAX_SESSION_CHARS);
    session
}

/// The timeouts of one call. Without retries, the operation has a single attempt.
fn timeouts(timeout: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(timeout).build()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Delivery, InvocationType, Lambda, Sqs};
    use crate::dispatch::stub::{Reply, Request, Stub, outgoing};
    use crate::dispatch::{Class, Destination as _};

    fn destination(name: &str, kind: DestinationKind) -> Destination {
        let second = Duration::from_secs(1);
        Destination {
            max_backlog: None,
            name: Name::new(name).unwrap(),
            kind,
            delivery: Delivery {
                initial_backoff: second,
                max_backoff: second,
                max_age: second,
                scale_in_max_age: second,
            },
            concurrency: 1,
            timeout: Duration::from_secs(7),
        }
    }

    fn queue(name: &str, region: &str, endpoint_url: Option<&str>, role: Option<Role>) -> Destination {
        let sqs = Sqs {
            queue_url: format!("https://sqs.eu-west-1.amazonaws.com/123456789012/{name}"),
            fifo: false,
            region: Some(region.into()),
            endpoint_url: endpoint_url.map(Into::into),
            role,
            max_message_bytes: Sqs::MAX_MESSAGE_BYTES,
        };
        destination(name, DestinationKind::Sqs(sqs))
    }

    fn function(name: &str, endpoint_url: &str, role: Role) -> Destination {
        let lambda = Lambda {
            function: name.into(),
            qualifier: None,
            invocation_type: InvocationType::Event,
            max_events: 1,
            region: Some("eu-west-1".into()),
            endpoint_url: Some(endpoint_url.into()),
            role: Some(role),
        };
        destination(name, DestinationKind::Lambda(lambda))
    }

    fn role(external_id: Option<&str>) -> Role {
        let arn = "arn:aws:iam::123456789012:role/scaling".into();
        Role { arn, external_id: external_id.map(Into::into) }
    }

    /// Clients whose base configuration uses the stub, also for STS.
    async fn clients(stub: &Stub) -> Clients {
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(stub.credentials())
            .retry_config(RetryConfig::disabled())
            .endpoint_url(stub.url());
        let base_configs = HashMap::from([(Some("eu-west-1".to_owned()), loader.load().await)]);
        Clients { base_configs, ..Clients::default() }
    }

    /// A stub that replies to STS with `sts`, and to other calls as SQS and Lambda do.
    async fn with_sts(sts: impl Fn() -> Reply + Clone + Send + Sync + 'static) -> Stub {
        Stub::start(move |request| {
            if is_assume_role(request) {
                sts()
            } else if request.uri.contains("/functions/") {
                Reply::status(202)
            } else {
                let entry = json!({ "Id": "0", "MessageId": "m", "MD5OfMessageBody": "x" });
                Reply::ok(json!({ "Successful": [entry], "Failed": [] }))
            }
        })
        .await
    }

    fn is_assume_role(request: &Request) -> bool {
        String::from_utf8_lossy(&request.body).contains("Action=AssumeRole")
    }

    fn session(expires: &str) -> Reply {
        Reply::text(
            200,
            &format!(
                "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult>\
             <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/scaling/s</Arn>\
             <AssumedRoleId>A:s</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>OFTHEROLE</AccessKeyId>\
             <SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>\
             <Expiration>{expires}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
            ),
        )
    }

    #[tokio::test]
    async fn a_client_has_its_destinations_region_and_time_and_no_retries() {
        let mut clients = Clients::default();
        let paris = queue("a", "eu-west-3", None, None);
        let dublin = queue("b", "eu-west-1", Some("http://127.0.0.1:9"), None);
        for (destination, region) in [(&paris, "eu-west-3"), (&dublin, "eu-west-1"), (&paris, "eu-west-3")] {
            let ConnectedDestination::Sqs(sqs) = clients.connect(destination).await.unwrap() else {
                panic!()
            };
            let config = sqs.client().config();
            assert_eq!(config.region().map(AsRef::as_ref), Some(region));
            assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(1));
            let timeouts = config.timeout_config().unwrap();
            assert_eq!(timeouts.operation_timeout(), Some(Duration::from_secs(7)));
            assert_eq!(timeouts.connect_timeout(), Some(CONNECT_TIMEOUT));
        }
        assert_eq!(clients.base_configs.len(), 2, "loaded once per region");
    }
    #[tokio::test]
    async fn destinations_that_agree_share_a_client_and_a_session() {
        let stub = with_sts(|| session("2099-01-01T00:00:00Z")).await;
        let mut clients = clients(&stub).await;
        let shared = role(Some("x-1"));
        let (first, second) = (
            queue("first", "eu-west-1", None, Some(shared.clone())),
            queue("second", "eu-west-1", None, Some(shared.clone())),
        );
        let scaler = function("scaler", stub.url(), shared.clone());
        let other = queue("other", "eu-west-1", None, Some(role(None)));
        let own = queue("own", "eu-west-1", None, None);
        for destination in [&first, &second, &scaler, &other, &own] {
            let connected = clients.connect(destination).await.unwrap();
            for event in [1, 2] {
                assert_eq!(connected.send(&[outgoing(event)]).await, Ok(vec![Ok(None)]));
            }
        }
        assert_eq!((clients.sqs.len(), clients.lambda.len(), clients.role_configs.len()), (3, 1, 2));

        let requests = stub.requests();
        let (sts_requests, sent): (Vec<_>, Vec<_>) = requests.into_iter().partition(is_assume_role);
        let bodies: Vec<_> =
            sts_requests.iter().map(|request| String::from_utf8_lossy(&request.body)).collect();
        assert_eq!(
            bodies.len(),
            2,
            "one session for the queues and the function, one without an external id"
        );
        let arn = "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fscaling";
        assert!(bodies[0].contains(arn) && bodies[0].contains("RoleSessionName=scalebridge-first"));
        assert!(bodies[0].contains("ExternalId=x-1") && !bodies[1].contains("ExternalId"), "{bodies:?}");
        let signers: Vec<_> = sent
            .iter()
            .map(|request| {
                request.headers["authorization"].to_str().unwrap().contains("Credential=OFTHEROLE/")
            })
            .collect();
        assert_eq!(signers, [[true; 8].as_slice(), &[false; 2]].concat());
        assert_eq!(sent[0].headers["x-amz-security-token"], "token");
    }

    #[tokio::test]
    async fn an_expiring_session_is_renewed() {
        let soon = (jiff::Timestamp::now() + Duration::from_secs(5)).to_string();
        let stub = with_sts(move || session(&soon)).await;
        let mut clients = clients(&stub).await;
        let connected = clients.connect(&queue("a", "eu-west-1", None, Some(role(None)))).await.unwrap();
        for event in [1, 2] {
            connected.send(&[outgoing(event)]).await.unwrap();
        }
        assert_eq!(stub.requests().into_iter().filter(is_assume_role).count(), 2);
    }

    #[tokio::test]
    async fn a_denied_role_is_a_misconfiguration_and_an_unavailable_sts_is_not() {
        let error = |status, code| {
            let text = format!(
                "<ErrorResponse><Error><Code>{code}</Code><Message>said so</Message></Error></ErrorResponse>"
            );
            Reply::text(status, &text)
        };
        let failure = async |reply: Reply| {
            let stub = with_sts(move || reply.clone()).await;
            let mut clients = clients(&stub).await;
            let connected = clients.connect(&queue("a", "eu-west-1", None, Some(role(None)))).await.unwrap();
            let failure = connected.send(&[outgoing(1)]).await.unwrap_err();
            assert!(
                !stub.requests().iter().any(|request| !is_assume_role(request)),
                "no call is made without credentials"
            );
            (failure.class, failure.message)
        };
        let (class, message) = failure(error(403, "AccessDenied")).await;
        assert_eq!(class, Class::Misconfigured);
        assert!(message.contains("AccessDenied") && message.contains("said so"), "{message}");
        let (class, _) = failure(error(400, "ExpiredTokenException")).await;
        assert_eq!(class, Class::Misconfigured);
        let (class, _) = failure(error(400, "Throttling")).await;
        assert_eq!(class, Class::Throttled);
        let (class, message) = failure(error(503, "ServiceUnavailable")).await;
        assert_eq!(class, Class::Transient, "{message}");
    }

    #[test]
    fn a_session_is_named_after_its_destination() {
        let name = |text: &str| session_name(&Name::new(text).unwrap());
        assert_eq!(name("scaling-queue"), "scalebridge-scaling-queue");
        assert_eq!(name(&"x".repeat(63)).len(), MAX_SESSION_CHARS);
    }
}
