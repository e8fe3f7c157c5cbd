//! The size of an event that its destinations accept.

/// The maximum size of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    /// The maximum size of the encoded event together with what is sent beside it.
    pub bytes: usize,
    /// The maximum size of what is sent beside it, without copies of the subject.
    pub metadata_bytes: usize,
    /// How often the subject is sent beside it.
    pub subject_copies: usize,
}

impl SizeLimit {
    /// No limit.
    pub const NONE: Self = Self::of_body(usize::MAX);

    /// A limit for the encoded event alone.
    pub const fn of_body(bytes: usize) -> Self {
        Self { bytes, metadata_bytes: 0, subject_copies: 0 }
    }

    /// A limit that satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.min(other.bytes),
            metadata_bytes: self.metadata_bytes.max(other.metadata_bytes),
            subject_copies: self.subject_copies.max(other.subject_copies),
        }
    }

    /// The maximum size of what is sent beside an event about a subject of this length.
    pub(super) fn beside(self, subject_bytes: usize) -> usize {
        self.metadata_bytes + self.subject_copies * subject_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_for_several_destinations_satisfies_each_of_them() {
        let queue = SizeLimit { bytes: 65_536, metadata_bytes: 512, subject_copies: 1 };
        let both = queue.and(SizeLimit::of_body(6_000));
        assert_eq!(both, SizeLimit { bytes: 6_000, metadata_bytes: 512, subject_copies: 1 });
        assert_eq!(both.beside(40), 552);
        assert_eq!(SizeLimit::NONE.and(queue), queue);
    }
}
