//! The ledger in a table of DynamoDB, for any number of functions and workers.
//!
//! The table has the partition key `pk`, a string, no sort key, and the TTL attribute `ttl`:
//!
//! | `pk` | `document`, in JSON | beside it |
//! | --- | --- | --- |
//! | `target#SUBJECT` | [`TargetItem`] | `version`, which each write has as its condition |
//! | `event#ID` | [`AppliedItem`] | `subject`, for people; `ttl`, in seconds: [`AppliedItem::kept_until`] |
//! | `freeze` | [`Freeze`] | `version`, as of a target |

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AppliedItem, Entries, Freeze, Ledger, LedgerError, TargetItem, Written};
use crate::aws::errors;
use crate::event::ScalingEvent;

/// Of all calls of one read.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Of one call, with its retries: they repeat conditional writes, which are made once.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;
/// What DynamoDB allows in one call.
const MAX_KEYS: usize = 100;
/// The first pause before keys that were not processed are asked for again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

const KEY: &str = "pk";
const DOCUMENT: &str = "document";
const FREEZE_KEY: &str = "freeze";
/// What helps where an item is not as this program writes it.
const RESTORE: &str = "restore it from a backup of the table (deleted, it counts as never written)";

/// A ledger in a table of DynamoDB.
#[derive(Debug, Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
}

/// The documents of items, by their keys.
type Documents = BTreeMap<String, String>;

impl DynamoDb {
    /// The table is not looked for before the first call.
    pub fn new(config: &SdkConfig, table: impl Into<String>) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(ATTEMPT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT)
            .build();
        let config = aws_sdk_dynamodb::config::Builder::from(config)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
            .timeout_config(timeouts)
            .build();
        Self::with_client(Client::from_conf(config), table)
    }

    fn with_client(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    async fn read_entries(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        let target_key = target_key(&event.subject);
        let documents = self.documents(&[target_key.clone(), FREEZE_KEY.to_owned()]).await?;
        let target: TargetItem = parse(&documents, &target_key)?.unwrap_or_default();
        let freeze = parse(&documents, FREEZE_KEY)?.unwrap_or_default();
        // After the target: what is read now is at least as new as its version.
        let pending = target.pending.iter().flat_map(|pending| pending.reverts.iter().chain([&pending.id]));
        let ids: BTreeSet<&String> = event.reverts.iter().chain([&event.id]).chain(pending).collect();
        let keys: Vec<String> = ids.into_iter().map(|id| event_key(id)).collect();
        let documents = self.documents(&keys).await?;
        let mut applied = BTreeMap::new();
        for key in documents.keys() {
            if let Some(item) = parse::<AppliedItem>(&documents, key)? {
                // Otherwise its event would look like one that was never applied.
                if event_key(&item.id) != *key {
                    return Err(LedgerError(format!(
                        "item `{key}` is of the event `{}`: another program has written it; {RESTORE}",
                        item.id
                    )));
                }
                applied.insert(item.id.clone(), item);
            }
        }
        Ok(Entries { target, applied, freeze })
    }

    /// Those of the keys that exist. The keys are different ones. An item without a readable document is an error: writes
    /// count it as one that exists.
    async fn documents(&self, keys: &[String]) -> Result<Documents, LedgerError> {
        let mut found = Documents::new();
        for keys in keys.chunks(MAX_KEYS) {
            let keys = keys.iter().map(|key| HashMap::from([(KEY.to_owned(), text(key))])).collect();
            let keys = KeysAndAttributes::builder().consistent_read(true).set_keys(Some(keys)).build();
            let mut keys = Some(keys.map_err(|error| LedgerError(error.to_string()))?);
            let mut pause = FIRST_PAUSE;
            while let Some(asked) = keys.take() {
                let answer = self.client.batch_get_item().request_items(&self.table, asked).send().await;
                let answer = answer.map_err(|error| self.error("dynamodb:BatchGetItem", &error))?;
                for item in answer.responses.unwrap_or_default().into_values().flatten() {
                    let key = string(&item, KEY).unwrap_or_default();
                    let Some(document) = string(&item, DOCUMENT) else {
                        let table = &self.table;
                        return Err(LedgerError(format!(
                            "item `{key}` of table `{table}` has no attribute `{DOCUMENT}` with a text; {RESTORE}"
                        )));
                    };
                    found.insert(key.to_owned(), document.to_owned());
                }
                keys = answer.unprocessed_keys.and_then(|mut keys| keys.remove(&self.table));
                if keys.is_some() {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        Ok(found)
    }

    async fn in_time<T>(&self, read: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        tokio::time::timeout(READ_TIMEOUT, read).await.unwrap_or_else(|_| {
            Err(LedgerError(format!("table `{}` was not read in {} s", self.table, READ_TIMEOUT.as_secs())))
        })
    }

    /// Writes an item that has the version `next` if it has the version `known`; 0 if it did not exist.
    async fn write_version<T>(
        &self,
        key: &str,
        (known, next): (u64, u64),
        item: &T,
    ) -> Result<Written, LedgerError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(KEY, text(key))
            .item("version", number(next))
            .item(DOCUMENT, text(&document(item)?))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let put = match known {
            0 => put.condition_expression("attribute_not_exists(pk)"),
            _ => put
                .condition_expression("version = :version")
                .expression_attribute_values(":version", number(known)),
        };
        match put.send().await {
            Ok(_) => Ok(Written::Yes),
            // The answer of an earlier attempt was lost: this very item was written by it.
            Err(error) => match found_instead(&error) {
                Some(found) if found.is_some_and(|found| is_same(found, item)) => Ok(Written::Yes),
                Some(_) => Ok(Written::Changed),
                None => Err(self.error("dynamodb:PutItem", &error)),
            },
        }
    }

    fn put_applied(&self, subject: &str, item: &AppliedItem) -> Result<PutItemFluentBuilder, LedgerError> {
        let ttl = item.kept_until().as_millis() / 1_000;
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item(KEY, text(&event_key(&item.id)))
            .item(DOCUMENT, text(&document(item)?))
            .item("subject", text(subject))
            .item("ttl", AttributeValue::N(ttl.to_string()));
        Ok(put)
    }

    fn error<E>(&self, action: &str, error: &SdkError<E, HttpResponse>) -> LedgerError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let help = match error.code() {
            Some("ResourceNotFoundException") => "; create it with the partition key `pk`, a string",
            _ if errors::is_denied(error) => {
                "; grant it to the scaler's role, see `scalebridge-scaler iam-policy`"
            }
            _ => "",
        };
        LedgerError(format!("{action} of table `{}`: {}{help}", self.table, errors::text(error)))
    }
}

impl Ledger for DynamoDb {
    async fn read(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        self.in_time(self.read_entries(event)).await
    }

    async fn write_target(
        &self,
        subject: &str,
        version: u64,
        item: &TargetItem,
    ) -> Result<Written, LedgerError> {
        self.write_version(&target_key(subject), (version, item.version), item).await
    }

    async fn replace_applied(
        &self,
        subject: &str,
        old: &AppliedItem,
        new: &AppliedItem,
    ) -> Result<Written, LedgerError> {
        let put = self
            .put_applied(subject, new)?
            .condition_expression("document = :old OR document = :new")
            .expression_attribute_values(":old", text(&document(old)?))
            .expression_attribute_values(":new", text(&document(new)?));
        match put.send().await {
            Ok(_) => Ok(Written::Yes),
            Err(error) if found_instead(&error).is_some() => Ok(Written::Changed),
            Err(error) => Err(self.error("dynamodb:PutItem", &error)),
        }
    }

    async fn write_applied(&self, subject: &str, item: &AppliedItem) -> Result<(), LedgerError> {
        let put = self.put_applied(subject, item)?.condition_expression("attribute_not_exists(pk)");
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error) if found_instead(&error).is_some() => Ok(()),
            Err(error) => Err(self.error("dynamodb:PutItem", &error)),
        }
    }

    async fn read_freeze(&self) -> Result<Freeze, LedgerError> {
        // The same call as for an event: a probe that reads this finds out whether events can be read.
        let documents = self.in_time(self.documents(&[FREEZE_KEY.to_owned()])).await?;
        Ok(parse(&documents, FREEZE_KEY)?.unwrap_or_default())
    }

    async fn write_freeze(&self, version: u64, freeze: &Freeze) -> Result<Written, LedgerError> {
        self.write_version(FREEZE_KEY, (version, freeze.version), freeze).await
    }
}

fn target_key(subject: &str) -> String {
    format!("target#{subject}")
}

fn event_key(id: &str) -> String {
    format!("event#{id}")
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn number(number: u64) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

fn string<'a>(item: &'a HashMap<String, AttributeValue>, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn document(item: &impl Serialize) -> Result<String, LedgerError> {
    serde_json::to_string(item).map_err(|error| LedgerError(error.to_string()))
}

fn parse<T: DeserializeOwned>(documents: &Documents, key: &str) -> Result<Option<T>, LedgerError> {
    let Some(document) = documents.get(key) else { return Ok(None) };
    let item = serde_json::from_str(document);
    item.map(Some).map_err(|error| LedgerError(format!("item `{key}` cannot be read: {error}; {RESTORE}")))
}

/// The item that was found instead of what the condition of a write requires, where the condition was not met.
fn found_instead(
    error: &SdkError<PutItemError, HttpResponse>,
) -> Option<Option<&HashMap<String, AttributeValue>>> {
    match error.as_service_error()? {
        PutItemError::ConditionalCheckFailedException(failed) => Some(failed.item()),
        _ => None,
    }
}

fn is_same<T: DeserializeOwned + PartialEq>(found: &HashMap<String, AttributeValue>, item: &T) -> bool {
    let found = string(found, DOCUMENT).and_then(|document| serde_json::from_str::<T>(document).ok());
    found.as_ref() == Some(item)
}

#[cfg(test)]
pub(crate) mod tests;
