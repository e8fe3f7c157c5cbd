//! What stands in for AWS in tests: emulators as child processes, and a server whose answers a test chooses.

pub(crate) mod cloud;
pub(crate) mod emulators;
pub(crate) mod stub;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;

pub(crate) const REGION: &str = "eu-west-1";
/// The access key of the scaler itself.
pub(crate) const ACCESS_KEY: &str = "AKIDSCALER";

/// The configuration of clients that call `url`, without timeouts.
pub(crate) async fn config(url: &str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY, "secret", None, None, "test");
    aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .load()
        .await
}
