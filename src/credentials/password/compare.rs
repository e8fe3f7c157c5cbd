//! Comparisons of passwords with bcrypt hashes, one at a time.
//!
//! A comparison takes 50 ms and more of a processor. What was compared before is answered at once: senders that use
//! the right password never wait behind wrong attempts. The queue is short for each user, and for all unknown users
//! together, so that attempts on one name do not shut out another.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::table::{PairDigest, User, UserTable};

/// bcrypt ignores what follows. Go refuses to hash a longer password; here a longer password never matches, since two
/// that differ only at the end would be the same.
const MAX_PASSWORD_BYTES: usize = 72;

/// Comparisons that wait for one user: a stranger who knows the name must not take all places with little effort.
const MAX_WAITING_FOR_USER: usize = 32;

/// Comparisons that wait for all unknown users.
const MAX_WAITING_FOR_UNKNOWN: usize = 4;

/// Comparisons that wait at all.
const MAX_WAITING: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::credentials) enum Outcome {
    Matches,
    Wrong,
    /// Too many comparisons wait.
    Busy,
}

/// The queue of comparisons.
pub(in crate::credentials) struct Comparisons {
    /// Makes the hashes of this process useless to others.
    key: [u8; 32],
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_for_unknown: AtomicUsize,
}

impl Comparisons {
    pub(in crate::credentials) fn new(key: [u8; 32]) -> Self {
        Self {
            key,
            turn: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            waiting_for_unknown: AtomicUsize::new(0),
        }
    }

    /// Compares a password with the one of the user in `table`.
    pub(in crate::credentials) async fn compare(
        &self,
        table: &Arc<UserTable>,
        name: &str,
        password: &[u8],
    ) -> Outcome {
        // bcrypt ends a password at a NUL byte and repeats it: `a` and `a\0a` would be the same.
        if password.len() > MAX_PASSWORD_BYTES || password.contains(&0) {
            return Outcome::Wrong;
        }
        let (user, pair) = (table.user(name).clone(), self.pair(name, password));
        let remembered = || table.remembered(&user, &pair).map(Outcome::from);
        if let Some(outcome) = remembered() {
            return outcome;
        }
        let (waiting_for_user, max) = if user.name.is_some() {
            (&user.waiting, MAX_WAITING_FOR_USER)
        } else {
            (&self.waiting_for_unknown, MAX_WAITING_FOR_UNKNOWN)
        };
        let places = (QueueSlot::take(&self.waiting, MAX_WAITING), QueueSlot::take(waiting_for_user, max));
        let (Some(_), Some(_)) = &places else { return Outcome::Busy };
        let Ok(turn) = self.turn.clone().acquire_owned().await else { return Outcome::Busy };
        if let Some(outcome) = remembered() {
            return outcome;
        }
        let (table, compared_user, password) = (table.clone(), user.clone(), password.to_vec());
        let compared = tokio::task::spawn_blocking(move || {
            // The turn ends with the comparison, even if the request gives up.
            let _turn = turn;
            let matches = compare_now(&compared_user, &password);
            table.remember(&compared_user, pair, matches);
            matches
        });
        compared.await.map_or(Outcome::Busy, Outcome::from)
    }

    fn pair(&self, name: &str, password: &[u8]) -> PairDigest {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update((name.len() as u64).to_be_bytes());
        hash.update(name);
        hash.update(password);
        hash.finalize().into()
    }
}

impl From<bool> for Outcome {
    fn from(matches: bool) -> Self {
        if matches { Self::Matches } else { Self::Wrong }
    }
}

fn compare_now(user: &User, password: &[u8]) -> bool {
    // The hash was checked when the table was made.
    let matches = bcrypt::verify(password, user.hash.expose()).unwrap_or(false);
    matches && user.name.is_some()
}

/// A place in a queue.
struct QueueSlot<'q>(&'q AtomicUsize);

impl<'q> QueueSlot<'q> {
    fn take(queue: &'q AtomicUsize, max: usize) -> Option<Self> {
        let place = Self(queue);
        // The place is given back by `drop` if it is one too many.
        (queue.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for QueueSlot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
