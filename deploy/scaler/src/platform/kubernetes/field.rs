//! A number of an object's `spec`, and the change of it.

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::resource::text;
use crate::apply::PlatformError;

/// The largest number of replicas that the API can have.
const MAX_REPLICAS: u32 = i32::MAX.unsigned_abs();

/// Where a number is set, at the version of the object that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    path: String,
    name: String,
    resource_version: String,
}

impl Field {
    /// `spec.NAME` of the object at `path`.
    pub(super) fn new(path: String, name: &str, object: &Value) -> Self {
        Self { path, name: name.to_owned(), resource_version: text(&object["metadata"]["resourceVersion"]) }
    }

    /// The field as a revision: a change sets what was read, also if another autoscaler owns the workload by then.
    pub(super) fn to_revision(&self) -> String {
        let Self { path, name, resource_version } = self;
        format!("{resource_version} {name} {path}")
    }

    fn from_revision(revision: &str) -> Option<Self> {
        let mut parts = revision.splitn(3, ' ').map(str::to_owned);
        let (resource_version, name, path) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { path, name, resource_version })
    }

    /// Sets the field of a revision, if the object is still the one that was read.
    pub(super) async fn set(
        cluster: &Cluster,
        revision: &str,
        to: u32,
        what: &str,
    ) -> Result<(), PlatformError> {
        let Some(Self { path, name, resource_version }) = Self::from_revision(revision) else {
            return Err(PlatformError::Refused(format!("{what} was read without a revision")));
        };
        if to > MAX_REPLICAS {
            return Err(PlatformError::Refused(format!(
                "{to} is more than the {MAX_REPLICAS} that can be set"
            )));
        }
        let patch = json!({ "metadata": { "resourceVersion": resource_version }, "spec": { name: to } });
        cluster.merge_patch(&path, &patch).await.map_err(|failure| failure.of_write(what))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_has_all_that_a_change_needs() {
        let object = json!({ "metadata": { "resourceVersion": "4711" } });
        let field =
            Field::new("/apis/apps/v1/namespaces/shop/deployments/web/scale".to_owned(), "replicas", &object);
        assert_eq!(Field::from_revision(&field.to_revision()), Some(field));
        assert_eq!(Field::from_revision("4711"), None);
    }
}
