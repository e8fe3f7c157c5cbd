//! The configurations in the ConfigMaps, as the programs see them in the pod.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use regex::Regex;
use serde_json::Value;

use super::rendering::{Objects, all, rendering};
use crate::support::bridge::{Bridge, notification, pending_pod, program};
use crate::support::secrets::secret;

/// The scaler that cargo has built beside the bridge.
pub(super) fn scaler_program() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_scalebridge")).with_file_name("scalebridge-scaler");
    assert!(path.exists(), "{} is missing: test with --package scalebridge-scaler", path.display());
    path
}

/// The files of the ConfigMap that has this one.
pub(super) fn files_with<'a>(objects: &'a Objects, file: &str) -> &'a serde_json::Map<String, Value> {
    let mut maps = objects.of_kind("ConfigMap").filter_map(|map| map["data"].as_object());
    maps.find(|files| files.contains_key(file)).unwrap_or_else(|| panic!("no ConfigMap has {file}"))
}

/// A text of the pod with the paths of this machine: `dir/secrets` for /run/secrets, `dir` for the volume.
pub(super) fn with_own_paths(text: &str, dir: &Path) -> String {
    let dir = dir.display();
    text.replace("/run/secrets/", &format!("{dir}/secrets/"))
        .replace("/var/lib/scalebridge/", &format!("{dir}/"))
}

/// The paths of secrets in a text of the pod, such as `/run/secrets/admin/on-call`.
fn secret_paths(text: &str) -> Vec<String> {
    let path = Regex::new(r"/run/secrets/[a-z0-9.-]+/[a-zA-Z0-9._-]+").expect("a pattern");
    path.find_iter(text).map(|found| found.as_str().to_owned()).collect()
}

/// Writes what the Secrets of a cluster would have.
pub(super) fn write_secrets(text: &str, dir: &Path) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    for path in secret_paths(text) {
        let file = PathBuf::from(with_own_paths(&path, dir));
        fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        let content = match file.file_name().and_then(|name| name.to_str()) {
            Some("tls.crt" | "ca.crt") => key.cert.pem(),
            Some("tls.key") => key.signing_key.serialize_pem(),
            Some("url") => "postgres://scalebridge:change-me@db.example/scalebridge".to_owned(),
            Some(name) => secret(format!("the-token-{name}-{}", std::process::id())),
            None => unreachable!("the pattern has a file"),
        };
        if file.exists() {
            continue;
        }
        fs::write(&file, content).expect("a secret");
        // As the volumes of the pods have them.
        fs::set_permissions(&file, Permissions::from_mode(0o440)).expect("a mode");
    }
}

/// Writes the configuration of the bridge with its own paths, and its secrets.
fn install(objects: &Objects, dir: &Path) {
    for (name, text) in files_with(objects, "scalebridge.yaml") {
        let text = text.as_str().expect("a text");
        write_secrets(text, dir);
        fs::write(dir.join(name), with_own_paths(text, dir)).expect("a file");
    }
}

/// Starts a bridge with the configuration and the rules of the ConfigMap, at free ports of this machine.
pub(super) async fn start(objects: &Objects) -> Bridge {
    let files = files_with(objects, "scalebridge.yaml");
    let text = |name: &str| files[name].as_str().expect("a text");
    let mut bridge = Bridge::new("", text("rules.yaml"));
    write_secrets(text("scalebridge.yaml"), bridge.dir());
    bridge.write("scalebridge.yaml", &at_free_ports(text("scalebridge.yaml"), bridge.dir()));
    bridge.run().await;
    bridge
}

pub(super) fn at_free_ports(text: &str, dir: &Path) -> String {
    let text = with_own_paths(text, dir);
    text.replace("0.0.0.0:9096", "127.0.0.1:0").replace("0.0.0.0:9097", "127.0.0.1:0")
}

/// `scalebridge check` finds neither errors nor warnings in the configuration of the bridge.
pub(super) fn assert_accepted(name: &str, objects: &Objects) {
    let dir = tempfile::tempdir().expect("a directory");
    install(objects, dir.path());
    let mut check = Command::new(program());
    check.args(["check", "--output", "json", "--config", "scalebridge.yaml"]).current_dir(dir.path());
    let done = check.output().expect("the bridge");
    let report: Value = serde_json::from_slice(&done.stdout).expect("a report");
    // Plain HTTP within the cluster is the default of the chart, and NOTES warns of it.
    let is_expected = |finding: &&Value| finding["code"] != "W047";
    let findings: Vec<_> =
        report["findings"].as_array().expect("a list").iter().filter(is_expected).collect();
    assert!(done.status.success() && findings.is_empty(), "{name}: {findings:#?}");
}

#[test]
fn scalebridge_check_accepts_every_configuration() {
    all().iter().for_each(|(name, objects)| assert_accepted(name, objects));
}

#[test]
fn the_pod_has_each_file_that_its_configuration_names() {
    for (name, objects) in all() {
        for file in ["scalebridge.yaml", "scaler.yaml"] {
            let has_it = |map: &&Value| !map["data"][file].is_null();
            let Some(map) = objects.of_kind("ConfigMap").find(has_it) else { continue };
            let mounts = |pod: &Value, map: &Value| {
                let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
                volumes.iter().any(|volume| volume["configMap"]["name"] == map["metadata"]["name"])
            };
            let (_, pod) =
                objects.pods().find(|(_, pod)| mounts(pod, map)).expect("a pod with this ConfigMap");
            let mounted = pod["spec"]["containers"][0]["volumeMounts"].as_array().expect("mounts");
            let mut texts: Vec<String> =
                map["data"].as_object().expect("files").values().map(Value::to_string).collect();
            texts.push(pod["spec"]["containers"][0]["env"].to_string());
            for path in texts.iter().flat_map(|text| secret_paths(text)) {
                let directory = path.rsplit_once('/').expect("a directory").0;
                let is_mounted = mounted.iter().any(|mount| mount["mountPath"] == directory);
                assert!(is_mounted, "{name}: {path} is in no volume");
            }
        }
    }
}

#[test]
fn the_scaler_accepts_its_configuration_and_has_the_rights_that_it_asks_for() {
    for name in ["chart-scaler", "chart-everything", "all-components"] {
        let objects = rendering(name);
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("scaler.yaml");
        let text = files_with(objects, "scaler.yaml")["scaler.yaml"].as_str().expect("a text");
        fs::write(&file, text).expect("a file");
        let done =
            Command::new(scaler_program()).arg("check").arg("--config").arg(&file).output().expect("it");
        assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));

        let mut policy = Command::new(scaler_program());
        policy.args(["iam-policy", "--principal", "pod-identity", "--output", "json", "--config"]).arg(&file);
        let needed: Value = serde_json::from_slice(&policy.output().expect("it").stdout).expect("JSON");
        let needed = needed["clusters"]["prod-eu"]["rbac"].as_str().expect("RBAC");
        let mut documents =
            needed.split("---\n").map(|text| serde_saphyr::from_str::<Value>(text).expect("YAML"));
        let role = documents.next().expect("a role");
        let given = objects.find("ClusterRole", "scalebridge-scaler").expect("a role");
        assert_eq!(given["rules"], role["rules"], "{name}");
        let namespaces: Vec<Value> =
            documents.map(|binding| binding["metadata"]["namespace"].clone()).collect();
        let given: Vec<Value> =
            objects.of_kind("RoleBinding").map(|binding| binding["metadata"]["namespace"].clone()).collect();
        assert_eq!(given, namespaces, "{name}");
        assert_eq!(objects.of_kind("ClusterRoleBinding").count(), 0, "{name}");
    }
}

#[tokio::test]
async fn the_bridge_runs_with_the_configuration_of_the_chart() {
    let bridge = start(rendering("chart-default")).await;
    let read = |name: &str| fs::read_to_string(bridge.dir().join("secrets").join(name)).expect("a token");
    let body = notification(&[pending_pod("workers", "a")]);
    let send = async |token: &str| {
        let authorization = format!("Bearer {token}");
        bridge.post_to("/webhook/alertmanager", &[("authorization", &authorization)], body.clone()).await
    };
    assert_eq!(send("something-else").await.status, 401);
    assert_eq!(send(&read("admin/on-call")).await.status, 401, "a token of operators sends nothing");
    let answer = send(&read("sources/alertmanager")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(bridge.get_admin("/metrics").await.0, 401);
    assert_eq!(bridge.get_admin("/-/healthy").await.0, 200, "probes have no credentials");
    for (token, pauses) in [("admin/prometheus", false), ("admin/on-call", true)] {
        let token = format!("secrets/{token}");
        let (code, ..) = bridge.cli(&["status", "--token-file", &token]);
        assert_eq!(code, Some(0), "{token}");
        let (code, ..) =
            bridge.cli(&["pause", "--direction", "scale_in", "--reason", "a test", "--token-file", &token]);
        assert_eq!(code == Some(0), pauses, "{token}");
    }
}
