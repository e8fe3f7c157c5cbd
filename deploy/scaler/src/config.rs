//! The configuration: `config/scaler.yaml`, or the text of `SCALEBRIDGE_SCALER_CONFIG`.
//!
//! The first error of form (YAML, an unknown key, a wrong type) is reported alone; after that, all errors at once.

mod buffer;
mod file;
mod form;
mod http;
mod notes;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod tests;
mod values;
mod yaml_error;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub(crate) use buffer::render as render_buffer;
pub(crate) use file::from_yaml;
use scalebridge::config::access::HttpClient;
use scalebridge::domain::target_pattern::TargetPattern;

use crate::plan::Policy;
pub(crate) use values::{is_account, is_region, url_error};
pub(crate) use yaml_error::{form_error, kind_and_place};

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The worker's queue.
    pub queue: Option<Queue>,
    /// The URL of the queue that gets refused events.
    pub refusals: Option<String>,
    pub ledger: LedgerSettings,
    /// By account id.
    pub accounts: BTreeMap<String, Account>,
    /// By the name that targets have as `cluster`.
    pub clusters: BTreeMap<String, Cluster>,
    /// By the name that targets have as `cluster`; `default` for those without one.
    pub nomad: BTreeMap<String, Nomad>,
    /// The first one that matches an event's subject counts.
    pub targets: Vec<TargetSettings>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    pub queue_url: String,
    /// The maximum number of events that are applied at the same time.
    pub concurrency: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerSettings {
    DynamoDb { table: String, region: Option<String> },
    Sqlite { path: PathBuf },
}

/// The role that is assumed in an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub role_arn: String,
    pub external_id: Option<String>,
}

/// How a Kubernetes cluster is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cluster {
    Eks(EksCluster),
    Kubeconfig { path: PathBuf, context: Option<String> },
    InCluster,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EksCluster {
    pub name: String,
    pub region: String,
    /// `None`: that of the scaler's own credentials.
    pub account: Option<String>,
}

/// How Nomad is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nomad {
    pub address: String,
    /// The file with the token of Nomad's ACL.
    pub token_file: Option<PathBuf>,
    pub http: HttpClient,
}

/// What is allowed for the targets that a pattern matches.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSettings {
    pub pattern: TargetPattern,
    pub managed_by: ManagedBy,
    /// `namespace/name` of a CapacityBuffer; a template over the fields of the target.
    pub buffer: Option<String>,
    /// A cluster's Auto Scaling group may be decreased although its nodes are not drained by that.
    pub allow_undrained: bool,
    pub policy: Policy,
}

/// Who determines the size of a target, so that the scaler does not work against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ManagedBy {
    /// Who does is found out at the target.
    Auto,
    /// The scaler sets the size.
    Nobody,
    /// Cluster Autoscaler: a CapacityBuffer is changed, or without `buffer` the minimum of the group.
    ClusterAutoscaler,
    /// Karpenter: a CapacityBuffer is changed, or a static NodePool.
    Karpenter,
    /// EKS Auto Mode, as Karpenter.
    EksAutoMode,
}

/// The JSON Schema of the configuration, draft 2020-12. Only [`Config::read`] checks what a schema cannot say, such as
/// references to names.
pub fn schema() -> schemars::Schema {
    form::schema()
}

/// An error in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Counted from 1; 0 if the error has no place.
    pub line: u64,
    pub column: u64,
    /// What is wrong and how to correct it, on one line.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.message),
            line => write!(f, "{line}:{}: {}", self.column, self.message),
        }
    }
}

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// All errors, in the order of their places; never none.
    pub fn read(text: &str) -> Result<Self, Vec<ConfigError>> {
        file::read(text)
    }

    /// The settings for a target; `None` if no pattern matches.
    pub fn settings_for(&self, subject: &scalebridge::domain::target::TargetKey) -> Option<&TargetSettings> {
        self.targets.iter().find(|settings| settings.pattern.covers(subject))
    }
}
