//! Tokens of AWS IAM for RDS and Aurora: a signed URL that takes the place of a password, for 15 minutes. One is made for
//! each connection; a connection outlives its token.

use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::default_provider::region::DefaultRegionChain;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::{DatabaseServer, ServerAddress};

/// As long as RDS allows.
const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// How long credentials are used that have no expiry, and how long before their expiry new ones are loaded.
const CREDENTIALS_LIFETIME: Duration = Duration::from_secs(5 * 60);
const EXPIRY_BUFFER: Duration = Duration::from_secs(60);
/// What RFC 3986 leaves as it is, as in SigV4.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Makes tokens with the credentials of the process, which come the SDK's usual ways.
#[derive(Default)]
pub(super) struct Tokens {
    /// The credentials, and the time from which on newer ones are loaded.
    loaded: Mutex<Option<(Credentials, SystemTime)>>,
}

impl Tokens {
    /// A token for `user` at `server`.
    pub(super) async fn token(&self, server: &DatabaseServer, user: &str) -> Result<String, String> {
        // `DatabaseUrl` refuses sockets with `iam`.
        let ServerAddress::Tcp { host, .. } = &server.address else {
            return Err("not a host in RDS".to_owned());
        };
        let region = match rds_region(host) {
            Some(region) => region.to_owned(),
            None => {
                let configured = DefaultRegionChain::builder().build().region().await;
                configured.ok_or("the region of the database is unknown: set AWS_REGION")?.as_ref().to_owned()
            }
        };
        let now = SystemTime::now();
        let credentials = self.credentials(now).await?;
        sign_token(host, server.port, user, &region, credentials, now)
    }

    /// The next token is signed with newly loaded credentials.
    pub(super) fn forget_credentials(&self) {
        *self.loaded.lock() = None;
    }

    async fn credentials(&self, now: SystemTime) -> Result<Credentials, String> {
        if let Some((credentials, _)) = self.loaded.lock().as_ref().filter(|(_, until)| *until > now) {
            return Ok(credentials.clone());
        }
        // Built anew: the providers of the SDK read a shared credentials file once.
        let chain = DefaultCredentialsChain::builder().build().await;
        let loaded = chain.provide_credentials().await.map_err(|error| causes(&error))?;
        let until = loaded.expiry().map_or(now + CREDENTIALS_LIFETIME, |expiry| expiry - EXPIRY_BUFFER);
        *self.loaded.lock() = Some((loaded.clone(), until));
        Ok(loaded)
    }
}

/// The region in the name of an endpoint, such as `fleet.cluster-abc.eu-west-1.rds.amazonaws.com`.
pub(crate) fn rds_region(host: &str) -> Option<&str> {
    let host = host.strip_suffix(".cn").unwrap_or(host);
    let name = host.strip_suffix(".rds.amazonaws.com")?;
    name.rsplit('.').next().filter(|region| region.contains('-'))
}

fn sign_token(
    host: &str,
    port: u16,
    user: &str,
    region: &str,
    credentials: Credentials,
    now: SystemTime,
) -> Result<String, String> {
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(LIFETIME);
    settings.signature_location = SignatureLocation::QueryParams;
    let identity = credentials.into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("rds-db")
        .time(now)
        .settings(settings)
        .build()
        .map_err(|error| causes(&error))?
        .into();
    let user = utf8_percent_encode(user, ENCODED);
    let url = format!("https://{host}:{port}/?Action=connect&DBUser={user}");
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]));
    let signed =
        sign(request.map_err(|error| causes(&error))?, &parameters).map_err(|error| causes(&error))?;
    let (instructions, _) = signed.into_parts();
    let mut token = url["https://".len()..].to_owned();
    for (name, value) in instructions.params() {
        token.push_str(&format!("&{name}={}", utf8_percent_encode(value, ENCODED)));
    }
    Ok(token)
}

/// The messages of an error and its causes. Those of the SDK have no credentials.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the generator in AWS's SDK for RDS.
    #[test]
    fn a_token_is_that_of_the_sdk() {
        let credentials = Credentials::new("akid", "secret", None, None, "test");
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_724_709_600);
        let host = "prod-instance.us-east-1.rds.amazonaws.com";
        let token = sign_token(host, 3306, "peccy", rds_region(host).unwrap(), credentials, now).unwrap();
        assert_eq!(
            token,
            "prod-instance.us-east-1.rds.amazonaws.com:3306/?Action=connect&DBUser=peccy\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=akid%2F20240826%2Fus-east-1%2Frds-db%2Faws4_request\
             &X-Amz-Date=20240826T220000Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
             &X-Amz-Signature=dd0cba843009474347af724090233265628ace491ea17ce3eb3da098b983ad89"
        );
    }

    #[test]
    fn the_region_is_in_the_name_of_the_endpoint() {
        for (host, region) in [
            ("fleet.cluster-abc.eu-west-1.rds.amazonaws.com", Some("eu-west-1")),
            ("p.proxy-abc.cn-north-1.rds.amazonaws.com.cn", Some("cn-north-1")),
            ("db.example", None),
            ("rds.amazonaws.com", None),
        ] {
            assert_eq!(rds_region(host), region, "{host}");
        }
    }
}
