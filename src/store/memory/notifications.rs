//! Kept notifications.

use std::collections::VecDeque;

use crate::domain::time::{ClockReading, Time};
use crate::store::KeptNotification;
use crate::store::notifications::{
    MAX_REMOVED_BY_INSERT, NotificationCursor, NotificationLimits, NotificationPage, NotificationQuery,
    PageBuilder,
};

/// Kept notifications with their positions and times, oldest first.
#[derive(Default)]
pub(super) struct Notifications {
    kept: VecDeque<(i64, ClockReading, KeptNotification)>,
    /// The first position that was never used.
    next: i64,
}

impl Notifications {
    pub(super) fn put(&mut self, clock: ClockReading, notification: KeptNotification) {
        let position = self.next.max(clock.now.as_nanos());
        self.next = position.saturating_add(1);
        let max_bytes = notification.max_bytes;
        self.kept.push_back((position, clock, notification));
        self.prune_bytes(max_bytes, MAX_REMOVED_BY_INSERT);
    }

    pub(super) fn prune(&mut self, now: Time, limits: NotificationLimits) {
        let NotificationLimits { max_age, max_bytes } = limits;
        if !limits.is_enabled() {
            self.kept.clear();
        }
        let age = i64::try_from(max_age.as_nanos()).unwrap_or(i64::MAX);
        let oldest = now.as_nanos().saturating_sub(age);
        self.kept.retain(|(position, ..)| *position >= oldest);
        self.prune_bytes(max_bytes, usize::MAX);
    }

    fn prune_bytes(&mut self, max_bytes: u64, max: usize) {
        let mut bytes: u64 = self.kept.iter().map(|(.., notification)| notification.body.len()).sum();
        for _ in 0..max {
            if bytes <= max_bytes {
                return;
            }
            bytes -= self.kept.pop_front().map_or(bytes, |(.., oldest)| oldest.body.len());
        }
    }

    pub(super) fn page(&self, query: &NotificationQuery) -> NotificationPage {
        let NotificationQuery { source, from, to, after, max } = query;
        let mut page = PageBuilder::new(*max);
        for (position, clock, KeptNotification { source: from_source, body, .. }) in &self.kept {
            let cursor = NotificationCursor::new(*position);
            let is_wanted = (from.as_nanos()..=to.as_nanos()).contains(position)
                && after.is_none_or(|after| cursor > after)
                && source.as_ref().is_none_or(|source| source == from_source);
            if is_wanted && !page.add(cursor, from_source.as_str(), *clock, body) {
                break;
            }
        }
        page.finish()
    }
}
