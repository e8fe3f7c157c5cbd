//! Credentials: who may send to a source, and who may use the admin listener.
//!
//! The settings name files; what they contain is read here, again when a file changes. A comparison takes the same time
//! whatever is presented and whatever is configured. A secret of the bridge itself that cannot be read makes a request
//! [`Denied::Unavailable`], never a failure of the sender: Alertmanager retries a 503 and gives up on a 401.

mod admin;
mod certificate;
#[cfg(test)]
#[path = "../../tests/it/support/certificates.rs"]
#[allow(dead_code, reason = "shared with the integration tests")]
mod certificates;
mod file;
pub(crate) mod fuzzing;
mod header;
mod jwt;
mod outgoing;
mod password;
mod registry;
mod signature;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod token;

use std::net::IpAddr;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;

use crate::config::Secret;
use crate::config::access::Scope;
pub(crate) use admin::AdminCredentials;
pub(crate) use certificate::San;
pub(crate) use outgoing::{
    OutgoingClient, OwnListener, PostError, PostLimits, Reply, Signer, is_loopback_url, link_local_host,
    shown_url,
};
pub(crate) use source::{Check, SignedRequest, SourceCredentials};

/// What a request presents.
#[derive(Clone, Copy)]
pub(crate) struct Presented<'r> {
    /// The headers of the request.
    pub headers: &'r HeaderMap,
    /// The client certificate of its connection, if it was verified.
    pub client_certificate: Option<&'r ClientCertificate>,
    /// The address of the other end of its connection: that of a proxy, if there is one.
    pub peer: IpAddr,
}

/// A verified client certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    /// The common name of the subject, if it has exactly one.
    pub common_name: Option<String>,
    /// Subject alternative names.
    pub sans: Vec<San>,
    /// The last second in which it is valid, since 1970.
    pub not_after: i64,
}

/// Who uses the admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The name of the credential, the actor in the audit trail.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
}

/// Why a request is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// 401: no credential, or a wrong one.
    Unauthenticated {
        /// Why, for the metric.
        failure: AuthFailure,
        /// `WWW-Authenticate` of the response.
        challenge: &'static str,
    },
    /// 403: a valid credential, of another source, or without the scope that is needed.
    Forbidden(AuthFailure),
    /// 503: a secret or key set of the bridge itself cannot be read. The text names the file or URL and the cause, for
    /// the log; it is not for the sender.
    Unavailable(String),
    /// 503: too many comparisons of passwords wait, in all or for the address of the peer, or the key of a token is unknown
    /// and new keys cannot be fetched now. Counted as [`AuthFailure::Busy`].
    Busy,
}

/// Why a credential does not count: the label `reason` of `scalebridge_auth_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthFailure {
    /// No credential was presented.
    Missing,
    /// Not a header that can be read: two of them, an unknown scheme, too long.
    Malformed,
    /// An unknown token, user or password.
    Wrong,
    /// A token that is not a valid JWT of a configured issuer and audience, or is signed with another key or algorithm.
    InvalidToken,
    /// A signature without the time that it must have.
    MissingTimestamp,
    /// A token that has expired, or is not valid yet; a signature whose time is too far from that of the bridge.
    Expired,
    /// A certificate that no credential names.
    UnknownCertificate,
    /// A credential of another source.
    OtherSource,
    /// A credential without the scope that is needed.
    Scope,
    /// Too many comparisons of passwords wait, or new keys cannot be fetched now.
    Busy,
    /// A secret of the bridge itself cannot be read.
    OwnSecret,
    /// A request from a page of another site.
    CrossSite,
}

impl AuthFailure {
    pub(crate) const ALL: [Self; 12] = [
        Self::Missing,
        Self::Malformed,
        Self::Wrong,
        Self::InvalidToken,
        Self::MissingTimestamp,
        Self::Expired,
        Self::UnknownCertificate,
        Self::OtherSource,
        Self::Scope,
        Self::Busy,
        Self::OwnSecret,
        Self::CrossSite,
    ];

    /// The label of the metric.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Wrong => "wrong",
            Self::InvalidToken => "invalid_token",
            Self::MissingTimestamp => "missing_timestamp",
            Self::Expired => "expired",
            Self::UnknownCertificate => "unknown_certificate",
            Self::OtherSource => "other_source",
            Self::Scope => "scope",
            Self::Busy => "busy",
            Self::OwnSecret => "own_secret",
            Self::CrossSite => "cross_site",
        }
    }
}

/// `WWW-Authenticate` for the kinds of credentials that are configured. A client certificate has no scheme, and a 401
/// must have one.
const fn challenge(has_bearer: bool, has_basic: bool) -> &'static str {
    match (has_bearer, has_basic) {
        (true, true) => r#"Bearer realm="scalebridge", Basic realm="scalebridge", charset="UTF-8""#,
        (false, true) => r#"Basic realm="scalebridge", charset="UTF-8""#,
        (_, false) => r#"Bearer realm="scalebridge""#,
    }
}

/// The secret in a file, now.
///
/// # Errors
/// Why it cannot be read, without its path and content. Blocks.
pub(crate) fn read_secret(path: &Path) -> Result<Secret, String> {
    file::read_text(path, file::MAX_SECRET_BYTES).map(Secret::new)
}

/// The time that tokens and certificates are checked against, in seconds since 1970.
fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
