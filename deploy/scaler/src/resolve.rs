//! What an event's target is in the configuration: which API is called, with which role, and what is set there. What is not
//! configured is refused: a label must not choose a role, a region or a cluster.

use scalebridge::domain::target::{Platform, Target};

use crate::config::{Account, Cluster, Config, EksCluster, ManagedBy, TargetSettings, render_buffer};
use crate::event::ScalingEvent;

/// The name of the Nomad cluster of targets that name none.
const DEFAULT_NOMAD: &str = "default";

/// Where the capacity of a target is, and what the scaler sets there.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved<'c> {
    pub resource: ResourceRef<'c>,
    pub owner: Owner,
    pub settings: &'c TargetSettings,
}

impl Resolved<'_> {
    /// The key of the target in the ledger: the same for all subjects that lead to one group or service of AWS, which has
    /// no preconditions. `subject` is that of the event.
    pub fn ledger_key(&self, subject: &str) -> String {
        let target = |platform, kind: &str, aws: &Aws<'_>, cluster: Option<&str>, name: &str| Target {
            platform,
            kind: kind.to_owned(),
            name: name.to_owned(),
            // The fifth part of the ARN is the account's id.
            account: aws.account.and_then(|account| account.role_arn.split(':').nth(4)).map(str::to_owned),
            cluster: cluster.map(str::to_owned),
            namespace: None,
            region: Some(aws.region.clone()),
        };
        let target = match &self.resource {
            ResourceRef::NodeGroup { aws, cluster, name } => {
                target(Platform::Eks, "nodegroup", aws, Some(*cluster), name)
            }
            ResourceRef::AutoScalingGroup { aws, name } => {
                target(Platform::Ec2, "autoscaling-group", aws, None, name)
            }
            ResourceRef::EcsService { aws, cluster, name } => {
                // Its name or its ARN.
                let cluster = cluster.rsplit('/').next();
                target(Platform::Ecs, "service", aws, cluster, name)
            }
            ResourceRef::Workload { .. }
            | ResourceRef::CapacityBuffer { .. }
            | ResourceRef::NomadGroup { .. } => {
                return subject.to_owned();
            }
        };
        target.key().to_string()
    }
}

/// What the scaler sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The size.
    Scaler,
    /// The lowest size, within which another autoscaler chooses.
    Autoscaler,
    /// It depends on what is found at the target.
    FoundOut,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ResourceRef<'c> {
    NodeGroup {
        aws: Aws<'c>,
        cluster: &'c str,
        name: String,
    },
    AutoScalingGroup {
        aws: Aws<'c>,
        name: String,
    },
    EcsService {
        aws: Aws<'c>,
        cluster: String,
        name: String,
    },
    /// `cluster` is the name in the configuration; `kind` is a short kind or `plural.group`.
    Workload {
        cluster: &'c str,
        kind: String,
        namespace: Option<String>,
        name: String,
    },
    CapacityBuffer {
        cluster: &'c str,
        namespace: String,
        name: String,
    },
    /// `cluster` is the name in the configuration; `name` is `JOB/GROUP`, or `JOB` if it has one group only.
    NomadGroup {
        cluster: &'c str,
        namespace: Option<String>,
        name: String,
    },
}

/// An account and a region of AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aws<'c> {
    /// `None`: the scaler's own credentials.
    pub account: Option<&'c Account>,
    pub region: String,
}

/// Resolves the target of an event.
///
/// # Errors
/// Why the event is refused.
pub fn resolve<'c>(config: &'c Config, event: &ScalingEvent) -> Result<Resolved<'c>, String> {
    let Some(settings) = config.settings_for(&event.target.key()) else {
        return Err(format!("no pattern of `targets` matches {}", event.subject));
    };
    if let Some(buffer) = &settings.buffer {
        let (namespace, name) = render_buffer(buffer, &event.target)?;
        let resource =
            ResourceRef::CapacityBuffer { cluster: cluster(config, &event.target)?.0, namespace, name };
        return Ok(Resolved { resource, owner: Owner::Scaler, settings });
    }
    let resource = resource(config, &event.target)?;
    let is_group = matches!(resource, ResourceRef::NodeGroup { .. } | ResourceRef::AutoScalingGroup { .. });
    let owner = match settings.managed_by {
        ManagedBy::Auto => Owner::FoundOut,
        ManagedBy::ClusterAutoscaler if is_group => Owner::Autoscaler,
        ManagedBy::Karpenter | ManagedBy::EksAutoMode if is_group => {
            return Err("Karpenter and EKS Auto Mode have no groups whose size is set".to_owned());
        }
        // Autoscalers of nodes do not size workloads.
        ManagedBy::ClusterAutoscaler | ManagedBy::Karpenter | ManagedBy::EksAutoMode => Owner::FoundOut,
        ManagedBy::Nobody => Owner::Scaler,
    };
    Ok(Resolved { resource, owner, settings })
}

fn resource<'c>(config: &'c Config, target: &Target) -> Result<ResourceRef<'c>, String> {
    let Target { platform, kind, name, namespace, .. } = target.clone();
    match platform {
        Platform::Eks => {
            let (key, cluster) = cluster(config, target)?;
            let Cluster::Eks(eks) = cluster else {
                return Err(format!("cluster {key} is not configured as `eks`, so it has no node groups"));
            };
            Ok(ResourceRef::NodeGroup {
                aws: aws_of_cluster(config, target, key, eks)?,
                cluster: &eks.name,
                name,
            })
        }
        Platform::Ec2 => Ok(ResourceRef::AutoScalingGroup { aws: aws(config, target)?, name }),
        Platform::Ecs => {
            let cluster = required(target.cluster.as_ref(), "cluster")?.clone();
            Ok(ResourceRef::EcsService { aws: aws(config, target)?, cluster, name })
        }
        Platform::Kubernetes => {
            Ok(ResourceRef::Workload { cluster: cluster(config, target)?.0, kind, namespace, name })
        }
        Platform::Nomad => {
            let key = target.cluster.as_deref().unwrap_or(DEFAULT_NOMAD);
            let Some((cluster, _)) = config.nomad.get_key_value(key) else {
                return Err(format!("`nomad` has no cluster {key}"));
            };
            Ok(ResourceRef::NomadGroup { cluster, namespace, name })
        }
        Platform::Custom => Err("targets of the platform `custom` are not scaled".to_owned()),
    }
}

fn required<'t>(value: Option<&'t String>, field: &str) -> Result<&'t String, String> {
    value.ok_or_else(|| format!("data.target has no `{field}`"))
}

/// The configured cluster and its key.
fn cluster<'c>(config: &'c Config, target: &Target) -> Result<(&'c str, &'c Cluster), String> {
    let name = required(target.cluster.as_ref(), "cluster")?;
    match config.clusters.get_key_value(name) {
        Some((key, cluster)) => Ok((key, cluster)),
        None => Err(format!("`clusters` has no cluster {name}")),
    }
}

/// The configuration decides; what the event says has to agree.
fn aws_of_cluster<'c>(
    config: &'c Config,
    target: &Target,
    key: &str,
    eks: &EksCluster,
) -> Result<Aws<'c>, String> {
    if let Some(region) = target.region.as_ref().filter(|region| **region != eks.region) {
        return Err(format!("data.target is in region {region}, but cluster {key} is in {}", eks.region));
    }
    if let Some(account) = target.account.as_ref().filter(|account| eks.account.as_ref() != Some(account)) {
        let own = eks.account.as_deref().unwrap_or("the scaler's own");
        return Err(format!("data.target is in account {account}, but cluster {key} is in {own}"));
    }
    Ok(Aws { account: account(config, eks.account.as_ref())?, region: eks.region.clone() })
}

fn aws<'c>(config: &'c Config, target: &Target) -> Result<Aws<'c>, String> {
    let region = required(target.region.as_ref(), "region")?.clone();
    Ok(Aws { account: account(config, target.account.as_ref())?, region })
}

fn account<'c>(config: &'c Config, id: Option<&String>) -> Result<Option<&'c Account>, String> {
    let Some(id) = id else { return Ok(None) };
    let account = config.accounts.get(id);
    account.map(Some).ok_or_else(|| format!("`accounts` has no account {id}"))
}

#[cfg(test)]
mod tests;
