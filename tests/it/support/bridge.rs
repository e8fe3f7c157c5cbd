//! The real binary as a child process, with its own configuration and directory.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::schema::assert_valid_event;
use super::secrets;
use super::tools::{eventually, get};

/// The source `prod-eu`, the file destination `journal`, and free ports.
pub(crate) const CONFIG: &str = r#"
server: { listen: "127.0.0.1:0" }
admin: { listen: "127.0.0.1:0" }
store: { sqlite: { path: bridge.db } }
sources:
  prod-eu: { labels: { cluster: prod-eu, region: eu-west-1 } }
destinations:
  journal: { file: { path: events.jsonl } }
rules: [rules.yaml]
log: { format: json }
"#;

/// Pending pods: adds two nodes, and removes one when all alerts have resolved.
pub(crate) const RULES: &str = r#"
rules:
  - name: unschedulable-pods
    matchers: [alertname = KubePodsPending]
    target:
      platform: eks
      kind: nodegroup
      name: "{{ labels.nodegroup }}"
      cluster: "{{ labels.cluster }}"
      region: "{{ labels.region }}"
    on_firing: { scale_out: { by: 2 }, cooldown: 0s }
    on_resolved: { scale_in: { by: 1 }, stabilization_window: 0s, cooldown: 0s }
    send_to: [journal]
"#;

/// The program under test: the one that cargo built, or `SCALEBRIDGE_BINARY`. A release is tested with the binary
/// that is deployed.
pub(crate) fn program() -> PathBuf {
    let Some(named) = env::var_os("SCALEBRIDGE_BINARY") else {
        return env!("CARGO_BIN_EXE_scalebridge").into();
    };
    // Each bridge runs in its own directory, so the path must be absolute.
    fs::canonicalize(&named).unwrap_or_else(|error| panic!("SCALEBRIDGE_BINARY={}: {error}", named.display()))
}

/// An HTTP answer of the bridge.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The verdicts in the body; panics if the status is not 200.
    pub(crate) fn verdicts(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()["verdicts"].clone()
    }
}

/// A directory with a configuration, and the process of the bridge while it runs.
pub(crate) struct Bridge {
    dir: TempDir,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    running: Option<Running>,
}

struct Running {
    child: Child,
    webhook: String,
    admin: String,
}

impl Bridge {
    /// Writes the configuration and the rules without starting the bridge.
    pub(crate) fn new(config: &str, rules: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("scalebridge.yaml"), config).expect("a configuration");
        fs::write(dir.path().join("rules.yaml"), rules).expect("rules");
        Self { dir, environment: Vec::new(), wrapper: Vec::new(), running: None }
    }

    /// Starts a bridge with [`CONFIG`] and [`RULES`].
    pub(crate) async fn start() -> Self {
        let mut bridge = Self::new(CONFIG, RULES);
        bridge.run().await;
        bridge
    }

    /// A bridge with these destinations, not started. Its rule sends to all of them, and scale-ins have no
    /// rate limit.
    pub(crate) fn with_destinations(destinations: &[(&str, String)]) -> Self {
        const QUICK: &str = "initial_backoff: 50ms, max_backoff: 200ms";
        let lines: Vec<String> =
            destinations.iter().map(|(name, kind)| format!("  {name}: {{ {kind}, {QUICK} }}")).collect();
        let names: Vec<&str> = destinations.iter().map(|(name, _)| *name).collect();
        let config = CONFIG.replace("  journal: { file: { path: events.jsonl } }", &lines.join("\n"));
        let config = config + "engine: { scale_in_per_minute: 0 }\n";
        let rules = RULES.replace("[journal]", &format!("[{}]", names.join(", ")));
        Self::new(&config, &rules)
    }

    /// Ends the wait for what Alertmanager could not send in a reception gap, so that decreases are decided at once
    /// after a restart or a refused notification.
    pub(crate) fn without_late_window(&self) {
        self.set_late_window("0s");
    }

    /// Sets the time that decreases wait after a reception gap, and late copies wait for their end.
    pub(crate) fn set_late_window(&self, late_window: &str) {
        let file = self.dir().join("scalebridge.yaml");
        let config = fs::read_to_string(file).expect("a configuration");
        let changed = config.replace("prod-eu: {", &format!("prod-eu: {{ late_window: {late_window},"));
        assert_ne!(changed, config);
        self.write("scalebridge.yaml", &changed);
    }

    /// Sets an environment variable for the next start.
    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the bridge through this program, which must `exec` it.
    pub(crate) fn wrap_with(&mut self, program: &[&str]) {
        self.wrapper = program.iter().map(|&word| word.to_owned()).collect();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running().child.id()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir().join("bridge.log")
    }

    /// The command that starts the bridge.
    pub(crate) fn command(&self) -> Command {
        let program = program();
        let mut words = self.wrapper.iter().map(OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(program.as_os_str()));
        command
            .args(words)
            .args(["serve", "--config", "scalebridge.yaml"])
            .current_dir(self.dir())
            .stdin(Stdio::null());
        for (name, _) in env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts the bridge and waits until it is ready.
    pub(crate) async fn run(&mut self) {
        self.launch();
        self.wait_ready().await;
    }

    /// Starts the bridge without waiting.
    pub(crate) fn launch(&mut self) {
        assert!(self.running.is_none(), "the bridge is already running");
        let log = fs::File::create(self.log_file()).expect("a log");
        let out = fs::File::create(self.dir().join("stdout")).expect("a file");
        let child = self.command().stdout(out).stderr(log).spawn().expect("the bridge");
        // Stored at once, so that `drop` kills the child even if the test fails before it is ready.
        self.running = Some(Running { child, webhook: String::new(), admin: String::new() });
    }

    /// Waits until the log says that the bridge is ready, and reads its addresses from that line.
    pub(crate) async fn wait_ready(&mut self) {
        let (webhook, admin) = eventually("the bridge to be ready", async || {
            let running = self.running.as_mut().expect("the bridge was started");
            let ended = running.child.try_wait().expect("a process status");
            assert!(ended.is_none(), "the bridge ended with {ended:?}:\n{}", self.log());
            let log = self.log();
            let line = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let ready = line.into_iter().find(|line| line["message"] == "scalebridge is ready")?;
            // `http://127.0.0.1:9096`; without the scheme in the first version, for the tests of an upgrade.
            let address = |listener: &str| Some(ready[listener].as_str()?.rsplit('/').next()?.to_owned());
            Some((address("webhook")?, address("admin")?))
        })
        .await;
        let running = self.running.as_mut().expect("the bridge was started");
        (running.webhook, running.admin) = (webhook, admin);
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("the bridge is not running")
    }

    /// `127.0.0.1:PORT` of `server.listen`.
    pub(crate) fn address(&self) -> &str {
        &self.running().webhook
    }

    /// `127.0.0.1:PORT` of `admin.listen`.
    pub(crate) fn admin_address(&self) -> &str {
        &self.running().admin
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running().webhook)
    }

    /// Posts a body to the source `prod-eu`.
    pub(crate) async fn post(&self, body: impl Into<Vec<u8>>) -> Answer {
        self.post_to("/webhook/prod-eu", &[], body).await
    }

    pub(crate) async fn post_to(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Answer {
        post(self.url(path), headers, body.into()).await
    }

    /// The value of a series, spelled as in `/metrics`; 0 if the series does not exist.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (status, text) = get(&format!("http://{}/metrics", self.running().admin)).await.expect("metrics");
        assert_eq!(status, 200);
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    pub(crate) async fn get_admin(&self, path: &str) -> (u16, String) {
        get(&format!("http://{}{path}", self.running().admin)).await.expect("an answer")
    }

    /// `http://127.0.0.1:PORT` of `admin.listen`.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.running().admin)
    }

    /// Calls the admin API. Returns the status and the JSON body, null if the body is not JSON.
    pub(crate) async fn api(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let (url, method) = (format!("{}{path}", self.admin_url()), method.to_owned());
        let call = tokio::task::spawn_blocking(move || {
            let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
            let request = ureq::http::Request::builder().method(method.as_str()).uri(url);
            let mut answer = match body {
                Some(body) => {
                    let request = request.header("content-type", "application/json");
                    agent.run(request.body(body.to_string()).expect("a request"))
                }
                None => agent.run(request.body(()).expect("a request")),
            }
            .expect("an answer");
            let text = answer.body_mut().read_to_string().expect("text");
            (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
        });
        call.await.expect("a call")
    }

    /// The metrics as a scraper gets them that accepts OpenMetrics.
    pub(crate) async fn openmetrics(&self) -> String {
        let url = format!("{}/metrics", self.admin_url());
        let call = tokio::task::spawn_blocking(move || {
            let accepted = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5";
            let mut answer = ureq::get(url).header("accept", accepted).call().expect("an answer");
            answer.body_mut().read_to_string().expect("text")
        });
        call.await.expect("a call")
    }

    /// The JSON body of a GET; panics if the status is not 200.
    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let (status, answer) = self.api("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// All decisions with this verdict, newest first.
    pub(crate) async fn decisions(&self, verdict: &str) -> Vec<Value> {
        self.read_decisions(&format!("&verdict={verdict}")).await
    }

    /// All decisions: the newest transactions first, the decisions of each in their order.
    pub(crate) async fn all_decisions(&self) -> Vec<Value> {
        self.read_decisions("").await
    }

    async fn read_decisions(&self, filter: &str) -> Vec<Value> {
        let query = format!("/api/v1/decisions?limit=1000{filter}");
        let (mut all, mut cursor) = (Vec::new(), Some(String::new()));
        while let Some(after) = cursor {
            let mut page = self.get_json(&format!("{query}{after}")).await;
            all.append(page["decisions"].as_array_mut().expect("a list"));
            cursor = page["next"].as_str().map(|next| format!("&cursor={next}"));
        }
        all
    }

    /// Runs a CLI command against the admin listener. Returns the exit code, stdout and stderr.
    pub(crate) fn cli(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let done = Command::new(program())
            .args(words)
            .env("SCALEBRIDGE_URL", self.admin_url())
            .env("USER", "ops")
            .env_remove("COLUMNS")
            .current_dir(self.dir())
            .output()
            .expect("the program");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (done.status.code(), text(done.stdout), text(done.stderr))
    }

    /// Replaces a configuration or rules file atomically.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let temporary = self.dir().join(format!(".{name}.new"));
        fs::write(&temporary, text).expect("a file");
        fs::rename(temporary, self.dir().join(name)).expect("renamed");
    }

    /// Waits until a destination has no pending or retrying deliveries.
    pub(crate) async fn wait_delivered(&self, destination: &str) {
        eventually("an empty outbox", async || {
            let count = async |state: &str| {
                let series = format!(
                    "scalebridge_outbox_deliveries{{destination=\"{destination}\",state=\"{state}\"}}"
                );
                self.metric(&series).await
            };
            (count("pending").await + count("retrying").await == 0.0).then_some(())
        })
        .await;
    }

    /// Waits until no action is deferred and these destinations have no pending or retrying deliveries. Nothing may be
    /// posted meanwhile.
    pub(crate) async fn wait_settled(&self, destinations: &[&str]) {
        eventually("no deferred action", async || {
            let status = self.get_json("/api/v1/status").await;
            (status["deferred"] == json!({})).then_some(())
        })
        .await;
        for destination in destinations {
            self.wait_delivered(destination).await;
        }
    }

    /// Waits until everything is delivered, and returns the events in `events.jsonl`.
    pub(crate) async fn events(&self) -> Vec<Value> {
        self.wait_delivered("journal").await;
        self.journal()
    }

    /// The events that are in `events.jsonl` now.
    pub(crate) fn journal(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir().join("events.jsonl")).unwrap_or_default();
        let events: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("one event per line")).collect();
        events.iter().for_each(assert_valid_event);
        events
    }

    /// [`Bridge::journal`] after SIGKILLs. Each kill may have truncated a line; the event of that line must
    /// have been written again.
    pub(crate) fn journal_after_kills(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.dir().join("events.jsonl")).unwrap_or_default();
        let read = |line| serde_json::from_str::<Value>(line).map_err(|_| line);
        let (whole, cut): (Vec<_>, Vec<_>) = text.lines().map(read).partition(Result::is_ok);
        for cut in cut.into_iter().filter_map(Result::err) {
            let is_repeated = text.lines().any(|line| line.len() > cut.len() && line.starts_with(cut));
            assert!(is_repeated, "neither an event nor the prefix of one: {cut}");
        }
        let whole: Vec<Value> = whole.into_iter().filter_map(Result::ok).collect();
        whole.iter().for_each(assert_valid_event);
        whole
    }

    /// Sends SIGKILL and waits for the exit.
    pub(crate) fn kill(&mut self) {
        let mut running = self.running.take().expect("the bridge is not running");
        running.child.kill().expect("a kill");
        running.child.wait().expect("an exit status");
    }

    /// Sends SIGTERM, waits for the exit and returns its status.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.wait_exit().await
    }

    /// Sends SIGTERM without waiting.
    pub(crate) fn terminate(&self) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(sent.success());
    }

    /// Waits for the exit and returns its status.
    pub(crate) async fn wait_exit(&mut self) -> ExitStatus {
        let running = self.running.as_mut().expect("the bridge is not running");
        let status =
            eventually("the bridge to end", async || running.child.try_wait().expect("a process status"))
                .await;
        self.running = None;
        status
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.child.kill());
            drop(running.child.wait());
        }
        if !std::thread::panicking() {
            secrets::assert_no_secret_below(self.dir());
        } else {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("--- the end of the bridge's log ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Sends a `POST` on a blocking thread, since the client is synchronous.
pub(crate) async fn post(url: String, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    try_post(url, headers, body).await.expect("an answer")
}

/// [`post`], but returns an error instead of panicking if the bridge does not answer.
pub(crate) async fn try_post(
    url: String,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answer, ureq::Error> {
    let headers: Vec<(String, String)> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let call = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let mut request = agent.post(&url).header("content-type", "application/json");
        for (name, value) in &headers {
            request = request.header(name, value);
        }
        let mut answer = request.send(&body[..])?;
        let text = |value: &ureq::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        Ok(Answer {
            status: answer.status().as_u16(),
            headers: answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: answer.body_mut().read_to_string()?,
        })
    });
    call.await.expect("a call")
}

/// A notification captured from a real Alertmanager (`tests/fixtures/alertmanager`).
pub(crate) fn captured(name: &str) -> String {
    let path = format!("{}/tests/fixtures/alertmanager/{name}.json", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A notification with these alerts.
pub(crate) fn notification(alerts: &[Value]) -> String {
    notification_of_group("{}:{}", alerts)
}

/// A notification of the alert group with this key, which decisions show.
pub(crate) fn notification_of_group(key: &str, alerts: &[Value]) -> String {
    json!({
        "version": "4", "groupKey": key, "truncatedAlerts": 0, "status": "firing", "receiver": "scaling",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093",
        "alerts": alerts,
    })
    .to_string()
}

/// A firing alert that starts now, about a pending pod of a node group.
pub(crate) fn pending_pod(nodegroup: &str, pod: &str) -> Value {
    json!({
        "status": "firing",
        "labels": { "alertname": "KubePodsPending", "nodegroup": nodegroup, "pod": pod },
        "annotations": { "summary": format!("pod {pod} is pending") },
        "startsAt": now(), "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prom:9090/graph", "fingerprint": format!("{nodegroup}-{pod}"),
    })
}

/// The same alert, resolved now.
pub(crate) fn resolved(firing: &Value) -> Value {
    let mut alert = firing.clone();
    alert["status"] = json!("resolved");
    alert["endsAt"] = json!(now());
    alert
}

/// The current time in the format of Prometheus (RFC 3339).
pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
