//! Targets that a pattern covers.

use super::Ops;
use super::api::{CoveredTargets, CoveredTargetsParams};
use super::error::Error;
use super::parse;
use crate::domain::target::KeyKind;

/// The maximum number of targets that are compared with a pattern.
const MAX_SCANNED_TARGETS: usize = 20_000;
const PAGE_SIZE: usize = 1000;
/// The maximum number of keys that are returned.
const MAX_KEYS: usize = 5;

impl Ops {
    /// Counts the targets that a pattern covers.
    ///
    /// # Errors
    /// The pattern is invalid, or the store cannot be read.
    pub(crate) async fn covered_targets(
        &self,
        params: &CoveredTargetsParams,
    ) -> Result<CoveredTargets, Error> {
        let pattern = parse::required_pattern(params.target.as_deref().unwrap_or("*"))?;
        let (mut count, mut keys, mut cursor, mut scanned) = (0, Vec::new(), None, 0);
        let is_partial = loop {
            if scanned >= MAX_SCANNED_TARGETS {
                break true;
            }
            let states = self.0.store.states(cursor, PAGE_SIZE).await?;
            scanned += states.len();
            let targets = states.iter().filter(|state| state.key.kind() == KeyKind::Target);
            for state in targets.filter(|state| pattern.covers(&state.key)) {
                count += 1;
                if keys.len() < MAX_KEYS {
                    keys.push(state.key.as_str().to_owned());
                }
            }
            cursor = match states.last() {
                Some(last) if states.len() == PAGE_SIZE => Some(last.cursor),
                _ => break false,
            };
        };
        Ok(CoveredTargets { pattern: pattern.to_string(), count, is_partial, keys })
    }
}
