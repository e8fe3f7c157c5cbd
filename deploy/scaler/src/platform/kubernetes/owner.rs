//! The autoscaler that owns a workload's number of replicas, and the floor that it keeps to.

use serde_json::Value;

use super::cluster::Cluster;
use super::field::Field;
use super::managers;
use super::resource::{Resource, check_name, text};
use crate::apply::PlatformError;
use crate::event::Limits;

/// KEDA's default of `maxReplicaCount`.
const KEDA_MAX_REPLICAS: u32 = 100;

/// A workload whose owner is looked for.
pub(super) struct Search<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) resource: &'a Resource,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    pub(super) ignores_managers: bool,
}

/// An autoscaler that owns a workload.
pub(super) struct Owner {
    /// For people: `HorizontalPodAutoscaler web`.
    pub(super) label: String,
    /// Its field with the floor.
    pub(super) field: Field,
    pub(super) floor: u32,
    pub(super) limits: Limits,
    /// It does nothing while the workload has no replicas.
    pub(super) needs_replicas: bool,
    /// Why the floor cannot be moved.
    pub(super) refusal: Option<String>,
}

impl Search<'_> {
    /// The autoscaler that owns the workload; `None` if there is none.
    pub(super) async fn owner(&self) -> Result<Option<Owner>, PlatformError> {
        let hpas = self.list("autoscaling/v2", "horizontalpodautoscalers").await?;
        let hpa = match hpas.as_slice() {
            [] => {
                // While KEDA is paused, it has no HorizontalPodAutoscaler.
                let scaled = self.list("keda.sh/v1alpha1", "scaledobjects").await?;
                return Ok(scaled.first().map(|object| self.of_keda("keda.sh/v1alpha1", object)));
            }
            [hpa] => hpa,
            several => {
                let names: Vec<_> = several.iter().map(name_of).collect();
                return Err(PlatformError::Refused(format!(
                    "several HorizontalPodAutoscalers scale it, against each other: {}",
                    names.join(", ")
                )));
            }
        };
        Ok(Some(match controller(hpa) {
            None => self.of_hpa(hpa, None),
            Some((api, "ScaledObject", name)) if api.starts_with("keda.sh/") => {
                check_name("ScaledObject", name)?;
                let path = self.path(api, "scaledobjects", name);
                let object = self.cluster.get(&path).await;
                let object = object.map_err(|failure| failure.of_read(&format!("ScaledObject {name}")))?;
                self.of_keda(api, &object)
            }
            Some((_, kind, name)) => {
                let last = managers::last(hpa, "minReplicas");
                let refusal = format!(
                    "it is controlled by {kind} {name}, which would set it back: change that one{last}"
                );
                self.of_hpa(hpa, Some(refusal))
            }
        }))
    }

    fn of_hpa(&self, hpa: &Value, refusal: Option<String>) -> Owner {
        // The API server sets 1 where there is none.
        let floor = number(&hpa["spec"]["minReplicas"]).unwrap_or(1);
        Owner {
            label: format!("HorizontalPodAutoscaler {}", name_of(hpa)),
            field: self.field("autoscaling/v2", "horizontalpodautoscalers", hpa, "minReplicas"),
            floor,
            limits: Limits {
                // 0 needs a feature gate, and whoever has set it has it.
                min_capacity: Some(floor.min(1)),
                max_capacity: number(&hpa["spec"]["maxReplicas"]),
            },
            needs_replicas: floor > 0,
            refusal: refusal.or_else(|| self.refusal_of_managers(hpa, "minReplicas")),
        }
    }

    fn of_keda(&self, api: &str, object: &Value) -> Owner {
        let spec = &object["spec"];
        let annotations = &object["metadata"]["annotations"];
        let is_paused = annotations.get("autoscaling.keda.sh/paused-replicas").is_some()
            || annotations["autoscaling.keda.sh/paused"] == "true";
        let paused = is_paused.then(|| {
            "it is paused: remove its annotation autoscaling.keda.sh/paused or paused-replicas".to_owned()
        });
        // It has to be below the floor.
        let idle = number(&spec["idleReplicaCount"]);
        Owner {
            label: format!("ScaledObject {}", name_of(object)),
            field: self.field(api, "scaledobjects", object, "minReplicaCount"),
            floor: number(&spec["minReplicaCount"]).unwrap_or(0),
            limits: Limits {
                min_capacity: idle.map(|idle| idle.saturating_add(1)),
                max_capacity: Some(number(&spec["maxReplicaCount"]).unwrap_or(KEDA_MAX_REPLICAS)),
            },
            needs_replicas: false,
            refusal: paused.or_else(|| self.refusal_of_managers(object, "minReplicaCount")),
        }
    }

    fn refusal_of_managers(&self, object: &Value, field: &str) -> Option<String> {
        (!self.ignores_managers).then(|| managers::refusal(object, field))?
    }

    /// The autoscalers of the namespace that refer to the workload. An API that is not installed has none.
    async fn list(&self, api: &str, plural: &str) -> Result<Vec<Value>, PlatformError> {
        let path = format!("/apis/{api}/namespaces/{}/{plural}", self.namespace);
        let mut found = match self.cluster.get(&path).await {
            Ok(found) => found,
            Err(failure) if failure.is_not_found() => return Ok(Vec::new()),
            Err(failure) => return Err(failure.of_read(&format!("{plural} of namespace {}", self.namespace))),
        };
        let items = match found["items"].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        Ok(items.into_iter().filter(|item| self.is_target_of(item)).collect())
    }

    fn is_target_of(&self, autoscaler: &Value) -> bool {
        let target = &autoscaler["spec"]["scaleTargetRef"];
        // KEDA's defaults.
        let api_version = target["apiVersion"].as_str().unwrap_or("apps/v1");
        let kind = target["kind"].as_str().unwrap_or("Deployment");
        target["name"] == self.name && self.resource.is_referred_to(api_version, kind)
    }

    fn field(&self, api: &str, plural: &str, object: &Value, name: &str) -> Field {
        let path = self.path(api, plural, &name_of(object));
        Field::new(path, name, object)
    }

    fn path(&self, api: &str, plural: &str, name: &str) -> String {
        format!("/apis/{api}/namespaces/{}/{plural}/{name}", self.namespace)
    }
}

/// The API version, kind and name of an object's controller.
pub(super) fn controller(object: &Value) -> Option<(&str, &str, &str)> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some((owner["apiVersion"].as_str()?, owner["kind"].as_str()?, owner["name"].as_str()?))
}

pub(super) fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok())
}

fn name_of(object: &Value) -> String {
    text(&object["metadata"]["name"])
}
