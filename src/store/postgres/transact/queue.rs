//! The queue of transactions, and the plan of batches: commands that share no target and no alert are run together.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::caches::Caches;
use super::command::{Command, Hash};
use crate::store::Error;

/// The maximum number of commands in a batch.
pub(super) const MAX_COMMANDS: usize = 100;
/// A batch is closed when it has this many targets and alerts.
pub(super) const MAX_WEIGHT: usize = 1000;
/// The number of queued commands that are looked at for a batch.
const MAX_SCANNED: usize = 1000;

/// The maximum number of hashes of locked commands that are remembered.
const MAX_LOCKED: usize = 10_000;

/// The hashes are those of a cryptographic hash, so that no sender can choose them.
pub(super) type HashesSet = HashSet<Hash, FixedState>;

/// Transactions that wait to be run.
#[derive(Default)]
pub(in crate::store::postgres) struct Queue {
    pub(super) line: Arc<Line>,
    pub(super) caches: Caches,
    pub(super) workers: Mutex<Vec<JoinHandle<()>>>,
    pub(super) totals: Totals,
}

/// What the committed batches have taken.
#[derive(Default)]
pub(super) struct Totals {
    transactions: AtomicU64,
    commands: AtomicU64,
    round_trips: AtomicU64,
    /// The largest number of round trips between the beginning and the commit of a batch.
    max_round_trips: AtomicU32,
}

/// What the handle of the store shares with the workers.
#[derive(Default)]
pub(super) struct Line {
    state: Mutex<Pending>,
    wakeup: Notify,
}

#[derive(Default)]
struct Pending {
    commands: VecDeque<Command>,
    /// The targets and alerts of batches that are being run.
    busy: HashesSet,
    /// Those of commands that another session has kept from a lock: until they succeed, they share no batch.
    locked: HashesSet,
    is_closed: bool,
}

/// A batch that is being run. Its targets and alerts are free again when it is dropped.
pub(super) struct Batch<'a> {
    line: &'a Line,
    hashes: Vec<Hash>,
    pub commands: Vec<Command>,
    /// Commands that have turned out to share a target with another one.
    pub postponed: Vec<Command>,
    /// Its command has waited for a lock in vain the last time.
    pub was_locked: bool,
}

impl Queue {
    /// Nothing is added any more; what is queued is still run.
    pub(super) fn close(&self) {
        self.line.close();
    }
}

impl Totals {
    /// A batch of so many commands was written in so many round trips, without its commit.
    pub(super) fn add(&self, commands: usize, round_trips: u32) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.commands.fetch_add(commands as u64, Ordering::Relaxed);
        self.round_trips.fetch_add(round_trips.into(), Ordering::Relaxed);
        self.max_round_trips.fetch_max(round_trips, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn max_round_trips(&self) -> u32 {
        self.max_round_trips.load(Ordering::Relaxed)
    }

    pub(super) fn log(&self) {
        tracing::debug!(
            transactions = self.transactions.load(Ordering::Relaxed),
            commands = self.commands.load(Ordering::Relaxed),
            round_trips = self.round_trips.load(Ordering::Relaxed),
            max_round_trips = self.max_round_trips.load(Ordering::Relaxed),
            "decisions written"
        );
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.line.close();
    }
}

impl Line {
    /// Adds a command.
    ///
    /// # Errors
    /// The store is closed.
    pub(super) fn push(&self, command: Command) -> Result<(), Error> {
        {
            let mut pending = self.state.lock();
            if pending.is_closed {
                return Err(Error::Closed);
            }
            pending.commands.push_back(command);
        }
        self.wakeup.notify_one();
        Ok(())
    }

    fn close(&self) {
        self.state.lock().is_closed = true;
        self.wakeup.notify_waiters();
    }

    /// The next batch; `None` if the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<Batch<'_>> {
        loop {
            let notified = self.wakeup.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            {
                let mut pending = self.state.lock();
                let Pending { commands, busy, locked, is_closed } = &mut *pending;
                let taken = take_batch(commands, busy, locked);
                if !taken.is_empty() {
                    let hashes: Vec<Hash> = taken.iter().flat_map(Command::hashes).copied().collect();
                    busy.extend(&hashes);
                    if !commands.is_empty() {
                        self.wakeup.notify_one();
                    }
                    let was_locked = taken.iter().any(|command| command.is_among(locked));
                    return Some(Batch {
                        line: self,
                        hashes,
                        commands: taken,
                        postponed: Vec::new(),
                        was_locked,
                    });
                }
                // What is left waits for another worker, which takes it.
                if *is_closed {
                    return None;
                }
            }
            notified.await;
        }
    }
}

impl Batch<'_> {
    /// Its commands have waited for a lock in vain, or have got all of them.
    pub(super) fn remember_locked(&self, is_locked: bool) {
        let mut pending = self.line.state.lock();
        for hash in self.commands.iter().flat_map(Command::hashes) {
            match is_locked && pending.locked.len() < MAX_LOCKED {
                true => drop(pending.locked.insert(*hash)),
                false => drop(pending.locked.remove(hash)),
            }
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        let mut pending = self.line.state.lock();
        for hash in &self.hashes {
            pending.busy.remove(hash);
        }
        // In their order, before those that were queued later.
        for command in self.postponed.drain(..).rev() {
            pending.commands.push_front(command);
        }
    }
}

/// Takes commands of which no two share a target or an alert, and none with a batch that is being run. Commands that share
/// one stay in their order. One with a locked target is a batch of its own.
fn take_batch(queue: &mut VecDeque<Command>, busy: &HashesSet, locked: &HashesSet) -> Vec<Command> {
    let mut taken = Vec::new();
    let (mut hashes, mut weight) = (HashesSet::default(), 0);
    let mut at = 0;
    while at < queue.len().min(MAX_SCANNED) && taken.len() < MAX_COMMANDS {
        let command = &queue[at];
        let is_free = command.hashes().all(|hash| !busy.contains(hash) && !hashes.contains(hash));
        // One of a large notification is a batch of its own.
        let fits = taken.is_empty() || weight + command.weight() <= MAX_WEIGHT;
        let is_locked = command.is_among(locked);
        hashes.extend(command.hashes());
        if !is_free || is_locked && !taken.is_empty() {
            at += 1;
            continue;
        }
        if !fits {
            break;
        }
        weight += command.weight();
        taken.extend(queue.remove(at));
        if is_locked {
            break;
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::alert_key::AlertKey;
    use crate::domain::name::Name;
    use crate::domain::target::TargetKey;
    use crate::store::{Changes, Keys};

    fn command(targets: &[&str], alerts: &[&str]) -> Command {
        let alert =
            |text: &&str| AlertKey { source: Name::new("prod").unwrap(), fingerprint: (*text).into() };
        let keys = Keys {
            targets: targets.iter().map(|target| TargetKey::from_stored(target)).collect(),
            alerts: alerts.iter().map(alert).collect(),
        };
        Command::new(keys, Box::new(|_| Changes::default())).0
    }

    fn names(commands: &[Command]) -> Vec<String> {
        let name = |command: &Command| {
            let targets: Vec<&str> = command.keys.targets.iter().map(TargetKey::as_str).collect();
            targets.join("+")
        };
        commands.iter().map(name).collect()
    }

    /// The batches of one worker that finishes each before the next.
    fn batches(commands: Vec<Command>) -> Vec<Vec<String>> {
        let mut queue = VecDeque::from(commands);
        let mut batches = Vec::new();
        while !queue.is_empty() {
            batches.push(names(&take_batch(&mut queue, &HashesSet::default(), &HashesSet::default())));
        }
        batches
    }

    #[test]
    fn commands_that_share_a_target_or_an_alert_are_run_one_after_the_other() {
        let commands = vec![
            command(&["a"], &["1"]),
            command(&["a", "b"], &[]),
            command(&["b"], &[]),
            command(&["c"], &["2"]),
            command(&["d"], &["1"]),
            command(&["e"], &[]),
        ];
        assert_eq!(batches(commands), [vec!["a", "c", "e"], vec!["a+b", "d"], vec!["b"]]);
    }

    #[test]
    fn a_command_whose_target_is_busy_waits_and_so_does_what_follows_it() {
        let mut queue =
            VecDeque::from(vec![command(&["a"], &["1"]), command(&["b"], &["1"]), command(&["c"], &[])]);
        let busy = HashesSet::from_iter([crate::store::postgres::queries::target_hash(
            &TargetKey::from_stored("a"),
        )]);
        let none = HashesSet::default();
        assert_eq!(names(&take_batch(&mut queue, &busy, &none)), ["c"]);
        assert_eq!(names(&take_batch(&mut queue, &none, &none)), ["a"]);
    }

    #[test]
    fn a_batch_has_limits_and_a_large_command_is_a_batch_of_its_own() {
        let many: Vec<String> = (0..MAX_WEIGHT).map(|number| number.to_string()).collect();
        let large: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut queue =
            VecDeque::from(vec![command(&large, &["x"]), command(&["a"], &[]), command(&large, &[])]);
        let sizes: Vec<usize> = std::iter::from_fn(|| {
            let none = HashesSet::default();
            Some(take_batch(&mut queue, &none, &none).len()).filter(|taken| *taken > 0)
        })
        .collect();
        assert_eq!(sizes, [1, 1, 1]);
        let small: VecDeque<Command> =
            (0..250).map(|number| command(&[&format!("t{number}")], &[])).collect();
        assert_eq!(batches(small.into()).iter().map(Vec::len).collect::<Vec<_>>(), [100, 100, 50]);
    }

    #[tokio::test]
    async fn a_command_that_was_locked_is_a_batch_of_its_own_until_it_succeeds() {
        let line = Line::default();
        let push = |target: &str| line.push(command(&[target], &[])).unwrap();
        ["a", "b", "c"].into_iter().for_each(push);
        let mut batch = line.next().await.unwrap();
        batch.commands.retain(|command| command.keys.targets[0].as_str() == "b");
        batch.remember_locked(true);
        drop(batch);
        ["a", "b", "c"].into_iter().for_each(push);
        let others = line.next().await.unwrap();
        let alone = line.next().await.unwrap();
        assert_eq!(
            (names(&others.commands), others.was_locked),
            (vec!["a".to_owned(), "c".to_owned()], false)
        );
        assert_eq!((names(&alone.commands), alone.was_locked), (vec!["b".to_owned()], true));
        alone.remember_locked(false);
        drop((others, alone));
        ["a", "b"].into_iter().for_each(push);
        assert_eq!(names(&line.next().await.unwrap().commands), ["a", "b"]);
    }

    #[tokio::test]
    async fn a_postponed_command_comes_before_later_ones_and_a_closed_queue_is_emptied() {
        let line = Line::default();
        for target in ["a", "b", "c"] {
            line.push(command(&[target], &[])).unwrap();
        }
        let mut batch = line.next().await.unwrap();
        assert_eq!(names(&batch.commands), ["a", "b", "c"]);
        batch.postponed = batch.commands.split_off(1);
        line.push(command(&["d"], &[])).unwrap();
        let second = line.next().await.unwrap();
        assert_eq!(names(&second.commands), ["d"], "the others are not queued yet");
        drop(batch);
        line.close();
        assert!(line.push(command(&["e"], &[])).is_err());
        assert_eq!(names(&line.next().await.unwrap().commands), ["b", "c"]);
        assert!(line.next().await.is_none());
    }
}
