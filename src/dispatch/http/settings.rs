//! The settings of HTTP services.

use std::path::PathBuf;

use crate::config::access::HttpClient;
use crate::config::read::{
    Code, Diagnostics, Fields, Node, flag, http_client, number, signing_key_files, text,
};
use crate::credentials::{is_loopback_url, link_local_host, shown_url};
use crate::domain::size_limit::SizeLimit;

/// The default of `max_event_bytes`.
const DEFAULT_EVENT_BYTES: usize = 1024 * 1024;

/// Settings of an HTTP service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The URL, without user info and fragment.
    pub url: String,
    /// Credentials, TLS and proxy.
    pub client: HttpClient,
    /// Files with one key each, with all of which every event is signed. Empty: no signature.
    pub signing_key_files: Vec<PathBuf>,
    /// Whether link-local addresses are called, and those of metadata services.
    pub allow_link_local: bool,
    /// Maximum size of an event, from [`Settings::MIN_EVENT_BYTES`] to [`Settings::MAX_EVENT_BYTES`].
    pub max_event_bytes: usize,
}

impl Settings {
    /// A smaller limit has no room for a single alert.
    const MIN_EVENT_BYTES: usize = 8 * 1024;
    const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

    pub(crate) fn size_limit(&self) -> SizeLimit {
        SizeLimit::of_body(self.max_event_bytes)
    }

    /// The URL as operators see it: what is after `?` may be a secret.
    pub(crate) fn address(&self) -> String {
        shown_url(&self.url)
    }
}

/// Reads and checks the settings.
pub(crate) fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<Settings> {
    let mut fields = Fields::from_node(node, "destinations.*.http", diagnostics)?;
    let bytes = Settings::MIN_EVENT_BYTES as i64..=Settings::MAX_EVENT_BYTES as i64;
    let url = fields.get_required("url", URL, url);
    let client = fields.get("http", http_client).unwrap_or_default();
    let signing_key_files = fields.get("signing_key_files", signing_key_files).unwrap_or_default();
    let allow_link_local = fields.get("allow_link_local", flag).unwrap_or(false);
    let max_event_bytes = fields.get("max_event_bytes", number(bytes)).unwrap_or(DEFAULT_EVENT_BYTES);
    let url_at = fields.location_of("url").clone();
    if let Some(url) = &url {
        if let Some(address) = link_local_host(url).filter(|_| !allow_link_local) {
            let message = format!("{address} is link-local, or the address of a metadata service");
            let help = "use another address, or set `allow_link_local: true`";
            fields.diagnostics.add_with_help(Code::Contradiction, &url_at, message, help);
        }
        if client.authorization.is_some() && url.starts_with("http:") && !is_loopback_url(url) {
            let message = "credentials are sent over plain HTTP";
            let help = "use an https:// URL, or `signing_key_files` instead of `http.authorization`";
            fields.diagnostics.add_with_help(Code::PlainHttp, &url_at, message, help);
        }
    }
    fields.finish();
    Some(Settings { url: url?, client, signing_key_files, allow_link_local, max_event_bytes })
}

const URL: &str = "url: https://scaler.example/events";

fn url(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let problem = match reqwest::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))
    {
        None => "`url` is not a valid http:// or https:// URL",
        Some(url) if !url.username().is_empty() || url.password().is_some() => {
            "`url` contains user info, which is a secret"
        }
        Some(url) if url.fragment().is_some() => "`url` has a fragment",
        Some(_) => return Some(text.to_owned()),
    };
    let help = format!(
        "use the complete URL, for example `{URL}`; credentials are set by `http: {{ authorization: {{ \
         credentials_file: … }} }}`"
    );
    diagnostics.add_with_help(Code::Value, &node.location, problem, help);
    None
}
