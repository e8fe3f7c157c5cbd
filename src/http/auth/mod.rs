//! Who may use the listeners: credentials, scopes, and requests that browsers send for other sites.

mod admin;
mod origin;
mod refusals;
mod source;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::config::access::ListenerAccess;
use crate::kinds::Settings;
use crate::ops::ActiveCredentials;
use crate::telemetry::Metrics;
pub(super) use admin::{Caller, Routes};
use origin::{BrowserAccess, ExternalUrl};
use refusals::Refusals;
pub(super) use source::RefusedSender;

/// What decides who may use the listeners. A reload replaces the parts that do not need a restart.
pub(crate) struct Access {
    credentials: Arc<ActiveCredentials>,
    current: ArcSwap<Current>,
    refusals: Refusals,
}

/// The settings in force, beside the credentials.
#[derive(Default)]
struct Current {
    /// How browsers reach the admin listener.
    browsers: BrowserAccess,
    metrics_unauthenticated: bool,
    /// Headers of all responses of `server.listen`.
    server_headers: HeaderMap,
    /// The same of `admin.listen`.
    admin_headers: HeaderMap,
}

impl Access {
    pub(crate) fn new(settings: &Settings, credentials: Arc<ActiveCredentials>, metrics: Metrics) -> Self {
        Self {
            credentials,
            current: ArcSwap::from_pointee(Current::new(settings)),
            refusals: Refusals::new(metrics),
        }
    }

    /// Replaces credentials, `external_url` and response headers by those of reloaded settings.
    pub(crate) fn reload(&self, settings: &Settings) {
        self.credentials.reload(settings);
        self.current.store(Current::new(settings).into());
    }
}

impl Current {
    fn new(settings: &Settings) -> Self {
        let admin = &settings.admin;
        Self {
            browsers: BrowserAccess {
                on_loopback: admin.listen.ip().to_canonical().is_loopback(),
                has_tls: admin.access.tls.is_some(),
                is_open: admin.auth.is_empty() && !admin.access.has_users(),
                external_url: admin.auth.external_url.as_deref().and_then(ExternalUrl::parse),
            },
            metrics_unauthenticated: admin.auth.metrics_unauthenticated,
            server_headers: response_headers(&settings.server.access),
            admin_headers: response_headers(&admin.access),
        }
    }
}

/// `http_server_config.headers` of a `web_config_file`; what is not a header is refused when the file is read.
fn response_headers(access: &ListenerAccess) -> HeaderMap {
    let headers = access.web_config.iter().flat_map(|config| &config.headers);
    let header = |(name, value): &(String, String)| {
        Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?))
    };
    headers.filter_map(header).collect()
}

/// Adds the configured headers to each response of `server.listen`.
pub(super) async fn server_headers(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = next.run(request).await;
    add_headers(&mut response, &access.current.load().server_headers);
    response
}

/// The same for `admin.listen`.
async fn admin_headers(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    add_headers(&mut response, &access.current.load().admin_headers);
    response
}

fn add_headers(response: &mut Response, headers: &HeaderMap) {
    for (name, value) in headers {
        response.headers_mut().insert(name, value.clone());
    }
}
