//! The connections to platforms, each made once, and the capacity of an event's target on one of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::apply::{Capacity, PlatformError};
use crate::aws::{self, Accounts, Role};
use crate::config::{self, Config, EksCluster};
use crate::event::ScalingEvent;
use crate::plan::Present;
use crate::platform::LeverKind;
use crate::platform::ec2::AutoScalingGroup;
use crate::platform::ecs::{self, Service};
use crate::platform::eks::NodeGroup;
use crate::platform::kubernetes::{CapacityBuffer, Cluster, EksConnection, Workload};
use crate::platform::nomad::{NomadServer, TaskGroup};
use crate::resolve::{Aws, Owner, Resolved, ResourceRef};

/// Clients need one; each call has the region of its target.
const ANY_REGION: &str = "us-east-1";

/// The connections of the configured platforms. What an operator has not configured cannot be reached.
pub struct Connections {
    config: Arc<Config>,
    accounts: Accounts,
    clusters: Mutex<HashMap<String, ClusterConnection>>,
    nomad: BTreeMap<String, Arc<NomadServer>>,
}

#[derive(Clone)]
enum ClusterConnection {
    Fixed(Arc<Cluster>),
    /// Made anew when the cluster has another address.
    Eks(Arc<EksConnection>),
}

/// The capacity of a target on any platform.
pub enum AnyCapacity {
    NodeGroup(NodeGroup),
    AutoScalingGroup(AutoScalingGroup),
    Service(Service),
    Workload(Workload),
    CapacityBuffer(CapacityBuffer),
    TaskGroup(TaskGroup),
}

impl Connections {
    /// Connects to nothing yet.
    pub async fn new(config: Arc<Config>) -> Self {
        let server = |nomad: &config::Nomad| {
            let config::Nomad { address, token_file, http } = nomad.clone();
            Arc::new(NomadServer::new(&address, token_file, http))
        };
        let nomad = config.nomad.iter().map(|(name, nomad)| (name.clone(), server(nomad))).collect();
        let accounts = Accounts::new(aws::config(Some(ANY_REGION)).await);
        Self { config, accounts, clusters: Mutex::default(), nomad }
    }

    /// The capacity of the target of `event`, which was resolved.
    ///
    /// # Errors
    /// The connection cannot be made.
    pub async fn connect(
        &self,
        resolved: &Resolved<'_>,
        event: &ScalingEvent,
    ) -> Result<AnyCapacity, PlatformError> {
        let Resolved { resource, owner, settings } = resolved;
        let kind = match owner {
            Owner::Autoscaler => LeverKind::Floor,
            Owner::Scaler | Owner::FoundOut => LeverKind::Size,
        };
        // `managed_by: nobody`: an operator says that no tool sets the number back.
        let is_unmanaged = *owner == Owner::Scaler;
        Ok(match resource {
            ResourceRef::NodeGroup { aws, cluster, name } => {
                let client = self.account(aws).await.eks;
                AnyCapacity::NodeGroup(NodeGroup::new(client, cluster, name, kind))
            }
            ResourceRef::AutoScalingGroup { aws, name } => {
                let client = self.account(aws).await.autoscaling;
                let group = AutoScalingGroup::new(client, name, kind, settings.allow_undrained);
                AnyCapacity::AutoScalingGroup(group)
            }
            ResourceRef::EcsService { aws, cluster, name } => {
                let account = self.account(aws).await;
                let owner = if is_unmanaged { ecs::Owner::Nobody } else { ecs::Owner::Auto };
                let (ecs, scaling) = (account.ecs, account.application_autoscaling);
                AnyCapacity::Service(Service::new(ecs, scaling, cluster, name, owner))
            }
            ResourceRef::Workload { cluster, kind, namespace, name } => {
                let cluster = self.cluster(cluster).await?;
                let workload = Workload::new(cluster, kind, namespace.as_deref(), name);
                let workload = if is_unmanaged { workload.ignoring_field_managers() } else { workload };
                AnyCapacity::Workload(workload)
            }
            ResourceRef::CapacityBuffer { cluster, namespace, name } => {
                let cluster = self.cluster(cluster).await?;
                AnyCapacity::CapacityBuffer(CapacityBuffer::new(cluster, namespace, name))
            }
            ResourceRef::NomadGroup { cluster, namespace, name } => {
                let server = self.nomad.get(*cluster).cloned();
                let server = server.ok_or_else(|| unknown("nomad", cluster))?;
                let named = (event.id.as_str(), event.reason.as_str());
                AnyCapacity::TaskGroup(TaskGroup::new(server, namespace.as_deref(), name, named))
            }
        })
    }

    async fn account(&self, aws: &Aws<'_>) -> aws::Account {
        let role = aws.account.map(role);
        self.accounts.account(&aws.region, role.as_ref()).await
    }

    async fn cluster(&self, name: &str) -> Result<Arc<Cluster>, PlatformError> {
        let known = self.clusters.lock().await.get(name).cloned();
        let connection = match known {
            Some(connection) => connection,
            None => {
                let connection = self.connect_cluster(name).await?;
                // Another event may have connected it meanwhile: either will do.
                self.clusters.lock().await.entry(name.to_owned()).or_insert(connection).clone()
            }
        };
        match connection {
            ClusterConnection::Fixed(cluster) => Ok(cluster),
            ClusterConnection::Eks(connection) => connection.cluster().await,
        }
    }

    async fn connect_cluster(&self, name: &str) -> Result<ClusterConnection, PlatformError> {
        let settings = self.config.clusters.get(name).ok_or_else(|| unknown("clusters", name))?;
        let cluster = match settings {
            config::Cluster::Eks(EksCluster { name, region, account }) => {
                // `Config::read` has looked for the account.
                let role = account.as_ref().and_then(|id| self.config.accounts.get(id)).map(role);
                let account = self.accounts.account(region, role.as_ref()).await;
                return Ok(ClusterConnection::Eks(Arc::new(EksConnection::new(&account, name))));
            }
            config::Cluster::Kubeconfig { path, context } => {
                Cluster::from_kubeconfig(path, context.as_deref()).await
            }
            config::Cluster::InCluster => Cluster::in_cluster(),
        };
        // The file may be mended meanwhile: the event waits until it expires.
        let cluster = cluster.map_err(|error| PlatformError::Busy(format!("cluster {name}: {error}")))?;
        Ok(ClusterConnection::Fixed(Arc::new(cluster)))
    }
}

fn role(account: &config::Account) -> Role {
    Role { arn: account.role_arn.clone(), external_id: account.external_id.clone() }
}

/// `resolve` has looked for it.
fn unknown(section: &str, name: &str) -> PlatformError {
    PlatformError::Refused(format!("`{section}` has no cluster {name}"))
}

impl Capacity for AnyCapacity {
    async fn read(&self) -> Result<Present, PlatformError> {
        match self {
            Self::NodeGroup(group) => group.read().await,
            Self::AutoScalingGroup(group) => group.read().await,
            Self::Service(service) => service.read().await,
            Self::Workload(workload) => workload.read().await,
            Self::CapacityBuffer(buffer) => buffer.read().await,
            Self::TaskGroup(group) => group.read().await,
        }
    }

    async fn set(&self, read: &Present, to: u32, token: &str) -> Result<(), PlatformError> {
        match self {
            Self::NodeGroup(group) => group.set(read, to, token).await,
            Self::AutoScalingGroup(group) => group.set(read, to, token).await,
            Self::Service(service) => service.set(read, to, token).await,
            Self::Workload(workload) => workload.set(read, to, token).await,
            Self::CapacityBuffer(buffer) => buffer.set(read, to, token).await,
            Self::TaskGroup(group) => group.set(read, to, token).await,
        }
    }
}
