//! Kept notifications: the bodies of webhook requests as they came, compressed, so that `replay --since` can process
//! them under other rules.
//!
//! The caller compresses a body before the transaction, since the thread that commits is the bottleneck. Kept
//! notifications are ordered by commit and have two limits: an age, and the number of compressed bytes of all of them.
//! A new one removes the oldest ones where it exceeds the second.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::name::Name;
use crate::domain::time::{ClockReading, Time};

/// The part of the limit of all bodies that one body may have; a larger one is not kept.
const MAX_BODY_SHARE: u64 = 8;
/// The number of kept notifications that a new one can remove. One suffices for bodies of the same size; a few more
/// reach a limit that was lowered.
pub(super) const MAX_REMOVED_BY_INSERT: usize = 8;
/// The number of the newest notifications among which the last one of each source is looked for at a start.
pub(super) const MAX_SCANNED_FOR_LAST: u32 = 10_000;
/// The approximate size of a page of bodies.
pub(super) const MAX_PAGE_BYTES: usize = 8 << 20;
/// The first byte of a stored body: how the rest is encoded.
const PLAIN: u8 = 0;
const LZ4: u8 = 1;
/// The maximum ratio of LZ4. A body that claims a larger one is damaged.
const MAX_COMPRESSION_RATIO: usize = 255;

/// How long notifications are kept, and how many of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotificationLimits {
    /// The maximum age; none are kept if it is zero.
    pub max_age: Duration,
    /// The maximum of the compressed bytes of all bodies; none are kept if it is zero.
    pub max_bytes: u64,
}

impl NotificationLimits {
    /// Whether notifications are kept.
    pub const fn is_enabled(self) -> bool {
        !self.max_age.is_zero() && self.max_bytes > 0
    }
}

/// A notification to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptNotification {
    /// The source.
    pub source: Name,
    /// The compressed body.
    pub body: CompressedBody,
    /// The maximum of the compressed bytes of all bodies, this one included.
    pub max_bytes: u64,
}

impl KeptNotification {
    /// Compresses a body. `None` if notifications are not kept, or if this one is too large.
    pub fn new(source: &Name, body: &[u8], limits: NotificationLimits) -> Option<Self> {
        if !limits.is_enabled() {
            return None;
        }
        let body = CompressedBody::new(body);
        let fits = body.len() <= limits.max_bytes / MAX_BODY_SHARE;
        fits.then(|| Self { source: source.clone(), body, max_bytes: limits.max_bytes })
    }
}

/// A body in its stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressedBody(Bytes);

impl CompressedBody {
    /// Compresses a body.
    fn new(body: &[u8]) -> Self {
        let mut encoded = vec![LZ4; 1 + 4 + lz4_flex::block::get_maximum_output_size(body.len())];
        let length = u32::try_from(body.len()).ok();
        let compressed = length.and_then(|length| {
            encoded[1..5].copy_from_slice(&length.to_le_bytes());
            lz4_flex::block::compress_into(body, &mut encoded[5..]).ok()
        });
        match compressed {
            Some(bytes) if 5 + bytes < 1 + body.len() => {
                encoded.truncate(5 + bytes);
                // Allocated for the worst case, and alive until the commit.
                encoded.shrink_to_fit();
            }
            _ => encoded = [&[PLAIN], body].concat(),
        }
        Self(encoded.into())
    }

    /// A body that was stored before.
    pub(super) fn from_stored(stored: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(stored))
    }

    /// The stored form.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The number of bytes of the stored form.
    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The body as it came.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn text(&self) -> Result<String, DamagedBody> {
        let bytes = match self.0.split_first() {
            Some((&PLAIN, body)) => body.to_vec(),
            Some((&LZ4, body)) => {
                let (bytes, block) = lz4_flex::block::uncompressed_size(body).map_err(|_| DamagedBody)?;
                if bytes > block.len().saturating_mul(MAX_COMPRESSION_RATIO) {
                    return Err(DamagedBody);
                }
                lz4_flex::block::decompress(block, bytes).map_err(|_| DamagedBody)?
            }
            _ => return Err(DamagedBody),
        };
        String::from_utf8(bytes).map_err(|_| DamagedBody)
    }
}

/// Reads any bytes as the body of a kept notification.
pub(super) fn read_stored_form(bytes: &[u8]) {
    if let Ok(text) = CompressedBody::from_stored(bytes).text() {
        assert!(text.len() <= bytes.len().saturating_mul(MAX_COMPRESSION_RATIO));
        assert_eq!(CompressedBody::new(text.as_bytes()).text(), Ok(text));
    }
}

/// A stored body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body of a kept notification cannot be read")]
pub(super) struct DamagedBody;

/// A query of kept notifications, in the order of their commits.
#[derive(Debug, Clone)]
pub struct NotificationQuery {
    /// Only those of this source.
    pub source: Option<Name>,
    /// Inclusive lower bound of the time, by the store's clock.
    pub from: Time,
    /// Inclusive upper bound of the time, by the store's clock.
    pub to: Time,
    /// Only those after this position.
    pub after: Option<NotificationCursor>,
    /// The maximum number; fewer are returned if they are large.
    pub max: usize,
}

/// A page of kept notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotificationPage {
    /// Oldest first.
    pub notifications: Vec<StoredNotification>,
    /// The position after which the next page begins; `None` if there is none.
    pub next: Option<NotificationCursor>,
}

/// A kept notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredNotification {
    /// Its position.
    pub cursor: NotificationCursor,
    /// The source.
    pub source: Name,
    /// When it was decided.
    pub at: ClockReading,
    /// The body as it came.
    pub body: String,
}

/// The position of a kept notification in commit order. Never reused, and opaque: only the store that has returned it can
/// read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NotificationCursor(i64);

impl NotificationCursor {
    pub(super) const fn new(position: i64) -> Self {
        Self(position)
    }

    pub(super) const fn position(self) -> i64 {
        self.0
    }
}

impl fmt::Display for NotificationCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NotificationCursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// A page that is being filled.
pub(super) struct PageBuilder {
    max: usize,
    bytes: usize,
    page: NotificationPage,
}

impl PageBuilder {
    pub(super) fn new(max: usize) -> Self {
        Self { max, bytes: 0, page: NotificationPage { notifications: Vec::new(), next: None } }
    }

    /// Adds the next notification. Returns whether the page has room for it; one that has none ends the page. One that
    /// cannot be read is logged and left out.
    pub(super) fn add(
        &mut self,
        cursor: NotificationCursor,
        source: &str,
        at: ClockReading,
        body: &CompressedBody,
    ) -> bool {
        let notifications = &mut self.page.notifications;
        if notifications.len() >= self.max || self.bytes > MAX_PAGE_BYTES {
            self.page.next = notifications.last().map(|last| last.cursor);
            return false;
        }
        match (Name::new(source), body.text()) {
            (Ok(source), Ok(body)) => {
                self.bytes += body.len();
                notifications.push(StoredNotification { cursor, source, at, body });
            }
            _ => tracing::error!(notification = %cursor, "kept notification damaged"),
        }
        true
    }

    pub(super) fn finish(self) -> NotificationPage {
        self.page
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_body_is_read_back_as_it_came(part in "\\PC{0,400}", times in 0_usize..40) {
            let body = part.repeat(times);
            let compressed = CompressedBody::new(body.as_bytes());
            prop_assert!(compressed.len() <= body.len() as u64 + 1);
            prop_assert_eq!(CompressedBody::from_stored(compressed.as_bytes()).text(), Ok(body));
        }

        #[test]
        fn damage_is_an_error_and_takes_no_memory(
            part in "[a-z]{1,40}",
            at in any::<prop::sample::Index>(),
            to in any::<u8>(),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut stored = CompressedBody::new(part.repeat(100).as_bytes()).as_bytes().to_vec();
            let at = at.index(stored.len());
            stored[at] = to;
            stored.truncate(cut.index(stored.len()) + 1);
            if let Ok(text) = CompressedBody::from_stored(&stored).text() {
                prop_assert!(text.len() <= stored.len() * MAX_COMPRESSION_RATIO);
            }
        }
    }

    #[test]
    fn nothing_is_compressed_for_a_bridge_that_keeps_nothing_nor_kept_that_takes_too_much_of_the_limit() {
        let source = Name::new("prod-eu").unwrap();
        let keep = |max_age, max_bytes| {
            let limits = NotificationLimits { max_age: Duration::from_secs(max_age), max_bytes };
            KeptNotification::new(&source, b"0123456789", limits)
        };
        assert_eq!(keep(0, 1 << 20), None);
        assert_eq!(keep(60, 0), None);
        assert_eq!(keep(60, 11 * MAX_BODY_SHARE - 1), None);
        assert_eq!(keep(60, 11 * MAX_BODY_SHARE).unwrap().body.len(), 11);
    }
}
