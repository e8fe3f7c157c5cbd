//! What one object names, another one is.

use serde_json::{Map, Value};

use super::rendering::{Objects, all};

fn selects(selector: &Value, labels: &Value) -> bool {
    let pairs: &Map<String, Value> = selector.as_object().expect("labels");
    !pairs.is_empty() && pairs.iter().all(|(name, value)| labels[name] == *value)
}

/// The workloads whose pods a selector selects.
fn selected<'a>(objects: &'a Objects, selector: &Value) -> Vec<(String, &'a Value)> {
    objects.pods().filter(|(_, pod)| selects(selector, &pod["metadata"]["labels"])).collect()
}

fn has_port(pod: &Value, name: &Value) -> bool {
    let ports = pod["spec"]["containers"][0]["ports"].as_array();
    ports.into_iter().flatten().any(|port| port["name"] == *name)
}

#[test]
fn services_budgets_and_policies_select_the_pods_of_one_workload() {
    for (name, objects) in all() {
        for service in objects.of_kind("Service") {
            let pods = selected(objects, &service["spec"]["selector"]);
            assert_eq!(pods.len(), 1, "{name}: {}", service["metadata"]["name"]);
            let ports = service["spec"]["ports"].as_array().expect("ports");
            assert!(ports.iter().all(|port| has_port(pods[0].1, &port["targetPort"])), "{name}");
        }
        for budget in objects.of_kind("PodDisruptionBudget") {
            assert_eq!(selected(objects, &budget["spec"]["selector"]["matchLabels"]).len(), 1, "{name}");
            assert_eq!(budget["spec"]["maxUnavailable"], 1, "{name}");
        }
        // A component can be about a workload that is in the base.
        for policy in objects.of_kind("NetworkPolicy") {
            assert_eq!(selected(objects, &policy["spec"]["podSelector"]["matchLabels"]).len(), 1, "{name}");
        }
        let (pods, budgets) = (objects.pods().count(), objects.of_kind("PodDisruptionBudget").count());
        assert_eq!(pods, budgets, "{name}");
    }
}

#[test]
fn webhook_and_admin_listener_have_services_of_their_own() {
    for (name, objects) in all() {
        for (service, port) in [("scalebridge", 9096), ("scalebridge-admin", 9097)] {
            let service = objects.find("Service", service).expect("a Service");
            let ports: Vec<&Value> = service["spec"]["ports"].as_array().expect("ports").iter().collect();
            assert_eq!(ports.len(), 1, "{name}");
            assert_eq!(ports[0]["port"], port, "{name}");
        }
        let admin = objects.find("Service", "scalebridge-admin").expect("a Service");
        assert!(
            admin["spec"]["type"].is_null() && admin["spec"]["clusterIP"] == "None",
            "{name}: not outside"
        );
    }
}

#[test]
fn pods_find_their_accounts_volumes_and_config_maps() {
    for (name, objects) in all() {
        for (workload, pod) in objects.pods() {
            let spec = &pod["spec"];
            let account = spec["serviceAccountName"].as_str().expect("an account");
            assert!(objects.find("ServiceAccount", account).is_some(), "{name} {workload}: {account}");
            let claims =
                objects.find("StatefulSet", "scalebridge").map(|set| &set["spec"]["volumeClaimTemplates"]);
            let claims = claims.and_then(Value::as_array).into_iter().flatten();
            let mut volumes: Vec<&Value> = claims.map(|claim| &claim["metadata"]["name"]).collect();
            volumes.extend(spec["volumes"].as_array().expect("volumes").iter().map(|volume| &volume["name"]));
            for mount in spec["containers"][0]["volumeMounts"].as_array().expect("mounts") {
                assert!(volumes.contains(&&mount["name"]), "{name} {workload}: {mount}");
                assert!(mount["subPath"].is_null(), "{name} {workload}: it would never be updated");
            }
            for volume in spec["volumes"].as_array().expect("volumes") {
                if let Some(map) = volume["configMap"]["name"].as_str() {
                    assert!(objects.find("ConfigMap", map).is_some(), "{name} {workload}: {map}");
                }
            }
        }
        for binding in objects.of_kind("RoleBinding") {
            let role = binding["roleRef"]["name"].as_str().expect("a role");
            assert!(objects.find("ClusterRole", role).is_some(), "{name}: {role}");
            let subject = &binding["subjects"][0];
            let account = objects.find("ServiceAccount", subject["name"].as_str().expect("a name"));
            assert_eq!(account.expect("an account")["metadata"]["namespace"], subject["namespace"], "{name}");
        }
    }
}

#[test]
fn objects_are_in_the_namespace_of_the_release() {
    const WITHOUT: [&str; 3] = ["Namespace", "ClusterRole", "ClusterRoleBinding"];
    // Bindings are where the workloads are; the routes can be where Alertmanager is.
    const ELSEWHERE: [&str; 2] = ["RoleBinding", "AlertmanagerConfig"];
    for (name, objects) in all() {
        for object in objects.all() {
            let kind = object["kind"].as_str().expect("a kind");
            let namespace = &object["metadata"]["namespace"];
            match WITHOUT.contains(&kind) {
                true => assert!(namespace.is_null(), "{name}: {kind}"),
                false => assert!(ELSEWHERE.contains(&kind) || namespace == "scalebridge", "{name}: {kind}"),
            }
        }
    }
}
