//! From a destination's settings to its client.

use std::collections::HashMap;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};

use super::{Connected, file, lambda, sqs};
use crate::config::{Destination, DestinationKind};
use crate::domain::name::Name;

/// How long a connection may take to come up. The rest of a call is the destination's `timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Builds destinations. What the environment says is looked up once for each region.
///
/// Credentials and endpoints come the SDK's usual ways, `AWS_ENDPOINT_URL_SQS` and its like included;
/// a destination's own `region` and `endpoint_url` go before them. The SDK's retries are off: one that
/// tries again by itself would send what is meanwhile too old, and hold its place in the worker.
#[derive(Debug, Default)]
pub struct Clients {
    environments: HashMap<Option<String>, SdkConfig>,
}

/// Why a destination cannot be used. A queue or function that does not exist is not found out here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Neither the destination nor the environment names a region.
    #[error("destination `{0}` has no region: set its `region` or AWS_REGION")]
    NoRegion(Name),
}

impl Clients {
    /// Connects nothing yet: the first call does.
    pub async fn connect(&mut self, destination: &Destination) -> Result<Connected, ConnectError> {
        let Destination { name, timeout, .. } = destination;
        Ok(match &destination.kind {
            DestinationKind::Sqs(settings) => {
                let environment = self.environment(name, settings.region.as_ref()).await?;
                let mut config = aws_sdk_sqs::config::Builder::from(environment);
                config.set_timeout_config(Some(timeouts(*timeout)));
                if let Some(endpoint) = &settings.endpoint_url {
                    config.set_endpoint_url(Some(endpoint.clone()));
                }
                let client = aws_sdk_sqs::Client::from_conf(config.build());
                Connected::Sqs(sqs::Sqs::new(client, settings))
            }
            DestinationKind::Lambda(settings) => {
                let environment = self.environment(name, settings.region.as_ref()).await?;
                let mut config = aws_sdk_lambda::config::Builder::from(environment);
                config.set_timeout_config(Some(timeouts(*timeout)));
                if let Some(endpoint) = &settings.endpoint_url {
                    config.set_endpoint_url(Some(endpoint.clone()));
                }
                let client = aws_sdk_lambda::Client::from_conf(config.build());
                Connected::Lambda(lambda::Lambda::new(client, settings))
            }
            DestinationKind::File(settings) => Connected::File(file::File::new(settings)),
        })
    }

    async fn environment(
        &mut self,
        name: &Name,
        region: Option<&String>,
    ) -> Result<&SdkConfig, ConnectError> {
        let key = region.cloned();
        if !self.environments.contains_key(&key) {
            let mut loader =
                aws_config::defaults(BehaviorVersion::latest()).retry_config(RetryConfig::disabled());
            if let Some(region) = region {
                loader = loader.region(Region::new(region.clone()));
            }
            self.environments.insert(key.clone(), loader.load().await);
        }
        self.environments
            .get(&key)
            .filter(|environment| environment.region().is_some())
            .ok_or_else(|| ConnectError::NoRegion(name.clone()))
    }
}

/// For one call. Without retries, the operation and its one attempt are the same.
fn timeouts(timeout: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(timeout).build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Delivery, Sqs};

    fn queue(region: &str, endpoint_url: Option<&str>) -> Destination {
        let second = Duration::from_secs(1);
        Destination {
            max_backlog: None,
            name: Name::new("queue").unwrap(),
            kind: DestinationKind::Sqs(Sqs {
                queue_url: "https://sqs.eu-west-1.amazonaws.com/123456789012/scaling".into(),
                fifo: false,
                region: Some(region.into()),
                endpoint_url: endpoint_url.map(Into::into),
                max_message_bytes: Sqs::MAX_MESSAGE_BYTES,
            }),
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

    #[tokio::test]
    async fn a_client_has_its_destinations_region_and_time_and_no_retries() {
        let mut clients = Clients::default();
        let (paris, dublin) = (queue("eu-west-3", None), queue("eu-west-1", Some("http://127.0.0.1:9")));
        for (destination, region) in [(&paris, "eu-west-3"), (&dublin, "eu-west-1"), (&paris, "eu-west-3")] {
            let Connected::Sqs(sqs) = clients.connect(destination).await.unwrap() else { panic!() };
            let config = sqs.client().config();
            assert_eq!(config.region().map(AsRef::as_ref), Some(region));
            assert_eq!(config.retry_config().map(RetryConfig::max_attempts), Some(1));
            let timeouts = config.timeout_config().unwrap();
            assert_eq!(timeouts.operation_timeout(), Some(Duration::from_secs(7)));
            assert_eq!(timeouts.connect_timeout(), Some(CONNECT_TIMEOUT));
        }
        assert_eq!(clients.environments.len(), 2, "the environment is asked once for each region");
    }
}
