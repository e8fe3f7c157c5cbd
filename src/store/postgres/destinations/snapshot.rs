//! Which transactions a statement has seen.

use std::str::FromStr;

/// A snapshot as PostgreSQL writes it: `xmin:xmax:xip,…`. The default one has seen no transaction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::store::postgres) struct Snapshot {
    /// All transactions below it have ended.
    xmin: i64,
    /// None from it on has ended.
    xmax: i64,
    /// Those between them that have not ended, ascending.
    running: Vec<i64>,
}

impl Snapshot {
    /// Whether it has seen what a transaction has committed.
    pub(in crate::store::postgres) fn has_seen(&self, transaction: i64) -> bool {
        transaction < self.xmin
            || transaction < self.xmax && self.running.binary_search(&transaction).is_err()
    }
}

impl FromStr for Snapshot {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let mut number = || parts.next().unwrap_or_default().parse();
        let (xmin, xmax) = (number()?, number()?);
        let running = parts.next().unwrap_or_default().split(',').filter(|part| !part.is_empty());
        let mut running = running.map(str::parse).collect::<Result<Vec<i64>, _>>()?;
        running.sort_unstable();
        Ok(Self { xmin, xmax, running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_has_seen_what_had_ended() {
        let snapshot: Snapshot = "10:20:10,15".parse().unwrap();
        let seen = [9, 10, 11, 15, 19, 20].map(|transaction| snapshot.has_seen(transaction));
        assert_eq!(seen, [true, false, true, false, true, false]);
        let quiet: Snapshot = "7:7:".parse().unwrap();
        assert_eq!([6, 7].map(|transaction| quiet.has_seen(transaction)), [true, false]);
        assert!(!Snapshot::default().has_seen(1));
        assert!("x".parse::<Snapshot>().is_err());
    }
}
