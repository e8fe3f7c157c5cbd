//! The outgoing HTTP client: the `http:` block of the configuration.
//!
//! Proxies of the environment are ignored, as Prometheus does without `proxy_from_environment`. Redirects are not
//! followed: they would carry credentials elsewhere. Certificates are read again when they change, credentials for each
//! request.

mod link_local;
mod own_listener;
mod signing;
mod tls;

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue};
use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use reqwest::{NoProxy, Proxy};
use tokio::time::{Instant, timeout_at};

use super::file::{MAX_SECRET_BYTES, read_text};
use super::header::encode_basic;
use super::tls::TlsError;
use crate::config::FileStamp;
use crate::config::access::{HttpAuthorization, HttpClient};
pub(crate) use link_local::{LinkLocal, is_loopback_url, link_local_host};
pub(crate) use own_listener::OwnListener;
pub(crate) use signing::Signer;

/// How long the attempt to open a connection takes at most, with TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a request failed. No text contains a secret, or a URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutgoingError {
    /// A file of the settings.
    #[error("{file}: {cause}")]
    File {
        /// Its path.
        file: String,
        /// The cause.
        cause: String,
    },
    /// A file of `tls_config`.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Another setting.
    #[error("{0}")]
    Settings(String),
    /// No response.
    #[error("the request failed: {0}")]
    Request(String),
    /// No complete response in time.
    #[error("no complete response within {0:?}")]
    TimedOut(Duration),
    /// A response that is not a success.
    #[error("the response has the status {0}")]
    Status(u16),
    /// A redirect.
    #[error("the response has the status {0}; redirects are not followed, configure the final URL")]
    Redirect(u16),
    /// A response that is too large.
    #[error("the response is larger than {} KiB", .0 / 1024)]
    TooLarge(usize),
}

/// Why a `POST` was not answered, and whether it may have arrived.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// Not sent: a file or another setting of the bridge is wrong.
    #[error(transparent)]
    NotSent(OutgoingError),
    /// Not sent: the host has an address that is not called.
    #[error("{0}; it is called only with `allow_link_local: true`")]
    LinkLocal(LinkLocal),
    /// Not sent: there was no connection.
    #[error("no connection: {0}")]
    NotConnected(String),
    /// The connection ended before the answer.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// The limits of a `POST`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PostLimits {
    /// No more is read of the body of the answer.
    pub max_body_bytes: usize,
    /// For all of it.
    pub timeout: Duration,
}

/// The answer to a `POST`, whatever its status is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The status.
    pub status: u16,
    /// The seconds in `Retry-After`. A date there is ignored.
    pub retry_after: Option<Duration>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// Calls one or more servers with the settings of an `http:` block.
pub(crate) struct OutgoingClient {
    settings: HttpClient,
    /// Whether link-local addresses are called. Of a proxy, only its own address is known.
    allows_link_local: bool,
    built: Mutex<Option<Built>>,
}

#[derive(Clone)]
struct Built {
    /// The files of the TLS settings as they were read.
    stamps: Vec<FileStamp>,
    /// Whether it has roots of trust. Without `https:` it needs none, and a machine may have none.
    has_tls: bool,
    client: reqwest::Client,
}

impl OutgoingClient {
    /// A client with these settings. Files are read when it is used.
    pub(crate) fn new(settings: HttpClient) -> Self {
        Self { settings, allows_link_local: true, built: Mutex::new(None) }
    }

    /// The same client, which does not call link-local addresses and those of metadata services.
    pub(crate) fn without_link_local(self) -> Self {
        Self { allows_link_local: false, ..self }
    }

    /// The answer to `POST url`.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        limits: PostLimits,
    ) -> Result<Reply, PostError> {
        let end = Instant::now() + limits.timeout;
        if let Some(address) = link_local_host(url).filter(|_| !self.allows_link_local) {
            return Err(PostError::LinkLocal(LinkLocal(address)));
        }
        let prepare =
            async { Ok::<_, OutgoingError>((self.client(url).await?, self.authorization().await?)) };
        let prepared = timeout_at(end, prepare).await;
        let prepared = prepared.unwrap_or(Err(OutgoingError::TimedOut(limits.timeout)));
        let (client, credentials) = prepared.map_err(PostError::NotSent)?;
        let mut request = client.post(url).headers(headers).body(body);
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, credentials);
        }
        let Ok(sent) = timeout_at(end, request.send()).await else {
            return Err(PostError::TimedOut(limits.timeout));
        };
        let mut response = sent.map_err(post_error)?;
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let (status, mut body) = (response.status().as_u16(), Vec::new());
        // The status is the answer: what is missing of the body changes nothing.
        while body.len() < limits.max_body_bytes
            && let Ok(Ok(Some(piece))) = timeout_at(end, response.chunk()).await
        {
            body.extend_from_slice(piece.get(..limits.max_body_bytes - body.len()).unwrap_or(&piece));
        }
        Ok(Reply { status, retry_after, body })
    }

    /// The body of a response to `GET url`, if its status is a success and it has at most `max_bytes`.
    ///
    /// # Errors
    /// The request has failed, was answered with another status, or the body is too long.
    pub(crate) async fn get(
        &self,
        url: &str,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<Vec<u8>, OutgoingError> {
        tokio::time::timeout(timeout, self.get_body(url, max_bytes))
            .await
            .unwrap_or(Err(OutgoingError::TimedOut(timeout)))
    }

    async fn get_body(&self, url: &str, max_bytes: usize) -> Result<Vec<u8>, OutgoingError> {
        let mut request = self.client(url).await?.get(url);
        if let Some(credentials) = self.authorization().await? {
            request = request.header(AUTHORIZATION, credentials);
        }
        let mut response = request.send().await.map_err(request_error)?;
        let status = response.status();
        if status.is_redirection() {
            return Err(OutgoingError::Redirect(status.as_u16()));
        } else if !status.is_success() {
            return Err(OutgoingError::Status(status.as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(request_error)? {
            if body.len() + chunk.len() > max_bytes {
                return Err(OutgoingError::TooLarge(max_bytes));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The client, made anew if a certificate has changed.
    async fn client(&self, url: &str) -> Result<reqwest::Client, OutgoingError> {
        let is_https = |url: &str| url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        let needs_tls =
            is_https(url) || self.settings.proxy_url.as_ref().is_some_and(|url| is_https(url.expose()));
        let built = self.built.lock().clone();
        let is_current = |built: &Built| {
            (built.has_tls || !needs_tls) && built.stamps.iter().all(|stamp| stamp.refresh() == *stamp)
        };
        if let Some(built) = built.filter(is_current) {
            return Ok(built.client);
        }
        let (settings, allows_link_local) = (self.settings.clone(), self.allows_link_local);
        let built = blocking(move || build(&settings, needs_tls, allows_link_local)).await?;
        let client = built.client.clone();
        *self.built.lock() = Some(built);
        Ok(client)
    }

    /// The credentials, read now.
    async fn authorization(&self) -> Result<Option<HeaderValue>, OutgoingError> {
        let Some(settings) = self.settings.authorization.clone() else { return Ok(None) };
        blocking(move || {
            let read = |file: &std::path::Path| {
                read_text(file, MAX_SECRET_BYTES)
                    .map_err(|cause| OutgoingError::File { file: file.display().to_string(), cause })
            };
            let (file, value) = match &settings {
                HttpAuthorization::Credentials { kind, credentials_file } => {
                    (credentials_file, format!("{kind} {}", read(credentials_file)?.trim()))
                }
                HttpAuthorization::Basic { username, password_file } => {
                    (password_file, encode_basic(username, read(password_file)?.trim()))
                }
            };
            let mut value = HeaderValue::from_str(&value).map_err(|_| OutgoingError::File {
                file: file.display().to_string(),
                cause: "the credentials contain characters that a header cannot have".to_owned(),
            })?;
            value.set_sensitive(true);
            Ok(Some(value))
        })
        .await
    }
}

fn build(settings: &HttpClient, has_tls: bool, allows_link_local: bool) -> Result<Built, OutgoingError> {
    let stamps =
        settings.ca_file.iter().chain(settings.client_cert.iter().flat_map(|(cert, key)| [cert, key]));
    let stamps = stamps.map(|file| FileStamp::read(file.clone())).collect();
    let mut client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(settings, has_tls)?)
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy();
    if !allows_link_local {
        client = client.dns_resolver(link_local::WithoutLinkLocal);
    }
    if let Some(url) = &settings.proxy_url {
        // A proxy of another scheme would be ignored: the request would go around it.
        let is_http = ["http://", "https://"].iter().any(|scheme| url.expose().starts_with(scheme));
        let proxy = Proxy::all(url.expose()).ok().filter(|_| is_http);
        let proxy = proxy.ok_or_else(|| {
            OutgoingError::Settings("proxy_url is not a valid http:// or https:// URL".to_owned())
        })?;
        client = client.proxy(proxy.no_proxy(settings.no_proxy.as_deref().and_then(NoProxy::from_string)));
    }
    let client = client.build().map_err(|error| OutgoingError::Settings(causes(&error.without_url())))?;
    Ok(Built { stamps, has_tls, client })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, OutgoingError> + Send + 'static,
) -> Result<T, OutgoingError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(OutgoingError::Request(error.to_string())),
    }
}

fn post_error(error: reqwest::Error) -> PostError {
    let error = error.without_url();
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(known) = cause {
        if let Some(refused) = known.downcast_ref::<LinkLocal>() {
            return PostError::LinkLocal(*refused);
        }
        cause = known.source();
    }
    if error.is_connect() || error.is_builder() {
        PostError::NotConnected(causes(&error))
    } else {
        PostError::NoAnswer(causes(&error))
    }
}

fn request_error(error: reqwest::Error) -> OutgoingError {
    OutgoingError::Request(causes(&error.without_url()))
}

/// The messages of an error and of its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// A URL without user info, query and fragment, which can contain secrets.
pub(crate) fn shown_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}
