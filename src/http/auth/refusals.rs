//! Refused requests: each is counted, and few are logged, since whoever reaches the listener can send thousands of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::credentials::AuthFailure;
use crate::domain::name::Name;
use crate::telemetry::Metrics;

/// Further refusals of a place for the same reason have one line in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

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
    lines: Mutex<BTreeMap<(&'static str, String, &'static str), Line>>,
}

#[derive(Debug)]
struct Line {
    logged_at: Instant,
    /// Refusals since that line.
    count: u64,
}

impl Refusals {
    /// Creates the series of all reasons.
    pub(super) fn new(metrics: Metrics) -> Self {
        for listener in ListenerName::ALL {
            let zero =
                |failure: AuthFailure| metrics.record_auth_failures(listener.as_str(), failure.as_str(), 0);
            AuthFailure::ALL.into_iter().for_each(zero);
        }
        Self { metrics, lines: Mutex::default() }
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
        let Some(count) = self.count_to_log((listener, source.unwrap_or_default().to_owned(), reason), now)
        else {
            return;
        };
        match error {
            Some(error) => {
                tracing::error!(listener, source, reason, error, count, "credentials cannot be checked");
            }
            None => tracing::warn!(listener, source, reason, count, "requests refused"),
        }
    }

    /// The number of refusals since the last line, with this one; `None` if there was a line within the interval.
    fn count_to_log(&self, kind: (&'static str, String, &'static str), now: Instant) -> Option<u64> {
        let mut lines = self.lines.lock();
        let Some(line) = lines.get_mut(&kind) else {
            lines.insert(kind, Line { logged_at: now, count: 0 });
            return Some(1);
        };
        line.count += 1;
        if now.saturating_duration_since(line.logged_at) < LOG_INTERVAL {
            return None;
        }
        line.logged_at = now;
        Some(std::mem::take(&mut line.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_refusal_of_a_kind_is_logged_and_then_their_number_once_a_minute() {
        let refusals = Refusals::new(Metrics::new());
        let start = Instant::now();
        let kind = |source: &str, reason| ("server", source.to_owned(), reason);
        let at = |seconds, source, reason| {
            refusals.count_to_log(kind(source, reason), start + Duration::from_secs(seconds))
        };
        assert_eq!(at(0, "prod", "wrong"), Some(1));
        assert!((0..1000).all(|request| at(request * 59 / 1000, "prod", "wrong").is_none()));
        assert_eq!(at(59, "lab", "wrong"), Some(1), "another source");
        assert_eq!(at(59, "prod", "missing"), Some(1), "another reason");
        assert_eq!(at(60, "prod", "wrong"), Some(1001));
        assert_eq!(at(61, "prod", "wrong"), None);
        assert_eq!(at(500, "prod", "wrong"), Some(2));
    }
}
