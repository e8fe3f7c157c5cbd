//! The HTTP API of Nomad.
//!
//! Proxies of the environment are ignored, and redirects are not followed: they would carry the token elsewhere. Files are
//! read again when they change.

use std::path::PathBuf;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::redirect::Policy;
use reqwest::{Client, NoProxy, Proxy, RequestBuilder, Response};
use scalebridge::config::FileStamp;
use scalebridge::config::access::{HttpAuthorization, HttpClient};
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::tls;
use crate::platform::call::causes;

const TOKEN_HEADER: &str = "X-Nomad-Token";
/// Shorter than the limit of a call, so that an unreachable server is known as such: nothing was sent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);
/// A job of thousands of groups has some megabytes.
const MAX_BODY_BYTES: usize = 32 << 20;
const MAX_MESSAGE_BYTES: usize = 500;

/// A Nomad cluster.
pub struct NomadServer {
    address: String,
    token_file: Option<PathBuf>,
    http: HttpClient,
    built: Mutex<Option<Built>>,
}

#[derive(Clone)]
struct Built {
    stamps: Vec<FileStamp>,
    client: Client,
}

impl NomadServer {
    /// The servers at `address`, such as `https://nomad.example.com:4646`. The token is that of the file at the time of a
    /// call.
    pub fn new(address: &str, token_file: Option<PathBuf>, http: HttpClient) -> Self {
        Self { address: address.trim_end_matches('/').to_owned(), token_file, http, built: Mutex::new(None) }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let client = self.client().await?;
        let body = self.send(client.get(self.url(path))).await?;
        serde_json::from_slice(&body).map_err(|error| Failure::Lost(format!("the answer: {error}")))
    }

    pub(super) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<(), Failure> {
        let client = self.client().await?;
        // The change is made with this answer, whatever its body is.
        self.send(client.post(self.url(path)).json(body)).await.map(|_| ())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    async fn send(&self, mut request: RequestBuilder) -> Result<Vec<u8>, Failure> {
        if let Some(file) = &self.token_file {
            request = request.header(TOKEN_HEADER, read_secret(file).await?);
        }
        request = match &self.http.authorization {
            None => request,
            Some(HttpAuthorization::Credentials { kind, credentials_file }) => request.header(
                http::header::AUTHORIZATION,
                format!("{kind} {}", read_secret(credentials_file).await?),
            ),
            Some(HttpAuthorization::Basic { username, password_file }) => {
                request.basic_auth(username, Some(read_secret(password_file).await?))
            }
        };
        let response = request.send().await.map_err(failure_of)?;
        let status = response.status();
        let body = read_body(response).await;
        if status.is_success() {
            return body;
        }
        let message = match body {
            Ok(body) => String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE_BYTES)]).trim().to_owned(),
            Err(_) => String::new(),
        };
        Err(Failure::Answered { status: status.as_u16(), message })
    }

    /// The client, made anew if a certificate has changed.
    async fn client(&self) -> Result<Client, Failure> {
        let built = self.built.lock().clone();
        let is_current = |built: &Built| built.stamps.iter().all(|stamp| stamp.refresh() == *stamp);
        if let Some(built) = built.filter(is_current) {
            return Ok(built.client);
        }
        let (settings, is_https) = (self.http.clone(), self.address.starts_with("https:"));
        let built = tokio::task::spawn_blocking(move || build(&settings, is_https)).await;
        let built = built.map_err(|error| Failure::NotSent(error.to_string()))?.map_err(Failure::NotSent)?;
        let client = built.client.clone();
        *self.built.lock() = Some(built);
        Ok(client)
    }
}

fn build(settings: &HttpClient, is_https: bool) -> Result<Built, String> {
    let files =
        settings.ca_file.iter().chain(settings.client_cert.iter().flat_map(|(cert, key)| [cert, key]));
    let stamps = files.map(|file| FileStamp::read(file.clone())).collect();
    let proxy_url = settings.proxy_url.as_ref().map(scalebridge::config::Secret::expose);
    let has_tls = is_https || proxy_url.is_some_and(|url| url.starts_with("https:"));
    let mut client = Client::builder()
        .tls_backend_preconfigured(tls::client_config(settings, has_tls)?)
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        // A scaling is sent once.
        .retry(reqwest::retry::never())
        .no_proxy();
    if let Some(url) = proxy_url {
        // The URL may have a password: it is not named.
        let proxy = Proxy::all(url).map_err(|_| "proxy_url is not a valid URL".to_owned())?;
        client = client.proxy(proxy.no_proxy(settings.no_proxy.as_deref().and_then(NoProxy::from_string)));
    }
    let client = client.build().map_err(|error| causes(&error.without_url()))?;
    Ok(Built { stamps, client })
}

async fn read_secret(file: &PathBuf) -> Result<String, Failure> {
    let text = tokio::fs::read_to_string(file).await;
    let text = text.map_err(|error| Failure::NotSent(format!("{}: {error}", file.display())))?;
    let text = text.trim().to_owned();
    if http::HeaderValue::from_str(&text).is_err() {
        return Err(Failure::NotSent(format!("{}: characters that a header cannot have", file.display())));
    }
    Ok(text)
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failure_of)? {
        if body.len() + chunk.len() > MAX_BODY_BYTES {
            return Err(Failure::Lost(format!("the answer is larger than {} MiB", MAX_BODY_BYTES >> 20)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn failure_of(error: reqwest::Error) -> Failure {
    let was_sent = !error.is_connect() && !error.is_builder();
    let message = causes(&error.without_url());
    if was_sent { Failure::Lost(message) } else { Failure::NotSent(message) }
}
