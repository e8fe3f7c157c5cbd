//! The bridge, with one rule for each platform.

use std::fs;

use serde_json::{Value, json};

use crate::process::{Process, eventually};

const RULES: &str = r#"
rules:
  - name: node-group
    matchers: [alertname = NodeGroupTooSmall]
    target: { platform: eks, kind: nodegroup, name: workers, cluster: prod-eu, region: eu-west-1 }
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { revert: true }, stabilization_window: 0s, cooldown: 0s }
    send_to: [scaler]
  - name: group
    matchers: [alertname = GroupTooSmall]
    target: { platform: ec2, kind: autoscaling-group, name: web, region: eu-west-1 }
    on_firing: { scale_out: { by: 3 }, cooldown: 0s }
    on_resolved: { scale_in: { revert: true }, stabilization_window: 0s, cooldown: 0s }
    send_to: [scaler]
  - name: service
    matchers: [alertname = ServiceTooSmall]
    target: { platform: ecs, kind: service, name: web, cluster: prod-eu, region: eu-west-1 }
    on_firing: { scale_out: { by: 4 }, cooldown: 0s }
    on_resolved: { scale_in: { revert: true }, stabilization_window: 0s, cooldown: 0s }
    send_to: [scaler]
"#;

/// The time, as Alertmanager writes it.
pub(crate) fn now() -> String {
    scalebridge_scaler::runtime::now().to_millis_string()
}

/// The alerts of the rules.
pub(crate) const ALERTS: [&str; 3] = ["NodeGroupTooSmall", "GroupTooSmall", "ServiceTooSmall"];

pub(crate) struct Bridge {
    process: Process,
    address: String,
    admin: String,
    _directory: tempfile::TempDir,
}

impl Bridge {
    /// Starts one whose only destination is `destination`.
    pub(crate) async fn start(destination: &str, environment: &[(String, String)]) -> Self {
        let destination = format!("scaler: {{ {destination} }}");
        Self::start_with("prod-eu: {}", &destination, RULES, environment).await
    }

    /// Starts one with this source, this destination and these rules.
    pub(crate) async fn start_with(
        source: &str,
        destination: &str,
        rules: &str,
        environment: &[(String, String)],
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "server: {{ listen: \"127.0.0.1:0\" }}\nadmin: {{ listen: \"127.0.0.1:0\" }}\n\
             store: {{ sqlite: {{ path: bridge.db }} }}\nsources:\n  {source}\n\
             destinations:\n  {destination}\n\
             delivery: {{ initial_backoff: 50ms, max_backoff: 200ms }}\n\
             rules: [rules.yaml]\nengine: {{ scale_in_per_minute: 0 }}\nlog: {{ format: json }}\n"
        );
        fs::write(directory.path().join("scalebridge.yaml"), config).unwrap();
        fs::write(directory.path().join("rules.yaml"), rules).unwrap();
        let arguments = ["serve", "--config", "scalebridge.yaml"];
        let mut process = Process::start("scalebridge", directory.path(), &arguments, environment);
        let ready = eventually("the bridge to be ready", async || {
            process.assert_runs();
            let log = process.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.into_iter().find(|line| line["message"] == "scalebridge is ready")
        })
        .await;
        let address = |listener: &str| ready[listener].as_str().expect("an address").to_owned();
        Self { process, address: address("webhook"), admin: address("admin"), _directory: directory }
    }

    /// The URL of a source.
    pub(crate) fn webhook(&self, source: &str) -> String {
        format!("{}/webhook/{source}", self.address)
    }

    /// Sends a notification, as Alertmanager does, about one alert that began at `started`; `ended` if it is resolved.
    pub(crate) async fn notify(&mut self, alert: &str, started: &str, ended: Option<&str>) {
        self.process.assert_runs();
        let status = if ended.is_some() { "resolved" } else { "firing" };
        let labels = json!({ "alertname": alert });
        let notification = json!({
            "receiver": "scalebridge", "status": status, "version": "4", "truncatedAlerts": 0,
            "groupKey": format!("{{}}:{{alertname=\"{alert}\"}}"), "groupLabels": labels, "commonLabels": labels,
            "commonAnnotations": {}, "externalURL": "http://alertmanager:9093",
            "alerts": [{
                "status": status, "labels": labels, "annotations": {}, "startsAt": started,
                "endsAt": ended.unwrap_or("0001-01-01T00:00:00Z"), "generatorURL": "http://prometheus:9090/graph",
                "fingerprint": format!("{:016x}", alert.len()),
            }],
        });
        let answer =
            client().post(self.webhook("prod-eu")).body(notification.to_string()).send().await.unwrap();
        let (status, body) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {body}");
    }

    /// What `GET path` of the admin listener answers.
    pub(crate) async fn admin(&self, path: &str) -> Value {
        let answer = client().get(format!("{}{path}", self.admin)).send().await.unwrap();
        serde_json::from_str(&answer.text().await.unwrap()).unwrap()
    }
}

pub(crate) fn client() -> reqwest::Client {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    reqwest::Client::builder().no_proxy().build().unwrap()
}
