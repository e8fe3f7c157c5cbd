//! Asks a running bridge: the admin API from the shell.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::shell::{FOUND, UNUSABLE};
use crate::telemetry;

/// For one request that looks at something; a stream has none.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For one that does something, perhaps with some hundred thousand dead letters.
const PATIENCE: Duration = Duration::from_secs(900);
/// The most bytes of an answer that are read.
const MOST_BYTES: u64 = 256 << 20;

/// Which bridge, and with which credentials.
#[derive(Debug, Clone, Args)]
pub struct Server {
    /// The bridge's admin listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9097", env = "SCALEBRIDGE_URL")]
    pub url: String,
    /// A file with the token to show
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Refused {
    /// It was not asked: the flags cannot be used.
    Unusable(String),
    /// It does not answer, or says no.
    No(String),
}

impl Refused {
    /// Says why on stderr and gives the exit code.
    pub fn end(self) -> ExitCode {
        let (code, why) = match self {
            Self::Unusable(why) => (UNUSABLE, why),
            Self::No(why) => (FOUND, why),
        };
        telemetry::print_to_stderr(format_args!("scalebridge: {why}"));
        ExitCode::from(code)
    }
}

impl Server {
    /// What the bridge answers to a GET.
    pub fn get(&self, path: &str, query: &[(&'static str, String)]) -> Result<Value, Refused> {
        let request = self.authorized(agent(Some(TIMEOUT)).get(self.address(path)?))?;
        answer(
            query.iter().fold(request, |request, (key, value)| request.query(key, value)).call(),
            &self.url,
        )
    }

    /// What the bridge answers to a POST.
    pub fn post(&self, path: &str, query: &[(&'static str, String)], body: &[u8]) -> Result<Value, Refused> {
        let request = self.authorized(agent(Some(PATIENCE)).post(self.address(path)?))?;
        let request = query.iter().fold(request, |request, (key, value)| request.query(key, value));
        answer(request.content_type("application/json").send(body), &self.url)
    }

    /// What the bridge answers to a DELETE.
    pub fn delete(&self, path: &str, query: &[(&'static str, String)]) -> Result<Value, Refused> {
        let request = self.authorized(agent(Some(TIMEOUT)).delete(self.address(path)?))?;
        answer(
            query.iter().fold(request, |request, (key, value)| request.query(key, value)).call(),
            &self.url,
        )
    }

    /// A stream of lines that does not end by itself.
    pub fn stream(
        &self,
        path: &str,
        query: &[(&'static str, String)],
    ) -> Result<impl std::io::BufRead + use<>, Refused> {
        let request = self.authorized(agent(None).get(self.address(path)?))?;
        let request = query.iter().fold(request, |request, (key, value)| request.query(key, value));
        let response = request.call().map_err(|error| unreachable(&self.url, &error))?;
        if !response.status().is_success() {
            return answer(Ok(response), &self.url).and(Err(Refused::No("it gives no stream".to_owned())));
        }
        Ok(std::io::BufReader::new(response.into_body().into_reader()))
    }

    fn address(&self, path: &str) -> Result<String, Refused> {
        if !self.url.starts_with("http://") {
            let why = "is no http:// address of an admin listener, for example http://127.0.0.1:9097";
            return Err(Refused::Unusable(format!("--url {} {why}", self.url)));
        }
        Ok(format!("{}{path}", self.url.trim_end_matches('/')))
    }

    fn authorized<B>(&self, request: ureq::RequestBuilder<B>) -> Result<ureq::RequestBuilder<B>, Refused> {
        let Some(path) = &self.token_file else { return Ok(request) };
        let token = std::fs::read_to_string(path)
            .map_err(|error| Refused::Unusable(format!("cannot read {}: {error}", path.display())))?;
        Ok(request.header("authorization", format!("Bearer {}", token.trim())))
    }
}

fn agent(timeout: Option<Duration>) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(timeout);
    config.timeout_connect(Some(Duration::from_secs(5))).proxy(None).build().into()
}

fn unreachable(url: &str, error: &ureq::Error) -> Refused {
    Refused::No(format!("no answer from {url}: {error}; is it the admin listener of a running bridge?"))
}

fn answer(
    response: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    url: &str,
) -> Result<Value, Refused> {
    let mut response = response.map_err(|error| unreachable(url, &error))?;
    let status = response.status();
    let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_string();
    let text = text.map_err(|error| Refused::No(format!("the answer of {url} cannot be read: {error}")))?;
    let value = serde_json::from_str::<Value>(&text);
    if status.is_success() {
        if text.is_empty() {
            return Ok(Value::Null);
        }
        return value.map_err(|error| Refused::No(format!("the answer of {url} is no JSON: {error}")));
    }
    let told = value.ok();
    let field = |key: &str| told.as_ref().and_then(|told| told.get(key)).and_then(Value::as_str);
    let errors = told.as_ref().and_then(|told| told.get("errors")).and_then(Value::as_array);
    let errors: Vec<&str> = errors.into_iter().flatten().filter_map(Value::as_str).collect();
    let why = field("detail").or_else(|| field("title")).or_else(|| field("error")).unwrap_or_default();
    let errors: String = errors.iter().map(|error| format!("\n{error}")).collect();
    Err(Refused::No(format!("{url} answers {}: {why}{errors}", status.as_u16())))
}

/// Sends a notification to a webhook: the status, and the answer's text.
pub fn notify(url: &str, token: Option<&str>, body: &[u8]) -> Result<(u16, String), Refused> {
    let mut request = agent(Some(TIMEOUT)).post(url).content_type("application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut response =
        request.send(body).map_err(|error| Refused::No(format!("no answer from {url}: {error}")))?;
    let text = response.body_mut().with_config().limit(MOST_BYTES).read_to_string().unwrap_or_default();
    Ok((response.status().as_u16(), text))
}
