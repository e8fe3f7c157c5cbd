//! The ledger that the configuration names.

use std::time::{SystemTime, UNIX_EPOCH};

use scalebridge::domain::time::Time;

use super::dynamodb::DynamoDb;
use super::sqlite::SqliteLedger;
use super::{AppliedItem, Entries, Freeze, Ledger, LedgerError, TargetItem, Written};
use crate::aws;
use crate::config::LedgerSettings;
use crate::event::ScalingEvent;

const UNKNOWN_REGION: &str =
    "the region of the ledger's table is unknown: set `ledger.dynamodb.region`, or AWS_REGION";

/// A ledger of either kind.
#[derive(Clone)]
pub enum AnyLedger {
    DynamoDb(DynamoDb),
    Sqlite(SqliteLedger),
}

impl AnyLedger {
    /// Opens the ledger. A table is not looked for before the first call; a file is opened, or created.
    ///
    /// # Errors
    /// The file cannot be used, or the region of the table is not known.
    pub async fn open(settings: &LedgerSettings) -> Result<Self, LedgerError> {
        match settings {
            LedgerSettings::DynamoDb { table, region } => {
                let config = aws::config(region.as_deref()).await;
                if config.region().is_none() {
                    return Err(LedgerError(UNKNOWN_REGION.to_owned()));
                }
                Ok(Self::DynamoDb(DynamoDb::new(&config, table)))
            }
            LedgerSettings::Sqlite { path } => SqliteLedger::open(path.clone(), now).await.map(Self::Sqlite),
        }
    }
}

/// The time by which outdated items are deleted.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Ledger for AnyLedger {
    async fn read(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        match self {
            Self::DynamoDb(ledger) => ledger.read(event).await,
            Self::Sqlite(ledger) => ledger.read(event).await,
        }
    }

    async fn write_target(
        &self,
        subject: &str,
        version: u64,
        item: &TargetItem,
    ) -> Result<Written, LedgerError> {
        match self {
            Self::DynamoDb(ledger) => ledger.write_target(subject, version, item).await,
            Self::Sqlite(ledger) => ledger.write_target(subject, version, item).await,
        }
    }

    async fn replace_applied(
        &self,
        subject: &str,
        old: &AppliedItem,
        new: &AppliedItem,
    ) -> Result<Written, LedgerError> {
        match self {
            Self::DynamoDb(ledger) => ledger.replace_applied(subject, old, new).await,
            Self::Sqlite(ledger) => ledger.replace_applied(subject, old, new).await,
        }
    }

    async fn write_applied(&self, subject: &str, item: &AppliedItem) -> Result<(), LedgerError> {
        match self {
            Self::DynamoDb(ledger) => ledger.write_applied(subject, item).await,
            Self::Sqlite(ledger) => ledger.write_applied(subject, item).await,
        }
    }

    async fn read_freeze(&self) -> Result<Freeze, LedgerError> {
        match self {
            Self::DynamoDb(ledger) => ledger.read_freeze().await,
            Self::Sqlite(ledger) => ledger.read_freeze().await,
        }
    }

    async fn write_freeze(&self, version: u64, freeze: &Freeze) -> Result<Written, LedgerError> {
        match self {
            Self::DynamoDb(ledger) => ledger.write_freeze(version, freeze).await,
            Self::Sqlite(ledger) => ledger.write_freeze(version, freeze).await,
        }
    }
}
