//! docs/credentials.md is correct: every snippet works, with the oldest and the newest Alertmanager and Prometheus.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::bridge::{self, Bridge, CONFIG, RULES};
use crate::support::certificates::Authority;
use crate::support::https::Https;
use crate::support::prometheus::{Release, on_old_and_new};
use crate::support::secrets::secret;
use crate::support::tools::{Server, eventually, eventually_within};

on_old_and_new!(
    a_bearer_token,
    a_service_account_token,
    a_client_certificate,
    a_user_and_a_password,
    a_token_is_rotated_under_load,
    certificates_are_exchanged_under_load,
    prometheus_scrapes_with_a_token,
);

const PAGE: &str = include_str!("../../docs/credentials.md");
const TOKEN: &str = "bearer-secret-7f1d2c9b0e5a48d3";
const PASSWORD: &str = "password-secret-c4a1f60b9d";

/// The snippets of a section that are for one file, parsed.
fn snippets(section: &str, file: &str) -> Vec<Value> {
    let found = PAGE.split("\n## ").find(|part| part.starts_with(&format!("{section}\n")));
    let section = found.unwrap_or_else(|| panic!("the page has no section {section}"));
    let begin = format!("```yaml\n# {file}\n");
    let blocks = section.split(&begin).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default());
    blocks.map(|block| serde_saphyr::from_str(block).expect("valid YAML")).collect()
}

fn snippet(section: &str, file: &str) -> Value {
    snippets(section, file).into_iter().next().unwrap_or_else(|| panic!("no {file} in {section}"))
}

/// Adds the keys of `other`, which win.
fn merge(into: &mut Value, other: Value) {
    match (into, other) {
        (Value::Object(into), Value::Object(other)) => {
            for (key, value) in other {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, other) => *into = other,
    }
}

/// Changes every text.
fn map_texts(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|item| map_texts(item, change)),
        Value::Object(fields) => fields.values_mut().for_each(|field| map_texts(field, change)),
        _ => {}
    }
}

/// A directory in which the files lie that the page names.
struct PageFiles {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl PageFiles {
    fn new() -> Self {
        let files =
            Self { dir: tempfile::tempdir().expect("a directory"), authority: Authority::new("internal") };
        files.write_server_certificate();
        files.write("/etc/ssl/internal-ca.pem", &files.authority.pem());
        files.write("/etc/scalebridge/tls/clients-ca.pem", &files.authority.pem());
        for token in ["/run/secrets/prod-eu/token", "/run/secrets/scalebridge/token"] {
            files.write(token, &secret(TOKEN));
        }
        files
    }

    fn path(&self, path: &str) -> String {
        format!("{}{path}", self.dir.path().display())
    }

    /// Writes a file atomically, as Kubernetes and cert-manager do.
    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(Path::new(&path).parent().expect("a directory")).expect("created");
        let new = format!("{path}.new");
        fs::write(&new, text).expect("a file");
        fs::rename(new, path).expect("renamed");
    }

    fn write_server_certificate(&self) {
        let pair = self.authority.server_for(&["127.0.0.1", "scalebridge.example"]);
        self.write("/etc/scalebridge/tls/tls.crt", &pair.certificate);
        self.write("/etc/scalebridge/tls/tls.key", &pair.key);
    }

    /// Starts a bridge with the snippets of these sections. Only the webhook has TLS, unless `admin` is given.
    async fn bridge(&self, snippets: Vec<Value>) -> Bridge {
        let mut config: Value = serde_saphyr::from_str(CONFIG).expect("valid YAML");
        let mut tls = snippet("TLS", "scalebridge.yaml");
        tls.as_object_mut().expect("a map").remove("admin");
        [tls].into_iter().chain(snippets).for_each(|snippet| merge(&mut config, snippet));
        map_texts(&mut config, &|text| match text {
            "0.0.0.0:9096" | "0.0.0.0:9097" => "127.0.0.1:0".to_owned(),
            path if path.starts_with('/') => self.path(path),
            other => other.to_owned(),
        });
        let mut bridge = Bridge::new(&config.to_string(), RULES);
        bridge.run().await;
        bridge
    }

    /// Starts Alertmanager with the snippet, every alert in a group of its own, repeated every second.
    async fn alertmanager(&self, release: Release, mut config: Value, bridge: &Bridge) -> Server {
        map_texts(&mut config, &|text| {
            let url =
                text.replace("https://scalebridge.example:9096", &format!("https://{}", bridge.address()));
            if url.starts_with('/') { self.path(&url) } else { url }
        });
        config["route"] = json!({
            "receiver": "scalebridge", "group_by": ["..."],
            "group_wait": "0s", "group_interval": "1s", "repeat_interval": "1s",
        });
        release.start_alertmanager(self.dir.path(), &config.to_string()).await
    }
}

/// Fires alerts at Alertmanager, which sends each in a notification of its own.
async fn fire(alertmanager: &Server, pods: std::ops::Range<usize>) {
    let (now, end) = (Timestamp::now(), Timestamp::now() + SignedDuration::from_mins(5));
    let alert = |pod: usize| {
        json!({ "labels": { "alertname": "KubePodsPending", "nodegroup": format!("workers-{pod}") },
            "startsAt": now.to_string(), "endsAt": end.to_string() })
    };
    let alerts: Vec<Value> = pods.map(alert).collect();
    let url = alertmanager.url() + "/api/v2/alerts";
    let answer = bridge::post(url, &[], json!(alerts).to_string().into_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn notifications(bridge: &Bridge, code: u16) -> f64 {
    bridge.metric(&format!(r#"scalebridge_notifications_total{{source="prod-eu",code="{code}"}}"#)).await
}

/// Asserts that the alerts of Alertmanager arrive, and that a bridge that does not know its credential refuses them.
async fn is_accepted_and_needed(release: Release, files: &PageFiles, section: &str, bridge: &Bridge) {
    let alertmanager = files.alertmanager(release, snippet(section, "alertmanager.yml"), bridge).await;
    fire(&alertmanager, 0..1).await;
    eventually("an accepted notification", async || (notifications(bridge, 200).await >= 1.0).then_some(()))
        .await;
    assert_eq!(notifications(bridge, 401).await, 0.0);
    drop(alertmanager);
    // Without the credential.
    let mut config = snippet(section, "alertmanager.yml");
    let http = &mut config["receivers"][0]["webhook_configs"][0]["http_config"];
    *http = json!({ "tls_config": { "ca_file": http["tls_config"]["ca_file"] } });
    let alertmanager = files.alertmanager(release, config, bridge).await;
    fire(&alertmanager, 1..2).await;
    eventually("a refused notification", async || (notifications(bridge, 401).await >= 1.0).then_some(()))
        .await;
    assert_eq!(bridge.events().await.len(), 1, "only the first alert was accepted");
}

async fn a_bearer_token(release: Release) {
    let files = PageFiles::new();
    let bridge = files.bridge(vec![snippet("Bearer token", "scalebridge.yaml")]).await;
    is_accepted_and_needed(release, &files, "Bearer token", &bridge).await;
}

async fn a_client_certificate(release: Release) {
    let files = PageFiles::new();
    let pair = files.authority.client("alertmanager", &["alertmanager.prod-eu.example"]);
    files.write("/etc/alertmanager/tls/tls.crt", &pair.certificate);
    files.write("/etc/alertmanager/tls/tls.key", &pair.key);
    let bridge = files.bridge(vec![snippet("Client certificate", "scalebridge.yaml")]).await;
    is_accepted_and_needed(release, &files, "Client certificate", &bridge).await;
}

async fn a_user_and_a_password(release: Release) {
    let files = PageFiles::new();
    let hash = secret(bcrypt::hash(secret(PASSWORD), 5).expect("a hash"));
    files.write("/run/secrets/prod-eu/users", &format!("alertmanager:{hash}\n"));
    files.write("/run/secrets/scalebridge/password", PASSWORD);
    let bridge = files.bridge(vec![snippet("User and password", "scalebridge.yaml")]).await;
    is_accepted_and_needed(release, &files, "User and password", &bridge).await;
}

async fn a_service_account_token(release: Release) {
    let files = PageFiles::new();
    let mut config = snippet("Service account token", "scalebridge.yaml");
    let jwt = &mut config["sources"]["prod-eu"]["auth"]["jwt"];
    let issuer = jwt["issuer"].as_str().expect("an issuer").to_owned();
    assert_eq!(jwt["jwks_url"], format!("{issuer}/keys"));
    let signing = signing_key();
    jwt["jwks_url"] = json!(serve_keys(&signing).await);
    let token = signed(
        &signing,
        &json!({
            "iss": issuer, "aud": [jwt["audience"]],
            "sub": "system:serviceaccount:monitoring:alertmanager-main",
        }),
    );
    files.write("/var/run/secrets/tokens/scalebridge", &secret(token));
    let bridge = files.bridge(vec![config]).await;
    is_accepted_and_needed(release, &files, "Service account token", &bridge).await;
}

fn signing_key() -> EncodingKey {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    EncodingKey::from_ec_der(&key.serialize_der())
}

/// A token with these claims that expires in an hour.
fn signed(key: &EncodingKey, claims: &Value) -> String {
    let mut claims = claims.clone();
    claims["exp"] = json!((Timestamp::now() + SignedDuration::from_hours(1)).as_second());
    let header = serde_json::from_value(json!({ "alg": "ES256", "kid": "1" })).expect("a header");
    jsonwebtoken::encode(&header, &claims, key).expect("a token")
}

/// Serves a key set with this key, as an issuer does. Returns its URL.
async fn serve_keys(key: &EncodingKey) -> String {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).expect("a key");
    jwk.common.key_id = Some("1".to_owned());
    let keys = json!({ "keys": [jwk] });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let answer = move || async move { axum::Json(keys) };
    let router = axum::Router::new().route("/keys", axum::routing::get(answer));
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/keys")
}

/// The steps of the page, while notifications arrive: a second file on the bridge, a new token in Alertmanager, the
/// old one withdrawn.
async fn a_token_is_rotated_under_load(release: Release) {
    let files = PageFiles::new();
    files.write("/run/secrets/prod-eu/next-token", "the-next-bearer-secret-0");
    let both = snippets("Bearer token", "scalebridge.yaml").pop().expect("a second snippet");
    let bridge = files.bridge(vec![both]).await;
    let config = snippet("Bearer token", "alertmanager.yml");
    let alertmanager = files.alertmanager(release, config, &bridge).await;
    const ROTATIONS: usize = 4;
    const PODS: usize = 25;
    for rotation in 1..=ROTATIONS {
        fire(&alertmanager, (rotation - 1) * PODS..rotation * PODS).await;
        let token = format!("the-next-bearer-secret-{rotation}");
        // The file whose token Alertmanager does not use any more.
        let on_bridge = ["/run/secrets/prod-eu/token", "/run/secrets/prod-eu/next-token"][rotation % 2];
        files.write(on_bridge, &token);
        files.write("/run/secrets/scalebridge/token", &token);
        nothing_is_sent_with_an_older_token(&bridge, rotation * PODS).await;
    }
    let expected = ROTATIONS * PODS;
    eventually_within(std::time::Duration::from_secs(60), "all events", async || {
        (bridge.events().await.len() == expected).then_some(())
    })
    .await;
    assert_eq!(notifications(&bridge, 401).await, 0.0);
    assert_eq!(notifications(&bridge, 503).await, 0.0);
}

/// Waits until no request can be under way with a token that Alertmanager had before this moment: a group has one request
/// at a time, so its second one from now on reads the file anew. One more, since the clocks differ by milliseconds.
async fn nothing_is_sent_with_an_older_token(bridge: &Bridge, groups: usize) {
    let list = format!("/api/v1/notifications?limit=1000&since={}", Timestamp::now());
    eventually_within(std::time::Duration::from_secs(60), "three notifications of each group", async || {
        let (mut accepted, mut cursor) = (BTreeMap::new(), String::new());
        loop {
            let page = bridge.get_json(&format!("{list}{cursor}")).await;
            for notification in page["notifications"].as_array().expect("a list") {
                let group = notification["body"]["groupKey"].as_str().expect("a group").to_owned();
                *accepted.entry(group).or_insert(0) += 1;
            }
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let thrice = accepted.values().filter(|&&times| times >= 3).count();
        (thrice == groups).then_some(())
    })
    .await;
}

async fn certificates_are_exchanged_under_load(release: Release) {
    let files = PageFiles::new();
    let bridge = files.bridge(vec![snippet("Bearer token", "scalebridge.yaml")]).await;
    let config = snippet("Bearer token", "alertmanager.yml");
    let alertmanager = files.alertmanager(release, config, &bridge).await;
    fire(&alertmanager, 0..20).await;
    let client = Https::trusting(&files.authority.pem());
    let mut seen = vec![client.certificate_of(bridge.address())];
    for _ in 0..5 {
        files.write_server_certificate();
        // Every request is on a connection of its own, and each must be answered with 200.
        let changed = eventually("the new certificate", async || {
            let body = bridge::captured("one-firing");
            assert_eq!(client.post(bridge.address(), TOKEN, &body).expect("an answer"), 200);
            let shown = client.certificate_of(bridge.address());
            (!seen.contains(&shown)).then_some(shown)
        });
        seen.push(changed.await);
    }
    eventually("all events", async || (bridge.events().await.len() >= 20).then_some(())).await;
    for code in [401, 503] {
        assert_eq!(notifications(&bridge, code).await, 0.0, "{code}");
    }
    let (_, metrics) = crate::support::tools::get(&(alertmanager.url() + "/metrics")).await.expect("metrics");
    let failed = metrics.lines().filter(|line| {
        line.starts_with("alertmanager_notification_requests_failed_total") && line.contains("webhook")
    });
    for line in failed {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

async fn prometheus_scrapes_with_a_token(release: Release) {
    let files = PageFiles::new();
    files.write("/run/secrets/admin/prometheus", TOKEN);
    files.write("/run/secrets/admin/on-call", "the-secret-of-on-call-1234");
    let bridge = files.bridge(vec![snippet("Prometheus", "scalebridge.yaml")]).await;
    let mut config = snippet("Prometheus", "prometheus.yml");
    map_texts(&mut config, &|text| match text {
        "scalebridge.example:9097" => bridge.admin_address().to_owned(),
        path if path.starts_with('/') => files.path(path),
        other => other.to_owned(),
    });
    config["global"] = json!({ "scrape_interval": "1s" });
    let prometheus = release.start_prometheus(files.dir.path(), &config.to_string(), "").await;
    eventually("a scrape", async || {
        let url = prometheus.url() + "/api/v1/query?query=up";
        let (_, answer) = crate::support::tools::get(&url).await.ok()?;
        let answer: Value = serde_json::from_str(&answer).ok()?;
        (answer["data"]["result"][0]["value"][1] == "1").then_some(())
    })
    .await;
}

const PAUSE_BODY: &str = r#"{"reason":"a test"}"#;

/// The actors of the audit trail, newest first.
fn actors(audit: &str) -> Vec<String> {
    let audit: Value = serde_json::from_str(audit).expect("JSON");
    // The command prints the list that the API has in `entries`.
    let entries = audit.get("entries").unwrap_or(&audit).as_array().expect("entries").iter();
    entries.map(|entry| entry["actor"].as_str().expect("an actor").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_act_under_the_names_of_their_credentials() {
    let files = PageFiles::new();
    let hash = secret(bcrypt::hash(PASSWORD, 5).expect("a hash"));
    files.write("/run/secrets/admin/users", &format!("alice:{hash}\ndashboard:{hash}\n"));
    let bridge = files.bridge(vec![snippet("Operators", "scalebridge.yaml")]).await;
    let authority = files.authority.pem();
    let (anyone, address) = (Https::trusting(&authority), bridge.admin_address());
    let pipeline = Https::presenting(&authority, &files.authority.client("deploy", &["deploy.ci.example"]));
    let basic = |user: &str| {
        use base64::Engine as _;
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{PASSWORD}"));
        format!("authorization: Basic {pair}\r\n")
    };
    let pause = |client: &Https, headers: &str| {
        client.request(address, "POST /api/v1/pauses", headers, PAUSE_BODY).expect("an answer").0
    };
    assert_eq!(pause(&anyone, ""), 401);
    assert_eq!(pause(&anyone, &basic("dashboard")), 403, "its scope is `read`");
    assert_eq!(pause(&anyone, &basic("alice")), 201);
    assert_eq!(pause(&pipeline, ""), 201);
    let audit = anyone.request(address, "GET /api/v1/audit", &basic("dashboard"), "").expect("an answer");
    assert_eq!((audit.0, actors(&audit.1)), (200, vec!["deploy-pipeline".to_owned(), "alice".to_owned()]));
}

/// A proxy passes the token on and keeps the host of the browser.
#[tokio::test(flavor = "multi_thread")]
async fn people_act_under_their_names_behind_a_proxy_with_single_sign_on() {
    let files = PageFiles::new();
    let mut config = snippet("Single sign-on behind a proxy", "scalebridge.yaml");
    let signing = signing_key();
    let url = serve_keys(&signing).await;
    for entry in config["admin"]["jwt"].as_array_mut().expect("a list") {
        assert_eq!(entry["jwks_url"], "https://login.example/keys");
        entry["jwks_url"] = json!(url);
    }
    let bridge = files.bridge(vec![config]).await;
    let token = |claims: Value| {
        let mut all = json!({ "iss": "https://login.example", "aud": "scalebridge", "sub": "1" });
        merge(&mut all, claims);
        format!("Bearer {}", secret(signed(&signing, &all)))
    };
    let sre = token(json!({ "email": "ann@example.com", "groups": ["sre", "staff"] }));
    let reader = token(json!({ "email": "bob@example.com", "groups": ["staff"] }));
    let browser =
        [("host", "ops.example"), ("origin", "https://ops.example"), ("sec-fetch-site", "same-origin")];
    let pause = async |token: &str| {
        let headers = [&browser[..], &[("authorization", token)]].concat();
        let url = format!("{}/scalebridge/api/v1/pauses", bridge.admin_url());
        bridge::post(url, &headers, PAUSE_BODY.as_bytes().to_vec()).await.status
    };
    assert_eq!(pause("Bearer none").await, 401);
    assert_eq!(pause(&reader).await, 403, "the second entry has the scope `read`");
    assert_eq!(pause(&sre).await, 201);
    let (code, audit, error) = {
        files.write("/token", sre.trim_start_matches("Bearer "));
        bridge.cli(&["audit", "-o", "json", "--token-file", &files.path("/token")])
    };
    assert_eq!((code, actors(&audit)), (Some(0), vec!["ann@example.com".to_owned()]), "{error}");
}
