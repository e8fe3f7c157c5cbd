//! Few lines for many requests: anyone who can reach a listener can send thousands of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Further requests of a kind have one line in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Decides which requests have a line. The kinds `K` must be few: names of the configuration, or of a fixed list.
#[derive(Debug)]
pub(crate) struct LogLimit<K>(Mutex<BTreeMap<K, Line>>);

#[derive(Debug)]
struct Line {
    logged_at: Instant,
    /// Requests since that line.
    count: u64,
}

impl<K> Default for LogLimit<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Ord> LogLimit<K> {
    /// The number of requests of this kind since the last line, with this one; `None` if there was a line within the
    /// interval.
    pub(crate) fn count_to_log(&self, kind: K, now: Instant) -> Option<u64> {
        let mut lines = self.0.lock();
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
    fn the_first_request_of_a_kind_is_logged_and_then_their_number_once_a_minute() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let at = |seconds, source: &'static str, reason: &'static str| {
            limit.count_to_log((source, reason), start + Duration::from_secs(seconds))
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
