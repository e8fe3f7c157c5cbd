//! RBAC of a Kubernetes cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::NAME;
use super::parts::Parts;
use crate::config::{Cluster, Config};

/// The kinds that targets name in short, with their API group and resource.
const BUILT_IN: [(&str, &str, &str); 4] = [
    ("deployment", "apps", "deployments"),
    ("replicaset", "apps", "replicasets"),
    ("statefulset", "apps", "statefulsets"),
    ("replicationcontroller", "", "replicationcontrollers"),
];
/// Custom resources that have no namespaces.
const CLUSTER_WIDE: &str = "nodepools.karpenter.sh";

/// What the configuration needs in one cluster.
#[derive(Default)]
struct Needs {
    /// Resources with a `/scale`, by API group.
    scaled: BTreeMap<String, BTreeSet<String>>,
    /// Workloads may have autoscalers, whose floor is changed then.
    has_workloads: bool,
    has_buffers: bool,
    /// Kinds are not named, so that custom resources are not known.
    has_any_kind: bool,
    namespaces: BTreeSet<String>,
    /// The namespaces are not named, or there is something without one.
    is_cluster_wide: bool,
}

/// The roles and bindings for a cluster in YAML; `None` if nothing is done there.
pub(super) fn rbac(config: &Config, key: &str, cluster: &Cluster) -> Option<String> {
    let mut needs = Needs::default();
    for settings in &config.targets {
        for parts in Parts::of(&settings.pattern).iter().filter(|parts| parts.has_cluster(key)) {
            match &settings.buffer {
                Some(buffer) => needs.add_buffer(buffer),
                None if parts.has_platform("kubernetes") => needs.add_workloads(parts),
                None => {}
            }
        }
    }
    (needs.has_buffers || needs.has_any_kind || !needs.scaled.is_empty()).then(|| needs.to_yaml(cluster))
}

impl Needs {
    fn add_buffer(&mut self, buffer: &str) {
        self.has_buffers = true;
        let namespace = buffer.split('/').next().unwrap_or_default();
        self.add_namespace(Some(namespace.to_owned()).filter(|name| !name.contains(['{', '*'])));
    }

    fn add_namespace(&mut self, namespace: Option<String>) {
        match namespace {
            Some(namespace) => drop(self.namespaces.insert(namespace)),
            None => self.is_cluster_wide = true,
        }
    }

    fn add_workloads(&mut self, parts: &Parts) {
        for (kind, group, resource) in BUILT_IN {
            if parts.has_kind(kind) {
                self.scaled.entry(group.to_owned()).or_default().insert(resource.to_owned());
                self.has_workloads = true;
            }
        }
        let kind = parts.kind();
        if let Some((resource, group)) = kind.split_once('.').filter(|_| !kind.contains('*')) {
            self.scaled.entry(group.to_owned()).or_default().insert(resource.to_owned());
            self.has_workloads |= kind != CLUSTER_WIDE;
        }
        self.has_any_kind |= kind.contains('*');
        self.add_namespace(parts.namespace().filter(|name| !name.contains('*')));
    }

    fn to_yaml(&self, cluster: &Cluster) -> String {
        let mut text = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata:\n  name: {NAME}\nrules:\n"
        );
        for (group, resources) in &self.scaled {
            let scales: Vec<String> = resources.iter().map(|resource| format!("{resource}/scale")).collect();
            let read: Vec<&str> = resources.iter().chain(&scales).map(String::as_str).collect();
            rule(&mut text, group, &read, &["get"]);
            rule(&mut text, group, &scales.iter().map(String::as_str).collect::<Vec<_>>(), &["patch"]);
        }
        if self.has_any_kind {
            text.push_str(
                "  # The patterns name no kinds: for each custom resource, add two rules as above.\n",
            );
        }
        if self.has_workloads || self.has_any_kind {
            text.push_str("  # Where an autoscaler owns the replicas, its minimum is set instead.\n");
            rule(&mut text, "autoscaling", &["horizontalpodautoscalers"], &["list", "patch"]);
            rule(&mut text, "keda.sh", &["scaledobjects"], &["get", "list", "patch"]);
        }
        if self.has_buffers {
            rule(&mut text, "autoscaling.x-k8s.io", &["capacitybuffers"], &["get", "patch"]);
        }
        match self.is_cluster_wide {
            true => binding(&mut text, None, cluster),
            false => self.namespaces.iter().for_each(|name| binding(&mut text, Some(name), cluster)),
        }
        text
    }
}

fn rule(text: &mut String, group: &str, resources: &[&str], verbs: &[&str]) {
    let (resources, verbs) = (resources.join(", "), verbs.join(", "));
    let _ =
        writeln!(text, "  - apiGroups: [\"{group}\"]\n    resources: [{resources}]\n    verbs: [{verbs}]");
}

fn binding(text: &mut String, namespace: Option<&str>, cluster: &Cluster) {
    let (kind, place) = match namespace {
        None => ("ClusterRoleBinding", String::new()),
        Some(namespace) => ("RoleBinding", format!("  namespace: {namespace}\n")),
    };
    let subject = match cluster {
        Cluster::Eks(_) => {
            format!("  - kind: Group\n    name: {NAME}\n    apiGroup: rbac.authorization.k8s.io")
        }
        Cluster::Kubeconfig { .. } => format!(
            "  # Or the user or service account of the kubeconfig.\n  - kind: Group\n    name: {NAME}\n    \
             apiGroup: rbac.authorization.k8s.io"
        ),
        Cluster::InCluster => format!(
            "  # The service account of the scaler's pod, in its namespace.\n  - kind: ServiceAccount\n    \
             name: {NAME}\n    namespace: {NAME}"
        ),
    };
    let _ = writeln!(
        text,
        "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {NAME}\n{place}roleRef:\n  \
         apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: {NAME}\nsubjects:\n{subject}"
    );
}
