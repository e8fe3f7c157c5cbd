//! Reading and adding what has happened.

pub(super) mod audit;
pub(super) mod events;
pub(super) mod notifications;
pub(super) mod positions;
mod reader;
pub(super) mod records;
pub(super) mod states;

use sha2::{Digest as _, Sha256};

use crate::domain::target::TargetKey;
use crate::domain::time::Time;

/// Upper bound of the difference between the order of rows and the order of their times: a transaction takes its number
/// before it waits for locks and reads the clock. It is more than twice the step of the server's clock from which on records
/// note it.
const MAX_TIME_DISORDER: i64 = 660_000_000_000;

/// What a target is found by.
pub(in crate::store::postgres) fn target_hash(key: &TargetKey) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&Sha256::digest(key.as_str().as_bytes())[..16]);
    hash
}

/// Bounds of a time, each wider by the disorder of times: what is outside of them is outside of the time, too.
fn wide(from: Time, to: Time) -> (i64, i64) {
    (from.as_nanos().saturating_sub(MAX_TIME_DISORDER), to.as_nanos().saturating_add(MAX_TIME_DISORDER))
}

/// A maximum number of rows as a parameter, with one more row that shows whether there are more.
fn limit(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX).saturating_add(1)
}
