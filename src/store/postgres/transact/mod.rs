//! Decisions: states are read under their locks, the engine's step runs, and everything is written in one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Shared;
use crate::domain::alert_key::AlertKey;
use crate::domain::target::TargetKey;
use crate::store::{AuditWrite, DecideFn, DropError, Error, Keys, UnreadableRow};

/// Transactions that wait to be run.
pub(super) struct Queue(mpsc::UnboundedSender<()>);

impl Queue {
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<()>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }
}

pub(super) fn start(_shared: &Arc<Shared>, _queue: mpsc::UnboundedReceiver<()>) {}

pub(super) async fn run(_shared: &Shared, _keys: Keys, _decide: DecideFn) -> Result<(), Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}

pub(super) async fn locate(
    _shared: &Shared,
    _alerts: Vec<AlertKey>,
) -> Result<BTreeMap<AlertKey, Vec<TargetKey>>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}

pub(super) async fn due(_shared: &Shared, _max: usize) -> Result<Vec<TargetKey>, Error> {
    Err(Error::Unavailable("not built yet".to_owned()))
}

pub(super) async fn drop_unreadable(
    _shared: &Shared,
    _row: i64,
    _audit: AuditWrite,
) -> Result<UnreadableRow, DropError> {
    Err(DropError::NotUnreadable)
}

pub(super) async fn close(_shared: &Shared) {}

pub(super) fn alert_hash(key: &AlertKey) -> [u8; 16] {
    let mut digest = sha2::Sha256::new();
    use sha2::Digest as _;
    digest.update(key.source.as_str().as_bytes());
    digest.update([0]);
    digest.update(key.fingerprint.as_bytes());
    let mut hash = [0; 16];
    hash.copy_from_slice(&digest.finalize()[..16]);
    hash
}
