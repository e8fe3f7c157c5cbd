//! How many calls run at the same time: fewer where the destination throttles, one after the other as
//! many as are configured where it does not. Additive increase, multiplicative decrease, as TCP does.
//! Pure.

/// Between 1 and the configured number of calls.
#[derive(Debug)]
pub(super) struct Window {
    most: usize,
    width: usize,
    /// Calls that passed since the width last changed.
    passed: usize,
    /// Counts the decreases: calls that ran together are throttled together, and count once.
    generation: u64,
}

/// The width under which a call was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

/// What a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// No longer all calls are allowed.
    Narrowed,
    /// Already only one call is allowed, and that is too much.
    Exhausted,
    /// All calls are allowed again.
    Full,
}

impl Window {
    /// As wide as it gets.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(1);
        Self { most, width: most, passed: 0, generation: 0 }
    }

    pub(super) const fn width(&self) -> usize {
        self.width
    }

    /// As wide as it gets.
    pub(super) const fn most(&self) -> usize {
        self.most
    }

    pub(super) const fn mark(&self) -> Mark {
        Mark(self.generation)
    }

    /// A call was not throttled. As many as run together make room for one more.
    pub(super) fn passed(&mut self, mark: Mark) -> Change {
        if self.width == self.most || mark != self.mark() {
            return Change::None;
        }
        self.passed += 1;
        if self.passed >= self.width {
            self.width += 1;
            self.passed = 0;
        }
        if self.width == self.most { Change::Full } else { Change::None }
    }

    /// A call was throttled.
    pub(super) fn throttled(&mut self, mark: Mark) -> Change {
        if mark != self.mark() {
            return Change::None;
        }
        let before = self.width;
        self.width = (before / 2).max(1);
        self.passed = 0;
        self.generation += 1;
        match before {
            1 => Change::Exhausted,
            _ if before == self.most => Change::Narrowed,
            _ => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn calls_that_ran_together_halve_it_once() {
        let mut window = Window::new(8);
        let mark = window.mark();
        assert_eq!(window.throttled(mark), Change::Narrowed);
        assert_eq!((window.throttled(mark), window.width()), (Change::None, 4));
        let mut widths = vec![];
        loop {
            let change = window.throttled(window.mark());
            widths.push(window.width());
            if change == Change::Exhausted {
                break;
            }
        }
        assert_eq!(widths, [2, 1, 1]);
    }

    #[test]
    fn it_grows_by_one_for_each_round_of_calls() {
        let mut window = Window::new(4);
        window.throttled(window.mark());
        let changes: Vec<_> = (0..6).map(|_| (window.passed(window.mark()), window.width())).collect();
        let (none, full) = (Change::None, Change::Full);
        assert_eq!(changes, [(none, 2), (none, 3), (none, 3), (none, 3), (full, 4), (none, 4)]);
    }

    #[test]
    fn a_single_call_has_no_less() {
        let mut window = Window::new(1);
        assert_eq!((window.throttled(window.mark()), window.width()), (Change::Exhausted, 1));
        assert_eq!(Window::new(0).width(), 1);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_comes_back(most in 1usize..300, calls in prop::collection::vec(any::<(bool, bool)>(), 0..300)) {
            let mut window = Window::new(most);
            let mut old = window.mark();
            for (throttled, late) in calls {
                let (before, now) = (window.width(), window.mark());
                let mark = if late { old } else { now };
                let change = if throttled { window.throttled(mark) } else { window.passed(mark) };
                prop_assert!((1..=most).contains(&window.width()));
                if throttled {
                    prop_assert!(window.width() <= before);
                    prop_assert!(window.width() >= before / 2);
                } else {
                    prop_assert!((before..=before + 1).contains(&window.width()));
                }
                prop_assert!(mark == now || window.width() == before, "old news change nothing");
                prop_assert_eq!(change == Change::Full, before < most && window.width() == most);
                old = now;
            }
            for _ in 0..most * most {
                window.passed(window.mark());
            }
            prop_assert_eq!(window.width(), most);
        }
    }
}
