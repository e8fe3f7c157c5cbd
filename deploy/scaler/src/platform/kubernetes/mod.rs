//! Kubernetes: everything with a `/scale` subresource, and CapacityBuffers.
//!
//! Where an autoscaler owns the number of replicas, its floor is moved instead: `minReplicas` of a
//! HorizontalPodAutoscaler, `minReplicaCount` of KEDA's ScaledObject. What another controller or a tool would set back is
//! refused, with its name. Each change has the resourceVersion that was read as precondition.

mod buffer;
mod cluster;
mod eks;
mod eks_token;
mod failure;
mod field;
mod managers;
mod owner;
mod resource;

use std::sync::Arc;

use serde_json::Value;

use super::call::{read_in_time, write_in_time};
use crate::apply::{Capacity, PlatformError};
use crate::capacity::Lever;
use crate::event::Limits;
use crate::plan::Present;
pub use buffer::CapacityBuffer;
pub use cluster::{Cluster, ClusterError, Tokens};
pub use eks::EksConnection;
pub use eks_token::EksTokens;
use field::Field;
use owner::{Owner, Search, controller, number};
use resource::Resource;

/// An object with a `/scale` subresource.
pub struct Workload {
    cluster: Arc<Cluster>,
    kind: String,
    namespace: Option<String>,
    name: String,
    ignores_managers: bool,
}

impl Workload {
    /// `kind` is `deployment`, `statefulset`, `replicaset` or `replicationcontroller`, or `plural.group` of any other
    /// resource, such as `nodepools.karpenter.sh`.
    pub fn new(cluster: Arc<Cluster>, kind: &str, namespace: Option<&str>, name: &str) -> Self {
        Self {
            cluster,
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            ignores_managers: false,
        }
    }

    /// Also changes fields that a tool such as Argo CD has applied: an operator says that it does not set them back.
    /// Autoscalers are respected nevertheless.
    #[must_use]
    pub fn ignoring_field_managers(self) -> Self {
        Self { ignores_managers: true, ..self }
    }

    /// For people: `deployment shop/web`.
    fn label(&self) -> String {
        let Self { kind, namespace, name, .. } = self;
        match namespace {
            Some(namespace) => format!("{kind} {namespace}/{name}"),
            None => format!("{kind} {name}"),
        }
    }

    async fn look(&self) -> Result<Present, PlatformError> {
        let label = self.label();
        let resource = Resource::find(&self.cluster, &self.kind).await?;
        let path = resource.path(self.namespace.as_deref(), &self.name)?;
        let object = self.cluster.get(&path).await.map_err(|failure| failure.of_read(&label))?;
        if object["metadata"].get("deletionTimestamp").is_some() {
            return Err(PlatformError::Refused(format!("{label} is being deleted")));
        }
        let path = format!("{path}/scale");
        let scale = self.cluster.get(&path).await.map_err(|failure| match failure.has_no_replicas() {
            true => PlatformError::Refused(format!(
                "{label} has no number of replicas: only what has one can be scaled, for example a static NodePool"
            )),
            false => failure.of_read(&format!("the scale of {label}")),
        })?;
        // A number that is 0 is left out.
        let replicas = number(&scale["spec"]["replicas"]).unwrap_or(0);
        let owner = match self.namespace.as_deref().filter(|_| resource.is_namespaced()) {
            None => None,
            Some(namespace) => {
                let (cluster, name) = (&*self.cluster, self.name.as_str());
                let ignores_managers = self.ignores_managers;
                Search { cluster, resource: &resource, namespace, name, ignores_managers }.owner().await?
            }
        };
        Ok(match owner {
            Some(owner) => self.floor(owner, replicas),
            None => self.size(&object, Field::new(path, "replicas", &scale), replicas),
        })
    }

    fn floor(&self, owner: Owner, current: u32) -> Present {
        let Owner { label: owner, field, floor, limits, needs_replicas, refusal } = owner;
        let refusal = refusal.map(|why| format!("{owner} owns the replicas of {}: {why}", self.label()));
        let asleep = (needs_replicas && current == 0).then(|| {
            format!(
                "{} has 0 replicas, which switches {owner} off: scale it to at least 1 first",
                self.label()
            )
        });
        Present {
            lever: Lever::Floor { floor, current },
            revision: field.to_revision(),
            limits,
            busy: None,
            refuses_increase: refusal.clone().or(asleep),
            refuses_decrease: refusal,
        }
    }

    fn size(&self, object: &Value, field: Field, replicas: u32) -> Present {
        let label = self.label();
        let controlled = controller(object).map(|(_, kind, name)| {
            let last = managers::last(object, "replicas");
            format!("{label} is controlled by {kind} {name}, which would set it back: scale that one{last}")
        });
        let managed = || {
            let refusal = (!self.ignores_managers).then(|| managers::refusal(object, "replicas"))?;
            refusal.map(|why| format!("{label}: {why}"))
        };
        let refusal = controlled.or_else(managed);
        Present {
            lever: Lever::Size(replicas),
            revision: field.to_revision(),
            limits: Limits { min_capacity: None, max_capacity: node_limit(&self.kind, object) },
            busy: None,
            refuses_increase: refusal.clone(),
            refuses_decrease: refusal,
        }
    }
}

/// The most nodes of a static NodePool.
fn node_limit(kind: &str, object: &Value) -> Option<u32> {
    if kind != "nodepools.karpenter.sh" {
        return None;
    }
    let limit = &object["spec"]["limits"]["nodes"];
    // A quantity, which may be a text.
    number(limit).or_else(|| limit.as_str()?.parse().ok())
}

impl Capacity for Workload {
    async fn read(&self) -> Result<Present, PlatformError> {
        read_in_time(&self.label(), self.look()).await
    }

    /// The token is not needed: the resourceVersion lets a change be made once.
    async fn set(&self, read: &Present, to: u32, _token: &str) -> Result<(), PlatformError> {
        let label = self.label();
        write_in_time(&label, Field::set(&self.cluster, &read.revision, to, &label)).await
    }
}
