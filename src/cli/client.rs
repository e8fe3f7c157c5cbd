//! HTTP client of the admin API and of the webhook.

mod credentials;
mod failure;
mod url;

use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::Args;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::escape::escape_lines;
use super::output::{EXIT_FAILED, EXIT_USAGE};
use crate::config::secret::Secret;
use crate::telemetry;
pub(super) use credentials::Credentials;
use url::CheckedUrl;

/// Timeout of a request; a stream has none.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a POST, which may redrive or discard hundreds of thousands of dead letters.
const BULK_REQUEST_TIMEOUT: Duration = Duration::from_secs(900);
/// Maximum size of a response.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;
/// Maximum size of the text of an error response that is not JSON, such as the page of a proxy.
const MAX_ERROR_TEXT: usize = 300;
/// A connection is not used again after this time, since the bridge closes idle ones.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// Address and credentials of the running bridge.
#[derive(Debug, Clone, Args)]
pub(super) struct Server {
    /// URL of the bridge's admin listener. It may have a path, if a proxy serves the bridge under one
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:9097",
        env = "SCALEBRIDGE_URL",
        hide_env_values = true
    )]
    url: String,
    #[command(flatten)]
    credentials: Credentials,
    /// Opened by the first request.
    #[arg(skip)]
    client: OnceLock<Client>,
}

/// The connections to one server, and the credential that each request presents.
#[derive(Debug, Clone)]
struct Client {
    agent: ureq::Agent,
    authorization: Option<Secret>,
}

impl Client {
    /// Reads the files of the credentials; nothing is sent yet.
    fn new(url: &CheckedUrl<'_>, credentials: &Credentials) -> Result<Self, ClientError> {
        let authorization = credentials.authorization(url)?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .max_idle_age(MAX_IDLE)
            // A redirect would turn a POST into a GET.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(credentials.tls(url)?);
        Ok(Self { agent: config.build().into(), authorization })
    }

    fn request<B>(
        &self,
        request: ureq::RequestBuilder<B>,
        timeout: Option<Duration>,
    ) -> ureq::RequestBuilder<B> {
        let request = request.config().timeout_global(timeout).build();
        match &self.authorization {
            Some(authorization) => request.header("authorization", authorization.expose()),
            None => request,
        }
    }
}

/// Why a request has no usable response.
#[derive(Debug)]
pub(super) enum ClientError {
    /// The arguments are invalid, as found here or by the bridge.
    InvalidArguments(String),
    /// There was no response, or an error response.
    RequestFailed(String),
}

impl ClientError {
    /// Prints the error to stderr and returns the exit code.
    pub(super) fn report(self) -> ExitCode {
        let (code, why) = match self {
            Self::InvalidArguments(why) => (EXIT_USAGE, why),
            Self::RequestFailed(why) => (EXIT_FAILED, why),
        };
        telemetry::print_to_stderr(format_args!("scalebridge: {}", escape_lines(&why)));
        ExitCode::from(code)
    }
}

/// A value of a response, with the JSON that the bridge sent: JSON output includes fields that this version does not know.
#[derive(Debug, Clone)]
pub(super) struct Raw<T> {
    pub value: T,
    json: Value,
}

impl<T> Raw<T> {
    pub(super) fn new(value: T, json: Value) -> Self {
        Self { value, json }
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Raw<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        let value = T::deserialize(&json).map_err(serde::de::Error::custom)?;
        Ok(Self { value, json })
    }
}

impl<T> Serialize for Raw<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json.serialize(serializer)
    }
}

/// The body of an error response: a problem of the admin API, or the error of the webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    detail: String,
    title: String,
    error: String,
    errors: Vec<String>,
}

impl Server {
    pub(super) fn new(url: String, credentials: Credentials) -> Self {
        Self { url, credentials, client: OnceLock::new() }
    }

    pub(super) fn get<R: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<R, ClientError> {
        let client = self.client()?;
        let request = client.request(client.agent.get(self.request_url(path)), Some(REQUEST_TIMEOUT));
        self.read_response(with_query(request, query).call())
    }

    pub(super) fn post<R: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        body: &[u8],
    ) -> Result<R, ClientError> {
        let client = self.client()?;
        let request = client.request(client.agent.post(self.request_url(path)), Some(BULK_REQUEST_TIMEOUT));
        self.read_response(with_query(request, query).content_type("application/json").send(body))
    }

    pub(super) fn post_json<R: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<R, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::InvalidArguments(format!("cannot write the request: {error}")))?;
        self.post(path, &(), &body)
    }

    pub(super) fn delete<R: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<R, ClientError> {
        let client = self.client()?;
        let request = client.request(client.agent.delete(self.request_url(path)), Some(REQUEST_TIMEOUT));
        self.read_response(with_query(request, query).call())
    }

    /// Opens a stream of server-sent events, which ends only when the bridge stops.
    pub(super) fn stream<Q: Serialize>(
        &self,
        path: &str,
        query: &Q,
    ) -> Result<impl std::io::BufRead + use<Q>, ClientError> {
        let client = self.client()?;
        let request = client.request(client.agent.get(self.request_url(path)), None);
        let response = with_query(request, query).call().map_err(|error| self.no_response(&error))?;
        if !response.status().is_success() {
            return self
                .read_response::<IgnoredAny>(Ok(response))
                .and(Err(ClientError::RequestFailed("the bridge did not return a stream".to_owned())));
        }
        Ok(std::io::BufReader::new(response.into_body().into_reader()))
    }

    /// The client of the URL, opened once, so that the requests of a command share connections.
    fn client(&self) -> Result<&Client, ClientError> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let expected = "the http:// or https:// URL of an admin listener, without query, for example \
                        http://127.0.0.1:9097 or https://ops.example/scalebridge";
        let url = CheckedUrl::parse(&self.url, expected)?;
        if self.url.contains(['?', '#']) {
            let why = format!("invalid --url {}: expected {expected}", self.url);
            return Err(ClientError::InvalidArguments(why));
        }
        let client = Client::new(&url, &self.credentials)?;
        Ok(self.client.get_or_init(|| client))
    }

    /// Whether requests present a credential, whose name is the actor of what they do.
    pub(super) fn presents_credentials(&self) -> bool {
        self.credentials.are_presented()
    }

    fn request_url(&self, path: &str) -> String {
        format!("{}{path}", self.url.trim_end_matches('/'))
    }

    fn no_response(&self, error: &ureq::Error) -> ClientError {
        let expected = "the admin listener";
        ClientError::RequestFailed(failure::no_response(&self.url, error, &self.credentials, expected))
    }

    fn read_response<R: DeserializeOwned>(
        &self,
        response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<R, ClientError> {
        let url = &self.url;
        let mut response = response.map_err(|error| self.no_response(&error))?;
        let status = response.status();
        let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
        let text = text.map_err(|error| {
            ClientError::RequestFailed(format!("cannot read the response of {url}: {error}"))
        })?;
        if status.is_success() {
            let json = if text.is_empty() { "null" } else { &text };
            return serde_json::from_str(json).map_err(|error| {
                ClientError::RequestFailed(format!("the response of {url} is not valid JSON: {error}"))
            });
        }
        let why = error_text(&text);
        let advice = failure::advice_of_status(status.as_u16(), &why, &self.credentials);
        let parts: Vec<String> =
            [why, advice.unwrap_or_default()].into_iter().filter(|part| !part.is_empty()).collect();
        let why = format!("{url} returned {}: {}", status.as_u16(), parts.join("; "));
        match status.as_u16() {
            // What the request says is wrong, or names what does not exist. 422 rejects the bridge's own configuration.
            400 | 404 | 413 | 415 => Err(ClientError::InvalidArguments(why)),
            _ => Err(ClientError::RequestFailed(why)),
        }
    }
}

/// What an error response says: a problem of the admin API, an error of the webhook, or the text of something else.
fn error_text(body: &str) -> String {
    let Ok(ErrorBody { detail, title, error, errors }) = serde_json::from_str(body) else {
        let is_text = !body.trim_start().starts_with('<');
        return body.trim().chars().take(if is_text { MAX_ERROR_TEXT } else { 0 }).collect();
    };
    let why = [detail, title, error].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    errors.iter().fold(why, |why, error| format!("{why}\n{error}"))
}

/// Appends the fields of a struct of parameters to a request's query.
fn with_query<B>(request: ureq::RequestBuilder<B>, query: &impl Serialize) -> ureq::RequestBuilder<B> {
    let Ok(Value::Object(fields)) = serde_json::to_value(query) else { return request };
    fields.into_iter().fold(request, |request, (key, value)| match value {
        Value::Null => request,
        Value::String(text) => request.query(key, text),
        other => request.query(key, other.to_string()),
    })
}

/// Posts a notification to a webhook; returns the status and the body of the response, with what to do about it.
pub(super) fn send_notification(
    url: &str,
    credentials: &Credentials,
    body: &[u8],
) -> Result<(u16, String), ClientError> {
    let expected =
        "the http:// or https:// URL of a webhook, for example http://127.0.0.1:9096/webhook/local";
    let client = Client::new(&CheckedUrl::parse(url, expected)?, credentials)?;
    let request = client.request(client.agent.post(url), Some(REQUEST_TIMEOUT));
    let mut response = request.content_type("application/json").send(body).map_err(|error| {
        ClientError::RequestFailed(failure::no_response(url, &error, credentials, "the webhook"))
    })?;
    let text =
        response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string().unwrap_or_default();
    let status = response.status().as_u16();
    Ok(match failure::advice_of_status(status, &error_text(&text), credentials) {
        Some(advice) => (status, format!("{}; {advice}", text.trim())),
        None => (status, text),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::api::{BulkResult, DecisionPage, DecisionView};

    #[test]
    fn fields_that_a_newer_bridge_sends_are_ignored_and_printed() {
        let sent = r#"{"succeeded":1,"failed":[],"failed_total":0,"moon":{"phase":"full"}}"#;
        let read: Raw<BulkResult> = serde_json::from_str(sent).unwrap();
        assert_eq!(read.value.succeeded, 1);
        assert_eq!(serde_json::to_string(&read).unwrap(), sent);
    }

    #[test]
    fn words_that_a_newer_bridge_sends_are_read() {
        let decision = r#"{"id":"1.0","at":"2026-11-29T00:00:00Z","verdict":"eclipsed","phase":"waning",
            "target":{"platform":"moon","kind":"crater"},"alerts":[]}"#;
        let page = format!(r#"{{"decisions":[{decision}],"next":"1.0"}}"#);
        let page: DecisionPage<Raw<DecisionView>> = serde_json::from_str(&page).unwrap();
        let decision = &page.decisions[0].value;
        assert_eq!(decision.verdict, "eclipsed");
        assert_eq!((decision.phase, &decision.target), (None, &None));
    }
}
