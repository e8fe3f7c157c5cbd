//! HTTP client of the admin API and of the webhook.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::escape::escape_lines;
use super::output::{EXIT_FAILED, EXIT_USAGE};
use crate::telemetry;

/// Timeout of a request; a stream has none.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a POST, which may redrive or discard hundreds of thousands of dead letters.
const BULK_REQUEST_TIMEOUT: Duration = Duration::from_secs(900);
/// Maximum size of a response.
const MAX_RESPONSE_BYTES: u64 = 256 << 20;

/// Address and credentials of the running bridge.
#[derive(Debug, Clone, Args)]
pub(super) struct Server {
    /// URL of the bridge's admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9097", env = "SCALEBRIDGE_URL")]
    pub url: String,
    /// File containing the bearer token
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
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
    pub(super) fn get<R: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<R, ClientError> {
        let request = self.authorized(agent(Some(REQUEST_TIMEOUT)).get(self.request_url(path)?))?;
        read_response(with_query(request, query).call(), &self.url)
    }

    pub(super) fn post<R: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
        body: &[u8],
    ) -> Result<R, ClientError> {
        let request = self.authorized(agent(Some(BULK_REQUEST_TIMEOUT)).post(self.request_url(path)?))?;
        read_response(with_query(request, query).content_type("application/json").send(body), &self.url)
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
        let request = self.authorized(agent(Some(REQUEST_TIMEOUT)).delete(self.request_url(path)?))?;
        read_response(with_query(request, query).call(), &self.url)
    }

    /// Opens a stream of server-sent events, which ends only when the bridge stops.
    pub(super) fn stream<Q: Serialize>(
        &self,
        path: &str,
        query: &Q,
    ) -> Result<impl std::io::BufRead + use<Q>, ClientError> {
        let request = self.authorized(agent(None).get(self.request_url(path)?))?;
        let response =
            with_query(request, query).call().map_err(|error| connection_error(&self.url, &error))?;
        if !response.status().is_success() {
            return read_response::<IgnoredAny>(Ok(response), &self.url)
                .and(Err(ClientError::RequestFailed("the bridge did not return a stream".to_owned())));
        }
        Ok(std::io::BufReader::new(response.into_body().into_reader()))
    }

    fn request_url(&self, path: &str) -> Result<String, ClientError> {
        if !self.url.starts_with("http://") {
            return Err(ClientError::InvalidArguments(format!(
                "invalid --url {}: expected the http:// URL of an admin listener, for example http://127.0.0.1:9097",
                self.url
            )));
        }
        Ok(format!("{}{path}", self.url.trim_end_matches('/')))
    }

    /// Whether requests present a credential, whose name is the actor of what they do.
    pub(super) fn presents_credentials(&self) -> bool {
        self.token_file.is_some()
    }

    fn authorized<B>(
        &self,
        request: ureq::RequestBuilder<B>,
    ) -> Result<ureq::RequestBuilder<B>, ClientError> {
        let Some(path) = &self.token_file else { return Ok(request) };
        let token = std::fs::read_to_string(path).map_err(|error| {
            ClientError::InvalidArguments(format!("cannot read {}: {error}", path.display()))
        })?;
        Ok(request.header("authorization", format!("Bearer {}", token.trim())))
    }
}

fn agent(timeout: Option<Duration>) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(timeout);
    config.timeout_connect(Some(Duration::from_secs(5))).proxy(None).build().into()
}

fn connection_error(url: &str, error: &ureq::Error) -> ClientError {
    ClientError::RequestFailed(format!(
        "no response from {url}: {error}; is it the admin listener of a running bridge?"
    ))
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

fn read_response<R: DeserializeOwned>(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    url: &str,
) -> Result<R, ClientError> {
    let mut response = response.map_err(|error| connection_error(url, &error))?;
    let status = response.status();
    let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
    let text = text
        .map_err(|error| ClientError::RequestFailed(format!("cannot read the response of {url}: {error}")))?;
    if status.is_success() {
        let json = if text.is_empty() { "null" } else { &text };
        return serde_json::from_str(json).map_err(|error| {
            ClientError::RequestFailed(format!("the response of {url} is not valid JSON: {error}"))
        });
    }
    let ErrorBody { detail, title, error, errors } = serde_json::from_str(&text).unwrap_or_default();
    let why = [detail, title, error].into_iter().find(|text| !text.is_empty()).unwrap_or_default();
    let errors: String = errors.iter().map(|error| format!("\n{error}")).collect();
    let why = format!("{url} returned {}: {why}{errors}", status.as_u16());
    match status.as_u16() {
        // What the request says is wrong, or names what does not exist. 422 rejects the bridge's own configuration.
        400 | 404 | 413 | 415 => Err(ClientError::InvalidArguments(why)),
        _ => Err(ClientError::RequestFailed(why)),
    }
}

/// Posts a notification to a webhook; returns the status and the body of the response.
pub(super) fn send_notification(
    url: &str,
    token: Option<&str>,
    body: &[u8],
) -> Result<(u16, String), ClientError> {
    let mut request = agent(Some(REQUEST_TIMEOUT)).post(url).content_type("application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut response = request.send(body).map_err(|error| {
        let why = format!("no response from {url}: {error}; is it the webhook of a running bridge?");
        ClientError::RequestFailed(why)
    })?;
    let text =
        response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string().unwrap_or_default();
    Ok((response.status().as_u16(), text))
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
