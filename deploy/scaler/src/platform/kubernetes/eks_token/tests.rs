use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_credential_types::provider::{self, error::CredentialsError};

use super::*;

const NOW: u64 = 1_795_366_520;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW + seconds)
}

/// The signed URL of a token.
fn url(token: &str) -> String {
    let encoded = token.strip_prefix(PREFIX).expect("the prefix");
    assert!(!encoded.contains(['=', '+', '/']), "{encoded}");
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

/// The signatures are those that botocore makes for the same request.
#[tokio::test]
async fn a_token_is_the_one_of_the_aws_cli() {
    let sign = async |session: Option<&str>| {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", session.map(str::to_owned), None, "test");
        let sts = sts("eu-west-1").await.unwrap();
        url(&sign_token(&sts, "eu-west-1", "prod-eu", credentials, at(0)).unwrap())
    };
    let start = "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15\
                 &X-Amz-Algorithm=AWS4-HMAC-SHA256\
                 &X-Amz-Credential=AKIDEXAMPLE%2F20261122%2Feu-west-1%2Fsts%2Faws4_request\
                 &X-Amz-Date=20261122T165520Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id";
    assert_eq!(
        sign(None).await,
        format!("{start}&X-Amz-Signature=1c2776b49063eeb003e5294a94c35fb815eb99df407f4dd0232ac186577542f8")
    );
    // Of a role. The order of parameters does not matter.
    let of_role = sign(Some("session/token+1==")).await;
    let mut parts: Vec<&str> = of_role.split('&').collect();
    let session = parts.iter().position(|part| *part == "X-Amz-Security-Token=session%2Ftoken%2B1%3D%3D");
    parts.remove(session.expect("the session's token"));
    assert_eq!(
        parts.join("&"),
        format!("{start}&X-Amz-Signature=e9f7124563a8dd1ad3afcfce1e8855f54c302b65c2dbda528083219b9acb82ba")
    );
}

#[tokio::test]
async fn sts_is_that_of_the_partition() {
    for (region, url) in [
        ("us-east-1", "https://sts.us-east-1.amazonaws.com"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"),
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com"),
    ] {
        assert_eq!(sts(region).await.as_deref(), Ok(url));
    }
}

/// Credentials that are valid until a time, and count how often they were asked for.
#[derive(Debug, Clone)]
struct Provider {
    asked: Arc<AtomicU64>,
    until: Option<SystemTime>,
}

impl provider::ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Provided::ready(Ok(Credentials::new("AKID", "secret", None, self.until, "test")))
    }
}

fn tokens(until: Option<SystemTime>) -> (EksTokens, Arc<AtomicU64>) {
    let provider = Provider { asked: Arc::default(), until };
    let asked = provider.asked.clone();
    (EksTokens::new(SharedCredentialsProvider::new(provider), "eu-west-1", "prod-eu"), asked)
}

#[tokio::test]
async fn a_token_is_kept_and_renewed_before_it_ends() {
    let (tokens, asked) = tokens(None);
    let first = tokens.token_at(at(0)).await.unwrap();
    assert_eq!(tokens.token_at(at(13 * 60 - 1)).await.as_ref(), Ok(&first));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let second = tokens.token_at(at(13 * 60)).await.unwrap();
    assert!(url(&second).contains("X-Amz-Date=20261122T170820Z"), "{}", url(&second));
    assert_eq!(tokens.token_at(at(13 * 60 + 1)).await, Ok(second));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_token_is_not_used_after_its_credentials() {
    let (tokens, asked) = tokens(Some(at(5 * 60)));
    let first = tokens.token_at(at(0)).await.unwrap();
    assert_eq!(tokens.token_at(at(4 * 60 - 1)).await.as_ref(), Ok(&first));
    assert_ne!(tokens.token_at(at(4 * 60)).await, Ok(first));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[derive(Debug)]
struct Missing;

impl provider::ProvideCredentials for Missing {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        Provided::ready(Err(CredentialsError::not_loaded("the environment has none")))
    }
}

#[tokio::test]
async fn missing_credentials_are_said() {
    let tokens = EksTokens::new(SharedCredentialsProvider::new(Missing), "eu-west-1", "prod-eu");
    let error = tokens.token_at(at(0)).await.unwrap_err();
    assert!(
        error.starts_with("no credentials of AWS: ") && error.contains("the environment has none"),
        "{error}"
    );
}
