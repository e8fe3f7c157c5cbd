//! The bytes of bodies in memory, of all requests of a listener together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that requests share.
#[derive(Debug)]
pub(crate) struct Budget {
    free: AtomicUsize,
}

/// Bytes that are taken from a budget, and given back on drop.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes) })
    }

    /// Nothing yet.
    pub(crate) fn take_nothing(self: &Arc<Self>) -> HeldBytes {
        HeldBytes { budget: self.clone(), bytes: 0 }
    }

    /// These bytes, unless fewer are free.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<HeldBytes> {
        let mut taken = self.take_nothing();
        taken.take_more(bytes).then_some(taken)
    }
}

impl HeldBytes {
    /// Takes more bytes. Returns false, and takes none, if fewer are free.
    #[must_use]
    pub(crate) fn take_more(&mut self, bytes: usize) -> bool {
        let take = |free: usize| free.checked_sub(bytes);
        let taken = self.budget.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if taken {
            self.bytes += bytes;
        }
        taken
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.free.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_taken_as_long_as_some_are_free_and_given_back() {
        let budget = Budget::new(10);
        let mut first = budget.take(4).unwrap();
        assert!(first.take_more(5) && !first.take_more(2));
        let second = budget.take(1).unwrap();
        assert!(budget.take(1).is_none());
        drop(first);
        assert!(budget.take(10).is_none() && budget.take(9).is_some());
        drop(second);
        assert!(budget.take(10).is_some());
    }
}
