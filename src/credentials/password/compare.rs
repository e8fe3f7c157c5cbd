//! Comparisons of passwords with bcrypt hashes, one at a time.
//!
//! A comparison takes 50 ms and more of a processor. What was compared before is answered at once: senders that use
//! the right password never wait behind wrong attempts. The queue is short for each address that attempts come from, for
//! each user, and for all unknown users together: attempts of one address do not shut out another, and attempts on one
//! name do not shut out another.

use std::net::IpAddr;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::queue::CompareQueue;
use super::table::{PairDigest, User, UserTable};

/// bcrypt ignores what follows. Go refuses to hash a longer password; here a longer password never matches, since two
/// that differ only at the end would be the same.
const MAX_PASSWORD_BYTES: usize = 72;

/// A user and password that a request presents.
#[derive(Clone, Copy)]
pub(in crate::credentials) struct Attempt<'r> {
    /// The address that the request comes from.
    pub peer: IpAddr,
    pub user: &'r str,
    pub password: &'r [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::credentials) enum Outcome {
    Matches,
    Wrong,
    /// Too many comparisons wait, in all, for the user or for the peer.
    Busy,
}

/// The queue of comparisons.
pub(in crate::credentials) struct Comparisons {
    /// Makes the hashes of this process useless to others.
    key: [u8; 32],
    turn: Arc<Semaphore>,
    queue: CompareQueue,
}

impl Comparisons {
    pub(in crate::credentials) fn new(key: [u8; 32]) -> Self {
        Self { key, turn: Arc::new(Semaphore::new(1)), queue: CompareQueue::default() }
    }

    /// Compares a password with the one of the user in `table`.
    pub(in crate::credentials) async fn compare(
        &self,
        table: &Arc<UserTable>,
        Attempt { peer, user: name, password }: Attempt<'_>,
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
        let Some(place) = self.queue.take(peer, &user, &pair) else { return Outcome::Busy };
        let Ok(turn) = self.turn.clone().acquire_owned().await else { return Outcome::Busy };
        if let Some(outcome) = remembered() {
            return outcome;
        }
        let (table, compared_user, password) = (table.clone(), user.clone(), password.to_vec());
        let compared = tokio::task::spawn_blocking(move || {
            // The place and the turn end with the comparison, even if the request gives up: a peer that closes its
            // connections gets no more of them.
            let (_place, _turn) = (place, turn);
            let matches = compare_now(&compared_user, &password);
            table.remember(&compared_user, pair, matches);
            matches
        });
        compared.await.map_or(Outcome::Busy, Outcome::from)
    }

    /// No comparison begins while this is held.
    #[cfg(test)]
    pub(in crate::credentials) fn hold_turn(&self) -> tokio::sync::OwnedSemaphorePermit {
        self.turn.clone().try_acquire_owned().expect("no comparison runs")
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
    matches && user.is_known()
}
