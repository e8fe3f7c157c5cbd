//! Tokens of EKS: a signed request to STS that tells who asks, which the cluster sends there.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_sts::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::Mutex;

use super::Tokens;
use crate::platform::call::causes;

const PREFIX: &str = "k8s-aws-v1.";
/// A token is for the cluster with this name, and for no other.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";
/// Of the signed request. EKS sends it at once, whenever it gets the token.
const REQUEST_LIFETIME: Duration = Duration::from_secs(60);
/// EKS accepts a token for 15 minutes after it was signed. The last two are for differences of clocks, and so that what
/// is given away is valid for a while.
const TOKEN_LIFETIME: Duration = Duration::from_secs(13 * 60);
/// A token is no longer valid than the credentials that have signed it. What is given away is valid for this long.
const MIN_VALIDITY: Duration = Duration::from_secs(60);
/// What RFC 3986 leaves as it is, as in SigV4.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Makes the tokens of one cluster.
#[derive(Debug)]
pub struct EksTokens {
    credentials: SharedCredentialsProvider,
    region: String,
    cluster: String,
    now: fn() -> SystemTime,
    cached: Mutex<Option<CachedToken>>,
}

#[derive(Debug)]
struct CachedToken {
    token: String,
    until: SystemTime,
}

impl EksTokens {
    /// For the cluster with this name in the region. `credentials` are those of the role that the cluster knows.
    pub fn new(credentials: SharedCredentialsProvider, region: &str, cluster: &str) -> Self {
        Self {
            credentials,
            region: region.to_owned(),
            cluster: cluster.to_owned(),
            now: SystemTime::now,
            cached: Mutex::default(),
        }
    }

    async fn token_at(&self, now: SystemTime) -> Result<String, String> {
        // Locked until it is signed: calls that come meanwhile use the same one.
        let mut cached = self.cached.lock().await;
        if let Some(cached) = cached.as_ref().filter(|cached| now < cached.until) {
            return Ok(cached.token.clone());
        }
        let credentials = self.credentials.provide_credentials().await;
        let credentials =
            credentials.map_err(|error| format!("no credentials of AWS: {}", causes(&error)))?;
        let lifetime = now + TOKEN_LIFETIME;
        let until = match credentials.expiry() {
            Some(expiry) => lifetime.min(expiry - MIN_VALIDITY),
            None => lifetime,
        };
        let sts = sts(&self.region).await?;
        let token = sign_token(&sts, &self.region, &self.cluster, credentials, now)?;
        *cached = Some(CachedToken { token: token.clone(), until });
        Ok(token)
    }
}

impl Tokens for EksTokens {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(self.token_at((self.now)()))
    }
}

/// The address of STS in the region, which depends on its partition.
async fn sts(region: &str) -> Result<String, String> {
    let unknown = |error: &dyn std::error::Error| format!("STS in region {region}: {error}");
    let parameters = Params::builder().region(region).build().map_err(|error| unknown(&error))?;
    let endpoint = DefaultResolver::new().resolve_endpoint(&parameters).await;
    let endpoint = endpoint.map_err(|error| unknown(&*error))?;
    Ok(endpoint.url().trim_end_matches('/').to_owned())
}

fn sign_token(
    sts: &str,
    region: &str,
    cluster: &str,
    credentials: Credentials,
    now: SystemTime,
) -> Result<String, String> {
    let failed = |error: &dyn std::error::Error| format!("the token is not signed: {error}");
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(REQUEST_LIFETIME);
    settings.signature_location = SignatureLocation::QueryParams;
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| failed(&error))?
        .into();
    let mut url = format!("{sts}/?Action=GetCallerIdentity&Version=2011-06-15");
    let headers = std::iter::once((CLUSTER_HEADER, cluster));
    let request = SignableRequest::new("GET", &url, headers, SignableBody::Bytes(&[]));
    let signed = sign(request.map_err(|error| failed(&error))?, &parameters);
    let (instructions, _) = signed.map_err(|error| failed(&error))?.into_parts();
    for (name, value) in instructions.params() {
        url.push_str(&format!("&{name}={}", utf8_percent_encode(value, ENCODED)));
    }
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(url)))
}

#[cfg(test)]
mod tests;
