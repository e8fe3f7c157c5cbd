//! The bytes of bodies in memory, of all requests of a listener together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of bytes that requests share.
#[derive(Debug)]
pub(crate) struct Budget {
    free: AtomicUsize,
    /// The budget of which this one is a part.
    whole: Option<Arc<Budget>>,
}

/// Bytes that are taken from a budget, and given back on drop.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes), whole: None })
    }

    /// A part of `whole`: what is taken from it is taken from `whole` too, and it can take no more than `bytes` of that.
    pub(crate) fn part_of(whole: &Arc<Self>, bytes: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(bytes), whole: Some(whole.clone()) })
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
        let taken = self.budget.take_free(bytes);
        if taken {
            self.bytes += bytes;
        }
        taken
    }

    /// The same bytes, only of the budget of which theirs is a part.
    pub(crate) fn of_whole(mut self) -> Self {
        match self.budget.whole.clone() {
            Some(whole) => {
                let bytes = std::mem::take(&mut self.bytes);
                self.budget.free.fetch_add(bytes, Ordering::Relaxed);
                Self { budget: whole, bytes }
            }
            None => self,
        }
    }
}

impl Budget {
    fn take_free(&self, bytes: usize) -> bool {
        let take = |free: usize| free.checked_sub(bytes);
        let taken = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok();
        if taken && self.whole.as_ref().is_some_and(|whole| !whole.take_free(bytes)) {
            self.free.fetch_add(bytes, Ordering::Relaxed);
            return false;
        }
        taken
    }

    fn give_back(&self, bytes: usize) {
        self.free.fetch_add(bytes, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(bytes);
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
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

    #[test]
    fn a_part_takes_no_more_than_its_own_and_leaves_the_rest_to_others() {
        let whole = Budget::new(10);
        let part = Budget::part_of(&whole, 4);
        let first = part.take(3).unwrap();
        assert!(part.take(2).is_none() && whole.take(8).is_none() && whole.take(7).is_some());
        let held = whole.take(7).unwrap();
        assert!(part.take(1).is_none(), "nothing of the whole is left");
        drop(held);
        let first = first.of_whole();
        let second = part.take(4).unwrap();
        assert!(whole.take(4).is_none() && whole.take(3).is_some());
        drop((first, second));
        assert!(whole.take(10).is_some());
    }
}
