//! What the chart and kustomize make, validated strictly.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use serde_json::Value;

use crate::support::tools::tool;
use crate::support::{repository, run};

/// The chart with these files of values, by the name of the rendering. Files without `/` are those of the kustomize
/// manifests.
const CHARTS: [(&str, &[&str]); 7] = [
    ("chart-default", &[]),
    ("chart-replicas-postgres", &["replicas-postgres.yaml"]),
    ("chart-several-clusters", &["several-clusters.yaml"]),
    ("chart-egress", &["egress.yaml"]),
    ("chart-prometheus-operator", &["prometheus-operator.yaml"]),
    ("chart-scaler", &["scaler.yaml"]),
    (
        "chart-everything",
        &[
            "scaler.yaml",
            "prometheus-operator.yaml",
            "replicas-postgres.yaml",
            "tests/deploy/charts/everything.yaml",
        ],
    ),
];
/// The directories of deploy/kubernetes that are complete.
const KUSTOMIZATIONS: [(&str, &str); 5] = [
    ("base", "base"),
    ("eks-irsa", "overlays/eks-irsa"),
    ("eks-pod-identity", "overlays/eks-pod-identity"),
    ("replicas-postgres", "overlays/replicas-postgres"),
    ("several-clusters", "overlays/several-clusters"),
];
/// An overlay of a user, with all components.
const OVERLAY: &str = "
resources: [../overlays/eks-irsa]
components:
  - ../components/prometheus-operator
  - ../components/scaler
  - ../components/capacity-ec2
  - ../components/capacity-ecs
  - ../components/capacity-eks-addresses
  - ../components/capacity-eks-limits
  - ../components/capacity-kubernetes
  - ../components/capacity-nomad
";

/// The objects of one rendering.
pub(super) struct Objects(Vec<Value>);

impl Objects {
    pub(super) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    pub(super) fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of_kind(kind).find(|object| object["metadata"]["name"] == name)
    }

    pub(super) fn all(&self) -> &[Value] {
        &self.0
    }

    /// What runs pods: kind/name, and the template.
    pub(super) fn pods(&self) -> impl Iterator<Item = (String, &Value)> {
        let workloads = self.0.iter().filter(|object| !object["spec"]["template"].is_null());
        workloads.map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            (format!("{}/{name}", object["kind"].as_str().unwrap_or_default()), &object["spec"]["template"])
        })
    }
}

/// All renderings by name. Made once: each is one run of helm or kubectl, and all are validated together.
pub(super) fn all() -> &'static BTreeMap<String, Objects> {
    static ALL: LazyLock<BTreeMap<String, Objects>> = LazyLock::new(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = Vec::new();
        let mut keep = |name: &str, text: String| {
            let file = dir.path().join(format!("{name}.yaml"));
            fs::write(&file, text).expect("a file");
            files.push(file);
        };
        for (name, values) in CHARTS {
            keep(name, run(&mut template(values, &[])));
        }
        let kubernetes = repository("deploy/kubernetes");
        for (name, path) in KUSTOMIZATIONS {
            keep(name, kustomize(&kubernetes.join(path)));
        }
        keep("all-components", own_overlay(OVERLAY, &[]));
        validate(&files)
    });
    &ALL
}

pub(super) fn rendering(name: &str) -> &'static Objects {
    all().get(name).unwrap_or_else(|| panic!("no rendering {name}"))
}

/// The chart with further arguments, validated.
pub(super) fn chart(values: &[&str], arguments: &[&str]) -> Objects {
    charts(values, &[arguments]).remove(0)
}

/// The chart, once with each of these arguments, validated together.
pub(super) fn charts(values: &[&str], variants: &[&[&str]]) -> Vec<Objects> {
    let dir = tempfile::tempdir().expect("a directory");
    let files: Vec<PathBuf> =
        (100..).take(variants.len()).map(|number| dir.path().join(number.to_string())).collect();
    for (file, arguments) in files.iter().zip(variants) {
        fs::write(file, run(&mut template(values, arguments))).expect("a file");
    }
    // The names of the files are in the order of the variants.
    validate(&files).into_values().collect()
}

/// Renders the chart with arguments that it may refuse.
pub(super) fn try_chart(arguments: &[&str]) -> Output {
    template(&[], arguments).output().expect("helm")
}

fn template(values: &[&str], arguments: &[&str]) -> Command {
    let mut command = helm();
    command.args(["template", "scalebridge"]).arg(chart_directory()).args(["--namespace", "scalebridge"]);
    command.args(values_arguments(values)).args(arguments);
    command
}

/// `--values FILE…`
pub(super) fn values_arguments(values: &[&str]) -> Vec<PathBuf> {
    let file = |name: &&str| match name.contains('/') {
        true => repository(name),
        false => repository("deploy/kubernetes/values").join(name),
    };
    values.iter().flat_map(|name| [PathBuf::from("--values"), file(name)]).collect()
}

/// Helm, with no settings and caches but its own.
pub(super) fn helm() -> Command {
    let mut command = tool("bin/helm");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HELM_") || name == "KUBECONFIG") {
        command.env_remove(name);
    }
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("helm");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, &home);
    }
    command
}

/// The chart with a file of values and a `--set-file`, validated.
pub(super) fn chart_with(values: &Path, set_file: &str) -> Objects {
    let values = values.to_str().expect("UTF-8");
    chart(&[], &["--values", values, "--set-file", set_file])
}

/// An overlay beside the manifests, validated: its kustomization.yaml, and its files with the manifests that they are
/// copies of.
pub(super) fn kustomize_with(overlay: &str, files: &[(&str, String)]) -> Objects {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("overlay");
    fs::write(&file, own_overlay(overlay, files)).expect("a file");
    validate(&[file]).remove("overlay").expect("the overlay")
}

fn own_overlay(overlay: &str, files: &[(&str, String)]) -> String {
    let copy = tempfile::tempdir().expect("a directory");
    run(Command::new("cp").arg("-r").arg(repository("deploy/kubernetes")).arg(copy.path()));
    let own = copy.path().join("kubernetes/own");
    fs::create_dir(&own).expect("a directory");
    fs::write(own.join("kustomization.yaml"), overlay).expect("a file");
    for (name, original) in files {
        fs::copy(repository("deploy/kubernetes").join(original), own.join(name)).expect("a copy");
    }
    kustomize(&own)
}

pub(super) fn chart_directory() -> PathBuf {
    repository("deploy/helm/scalebridge")
}

fn kustomize(directory: &Path) -> String {
    run(tool("bin/kubectl").arg("kustomize").arg(directory))
}

fn validate(files: &[PathBuf]) -> BTreeMap<String, Objects> {
    let script = repository("deploy/helm/schemas/validate.py");
    let json = run(tool("deploy/bin/python").arg("-B").arg(script).args(files));
    let read: BTreeMap<String, Vec<Value>> = serde_json::from_str(&json).expect("JSON");
    read.into_iter().map(|(name, objects)| (name, Objects(objects))).collect()
}

#[test]
fn all_renderings_are_valid_for_kubernetes_and_the_operator() {
    for (name, objects) in all() {
        assert!(objects.pods().next().is_some(), "{name} runs nothing");
        let secrets = objects.of_kind("Secret").count();
        assert_eq!(secrets, 0, "{name} has a Secret: values are no place for secrets");
    }
}

#[test]
fn an_unknown_field_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    for (what, invalid) in [
        (
            "a field of Kubernetes",
            "kind: Service\nmetadata: { name: x }\nspec: { prots: [] }\napiVersion: v1\n",
        ),
        (
            "a field of the operator",
            "kind: AlertmanagerConfig\nmetadata: { name: x }\napiVersion: monitoring.coreos.com/v1alpha1\n\
             spec: { route: { receiver: x, group_by: [] }, receivers: [{ name: x }] }\n",
        ),
        ("a key twice", "kind: ConfigMap\nmetadata: { name: x, name: y }\napiVersion: v1\n"),
        ("no schema", "kind: ConfigMop\nmetadata: { name: x }\napiVersion: v1\n"),
    ] {
        let file = dir.path().join("x.yaml");
        fs::write(&file, invalid).expect("a file");
        let script = repository("deploy/helm/schemas/validate.py");
        let done = tool("deploy/bin/python").arg("-B").arg(script).arg(&file).output().expect("python");
        assert!(!done.status.success(), "{what}: {invalid}");
    }
}

#[test]
fn helm_lint_finds_nothing() {
    for (name, values) in CHARTS {
        let mut command = helm();
        command.args(["lint", "--strict", "--quiet"]).arg(chart_directory()).args(values_arguments(values));
        assert!(run(&mut command).trim().is_empty(), "{name}");
    }
}
