//! What is allowed, but possibly not meant.

use scalebridge::domain::target::TargetKey;

use super::values::SEPARATORS;
use super::{Config, LedgerSettings, TargetSettings};

const SQLITE: &str = "the ledger is a file of SQLite, for workers on one machine only: a Lambda function refuses to start \
                      with it, and workers on several machines need `dynamodb`";

impl Config {
    /// For a person, one line each.
    pub fn notes(&self) -> Vec<String> {
        let sqlite = matches!(self.ledger, LedgerSettings::Sqlite { .. }).then(|| SQLITE.to_owned());
        let wide = self.targets.iter().map(pattern).filter(|pattern| is_ambiguous(pattern)).map(|pattern| {
            format!(
                "`match: {pattern}` has less than seven parts, and `*` also matches `/`: it can match more than is meant; \
                 write all seven parts"
            )
        });
        sqlite.into_iter().chain(wide).chain(self.hidden()).collect()
    }

    /// Patterns that match nothing that an earlier one does not match.
    fn hidden(&self) -> impl Iterator<Item = String> {
        self.targets.iter().enumerate().filter_map(|(at, settings)| {
            // Only a `*` matches the `*` of the other.
            let key = TargetKey::from_stored(pattern(settings));
            let earlier = self.targets[..at].iter().find(|earlier| earlier.pattern.covers(&key))?;
            let (hidden, by) = (pattern(settings), pattern(earlier));
            Some(format!(
                "`match: {hidden}` never counts: `match: {by}` before it matches the same targets; remove it or move it up"
            ))
        })
    }
}

fn pattern(settings: &TargetSettings) -> &str {
    settings.pattern.as_str()
}

/// A `*` at the end that stands for all further parts is clear.
fn is_ambiguous(pattern: &str) -> bool {
    let rest = if pattern == "*" { "" } else { pattern.strip_suffix("/*").unwrap_or(pattern) };
    pattern.matches('/').count() < SEPARATORS && rest.contains('*')
}
