//! The ledger that the configuration names.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use scalebridge::domain::time::Time;

use super::dynamodb::DynamoDb;
use super::sqlite::SqliteLedger;
use super::{AppliedItem, Entries, Freeze, Ledger, LedgerError, TargetItem, Written};
use crate::aws;
use crate::config::LedgerSettings;
use crate::event::ScalingEvent;

const UNKNOWN_REGION: &str =
    "the region of the ledger's table is unknown: set `ledger.dynamodb.region`, or AWS_REGION";

/// A failed write says this long that the ledger cannot be used, unless another one succeeds.
const FAILURE_AGE: Duration = Duration::from_secs(60);

/// A ledger of either kind. Clones share it.
#[derive(Clone)]
pub struct AnyLedger {
    kind: Kind,
    writes: Writes,
}

#[derive(Clone)]
enum Kind {
    DynamoDb(DynamoDb),
    Sqlite(SqliteLedger),
}

/// The last write, if it has failed.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Option<(Instant, LedgerError)>>>);

impl Writes {
    fn note<T>(&self, now: Instant, written: Result<T, LedgerError>) -> Result<T, LedgerError> {
        *self.0.lock() = written.as_ref().err().map(|error| (now, error.clone()));
        written
    }

    fn check(&self, now: Instant) -> Result<(), LedgerError> {
        let last = self.0.lock().clone();
        let age = |at| now.saturating_duration_since(at);
        match last.filter(|(at, _)| age(*at) < FAILURE_AGE) {
            Some((at, LedgerError(error))) => {
                Err(LedgerError(format!("the last write failed {} s ago: {error}", age(at).as_secs())))
            }
            None => Ok(()),
        }
    }
}

impl AnyLedger {
    /// Opens the ledger. A table is not looked for before the first call; a file is opened, or created.
    ///
    /// # Errors
    /// The file cannot be used, or the region of the table is not known.
    pub async fn open(settings: &LedgerSettings) -> Result<Self, LedgerError> {
        let kind = match settings {
            LedgerSettings::DynamoDb { table, region } => {
                let config = aws::config(region.as_deref()).await;
                if config.region().is_none() {
                    return Err(LedgerError(UNKNOWN_REGION.to_owned()));
                }
                Kind::DynamoDb(DynamoDb::new(&config, table))
            }
            LedgerSettings::Sqlite { path } => Kind::Sqlite(SqliteLedger::open(path.clone(), now).await?),
        };
        Ok(Self { kind, writes: Writes::default() })
    }

    /// Whether the ledger can be used: it can be read in the way of an event, and the last write has not failed. A probe
    /// writes nothing itself.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), LedgerError> {
        self.read_freeze().await?;
        self.writes.check(Instant::now())
    }
}

/// The time by which outdated items are deleted.
fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

impl Ledger for AnyLedger {
    async fn read(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        match &self.kind {
            Kind::DynamoDb(ledger) => ledger.read(event).await,
            Kind::Sqlite(ledger) => ledger.read(event).await,
        }
    }

    async fn write_target(
        &self,
        subject: &str,
        version: u64,
        item: &TargetItem,
    ) -> Result<Written, LedgerError> {
        let written = match &self.kind {
            Kind::DynamoDb(ledger) => ledger.write_target(subject, version, item).await,
            Kind::Sqlite(ledger) => ledger.write_target(subject, version, item).await,
        };
        self.writes.note(Instant::now(), written)
    }

    async fn replace_applied(
        &self,
        subject: &str,
        old: &AppliedItem,
        new: &AppliedItem,
    ) -> Result<Written, LedgerError> {
        let written = match &self.kind {
            Kind::DynamoDb(ledger) => ledger.replace_applied(subject, old, new).await,
            Kind::Sqlite(ledger) => ledger.replace_applied(subject, old, new).await,
        };
        self.writes.note(Instant::now(), written)
    }

    async fn write_applied(&self, subject: &str, item: &AppliedItem) -> Result<(), LedgerError> {
        let written = match &self.kind {
            Kind::DynamoDb(ledger) => ledger.write_applied(subject, item).await,
            Kind::Sqlite(ledger) => ledger.write_applied(subject, item).await,
        };
        self.writes.note(Instant::now(), written)
    }

    async fn read_freeze(&self) -> Result<Freeze, LedgerError> {
        match &self.kind {
            Kind::DynamoDb(ledger) => ledger.read_freeze().await,
            Kind::Sqlite(ledger) => ledger.read_freeze().await,
        }
    }

    async fn write_freeze(&self, version: u64, freeze: &Freeze) -> Result<Written, LedgerError> {
        let written = match &self.kind {
            Kind::DynamoDb(ledger) => ledger.write_freeze(version, freeze).await,
            Kind::Sqlite(ledger) => ledger.write_freeze(version, freeze).await,
        };
        self.writes.note(Instant::now(), written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::stub::{Reply, Stub};

    #[test]
    fn a_failed_write_says_for_a_minute_that_the_ledger_cannot_be_used() {
        let (writes, start) = (Writes::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let fail = |seconds| writes.note(after(seconds), Err::<Written, _>(LedgerError("full".to_owned())));
        let problem = |seconds| writes.check(after(seconds)).err().map(|LedgerError(error)| error);
        assert_eq!(problem(0), None);
        drop(fail(0));
        drop(fail(10));
        assert_eq!(problem(69).as_deref(), Some("the last write failed 59 s ago: full"));
        assert_eq!(problem(70), None, "nobody has tried again");
        drop(fail(80));
        drop(writes.note(after(81), Ok(Written::Changed)));
        assert_eq!(problem(81), None, "another one was carried out");
    }

    #[tokio::test]
    async fn a_table_that_cannot_be_read_as_for_an_event_or_written_cannot_be_used() {
        let stub = Stub::start().await;
        let kind = Kind::DynamoDb(DynamoDb::new(&stub.config().await, "table"));
        let ledger = AnyLedger { kind, writes: Writes::default() };
        let probe = ledger.clone();
        let denied = || Reply::Error(400, "AccessDeniedException", "not for you");
        stub.reply("BatchGetItem", [denied(), Reply::Ok(r#"{"Responses":{}}"#.to_owned())]);
        let LedgerError(error) = probe.check().await.unwrap_err();
        assert!(error.starts_with("dynamodb:BatchGetItem of table `table`: AccessDenied"), "{error}");
        probe.check().await.unwrap();

        stub.reply("PutItem", [denied(), Reply::Ok("{}".to_owned())]);
        let item = TargetItem { version: 1, ..TargetItem::default() };
        ledger.write_target("subject", 0, &item).await.unwrap_err();
        let LedgerError(error) = probe.check().await.unwrap_err();
        assert!(error.starts_with("the last write failed ") && error.contains("dynamodb:PutItem"), "{error}");
        ledger.write_target("subject", 0, &item).await.unwrap();
        probe.check().await.unwrap();
    }
}
