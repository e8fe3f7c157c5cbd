//! Refused requests: each is counted, and few are logged, since anyone who can reach the listener can send thousands of them.

use std::time::Instant;

use crate::credentials::AuthFailure;
use crate::domain::name::Name;
use crate::intake::LogLimit;
use crate::telemetry::Metrics;

/// A listener: the label `listener` of `scalebridge_auth_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListenerName {
    /// `server.listen`.
    Server,
    /// `admin.listen`.
    Admin,
}

impl ListenerName {
    const ALL: [Self; 2] = [Self::Server, Self::Admin];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Admin => "admin",
        }
    }
}

/// Counts and logs refused requests.
pub(super) struct Refusals {
    metrics: Metrics,
    /// The lines by listener, source and reason; all three are from the configuration or from a fixed list.
    lines: LogLimit<(&'static str, String, &'static str)>,
}

impl Refusals {
    /// Creates the series of all reasons.
    pub(super) fn new(metrics: Metrics) -> Self {
        for listener in ListenerName::ALL {
            let zero =
                |failure: AuthFailure| metrics.record_auth_failures(listener.as_str(), failure.as_str(), 0);
            AuthFailure::ALL.into_iter().for_each(zero);
        }
        Self { metrics, lines: LogLimit::default() }
    }

    /// Counts a refused request, and logs it if it is the first of its kind within a minute. `source` is that of a
    /// webhook request, if it is known; `error` what cannot be read, if that is why.
    pub(super) fn record(
        &self,
        listener: ListenerName,
        source: Option<&Name>,
        failure: AuthFailure,
        error: Option<&str>,
        now: Instant,
    ) {
        let (listener, reason) = (listener.as_str(), failure.as_str());
        self.metrics.record_auth_failures(listener, reason, 1);
        let source = source.map(Name::as_str);
        let kind = (listener, source.unwrap_or_default().to_owned(), reason);
        let Some(count) = self.lines.count_to_log(kind, now) else { return };
        match error {
            Some(error) => {
                tracing::error!(listener, source, reason, error, count, "credentials cannot be checked");
            }
            None => tracing::warn!(listener, source, reason, count, "requests refused"),
        }
    }
}
