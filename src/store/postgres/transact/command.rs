//! A transaction that waits to be run, and what it is found to need.

use std::collections::HashSet;

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use crate::domain::alert_key::AlertKey;
use crate::domain::target::TargetKey;
use crate::store::postgres::queries::target_hash;
use crate::store::{DecideFn, Error, Keys};

/// What a target or an alert is found by.
pub(in crate::store::postgres) type Hash = [u8; 16];

/// What an alert is found by.
pub(in crate::store::postgres) fn alert_hash(key: &AlertKey) -> Hash {
    let mut digest = Sha256::new();
    digest.update(key.source.as_str().as_bytes());
    // No name has it.
    digest.update([0]);
    digest.update(key.fingerprint.as_bytes());
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest.finalize()[..16]);
    hash
}

/// A transaction that waits to be run.
pub(super) struct Command {
    pub keys: Keys,
    /// In the order of the keys.
    pub targets: Vec<Hash>,
    /// In the order of the keys.
    pub alerts: Vec<Hash>,
    /// Targets that an earlier run of the decision has written without having asked for them.
    pub more: Vec<(Hash, TargetKey)>,
    /// The targets of its alerts, as far as an earlier run has found them.
    pub located: Vec<Hash>,
    /// Not locked, so that several tasks can read the rest.
    decide: Mutex<Option<DecideFn>>,
    reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Command {
    pub(super) fn new(keys: Keys, decide: DecideFn) -> (Self, oneshot::Receiver<Result<(), Error>>) {
        let (reply, answer) = oneshot::channel();
        let command = Self {
            targets: keys.targets.iter().map(target_hash).collect(),
            alerts: keys.alerts.iter().map(alert_hash).collect(),
            more: Vec::new(),
            located: Vec::new(),
            keys,
            decide: Mutex::new(Some(decide)),
            reply: Some(reply),
        };
        (command, answer)
    }

    /// The number of targets and alerts.
    pub(super) fn weight(&self) -> usize {
        self.targets.len() + self.alerts.len()
    }

    /// What no two commands of a batch can share.
    pub(super) fn hashes(&self) -> impl Iterator<Item = &Hash> {
        let more = self.more.iter().map(|(hash, _)| hash);
        self.targets.iter().chain(&self.alerts).chain(more).chain(&self.located)
    }

    /// Whether it needs one of these.
    pub(super) fn is_among(&self, hashes: &HashSet<Hash, FixedState>) -> bool {
        !hashes.is_empty() && self.hashes().any(|hash| hashes.contains(hash))
    }

    /// The targets that have to exist, with their keys.
    pub(super) fn wanted(&self) -> impl Iterator<Item = (&Hash, &TargetKey)> {
        let more = self.more.iter().map(|(hash, key)| (hash, key));
        self.targets.iter().zip(&self.keys.targets).chain(more)
    }

    /// Lends the function that decides, to run it elsewhere.
    pub(super) fn decide_mut(&mut self) -> Option<&mut DecideFn> {
        self.decide.get_mut().as_mut()
    }

    /// Answers. Later answers are ignored.
    pub(super) fn answer(&mut self, result: Result<(), Error>) {
        // What the decision owns is freed before its caller goes on.
        *self.decide.get_mut() = None;
        if let Some(reply) = self.reply.take() {
            drop(reply.send(result));
        }
    }
}
