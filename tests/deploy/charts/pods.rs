//! Pods with the least rights, that no autoscaler moves.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rendering::{all, rendering};

/// What the Pod Security Standard `restricted` asks for, and a read-only root.
fn assert_restricted(what: &str, pod: &Value) {
    let spec = &pod["spec"];
    let context = &spec["securityContext"];
    assert_eq!(context["runAsNonRoot"], true, "{what}");
    for key in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(context[key], 65532, "{what}: {key}");
    }
    assert_eq!(context["seccompProfile"], json!({ "type": "RuntimeDefault" }), "{what}");
    for key in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
        assert!(spec[key].is_null(), "{what}: {key}");
    }
    for container in spec["containers"].as_array().expect("containers") {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{what}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{what}");
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{what}");
        assert!(context["privileged"].is_null() && context["runAsUser"].is_null(), "{what}");
    }
    for volume in spec["volumes"].as_array().expect("volumes") {
        let kinds: Vec<&String> = volume.as_object().expect("a volume").keys().collect();
        let is_allowed =
            |kind: &&String| ["name", "configMap", "emptyDir", "secret"].contains(&kind.as_str());
        assert!(kinds.iter().all(is_allowed), "{what}: {kinds:?}");
    }
}

#[test]
fn every_pod_is_restricted() {
    for (name, objects) in all() {
        objects.pods().for_each(|(workload, pod)| assert_restricted(&format!("{name} {workload}"), pod));
    }
}

#[test]
fn only_a_scaler_of_its_own_cluster_has_a_token_for_the_api() {
    for (name, objects) in all() {
        for (workload, pod) in objects.pods() {
            let is_scaler = workload == "Deployment/scalebridge-scaler";
            assert_eq!(pod["spec"]["automountServiceAccountToken"], is_scaler, "{name} {workload}");
        }
        for account in objects.of_kind("ServiceAccount") {
            assert_eq!(account["automountServiceAccountToken"], false, "{name}");
        }
    }
    let elsewhere = ["--set", "scaler.config.clusters.prod-eu.in_cluster=false"];
    let objects = super::rendering::chart(&["scaler.yaml"], &elsewhere);
    let (_, scaler) = objects.pods().find(|(name, _)| name.ends_with("scaler")).expect("a scaler");
    assert_eq!(scaler["spec"]["automountServiceAccountToken"], false);
}

#[test]
fn no_autoscaler_moves_a_pod_and_each_has_time_to_stop() {
    for (name, objects) in all() {
        for (workload, pod) in objects.pods() {
            let (what, annotations) = (format!("{name} {workload}"), &pod["metadata"]["annotations"]);
            assert_eq!(annotations["karpenter.sh/do-not-disrupt"], "true", "{what}");
            assert_eq!(annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false", "{what}");
            assert_eq!(pod["spec"]["priorityClassName"], "system-cluster-critical", "{what}");
            assert!(pod["spec"]["terminationGracePeriodSeconds"].as_u64() >= Some(35), "{what}");
            let resources = &pod["spec"]["containers"][0]["resources"];
            assert!(resources["requests"]["cpu"].is_string() && resources["limits"]["memory"].is_string());
            assert!(resources["limits"]["cpu"].is_null(), "{what}: a limit of processor time delays the 200");
        }
    }
}

#[test]
fn sqlite_has_one_replica_and_a_volume_that_outlives_it() {
    for name in ["chart-default", "base", "eks-irsa", "several-clusters"] {
        let set = rendering(name).find("StatefulSet", "scalebridge").expect("a StatefulSet");
        assert_eq!(set["spec"]["replicas"], 1, "{name}");
        let claim = &set["spec"]["volumeClaimTemplates"][0]["spec"];
        assert_eq!(claim["accessModes"], json!(["ReadWriteOncePod"]), "{name}");
        let kept = json!({ "whenDeleted": "Retain", "whenScaled": "Retain" });
        assert_eq!(set["spec"]["persistentVolumeClaimRetentionPolicy"], kept, "{name}");
        assert_eq!(set["spec"]["updateStrategy"]["type"], "RollingUpdate", "{name}");
        assert_eq!(
            set["spec"]["podManagementPolicy"], "Parallel",
            "{name}: else a broken pod blocks a rollback"
        );
        assert!(rendering(name).find("Deployment", "scalebridge").is_none(), "{name}");
    }
}

#[test]
fn replicas_are_spread_and_need_no_volume() {
    for (name, replicas) in
        [("chart-replicas-postgres", 2), ("chart-everything", 3), ("replicas-postgres", 2)]
    {
        let objects = rendering(name);
        let deployment = &objects.find("Deployment", "scalebridge").expect("a Deployment")["spec"];
        assert_eq!(deployment["replicas"], replicas, "{name}");
        assert!(objects.of_kind("StatefulSet").next().is_none(), "{name}");
        let constraints =
            deployment["template"]["spec"]["topologySpreadConstraints"].as_array().expect("two");
        let keys: Vec<&Value> = constraints.iter().map(|one| &one["topologyKey"]).collect();
        assert_eq!(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"], "{name}");
        // Otherwise a replica could not start while capacity is short.
        assert!(constraints.iter().all(|one| one["whenUnsatisfiable"] == "ScheduleAnyway"), "{name}");
        let container = &deployment["template"]["spec"]["containers"][0];
        assert_eq!(container["lifecycle"]["preStop"]["sleep"]["seconds"], 5, "{name}");
    }
}

#[test]
fn roles_are_named_by_irsa_alone() {
    const ROLE: &str = "eks.amazonaws.com/role-arn";
    let roles: BTreeMap<&str, &Value> = ["base", "eks-irsa", "eks-pod-identity"]
        .into_iter()
        .map(|name| (name, rendering(name).find("ServiceAccount", "scalebridge").expect("an account")))
        .map(|(name, account)| (name, &account["metadata"]["annotations"][ROLE]))
        .collect();
    assert!(roles["base"].is_null() && roles["eks-pod-identity"].is_null());
    assert_eq!(roles["eks-irsa"], "arn:aws:iam::123456789012:role/scalebridge");
    let account = rendering("chart-everything").find("ServiceAccount", "scalebridge").expect("an account");
    assert_eq!(account["metadata"]["annotations"][ROLE], "arn:aws:iam::123456789012:role/scalebridge");
}

#[test]
fn probes_ask_the_open_routes_with_the_scheme_of_the_listener() {
    for (name, objects) in all() {
        let has_tls =
            ["several-clusters", "chart-several-clusters", "chart-everything"].contains(&name.as_str());
        for (workload, pod) in objects.pods() {
            let container = &pod["spec"]["containers"][0];
            let probe = |kind: &str| &container[kind]["httpGet"];
            assert_eq!(probe("livenessProbe")["path"], "/-/healthy", "{name}");
            assert_eq!(probe("startupProbe")["path"], "/-/healthy", "{name}");
            assert_eq!(probe("readinessProbe")["path"], "/-/ready", "{name}");
            if !workload.ends_with("scaler") {
                let scheme = if has_tls { "HTTPS" } else { "HTTP" };
                assert_eq!(probe("livenessProbe")["scheme"], scheme, "{name}");
            }
        }
    }
}
