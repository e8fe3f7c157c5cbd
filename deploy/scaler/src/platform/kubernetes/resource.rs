//! Resources of the API, and the paths of their objects.

use serde_json::Value;

use super::cluster::Cluster;
use super::failure::Failure;
use crate::apply::PlatformError;

/// A kind of objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resource {
    /// Empty for the core group.
    pub(super) group: String,
    version: String,
    plural: String,
    /// As in `kind:` of an object.
    pub(super) kind: String,
    is_namespaced: bool,
}

/// The kinds of Kubernetes itself that have a `/scale`, by the names that targets have.
const BUILT_IN: [(&str, &str, &str, &str); 4] = [
    ("deployment", "apps", "deployments", "Deployment"),
    ("replicaset", "apps", "replicasets", "ReplicaSet"),
    ("statefulset", "apps", "statefulsets", "StatefulSet"),
    ("replicationcontroller", "", "replicationcontrollers", "ReplicationController"),
];

impl Resource {
    /// The resource of a target's kind: a kind of Kubernetes itself, or `plural.group` of another one, in the version that
    /// the cluster prefers.
    ///
    /// # Errors
    /// The cluster has no such resource, or it has no `/scale`.
    pub(super) async fn find(cluster: &Cluster, kind: &str) -> Result<Self, PlatformError> {
        let built_in = BUILT_IN.iter().find(|(name, ..)| *name == kind);
        if let Some((_, group, plural, kind)) = built_in {
            let [group, plural, kind] = [group, plural, kind].map(|text| (*text).to_owned());
            return Ok(Self { group, version: "v1".to_owned(), plural, kind, is_namespaced: true });
        }
        let Some((plural, group)) = kind.split_once('.') else {
            let known = BUILT_IN.map(|(name, ..)| name).join(", ");
            return Err(PlatformError::Refused(format!(
                "the target's kind is `{kind}`; {known}, or `plural.group` of a custom resource are supported"
            )));
        };
        Self::discover(cluster, plural, group, true).await
    }

    /// The resource `plural` of `group`, in the version that the cluster prefers.
    pub(super) async fn discover(
        cluster: &Cluster,
        plural: &str,
        group: &str,
        needs_scale: bool,
    ) -> Result<Self, PlatformError> {
        let name = format!("{plural}.{group}");
        let missing = |failure: Failure| match failure.is_not_found() {
            true => PlatformError::Refused(format!(
                "the cluster has no resource {name}: install its definition, or correct the target's kind"
            )),
            false => failure.of_read(&format!("API group {group}")),
        };
        check_name("kind", &name)?;
        let found = cluster.get(&format!("/apis/{group}")).await.map_err(missing)?;
        let preferred = found["preferredVersion"]["version"].as_str();
        let others = found["versions"].as_array().into_iter().flatten();
        let others =
            others.filter_map(|version| version["version"].as_str()).filter(|v| Some(*v) != preferred);
        let mut has_resource = false;
        for version in preferred.into_iter().chain(others) {
            let resources = cluster.get(&format!("/apis/{group}/{version}")).await.map_err(missing)?;
            let named = |name: &str| {
                let mut resources = resources["resources"].as_array().into_iter().flatten();
                resources.find(|resource| resource["name"] == name).cloned()
            };
            let Some(resource) = named(plural) else { continue };
            has_resource = true;
            if needs_scale && named(&format!("{plural}/scale")).is_none() {
                continue;
            }
            return Ok(Self {
                group: group.to_owned(),
                version: version.to_owned(),
                plural: plural.to_owned(),
                kind: text(&resource["kind"]),
                is_namespaced: resource["namespaced"] == true,
            });
        }
        Err(PlatformError::Refused(if has_resource {
            format!("resource {name} has no /scale subresource: its number of replicas cannot be set")
        } else {
            format!("API group {group} has no resource {plural}: correct the target's kind")
        }))
    }

    /// The path of an object.
    ///
    /// # Errors
    /// The name is not valid, or the namespace is missing.
    pub(super) fn path(&self, namespace: Option<&str>, name: &str) -> Result<String, PlatformError> {
        let Self { group, version, plural, kind, .. } = self;
        check_name("name", name)?;
        let prefix = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        match (self.is_namespaced, namespace) {
            (true, Some(namespace)) => {
                check_name("namespace", namespace)?;
                Ok(format!("{prefix}/{version}/namespaces/{namespace}/{plural}/{name}"))
            }
            (true, None) => Err(PlatformError::Refused(format!(
                "the target has no namespace, and a {kind} is in one: add it to the rule's target"
            ))),
            (false, _) => Ok(format!("{prefix}/{version}/{plural}/{name}")),
        }
    }

    pub(super) fn is_namespaced(&self) -> bool {
        self.is_namespaced
    }

    /// Whether a reference of another object is to this kind.
    pub(super) fn is_referred_to(&self, api_version: &str, kind: &str) -> bool {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        group == self.group && kind == self.kind
    }
}

/// Names become parts of a path: nothing may lead out of it.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), PlatformError> {
    let is_valid = name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte))
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && !name.contains("..");
    if is_valid {
        return Ok(());
    }
    Err(PlatformError::Refused(format!("the target's {field} `{name}` is not a valid name in Kubernetes")))
}

/// A text of an object; empty if there is none.
pub(super) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_lead_out_of_their_path() {
        for name in ["web", "web-1", "a.example.com", "0"] {
            assert!(check_name("name", name).is_ok(), "{name}");
        }
        let long = "a".repeat(254);
        for name in [
            "",
            ".",
            "..",
            "a..b",
            "a/b",
            "../secrets/x",
            "a%2fb",
            "a?x",
            "a#",
            "Web",
            "-a",
            "a-",
            "ä",
            &long,
        ] {
            assert!(matches!(check_name("name", name), Err(PlatformError::Refused(_))), "{name}");
        }
    }
}
