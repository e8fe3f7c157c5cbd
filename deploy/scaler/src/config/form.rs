//! The file as it is written. The types that read it are also those of its schema.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use serde_saphyr::Spanned;

use super::ManagedBy;
use super::http::RawHttp;

pub(super) const MAX_CONCURRENCY: usize = 256;

/// The JSON Schema of the file, draft 2020-12.
pub(super) fn schema() -> Schema {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<File>()
}

/// The configuration of scalebridge-scaler. Keys are optional unless marked as required.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "scalebridge-scaler configuration", extend("$id" = "urn:scalebridge:schema:scaler-config"))]
pub(super) struct File {
    /// true: nothing is changed anywhere; events are planned and answered with `dry_run`. Default false.
    #[serde(default)]
    pub dry_run: bool,
    /// The queue of the worker. A Lambda function gets its events by an event source mapping instead.
    #[schemars(with = "Option<RawQueue>")]
    pub queue: Option<Spanned<RawQueue>>,
    /// The queue that gets a copy of each refused event with its answer. By default refused events are logged and
    /// counted.
    #[schemars(with = "Option<RawRefusals>")]
    pub refusals: Option<Spanned<RawRefusals>>,
    /// Where it is written down what was applied: one of the two. Required.
    #[schemars(with = "RawLedger")]
    pub ledger: Spanned<RawLedger>,
    /// Other accounts of AWS, by their ids of 12 digits in quotes, with the role that is assumed there. An event that
    /// names an account that is not here is refused. Targets without an account are in that of the scaler's own
    /// credentials.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, RawAccount>", extend("propertyNames" = { "pattern": "^[0-9]{12}$" }))]
    pub accounts: BTreeMap<String, Spanned<RawAccount>>,
    /// Kubernetes clusters, by the name that targets have as `cluster`. Needed for the platforms `eks` and
    /// `kubernetes`, and for `buffer`. An event that names another cluster is refused.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, RawCluster>")]
    pub clusters: BTreeMap<String, Spanned<RawCluster>>,
    /// Nomad clusters, by the name that targets have as `cluster`; `default` is for targets without one.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, RawNomad>")]
    pub nomad: BTreeMap<String, Spanned<RawNomad>>,
    /// What is allowed for which targets. The first pattern that matches the event's subject counts; an event that none
    /// matches is refused. Required.
    #[schemars(with = "Vec<RawTarget>", length(min = 1))]
    pub targets: Spanned<Vec<Spanned<RawTarget>>>,
}

/// The queue of the worker.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Queue")]
pub(super) struct RawQueue {
    /// The URL of the queue in SQS, standard or FIFO. Required.
    #[schemars(with = "String", regex(pattern = "^https?://[^@?#]+$"))]
    pub queue_url: Spanned<String>,
    /// The maximum number of events that are applied at the same time. Default 8.
    #[schemars(with = "Option<usize>", range(min = 1, max = MAX_CONCURRENCY))]
    pub concurrency: Option<Spanned<usize>>,
}

/// The queue that gets a copy of each refused event.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Refusals")]
pub(super) struct RawRefusals {
    /// The URL of the queue in SQS, standard or FIFO. Required.
    #[schemars(with = "String", regex(pattern = "^https?://[^@?#]+$"))]
    pub queue_url: Spanned<String>,
}

/// Where it is written down what was applied: one of the two.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Ledger", extend("minProperties" = 1, "maxProperties" = 1))]
pub(super) struct RawLedger {
    /// A table of DynamoDB, for any number of functions and workers.
    pub dynamodb: Option<RawDynamoDb>,
    /// A file, for workers on one machine.
    pub sqlite: Option<RawSqlite>,
}

/// A table of DynamoDB.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DynamoDb")]
pub(super) struct RawDynamoDb {
    /// The name of the table. It has the partition key `pk`, a string, no sort key, and the TTL attribute `ttl`.
    /// Required.
    #[schemars(with = "String", length(min = 1))]
    pub table: Spanned<String>,
    /// The region of the table. By default that of the environment, such as AWS_REGION.
    #[schemars(with = "Option<String>", regex(pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)+-[0-9]+$"))]
    pub region: Option<Spanned<String>>,
}

/// A file on a local file system.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Sqlite")]
pub(super) struct RawSqlite {
    /// The path of the file, relative to the working directory. It is created if it does not exist. Required.
    #[schemars(with = "PathBuf", length(min = 1))]
    pub path: Spanned<PathBuf>,
}

/// Another account of AWS.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Account")]
pub(super) struct RawAccount {
    /// The ARN of the role in that account that the scaler assumes. Required.
    #[schemars(with = "String", regex(pattern = "^arn:[a-z-]+:iam::[0-9]{12}:role/"))]
    pub role_arn: Spanned<String>,
    /// What the role's trust policy requires as `sts:ExternalId`. By default none is sent.
    #[schemars(with = "Option<String>", length(min = 1))]
    pub external_id: Option<Spanned<String>>,
}

/// How a Kubernetes cluster is reached: one of `eks`, `kubeconfig` and `in_cluster`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Cluster", extend("minProperties" = 1))]
pub(super) struct RawCluster {
    /// A cluster of EKS, which is looked up there and knows the scaler by its role.
    pub eks: Option<RawEks>,
    /// The path of a kubeconfig file.
    #[schemars(with = "Option<PathBuf>", length(min = 1))]
    pub kubeconfig: Option<Spanned<PathBuf>>,
    /// The context in the kubeconfig file. By default its current context.
    #[schemars(with = "Option<String>", length(min = 1))]
    pub context: Option<Spanned<String>>,
    /// true: the cluster that the scaler runs in, with its service account. Default false.
    #[serde(default)]
    pub in_cluster: bool,
}

/// A cluster of EKS.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Eks")]
pub(super) struct RawEks {
    /// Its name in EKS. Required.
    #[schemars(with = "String", length(min = 1))]
    pub name: Spanned<String>,
    /// Its region. Required.
    #[schemars(with = "String", regex(pattern = "^[a-z][a-z0-9]*(-[a-z0-9]+)+-[0-9]+$"))]
    pub region: Spanned<String>,
    /// Its account, one of `accounts`. By default that of the scaler's own credentials.
    #[schemars(with = "Option<String>")]
    pub account: Option<Spanned<String>>,
}

/// How Nomad is reached.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Nomad")]
pub(super) struct RawNomad {
    /// The URL of its API, such as `https://nomad.internal:4646`. Required.
    #[schemars(with = "String", regex(pattern = "^https?://[^@?#]+$"))]
    pub address: Spanned<String>,
    /// A file with the token of an ACL policy that may scale the jobs. By default none is sent.
    #[schemars(with = "Option<PathBuf>", length(min = 1))]
    pub token_file: Option<Spanned<PathBuf>>,
    /// TLS, credentials of a proxy before Nomad, and an HTTP proxy.
    pub http: Option<RawHttp>,
}

/// What is allowed for the targets that a pattern matches.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Target")]
pub(super) struct RawTarget {
    /// A pattern for the event's subject, `platform/kind/account/region/cluster/namespace/name` with `-` for what is
    /// absent, where `*` is any number of characters, also `/`. Required.
    #[serde(rename = "match")]
    #[schemars(with = "String", length(min = 1, max = 4096))]
    pub pattern: Spanned<String>,
    /// Who determines the size of the target beside the scaler. Required for node groups and Auto Scaling groups; by
    /// default auto for kubernetes, ecs and nomad.
    #[schemars(with = "Option<ManagedBy>")]
    pub managed_by: Option<Spanned<ManagedBy>>,
    /// The CapacityBuffer whose replicas are changed instead of the target, as namespace/name in the target's cluster:
    /// a template over kind, name, cluster, namespace, region and account of the target, such as scaling/spare-{{ name
    /// }}.
    #[schemars(with = "Option<String>")]
    pub buffer: Option<Spanned<String>>,
    /// Never below this. By default only the limits of the event and of the group hold.
    pub min_capacity: Option<u32>,
    /// Never above this. By default only the limits of the event and of the group hold.
    #[schemars(with = "Option<u32>")]
    pub max_capacity: Option<Spanned<u32>>,
    /// The most that one event takes away: units, or percent of the present capacity such as 20%, which is at least 1.
    /// By default no limit.
    #[schemars(with = "Option<RawMaxDecrease>")]
    pub max_decrease: Option<Spanned<RawMaxDecrease>>,
    /// true: an Auto Scaling group of a cluster may be decreased although its nodes are not drained by that. Default
    /// false.
    #[serde(default)]
    pub allow_undrained: bool,
    /// true: as `dry_run` at the top, for these targets. Default false.
    #[serde(default)]
    pub dry_run: bool,
}

/// A number of units, or percent.
#[derive(JsonSchema)]
#[schemars(rename = "MaxDecrease", untagged)]
pub(super) enum RawMaxDecrease {
    Units(#[schemars(range(min = 1))] u32),
    /// Also what is neither.
    Text(#[schemars(regex(pattern = "^([1-9][0-9]?|100)%$"))] String),
}

impl<'de> Deserialize<'de> for RawMaxDecrease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MaxDecreaseVisitor)
    }
}

struct MaxDecreaseVisitor;

impl Visitor<'_> for MaxDecreaseVisitor {
    type Value = RawMaxDecrease;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of units, or percent such as 20%,")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<RawMaxDecrease, E> {
        Ok(u32::try_from(value)
            .map_or_else(|_| RawMaxDecrease::Text(value.to_string()), RawMaxDecrease::Units))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<RawMaxDecrease, E> {
        Ok(u32::try_from(value)
            .map_or_else(|_| RawMaxDecrease::Text(value.to_string()), RawMaxDecrease::Units))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<RawMaxDecrease, E> {
        Ok(RawMaxDecrease::Text(value.to_string()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<RawMaxDecrease, E> {
        Ok(RawMaxDecrease::Text(value.to_string()))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<RawMaxDecrease, E> {
        Ok(RawMaxDecrease::Text(value.to_owned()))
    }
}
