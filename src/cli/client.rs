//! HTTP client of the admin API and of the webhook.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

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
    /// The arguments are invalid; no request was sent.
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
        telemetry::print_to_stderr(format_args!("scalebridge: {why}"));
        ExitCode::from(code)
    }
}

impl Server {
    pub(super) fn get(&self, path: &str, query: &[(&'static str, String)]) -> Result<Value, ClientError> {
        let request = self.authorized(agent(Some(REQUEST_TIMEOUT)).get(self.request_url(path)?))?;
        read_response(
            query.iter().fold(request, |request, (key, value)| request.query(key, value)).call(),
            &self.url,
        )
    }

    pub(super) fn post(
        &self,
        path: &str,
        query: &[(&'static str, String)],
        body: &[u8],
    ) -> Result<Value, ClientError> {
        let request = self.authorized(agent(Some(BULK_REQUEST_TIMEOUT)).post(self.request_url(path)?))?;
        let request = query.iter().fold(request, |request, (key, value)| request.query(key, value));
        read_response(request.content_type("application/json").send(body), &self.url)
    }

    pub(super) fn delete(&self, path: &str, query: &[(&'static str, String)]) -> Result<Value, ClientError> {
        let request = self.authorized(agent(Some(REQUEST_TIMEOUT)).delete(self.request_url(path)?))?;
        read_response(
            query.iter().fold(request, |request, (key, value)| request.query(key, value)).call(),
            &self.url,
        )
    }

    /// Opens a stream of server-sent events, which ends only when the bridge stops.
    pub(super) fn stream(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<impl std::io::BufRead + use<>, ClientError> {
        let request = self.authorized(agent(None).get(self.request_url(path)?))?;
        let request = query.iter().fold(request, |request, (key, value)| request.query(key, value));
        let response = request.call().map_err(|error| connection_error(&self.url, &error))?;
        if !response.status().is_success() {
            return read_response(Ok(response), &self.url)
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

fn read_response(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    url: &str,
) -> Result<Value, ClientError> {
    let mut response = response.map_err(|error| connection_error(url, &error))?;
    let status = response.status();
    let text = response.body_mut().with_config().limit(MAX_RESPONSE_BYTES).read_to_string();
    let text = text
        .map_err(|error| ClientError::RequestFailed(format!("cannot read the response of {url}: {error}")))?;
    let value = serde_json::from_str::<Value>(&text);
    if status.is_success() {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        return value.map_err(|error| {
            ClientError::RequestFailed(format!("the response of {url} is not valid JSON: {error}"))
        });
    }
    let problem = value.ok();
    let field = |key: &str| problem.as_ref().and_then(|problem| problem.get(key)).and_then(Value::as_str);
    let errors = problem.as_ref().and_then(|problem| problem.get("errors")).and_then(Value::as_array);
    let errors: Vec<&str> = errors.into_iter().flatten().filter_map(Value::as_str).collect();
    let why = field("detail").or_else(|| field("title")).or_else(|| field("error")).unwrap_or_default();
    let errors: String = errors.iter().map(|error| format!("\n{error}")).collect();
    Err(ClientError::RequestFailed(format!("{url} returned {}: {why}{errors}", status.as_u16())))
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
