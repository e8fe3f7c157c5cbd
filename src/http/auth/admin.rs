//! Credentials and scopes of the admin listener.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use tower_service::Service as _;

use super::refusals::ListenerName;
use super::{Access, admin_headers};
use crate::config::access::Scope;
use crate::credentials::{AuthFailure, Denied};
use crate::http::problem;
use crate::http::{HttpState, response_budget, transport};
use crate::ops::api::Problem;
use crate::ops::{Initiator, Requester};

/// Open to everyone, also to pages of other sites: they say no more than a connection does.
const PROBES: [&str; 2] = ["/-/healthy", "/-/ready"];
const METRICS: &str = "/metrics";

/// Who sends a request to the admin listener, and what it may do.
#[derive(Clone)]
pub(in crate::http) struct Caller {
    requester: Requester,
    scope: Scope,
}

/// Collects routes of the admin listener. There is no way to add one without saying who may use it.
pub(in crate::http) struct Routes {
    router: Router<HttpState>,
    shared: HttpState,
}

impl Routes {
    pub(in crate::http) fn new(shared: HttpState) -> Self {
        Self { router: Router::new(), shared }
    }

    /// A route for those whose scope includes `scope`.
    pub(in crate::http) fn scoped(self, scope: Scope, path: &str, handler: MethodRouter<HttpState>) -> Self {
        let shared = self.shared.clone();
        let guarded = handler.route_layer(middleware::from_fn(move |request: Request, next: Next| {
            let shared = shared.clone();
            async move {
                match shared.access.require_scope(scope, &request) {
                    Ok(()) => next.run(request).await,
                    Err(problem) => problem.into_response(),
                }
            }
        }));
        Self { router: self.router.route(path, guarded), ..self }
    }

    /// The routes for Kubernetes' and other probes.
    pub(in crate::http) fn probes(
        self,
        healthy: MethodRouter<HttpState>,
        ready: MethodRouter<HttpState>,
    ) -> Self {
        Self { router: self.router.route(PROBES[0], healthy).route(PROBES[1], ready), ..self }
    }

    /// The listener: these routes, behind authentication. `unknown_path` and `unknown_method` answer other requests.
    pub(in crate::http) fn into_router(self, unknown_path: Problem, unknown_method: Problem) -> Router {
        let Self { router, shared } = self;
        let access = shared.access.clone();
        let mut guarded = router
            .fallback(async move || unknown_path)
            .method_not_allowed_fallback(async move || unknown_method)
            .layer(middleware::from_fn_with_state(shared.clone(), response_budget::limit))
            .layer(middleware::from_fn_with_state(access.clone(), authenticate))
            .with_state(shared);
        let prefix_of = access.clone();
        // Paths are matched before the layers of a router are called, so the prefix is removed around it.
        Router::new()
            .fallback(async move |mut request: Request| {
                if let Some(external) = &prefix_of.current.load().browsers.external_url
                    && let Some(uri) = external.strip_prefix(request.uri())
                {
                    *request.uri_mut() = uri;
                }
                guarded.call(request).await
            })
            .layer(middleware::from_fn_with_state(access, admin_headers))
    }
}

/// Refuses requests of other sites, and those without valid credentials.
async fn authenticate(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    if PROBES.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    match access.admit(&parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(response) => response,
    }
}

impl Access {
    async fn admit(&self, request: &Parts) -> Result<Caller, Response> {
        let current = self.current.load_full();
        let (headers, is_metrics) = (&request.headers, request.uri.path() == METRICS);
        // Prometheus scrapes by whatever name it has discovered.
        let any_host = is_metrics && !current.browsers.on_loopback;
        let host = if any_host { Ok(()) } else { current.browsers.refuse_host(headers) };
        host.map_err(|why| self.refuse(AuthFailure::CrossSite, None, StatusCode::MISDIRECTED_REQUEST, why))?;
        let own_site = current.browsers.refuse_cross_site(headers);
        own_site.map_err(|why| self.refuse(AuthFailure::CrossSite, None, StatusCode::FORBIDDEN, why))?;
        if is_metrics && current.metrics_unauthenticated {
            return Ok(Caller { requester: Requester::default(), scope: Scope::Read });
        }
        match self.credentials.check_admin(transport::presented(request)).await {
            Ok(None) => Ok(Caller { requester: Requester::default(), scope: Scope::Operate }),
            Ok(Some(principal)) => match Requester::of_credential(&principal.name) {
                Ok(requester) => Ok(Caller { requester, scope: principal.scope }),
                Err(error) => {
                    Err(self.refuse(AuthFailure::Malformed, None, StatusCode::FORBIDDEN, &error.to_string()))
                }
            },
            Err(denied) => Err(self.deny(&denied)),
        }
    }

    fn deny(&self, denied: &Denied) -> Response {
        match denied {
            Denied::Unauthenticated { failure, challenge } => {
                let text = match failure {
                    AuthFailure::Missing => {
                        "the admin listener requires credentials: send a token, user or client certificate of `admin`"
                    }
                    AuthFailure::Expired => "the token has expired or is not valid yet: send a new one",
                    _ => "wrong credentials: compare them with those of `admin` in the configuration",
                };
                let mut response = self.refuse(*failure, None, StatusCode::UNAUTHORIZED, text);
                let challenge = HeaderValue::from_static(challenge);
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                response
            }
            Denied::Forbidden(failure) => self.refuse(
                *failure,
                None,
                StatusCode::FORBIDDEN,
                "these credentials may not use the admin listener",
            ),
            Denied::Unavailable(error) => {
                let text = "scalebridge cannot read its own credentials, retry; the cause is in its log";
                self.refuse(AuthFailure::OwnSecret, Some(error), StatusCode::SERVICE_UNAVAILABLE, text)
            }
            Denied::Busy => {
                let text = "too many credentials are being checked, retry";
                self.refuse(AuthFailure::Busy, None, StatusCode::SERVICE_UNAVAILABLE, text)
            }
        }
    }

    /// A route's scope is compared with that of the caller; without one, the request is refused.
    fn require_scope(&self, scope: Scope, request: &Request) -> Result<(), Problem> {
        if request.extensions().get::<Caller>().is_some_and(|caller| caller.scope >= scope) {
            return Ok(());
        }
        self.refusals.record(ListenerName::Admin, None, AuthFailure::Scope, None, Instant::now());
        Err(problem::new(StatusCode::FORBIDDEN, "this needs credentials with `scope: operate`"))
    }

    /// Counts and logs a refused request, and answers it.
    fn refuse(&self, failure: AuthFailure, error: Option<&str>, status: StatusCode, text: &str) -> Response {
        self.refusals.record(ListenerName::Admin, None, failure, error, Instant::now());
        problem::new(status, text).into_response()
    }
}

impl Caller {
    /// The initiator of a request, whose author and reason can be absent.
    pub(in crate::http) fn initiator(
        &self,
        author: Option<&str>,
        reason: Option<&str>,
    ) -> Result<Initiator, Problem> {
        Ok(self.requester.initiator(author, reason)?)
    }

    /// The initiator of an act that requires a reason.
    pub(in crate::http) fn initiator_with_reason(
        &self,
        author: Option<&str>,
        reason: &str,
    ) -> Result<Initiator, Problem> {
        Ok(self.requester.initiator_with_reason(author, reason)?)
    }

    /// The initiator of an act that requires a reason, and an author if no credential names one.
    pub(in crate::http) fn named_initiator(
        &self,
        author: Option<&str>,
        reason: &str,
    ) -> Result<Initiator, Problem> {
        Ok(self.requester.named_initiator(author, reason)?)
    }
}

impl FromRequestParts<HttpState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &HttpState) -> Result<Self, Problem> {
        let unknown = || problem::new(StatusCode::FORBIDDEN, "the sender of this request is not known");
        parts.extensions.get::<Self>().cloned().ok_or_else(unknown)
    }
}
