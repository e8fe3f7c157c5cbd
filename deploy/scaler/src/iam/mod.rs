//! What the scaler needs to be granted, from its configuration: policies and trust policies of IAM, access entries of
//! EKS, and RBAC of Kubernetes. Only what the configured patterns can lead to.

mod aws;
mod parts;
mod policy;
mod rbac;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::config::{Cluster, Config};
use aws::Grants;
use policy::{trust_of_account, trust_of_service};

/// The Kubernetes group of the access entries, and the name of the roles in RBAC.
const NAME: &str = "scalebridge-scaler";
/// Where the ARN of the scaler's own role is not known.
const UNKNOWN_ROLE: &str = "arn:aws:iam::ACCOUNT_ID:role/scalebridge-scaler";

/// What the scaler runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Principal {
    /// A Lambda function
    Lambda,
    /// A pod of EKS, by EKS Pod Identity
    PodIdentity,
    /// An instance of EC2
    Ec2,
    /// A task of ECS
    Ecs,
}

/// What the configuration does not say.
#[derive(Debug, Clone)]
pub struct Options<'o> {
    pub principal: Principal,
    /// The scaler's own account; `*` is any.
    pub account: &'o str,
    /// The region of what is configured without one; `*` is any.
    pub region: &'o str,
    /// The scaler's own role.
    pub role_arn: Option<&'o str>,
    /// The queue of the function's event source mapping.
    pub queue_url: Option<&'o str>,
    /// The customer managed key that encrypts the queues.
    pub kms_key_arn: Option<&'o str>,
}

/// All of it.
#[derive(Debug, Serialize)]
pub struct Documents {
    /// Of the scaler itself.
    pub role: Role,
    /// Of the roles that it assumes, by account.
    pub accounts: BTreeMap<String, Role>,
    /// By the cluster's name in the configuration.
    pub clusters: BTreeMap<String, ClusterAccess>,
    /// What a person has to do or to know.
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Role {
    pub role_arn: String,
    pub policy: Value,
    pub trust_policy: Value,
}

#[derive(Debug, Serialize)]
pub struct ClusterAccess {
    /// The command that makes the role known to the cluster; `None` if it is not of EKS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub create_access_entry: Option<String>,
    /// In YAML, for `kubectl apply`.
    pub rbac: String,
}

/// What this configuration needs.
pub fn documents(config: &Config, options: &Options<'_>) -> Documents {
    let own_role = options.role_arn.unwrap_or(UNKNOWN_ROLE);
    let mut grants = Grants::new(config, options);
    grants.add_events();
    grants.add_ledger();
    grants.add_targets();
    let role = Role {
        role_arn: own_role.to_owned(),
        policy: grants.policy_of(None),
        trust_policy: trust_of_service(options.principal),
    };
    let accounts = config.accounts.iter().map(|(id, account)| {
        let trust_policy = trust_of_account(own_role, account.external_id.as_deref(), options.principal);
        let role_arn = account.role_arn.clone();
        (id.clone(), Role { role_arn, policy: grants.policy_of(Some(id)), trust_policy })
    });
    let accounts = accounts.collect();
    let clusters = config.clusters.iter().filter_map(|(key, cluster)| {
        let rbac = rbac::rbac(config, key, cluster)?;
        let create_access_entry = access_entry(config, cluster, own_role);
        Some((key.clone(), ClusterAccess { create_access_entry, rbac }))
    });
    let mut notes = notes(config, options);
    let unused = config.accounts.keys().filter(|id| grants.is_empty(id));
    notes.extend(unused.map(|id| format!("no pattern leads to account {id}, so that its policy is empty")));
    Documents { role, accounts, clusters: clusters.collect(), notes }
}

fn access_entry(config: &Config, cluster: &Cluster, own_role: &str) -> Option<String> {
    let Cluster::Eks(eks) = cluster else { return None };
    let account = eks.account.as_ref().and_then(|id| config.accounts.get(id));
    let role = account.map_or(own_role, |account| &account.role_arn);
    Some(format!(
        "aws eks create-access-entry --region {} --cluster-name {} --principal-arn {role} --kubernetes-groups {NAME}",
        eks.region, eks.name
    ))
}

fn notes(config: &Config, options: &Options<'_>) -> Vec<String> {
    let mut notes = Vec::new();
    if options.role_arn.is_none() {
        notes.push(format!("replace {UNKNOWN_ROLE} by the ARN of the scaler's role, or pass --role-arn"));
    }
    if options.principal == Principal::Lambda {
        notes.push(
            "a function also needs the managed policy AWSLambdaBasicExecutionRole, for its log".to_owned(),
        );
        if config.queue.is_none() && options.queue_url.is_none() {
            notes.push("for a function that gets its events from a queue, pass --queue-url".to_owned());
        }
    }
    let has_queue = config.queue.is_some() || config.refusals.is_some() || options.queue_url.is_some();
    if has_queue && options.kms_key_arn.is_none() {
        notes.push("if a key of your own encrypts the queues, pass --kms-key-arn".to_owned());
    }
    notes
}
