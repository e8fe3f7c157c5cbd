//! The kinds that a server has, and the paths of their objects.

use serde_json::{Value, json};

/// A kind of objects.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) group: &'static str,
    /// The preferred version first.
    pub(crate) versions: &'static [&'static str],
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) is_namespaced: bool,
    pub(crate) scale: Option<Scale>,
}

/// The `/scale` of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    BuiltIn,
    /// As a definition declares it: there is none without a number of replicas.
    Custom,
}

impl Kind {
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    pub(super) fn api_version(&self) -> String {
        let version = self.versions[0];
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }

    pub(super) fn is_custom(&self) -> bool {
        self.group.contains(".") && !self.group.ends_with(".k8s.io") || self.group.contains(".x-k8s.io")
    }
}

pub(super) struct Kinds(Vec<Kind>);

/// What a path names.
pub(super) struct Route {
    pub(super) group: String,
    version: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Route {
    /// `None` if it cannot be a path of an object, or of a list.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, subresource] => (*plural, Some(*name), Some(*subresource)),
            _ => return None,
        };
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    /// The plural with the group, as in errors and grants.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }
}

impl Kinds {
    pub(super) fn usual() -> Self {
        let built_in = |group, plural, kind| Kind {
            group,
            versions: &["v1"],
            plural,
            kind,
            is_namespaced: true,
            scale: Some(Scale::BuiltIn),
        };
        let custom = |group, versions, plural, kind, scale| Kind {
            group,
            versions,
            plural,
            kind,
            is_namespaced: true,
            scale,
        };
        Self(vec![
            built_in("", "replicationcontrollers", "ReplicationController"),
            built_in("apps", "deployments", "Deployment"),
            built_in("apps", "replicasets", "ReplicaSet"),
            built_in("apps", "statefulsets", "StatefulSet"),
            custom("autoscaling", &["v2", "v1"], "horizontalpodautoscalers", "HorizontalPodAutoscaler", None),
            custom(
                "autoscaling.x-k8s.io",
                &["v1beta1", "v1alpha1"],
                "capacitybuffers",
                "CapacityBuffer",
                None,
            ),
            custom("keda.sh", &["v1alpha1"], "scaledobjects", "ScaledObject", None),
            custom("example.com", &["v1beta2", "v1"], "fleets", "Fleet", Some(Scale::Custom)),
            custom("example.com", &["v1"], "settings", "Setting", None),
            Kind { is_namespaced: false, scale: None, ..built_in("", "namespaces", "Namespace") },
            Kind {
                is_namespaced: false,
                ..custom("karpenter.sh", &["v1"], "nodepools", "NodePool", Some(Scale::Custom))
            },
        ])
    }

    pub(super) fn define(&mut self, kind: Kind) {
        self.0.retain(|other| (other.group, other.plural) != (kind.group, kind.plural));
        self.0.push(kind);
    }

    pub(super) fn uninstall(&mut self, group: &str) {
        self.0.retain(|kind| kind.group != group);
    }

    /// The kind with this plural.
    pub(super) fn named(&self, plural: &str) -> &Kind {
        self.0.iter().find(|kind| kind.plural == plural).expect("a kind")
    }

    /// The kind of an object.
    pub(super) fn of(&self, object: &Value) -> &Kind {
        self.0.iter().find(|kind| object["kind"] == kind.kind).expect("a kind")
    }

    fn groups(&self) -> Vec<&'static str> {
        let mut groups: Vec<_> =
            self.0.iter().map(|kind| kind.group).filter(|group| !group.is_empty()).collect();
        groups.dedup();
        groups
    }

    fn versions(&self, group: &str) -> Vec<&'static str> {
        let of_group = self.0.iter().filter(|kind| kind.group == group);
        let mut versions = Vec::new();
        for version in of_group.flat_map(|kind| kind.versions) {
            if !versions.contains(version) {
                versions.push(*version);
            }
        }
        versions
    }

    /// The document of a path of discovery; `None` if it is not one.
    pub(super) fn discovery(&self, path: &str) -> Option<Value> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["version"] => Some(json!({ "major": "1", "minor": "37", "gitVersion": "v1.37.1" })),
            ["api"] => {
                Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
            }
            ["apis"] => {
                let groups: Vec<_> = self.groups().into_iter().map(|group| self.group(group)).collect();
                Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
            }
            ["api", "v1"] => Some(self.resources("", "v1")),
            ["apis", group] if self.groups().contains(group) => {
                let mut document = self.group(group);
                document["kind"] = json!("APIGroup");
                document["apiVersion"] = json!("v1");
                Some(document)
            }
            ["apis", group, version] if self.versions(group).contains(version) => {
                Some(self.resources(group, version))
            }
            _ => None,
        }
    }

    fn group(&self, group: &str) -> Value {
        let versions = self.versions(group);
        let entry = |version| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
        let preferred = entry(versions[0]);
        let versions: Vec<_> = versions.into_iter().map(entry).collect();
        json!({ "name": group, "versions": versions, "preferredVersion": preferred })
    }

    fn resources(&self, group: &str, version: &str) -> Value {
        let kinds = self.0.iter().filter(|kind| kind.group == group && kind.versions.contains(&version));
        let mut resources = Vec::new();
        for kind in kinds {
            let singular = kind.kind.to_lowercase();
            resources.push(
                json!({ "name": kind.plural, "singularName": singular, "namespaced": kind.is_namespaced,
                "kind": kind.kind, "verbs": ["get", "list", "patch", "update"] }),
            );
            if kind.scale.is_some() {
                resources.push(json!({ "name": format!("{}/scale", kind.plural), "singularName": "",
                    "namespaced": kind.is_namespaced, "group": "autoscaling", "version": "v1", "kind": "Scale",
                    "verbs": ["get", "patch", "update"] }));
            }
        }
        let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources })
    }

    /// The kind of a path; `None` if there is no such resource.
    pub(super) fn find(&self, route: &Route) -> Option<Kind> {
        let found = self.0.iter().find(|kind| {
            kind.group == route.group
                && kind.versions.contains(&route.version.as_str())
                && kind.plural == route.plural
                && kind.is_namespaced == route.namespace.is_some()
        });
        found.cloned()
    }
}
