//! CapacityBuffers: spare capacity that Cluster Autoscaler or Karpenter provides. Their `spec.replicas` are what is
//! changed.

use std::sync::Arc;

use serde_json::Value;

use super::cluster::Cluster;
use super::field::Field;
use super::managers;
use super::owner::number;
use super::resource::Resource;
use crate::apply::{Capacity, PlatformError};
use crate::capacity::Lever;
use crate::event::Limits;
use crate::plan::Present;
use crate::platform::call::{read_in_time, write_in_time};

const PLURAL: &str = "capacitybuffers";
const GROUP: &str = "autoscaling.x-k8s.io";

/// A CapacityBuffer in the version that the cluster prefers (`v1beta1` since Cluster Autoscaler 1.35).
pub struct CapacityBuffer {
    cluster: Arc<Cluster>,
    namespace: String,
    name: String,
    ignores_managers: bool,
}

impl CapacityBuffer {
    /// The buffer `namespace/name`.
    pub fn new(cluster: Arc<Cluster>, namespace: &str, name: &str) -> Self {
        Self { cluster, namespace: namespace.to_owned(), name: name.to_owned(), ignores_managers: false }
    }

    /// Also changes a number that a tool such as Argo CD has applied: an operator says that it does not set it back.
    #[must_use]
    pub fn ignoring_field_managers(self) -> Self {
        Self { ignores_managers: true, ..self }
    }

    fn label(&self) -> String {
        format!("CapacityBuffer {}/{}", self.namespace, self.name)
    }

    async fn look(&self) -> Result<Present, PlatformError> {
        let resource = Resource::discover(&self.cluster, PLURAL, GROUP, false).await?;
        let path = resource.path(Some(&self.namespace), &self.name)?;
        let object = self.cluster.get(&path).await.map_err(|failure| failure.of_read(&self.label()))?;
        self.present(path, &object)
    }

    fn present(&self, path: String, object: &Value) -> Result<Present, PlatformError> {
        let label = self.label();
        // Without it, the buffer is as large as its limits or its percentage allow: any number could make it smaller.
        let Some(replicas) = number(&object["spec"]["replicas"]) else {
            return Err(PlatformError::Refused(format!(
                "{label} has no spec.replicas: set it, to 0 if nothing is to be spare now"
            )));
        };
        let managed = (!self.ignores_managers).then(|| managers::refusal(object, "replicas")).flatten();
        let refusal = managed.map(|why| format!("{label}: {why}"));
        Ok(Present {
            lever: Lever::Size(replicas),
            revision: Field::new(path, "replicas", object).to_revision(),
            limits: Limits::default(),
            busy: None,
            refuses_increase: refusal.clone(),
            refuses_decrease: refusal,
        })
    }
}

impl Capacity for CapacityBuffer {
    async fn read(&self) -> Result<Present, PlatformError> {
        read_in_time(&self.label(), self.look()).await
    }

    async fn set(&self, read: &Present, to: u32, _token: &str) -> Result<(), PlatformError> {
        let label = self.label();
        write_in_time(&label, Field::set(&self.cluster, &read.revision, to, &label)).await
    }
}
