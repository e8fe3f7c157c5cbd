//! Credentials of notifications.

use std::time::Instant;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;

use super::Access;
use super::origin::is_of_browser;
use super::refusals::ListenerName;
use crate::credentials::{AuthFailure, Check, Denied, Presented, SignedRequest};
use crate::domain::name::Name;
use crate::http::error::Rejection;

/// A request whose sender may not send to the source.
pub(in crate::http) struct RefusedSender {
    /// 401, 403 or 503.
    pub rejection: Rejection,
    /// Whether it is a reception gap of the source. A stranger must not make gaps, which stop decreases; but while the
    /// bridge cannot read what tells strangers apart, it refuses the notifications of the source too.
    pub leaves_gap: bool,
}

impl Access {
    /// Whether a request may send to `source`. A refused one is counted and logged here.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::http) async fn check_source(
        &self,
        source: &Name,
        presented: Presented<'_>,
    ) -> Result<Check, RefusedSender> {
        let checked = self.credentials.check_source(source, presented).await;
        checked.map_err(|denied| self.refuse_sender(source, &denied))
    }

    /// Whether a request may send this body, as it was sent, to `source`. A refused one is counted and logged here.
    ///
    /// # Errors
    /// Why not.
    pub(in crate::http) async fn check_signature(
        &self,
        source: &Name,
        request: &SignedRequest,
        body: &Bytes,
    ) -> Result<(), RefusedSender> {
        let checked = self.credentials.check_signature(source, request, body).await;
        checked.map_err(|denied| self.refuse_sender(source, &denied))
    }

    fn refuse_sender(&self, source: &Name, denied: &Denied) -> RefusedSender {
        let (failure, error, rejection) = rejection(source, denied);
        self.refusals.record(ListenerName::Server, Some(source), failure, error, Instant::now());
        // Not if it is busy: a stranger does that with wrong passwords, and one that was right once does not wait.
        let leaves_gap = matches!(denied, Denied::Unavailable(_));
        RefusedSender { rejection: rejection.without_log_line(), leaves_gap }
    }

    /// Whether a request may be meant for the webhook: none of a browser is.
    ///
    /// # Errors
    /// 403.
    pub(in crate::http) fn check_sender(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        if !is_of_browser(headers) {
            return Ok(());
        }
        self.refusals.record(ListenerName::Server, None, AuthFailure::CrossSite, None, Instant::now());
        let text =
            "requests of browsers are refused: send notifications without `Origin` and `Sec-Fetch-Site`";
        Err(Rejection::new(StatusCode::FORBIDDEN, text).without_log_line())
    }
}

/// What is counted, what is logged as the cause, and the answer. The sender gets no more than what it can act on.
fn rejection<'d>(source: &Name, denied: &'d Denied) -> (AuthFailure, Option<&'d str>, Rejection) {
    match denied {
        Denied::Unauthenticated { failure, challenge } => {
            let text = match failure {
                AuthFailure::Missing => {
                    format!(
                        "source `{source}` requires credentials: set those of sources.{source}.auth in `http_config`"
                    )
                }
                AuthFailure::MissingTimestamp => format!(
                    "the signature for source `{source}` has no time: set `Timestamp Header` of Grafana's HMAC \
                     signature to sources.{source}.auth.hmac.timestamp_header"
                ),
                AuthFailure::Expired => format!(
                    "the token or the time of the signature for source `{source}` is too old, or lies in the future: \
                     send a new one, and compare the clocks"
                ),
                _ => format!(
                    "wrong credentials for source `{source}`: compare them with those of sources.{source}.auth"
                ),
            };
            (*failure, None, Rejection::new(StatusCode::UNAUTHORIZED, text).with_challenge(challenge))
        }
        Denied::Forbidden(failure) => {
            let text = format!(
                "these credentials are not for source `{source}`: use those of sources.{source}.auth"
            );
            (*failure, None, Rejection::new(StatusCode::FORBIDDEN, text))
        }
        Denied::Unavailable(error) => {
            let text = format!(
                "scalebridge cannot read its own credentials for source `{source}`, retry; the cause is in its log and status"
            );
            (AuthFailure::OwnSecret, Some(error), Rejection::unavailable(text))
        }
        Denied::Busy => {
            let text = format!("too many credentials are being checked, retry (source `{source}`)");
            (AuthFailure::Busy, None, Rejection::unavailable(text))
        }
    }
}
