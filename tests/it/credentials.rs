//! Who may send, read and operate: what is refused, how it is answered, and what it leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::support::bridge::{Answer, Bridge, CONFIG, RULES, notification, pending_pod};
use crate::support::certificates::Authority;
use crate::support::secrets::{assert_no_secret, secret};
use crate::support::tools::{eventually, get};

const PROD: &str = "prod-token-4711";
const LAB: &str = "lab-token-4712";
const ANN: &str = "ann-token-4713";
const GRAFANA: &str = "grafana-token-4714";
const PASSWORD: &str = "lab-password-4715";

/// The source `prod-eu` with a token, `lab` with a token and a user, `open` without credentials; on the admin listener
/// `ann`, who operates, and `grafana`, who reads.
fn guarded() -> String {
    let admin = "tokens: [{ name: ann, scope: operate, token_file: ann.token }, \
                 { name: grafana, scope: read, token_file: grafana.token }]";
    CONFIG
        .replace("admin: {", &format!("admin: {{ {admin},"))
        .replace("prod-eu: {", "prod-eu: { auth: { bearer_token_files: [prod.token] },")
        .replace(
            "destinations:",
            "  lab: { auth: { bearer_token_files: [lab.token], basic_auth_users_file: lab.users } }\n  open: {}\n\
             destinations:",
        )
}

/// A bridge with the files that [`guarded`] names, not started.
fn with_files(config: &str) -> Bridge {
    let bridge = Bridge::new(config, RULES);
    for (name, text) in [("prod", PROD), ("lab", LAB), ("ann", ANN), ("grafana", GRAFANA)] {
        bridge.write(&format!("{name}.token"), &format!("{}\n", secret(text)));
    }
    let hash = secret(bcrypt::hash(secret(PASSWORD), 5).expect("a hash"));
    bridge.write("lab.users", &format!("alertmanager:{hash}\n"));
    bridge
}

async fn guarded_bridge() -> Bridge {
    let mut bridge = with_files(&guarded());
    bridge.run().await;
    bridge
}

fn bearer(token: &str) -> (&'static str, String) {
    ("authorization", format!("Bearer {token}"))
}

fn basic_auth(user: &str, password: &str) -> (&'static str, String) {
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    ("authorization", format!("Basic {pair}"))
}

/// Sends a request with exactly these headers, beside `Host` if it is not among them.
async fn send(address: &str, line: &str, headers: &[(&str, String)], body: &str) -> Answer {
    let stream = TcpStream::connect(address).await.expect("a connection");
    send_over(stream, address, line, headers, body).await
}

/// The same, over a connection to `address`.
async fn send_over(
    mut stream: TcpStream,
    address: &str,
    line: &str,
    headers: &[(&str, String)],
    body: &str,
) -> Answer {
    let mut head = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        head += &format!("host: {address}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all((head + body).as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    assert_no_secret(line, text.as_bytes());
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.expect("a status"),
        headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
        body: body.to_owned(),
    }
}

fn admin_address(bridge: &Bridge) -> String {
    bridge.admin_url().replace("http://", "")
}

/// Posts a notification about one pod to a source.
async fn notify(bridge: &Bridge, source: &str, headers: &[(&str, String)]) -> Answer {
    let json = ("content-type", "application/json".to_owned());
    let headers = [&[json], headers].concat();
    let body = notification(&[pending_pod("workers", "a")]);
    send(bridge.address(), &format!("POST /webhook/{source}"), &headers, &body).await
}

/// Calls the admin API with a token.
async fn call(bridge: &Bridge, token: &str, line: &str, body: Option<Value>) -> Answer {
    let body = body.map(|body| body.to_string()).unwrap_or_default();
    let headers = [bearer(token), ("content-type", "application/json".to_owned())];
    send(&admin_address(bridge), line, &headers, &body).await
}

async fn read(bridge: &Bridge, path: &str) -> Value {
    let answer = call(bridge, GRAFANA, &format!("GET {path}"), None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

/// The series of `/metrics` with their values.
async fn metrics(bridge: &Bridge) -> BTreeMap<String, f64> {
    let text = call(bridge, GRAFANA, "GET /metrics", None).await.body;
    let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    series.map(|(series, value)| (series.to_owned(), value.parse().expect("a number"))).collect()
}

fn failures(listener: &str, reason: &str) -> String {
    format!("scalebridge_auth_failures_total{{listener=\"{listener}\",reason=\"{reason}\"}}")
}

/// The lines of the log with this message.
fn logged(bridge: &Bridge, message: &str) -> Vec<Value> {
    let lines = bridge.log();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_needs_the_credentials_of_its_source_and_a_refused_one_leaves_nothing() {
    let bridge = guarded_bridge().await;
    assert_eq!(metrics(&bridge).await[&failures("server", "wrong")], 0.0, "from the start");
    let basic = |password: &str| basic_auth("alertmanager", password);
    let none = Vec::new();
    for (source, headers, expected) in [
        ("prod-eu", none.clone(), 401),
        ("prod-eu", vec![bearer("wrong-4799")], 401),
        ("prod-eu", vec![basic(PASSWORD)], 401),
        ("prod-eu", vec![bearer(LAB)], 403),
        ("lab", none.clone(), 401),
        ("lab", vec![basic("wrong-4799")], 401),
        ("lab", vec![bearer(PROD)], 403),
        ("nobody", vec![bearer(PROD)], 404),
        ("nobody", none.clone(), 404),
    ] {
        let answer = notify(&bridge, source, &headers).await;
        assert_eq!(answer.status, expected, "{source} {headers:?}: {}", answer.body);
        if expected != 404 {
            assert!(answer.body.contains(&format!("`{source}`")), "{}", answer.body);
        }
        let challenge = answer.headers.get("www-authenticate").map(|challenge| &challenge[..6]);
        assert_eq!(challenge, (expected == 401).then_some("Bearer"), "{answer:?}");
    }
    let status = read(&bridge, "/api/v1/status").await;
    assert_eq!(status["reception_gaps"], json!({}), "a stranger makes no gap");
    assert_eq!(read(&bridge, "/api/v1/decisions").await["decisions"], json!([]));

    for (source, headers) in [
        ("prod-eu", vec![bearer(PROD)]),
        ("lab", vec![bearer(LAB)]),
        ("lab", vec![basic(PASSWORD)]),
        ("open", none),
    ] {
        let answer = notify(&bridge, source, &headers).await;
        assert_eq!(answer.status, 200, "{source}: {}", answer.body);
    }
    let counted = metrics(&bridge).await;
    let notifications = |source: &str, code: u16| {
        format!("scalebridge_notifications_total{{source=\"{source}\",code=\"{code}\"}}")
    };
    assert_eq!(counted[&notifications("prod-eu", 401)], 3.0);
    assert_eq!(counted[&notifications("prod-eu", 403)], 1.0);
    assert_eq!(counted[&notifications("lab", 200)], 2.0);
    assert_eq!(counted[&failures("server", "missing")], 2.0);
    assert_eq!(counted[&failures("server", "wrong")], 3.0);
    assert_eq!(counted[&failures("server", "other_source")], 2.0);

    let sources = read(&bridge, "/api/v1/sources").await;
    let kinds: Vec<&Value> =
        sources.as_array().expect("a list").iter().map(|source| &source["auth"]).collect();
    assert_eq!(kinds, [&json!(["bearer", "basic"]), &json!([]), &json!(["bearer"])]);
}

/// Sends a request as a user, from another address of this machine.
async fn send_from(from: &str, address: String, line: &str, user: (&str, &str)) -> Answer {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(format!("{from}:0").parse().expect("an address")).expect("a loopback address");
    let stream = socket.connect(address.parse().expect("an address")).await.expect("a connection");
    let headers = [basic_auth(user.0, user.1), ("content-type", "application/json".to_owned())];
    let body =
        if line.starts_with("POST") { notification(&[pending_pod("workers", "a")]) } else { String::new() };
    send_over(stream, &address, line, &headers, &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_passwords_of_one_address_do_not_hold_up_a_user_at_another_one() {
    let admin = "admin: { users_file: lab.users, users: [{ name: alertmanager, scope: read }],";
    let mut bridge = with_files(&guarded().replace("admin: {", admin));
    // Comparisons take so long that the attempts below wait at the same time.
    let hash = secret(bcrypt::hash(secret(PASSWORD), 11).expect("a hash"));
    bridge.write("lab.users", &format!("alertmanager:{hash}\n"));
    bridge.run().await;
    for (address, line) in
        [(bridge.address().to_owned(), "POST /webhook/lab"), (admin_address(&bridge), "GET /api/v1/status")]
    {
        // More attempts than a user has places; no password of this user was accepted yet.
        let mut attempts = JoinSet::new();
        for attempt in 0..40 {
            let (address, password) = (address.clone(), format!("guess-{attempt}"));
            attempts.spawn(async move {
                send_from("127.0.0.2", address, line, ("alertmanager", &password)).await.status
            });
        }
        for _ in 0..8 {
            let first = attempts.join_next().await.expect("an attempt").expect("an answer");
            assert_eq!(first, 503, "attempts beyond the places of an address are not kept waiting");
        }
        let answer = send_from("127.0.0.1", address, line, ("alertmanager", PASSWORD)).await;
        assert_eq!(answer.status, 200, "{line}: {}", answer.body);
        let rest = attempts.join_all().await;
        assert!(rest.iter().all(|status| matches!(status, 401 | 503)), "{rest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_wrong_attempts_are_counted_and_logged_in_a_few_lines() {
    let bridge = guarded_bridge().await;
    let before = bridge.log().lines().count();
    for attempt in 0..1000 {
        let answer = notify(&bridge, "prod-eu", &[bearer(&format!("guess-{attempt}"))]).await;
        assert_eq!(answer.status, 401);
        if attempt % 2 == 0 {
            let answer = call(&bridge, &format!("guess-{attempt}"), "POST /-/reload", None).await;
            assert_eq!(answer.status, 401);
        }
    }
    let counted = metrics(&bridge).await;
    assert_eq!(counted[&failures("server", "wrong")], 1000.0);
    assert_eq!(counted[&failures("admin", "wrong")], 500.0);
    let lines = logged(&bridge, "requests refused");
    let of = |listener: &str| lines.iter().filter(|line| line["listener"] == listener).collect::<Vec<_>>();
    assert!((1..=3).contains(&of("server").len()) && (1..=3).contains(&of("admin").len()), "{lines:?}");
    let first = of("server")[0];
    assert_eq!(
        (&first["source"], &first["reason"], &first["count"]),
        (&json!("prod-eu"), &json!("wrong"), &json!(1))
    );
    assert!(bridge.log().lines().count() - before <= 8, "{}", bridge.log());
    assert!(!bridge.log().contains("guess-"));
    assert_eq!(notify(&bridge, "prod-eu", &[bearer(PROD)]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_without_credentials_is_logged_in_a_few_lines() {
    let bridge = Bridge::start().await;
    for attempt in 0..100 {
        assert_eq!(notify(&bridge, &format!("nobody-{attempt}"), &[]).await.status, 404);
        assert_eq!(send(bridge.address(), &format!("GET /{attempt}"), &[], "").await.status, 404);
        let broken = send(bridge.address(), "POST /webhook/prod-eu", &[], &format!("{{{attempt}")).await;
        assert_eq!(broken.status, 400, "{}", broken.body);
    }
    let rejected = logged(&bridge, "notification rejected");
    let of = |source: &str| rejected.iter().filter(|line| line["source"] == source).collect::<Vec<_>>();
    for (source, code) in [("?", 404), ("prod-eu", 400)] {
        let lines = of(source);
        assert!((1..=2).contains(&lines.len()), "{rejected:?}");
        assert_eq!((&lines[0]["code"], &lines[0]["count"]), (&json!(code), &json!(1)));
    }
    let paths = logged(&bridge, "unknown path");
    assert!((1..=2).contains(&paths.len()) && paths[0]["count"] == 1, "{paths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_our_own_that_cannot_be_read_is_unavailable_until_it_can_be_read() {
    let bridge = guarded_bridge().await;
    assert_eq!(notify(&bridge, "prod-eu", &[bearer(PROD)]).await.status, 200);
    fs::rename(bridge.dir().join("prod.token"), bridge.dir().join("aside")).expect("moved");
    let answer = eventually("a refused notification", async || {
        let answer = notify(&bridge, "prod-eu", &[bearer(PROD)]).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "1"), "{}", answer.body);
    assert!(answer.body.contains("prod-eu") && !answer.body.contains("prod.token"), "{}", answer.body);
    let status = read(&bridge, "/api/v1/status").await;
    assert_eq!(
        status["reception_gaps"]["prod-eu"]["cause"], "refused",
        "the sender may have been the source"
    );
    let error = status["auth_errors"]["prod-eu"].as_str().expect("an error");
    assert!(error.contains("prod.token"), "{error}");
    let token = bridge.dir().join("ann.token").display().to_string();
    let (_, shown, _) = bridge.cli(&["status", "--token-file", &token]);
    assert!(shown.contains("UNREADABLE CREDENTIALS") && shown.contains("prod.token"), "{shown}");
    assert!(logged(&bridge, "credentials cannot be checked").len() == 1, "{}", bridge.log());

    fs::rename(bridge.dir().join("aside"), bridge.dir().join("prod.token")).expect("moved back");
    eventually("an accepted notification", async || {
        (notify(&bridge, "prod-eu", &[bearer(PROD)]).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(read(&bridge, "/api/v1/status").await["auth_errors"], Value::Null);
    assert_eq!(read(&bridge, "/api/v1/audit").await["entries"], json!([]), "without a reload");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_rotated_by_its_files_without_a_reload() {
    let config = guarded().replace("[prod.token]", "[prod.token, prod-next.token]");
    let mut bridge = with_files(&config);
    bridge.write("prod-next.token", "next-4799");
    bridge.run().await;
    for token in [PROD, "next-4799"] {
        assert_eq!(notify(&bridge, "prod-eu", &[bearer(token)]).await.status, 200, "both are valid");
    }
    bridge.write("prod.token", "next-4799");
    bridge.write("ann.token", "ann-next-4799");
    eventually("the end of the old token", async || {
        (notify(&bridge, "prod-eu", &[bearer(PROD)]).await.status == 401).then_some(())
    })
    .await;
    assert_eq!(notify(&bridge, "prod-eu", &[bearer("next-4799")]).await.status, 200);
    assert_eq!(call(&bridge, "ann-next-4799", "GET /api/v1/status", None).await.status, 200);
    assert_eq!(read(&bridge, "/api/v1/audit").await["entries"], json!([]), "without a reload");
}

/// Every operation of the document, with the scope that it declares.
fn operations(document: &Value) -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let security = operation["security"].as_array().expect("security");
            let scopes: Vec<&Value> =
                security.iter().flat_map(|one| one.as_object().expect("a scheme").values()).collect();
            assert!(scopes.windows(2).all(|pair| pair[0] == pair[1]), "{operation}");
            let scope = scopes[0][0].as_str().expect("a scope").to_owned();
            assert!(operation["responses"]["401"].is_object() && operation["responses"]["403"].is_object());
            all.push((method.to_uppercase(), path.replace("{id}", "1"), scope));
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_asks_for_credentials_of_its_scope() {
    let bridge = guarded_bridge().await;
    let address = admin_address(&bridge);
    let document = read(&bridge, "/openapi.json").await;
    for name in ["bearer", "basic", "client_certificate"] {
        assert!(document["components"]["securitySchemes"][name].is_object(), "{name}");
    }
    let operations = operations(&document);
    assert!(operations.len() > 20, "{operations:?}");
    for (method, path, scope) in &operations {
        let line = format!("{method} {path}");
        // What only reads is a GET, or explains a body.
        assert_eq!(scope == "read", method == "GET" || path.ends_with("/explain"), "{line}");
        let anonymous = send(&address, &line, &[], "").await;
        assert_eq!(anonymous.status, 401, "{line}");
        assert!(anonymous.headers["www-authenticate"].starts_with("Bearer "), "{line}");
        assert_eq!(anonymous.json()["status"], 401, "{line}: a problem document");
        assert_eq!(call(&bridge, "wrong-4799", &line, None).await.status, 401, "{line}");
        assert_eq!(call(&bridge, PROD, &line, None).await.status, 401, "{line}: the token of a source");
        if path.ends_with("/stream") {
            continue;
        }
        let reads = call(&bridge, GRAFANA, &line, Some(json!({}))).await.status;
        assert_eq!(reads == 403, scope == "operate", "{line}: {reads}");
        let operates = call(&bridge, ANN, &line, Some(json!({}))).await.status;
        assert!(!matches!(operates, 401 | 403), "{line}: {operates}");
    }
    for path in ["/metrics", "/openapi.json", "/api/v1/nothing", "/nothing", "/"] {
        assert_eq!(send(&address, &format!("GET {path}"), &[], "").await.status, 401, "{path}");
    }
    assert_eq!(call(&bridge, GRAFANA, "GET /nothing", None).await.status, 404);
    assert_eq!(call(&bridge, GRAFANA, "DELETE /api/v1/status", None).await.status, 405);
    for address in [address.as_str(), bridge.address()] {
        for path in ["/-/healthy", "/-/ready"] {
            let url = format!("http://{address}{path}");
            assert_eq!(get(&url).await.expect("an answer").0, 200, "{url}: probes need no credentials");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_can_be_read_by_anyone_if_that_is_configured() {
    let config = guarded().replace("admin: {", "admin: { metrics_unauthenticated: true,");
    let mut bridge = with_files(&config);
    bridge.run().await;
    let address = admin_address(&bridge);
    assert_eq!(send(&address, "GET /metrics", &[], "").await.status, 200);
    assert_eq!(send(&address, "GET /api/v1/status", &[], "").await.status, 401);
    assert_eq!(send(&address, "POST /metrics", &[], "").await.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_actor_of_an_act_is_the_name_of_the_credential_and_cannot_be_forged() {
    let bridge = guarded_bridge().await;
    let token = bridge.dir().join("ann.token").display().to_string();
    let cli = |words: &[&str]| {
        let (code, said, error) = bridge.cli(&[words, &["--token-file", &token]].concat());
        assert_eq!(code, Some(0), "{words:?}: {said}{error}");
        said
    };
    // `bridge.cli` sets $USER to `ops`.
    assert!(cli(&["pause", "--all", "--reason", "exchange"]).contains("  ann  "));
    cli(&["resume", "1"]);
    cli(&["reload", "--author", "ann", "--reason", "nothing new"]);
    let discard = json!({ "selector": { "all": true } });
    assert_eq!(call(&bridge, ANN, "POST /api/v1/dead-letters/discard", Some(discard)).await.status, 200);
    let pause = json!({ "reason": "exchange", "author": "ben" });
    let forged = call(&bridge, ANN, "POST /api/v1/pauses", Some(pause)).await;
    assert!(forged.status == 400 && forged.body.contains("`ann`"), "{}", forged.body);
    for (line, body) in [
        ("POST /-/reload?author=ben", None),
        ("DELETE /api/v1/pauses/1?author=signal", None),
        ("POST /api/v1/forgive", Some(json!({ "target": "x", "author": "ben", "reason": "test" }))),
        ("POST /api/v1/dead-letters/discard", Some(json!({ "selector": { "all": true }, "author": "ben" }))),
    ] {
        assert_eq!(call(&bridge, ANN, line, body).await.status, 400, "{line}");
    }
    let entries = read(&bridge, "/api/v1/audit").await["entries"].clone();
    let acts: Vec<String> = entries
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| {
            format!(
                "{} {}",
                entry["act"].as_str().unwrap_or_default(),
                entry["actor"].as_str().unwrap_or_default()
            )
        })
        .collect();
    assert_eq!(acts, ["bulk_discard ann", "reload ann", "resume ann", "pause ann"]);
    let paused = logged(&bridge, "paused");
    assert_eq!(paused[0]["author"], "ann");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_nobody_can_act_as_the_bridge_itself() {
    let bridge = Bridge::start().await;
    for author in ["signal", "File  Watcher", "an\u{202e}n", "a\u{200b}nn"] {
        let pause = json!({ "author": author, "reason": "test" });
        assert_eq!(bridge.api("POST", "/api/v1/pauses", Some(pause)).await.0, 400, "{author:?}");
    }
    assert_eq!(bridge.api("POST", "/-/reload?author=file%20watcher", None).await.0, 400);
    let hidden = json!({ "author": "ann", "reason": "see\u{2066}this" });
    assert_eq!(bridge.api("POST", "/api/v1/pauses", Some(hidden)).await.0, 400);
    assert_eq!(bridge.get_json("/api/v1/audit").await["entries"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_cannot_use_the_browser_of_an_operator() {
    let bridge = Bridge::start().await;
    let (server, admin) = (bridge.address().to_owned(), admin_address(&bridge));
    let header = |name: &'static str, value: &str| (name, value.to_owned());
    let body = notification(&[pending_pod("workers", "a")]);
    for sent_by in [
        header("origin", "https://evil.example"),
        header("origin", "null"),
        header("origin", &format!("http://{server}")),
        header("sec-fetch-site", "cross-site"),
        header("sec-fetch-site", "same-origin"),
    ] {
        // A page can send this content type without asking first.
        let headers = [header("content-type", "text/plain"), sent_by.clone()];
        let answer = send(&server, "POST /webhook/prod-eu", &headers, &body).await;
        assert_eq!(answer.status, 403, "{sent_by:?}: {}", answer.body);
    }
    assert_eq!(bridge.get_json("/api/v1/decisions").await["decisions"], json!([]));
    assert_eq!(bridge.metric(&failures("server", "cross_site")).await, 5.0);

    let own = format!("http://{admin}");
    for (headers, expected) in [
        (vec![header("origin", "https://evil.example")], 403),
        (vec![header("origin", "null")], 403),
        (vec![header("origin", &own.replace("http:", "https:"))], 403),
        (vec![header("sec-fetch-site", "cross-site")], 403),
        (vec![header("sec-fetch-site", "same-site"), header("origin", &own)], 403),
        (vec![header("host", "evil.example")], 421),
        (vec![header("origin", &own), header("sec-fetch-site", "same-origin")], 200),
        (vec![header("sec-fetch-site", "none")], 200),
    ] {
        for line in ["GET /api/v1/status", "POST /-/reload", "GET /metrics"] {
            let answer = send(&admin, line, &headers, "").await;
            assert_eq!(answer.status, expected, "{line} {headers:?}: {}", answer.body);
        }
        assert_eq!(send(&admin, "GET /-/ready", &headers, "").await.status, 200, "probes are open");
    }
    assert_eq!(bridge.metric(&failures("admin", "cross_site")).await, 18.0);
    let acts = bridge.get_json("/api/v1/audit").await;
    assert_eq!(acts["entries"].as_array().map(Vec::len), Some(2), "the two own reloads: {acts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_proxy_the_external_url_is_the_bridge_in_the_browser() {
    let config = CONFIG.replace("admin: {", "admin: { external_url: \"https://ops.example/scalebridge\",");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.run().await;
    let admin = admin_address(&bridge);
    let header = |name: &'static str, value: &str| (name, value.to_owned());
    let own = header("origin", "https://ops.example");
    for (line, headers, expected) in [
        ("GET /api/v1/status", vec![header("host", "ops.example")], 200),
        ("POST /-/reload", vec![header("host", "ops.example"), own.clone()], 200),
        ("POST /-/reload", vec![own.clone()], 200),
        ("GET /scalebridge/api/v1/decisions?limit=1", vec![own.clone()], 200),
        ("GET /scalebridge/-/ready", vec![], 200),
        ("GET /scalebridge/metrics", vec![], 200),
        ("GET /scalebridges/metrics", vec![], 404),
        ("GET /api/v1/status", vec![], 200),
        ("GET /api/v1/status", vec![header("host", "evil.example")], 421),
        ("POST /-/reload", vec![header("host", "ops.example"), header("origin", "http://ops.example")], 403),
        ("POST /-/reload", vec![header("origin", "https://ops.example.evil.example")], 403),
    ] {
        let answer = send(&admin, line, &headers, "").await;
        assert_eq!(answer.status, expected, "{line} {headers:?}: {}", answer.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_exchanges_credentials_and_names_what_has_changed() {
    let bridge = guarded_bridge().await;
    bridge.write("ben.token", "ben-4799");
    let changed = guarded()
        .replace("tokens: [", "tokens: [{ name: ben, scope: operate, token_file: ben.token }, ")
        .replace("name: ann, scope: operate", "name: ann, scope: read")
        .replace("prod-eu: { auth: { bearer_token_files: [prod.token] },", "prod-eu: {")
        .replace("  open: {}", "  open: { auth: { bearer_token_files: [prod.token] } }");
    assert_eq!(call(&bridge, "ben-4799", "GET /api/v1/status", None).await.status, 401);
    bridge.write("scalebridge.yaml", &changed);
    let sent = Command::new("kill").args(["-HUP", &bridge.pid().to_string()]).status().expect("kill");
    assert!(sent.success());
    eventually("the new token", async || {
        (call(&bridge, "ben-4799", "GET /api/v1/status", None).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(call(&bridge, ANN, "POST /-/reload", None).await.status, 403, "ann only reads now");
    assert_eq!(notify(&bridge, "prod-eu", &[]).await.status, 200);
    assert_eq!(notify(&bridge, "open", &[]).await.status, 401);
    assert_eq!(notify(&bridge, "open", &[bearer(PROD)]).await.status, 200);
    let entry = eventually("the audit entry", async || {
        let entries = read(&bridge, "/api/v1/audit?act=reload").await["entries"].clone();
        entries.as_array().expect("a list").last().cloned()
    })
    .await;
    assert_eq!(
        entry["reload"]["changed"],
        json!([
            "credentials of source open changed",
            "source prod-eu asks for no credentials now",
            "admin token ann changed",
            "admin token ben added",
        ]),
        "{entry}"
    );
    assert_eq!(entry["reload"]["needs_restart"], Value::Null, "{entry}");
}

/// A `web_config_file` of Prometheus with a user for each name, whose password is `NAME-4799`.
fn web_config(users: &[&str]) -> String {
    let user = |name: &&str| {
        let hash = bcrypt::hash(format!("{name}-4799"), 5).expect("a hash");
        format!("  {name}: {hash}\n")
    };
    let users: String = users.iter().map(user).collect();
    let headers =
        "http_server_config:\n  headers: { X-Frame-Options: deny, X-Content-Type-Options: nosniff }\n";
    format!("basic_auth_users:\n{users}{headers}")
}

fn basic(name: &str) -> (&'static str, String) {
    basic_auth(name, &format!("{name}-4799"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_config_file_has_users_and_headers_for_its_listener_and_a_reload_exchanges_them() {
    let config = CONFIG
        .replace("server: {", "server: { web_config_file: server.yml,")
        .replace("admin: {", "admin: { web_config_file: admin.yml, users: [{ name: eve, scope: read }],");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.write("server.yml", &web_config(&["am"]));
    bridge.write("admin.yml", &web_config(&["dan", "eve"]));
    bridge.run().await;
    let admin = admin_address(&bridge);
    let reload = async |name: &str| send(&admin, "POST /-/reload", &[basic(name)], "").await;

    let refused = notify(&bridge, "prod-eu", &[]).await;
    assert_eq!((refused.status, &refused.headers["www-authenticate"][..5]), (401, "Basic"));
    let accepted = notify(&bridge, "prod-eu", &[basic("am")]).await;
    let not_found = send(bridge.address(), "GET /nothing", &[], "").await;
    let unknown = send(&admin, "GET /nothing", &[], "").await;
    assert_eq!((accepted.status, not_found.status, unknown.status), (200, 404, 401));
    for answer in [&refused, &accepted, &not_found, &unknown, &reload("dan").await] {
        assert_eq!(answer.headers["x-frame-options"], "deny", "{answer:?}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{answer:?}");
    }
    assert_eq!(reload("eve").await.status, 403, "listed with the scope `read`");
    let sources = send(&admin, "GET /api/v1/sources", &[basic("eve")], "").await.json();
    assert_eq!(sources[0]["auth"], json!(["basic"]));
    assert_eq!(notify(&bridge, "prod-eu", &[basic("dan")]).await.status, 401, "a user of the other listener");

    bridge.write("admin.yml", &web_config(&["fay", "eve"]));
    eventually("the new user", async || (reload("fay").await.status == 200).then_some(())).await;
    assert_eq!(reload("dan").await.status, 401);
    let entries = send(&admin, "GET /api/v1/audit?act=reload", &[basic("fay")], "").await.json();
    let changed: Vec<&str> = entries["entries"]
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|entry| entry["reload"]["changed"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .collect();
    for line in ["admin.web_config_file user dan removed", "admin.web_config_file user fay added"] {
        assert!(changed.contains(&line), "{changed:?}");
    }
    assert!(
        entries["entries"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|entry| entry["reload"]["needs_restart"].is_null())
    );
    assert!(!entries.to_string().contains("$2") && !bridge.log().contains("$2"), "no hash is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_cannot_take_the_credentials_of_a_listener_whose_address_stays() {
    let everywhere = |config: &str| config.replace("127.0.0.1:0", "0.0.0.0:0");
    let config = everywhere(&guarded()).replace("\n  open: {}", "");
    let mut bridge = with_files(&config);
    bridge.run().await;
    let tokens = "tokens: [{ name: ann, scope: operate, token_file: ann.token }, \
                  { name: grafana, scope: read, token_file: grafana.token }],";
    let open_admin = format!("{tokens} listen: \"0.0.0.0:0\"");
    assert!(config.contains(&open_admin), "{config}");
    let admin_only = config.replace(&open_admin, "listen: \"127.0.0.1:0\"");
    let allowed = CONFIG.replace("127.0.0.1:0\"", "0.0.0.0:0\", allow_unauthenticated: true");
    for (config, keys) in [
        (CONFIG, vec!["`server.listen`", "`sources.prod-eu.auth`", "`admin.listen`"]),
        (&allowed, vec!["`server.allow_unauthenticated`", "`admin.allow_unauthenticated`"]),
        (&admin_only, vec!["`admin.listen`", "`admin.tokens`"]),
    ] {
        bridge.write("scalebridge.yaml", config);
        let answer = call(&bridge, ANN, "POST /-/reload", None).await;
        assert_eq!(answer.status, 422, "{config}: {}", answer.body);
        let errors = answer.json()["errors"].to_string();
        assert!(keys.iter().all(|key| errors.contains(key)) && errors.contains("Restart"), "{errors}");
        assert_eq!(notify(&bridge, "prod-eu", &[]).await.status, 401);
        assert_eq!(notify(&bridge, "prod-eu", &[bearer(PROD)]).await.status, 200);
        assert_eq!(send(&admin_address(&bridge), "GET /api/v1/status", &[], "").await.status, 401);
    }
    // Without TLS, no certificate is verified before the restart.
    let tls = "tls: { cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem, \
               client_auth_type: VerifyClientCertIfGiven },";
    let certificates = config.replace("server: {", &format!("server: {{ {tls}")).replace(
        "prod-eu: { auth: { bearer_token_files: [prod.token] }",
        "prod-eu: { auth: { client_cert: { sans: [am] } }",
    );
    let authority = Authority::new("ca");
    let issued = authority.server();
    bridge.write("cert.pem", &issued.certificate);
    bridge.write("key.pem", &issued.key);
    bridge.write("ca.pem", &authority.pem());
    bridge.write("scalebridge.yaml", &certificates);
    let answer = call(&bridge, ANN, "POST /-/reload", None).await;
    assert!(answer.status == 422 && answer.body.contains("`server.tls`"), "{}", answer.body);
    assert_eq!(notify(&bridge, "prod-eu", &[bearer(PROD)]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_says_that_the_admin_listener_asks_for_no_credentials_any_more() {
    let bridge = guarded_bridge().await;
    bridge.write("scalebridge.yaml", CONFIG);
    let reloaded = eventually("the reload", async || {
        let lines = logged(&bridge, "configuration reloaded");
        lines.first().map(|line| line["changed"].to_string())
    })
    .await;
    for line in
        ["the admin listener asks for no credentials now", "source prod-eu asks for no credentials now"]
    {
        assert!(reloaded.contains(line), "{reloaded}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_a_page_under_a_name_of_its_own_cannot_use_a_reachable_admin_listener() {
    let open = "admin: { listen: \"0.0.0.0:0\", allow_unauthenticated: true }";
    let mut bridge = Bridge::new(&CONFIG.replace("admin: { listen: \"127.0.0.1:0\" }", open), RULES);
    bridge.run().await;
    let header = |name: &'static str, value: &str| (name, value.to_owned());
    let (host, origin) = (header("host", "evil.example"), header("origin", "http://evil.example"));
    let fetch = header("sec-fetch-site", "same-origin");
    for (headers, expected) in
        [(vec![host.clone()], 200), (vec![host.clone(), origin], 421), (vec![host, fetch], 421)]
    {
        let answer = send(&admin_address(&bridge), "GET /api/v1/status", &headers, "").await;
        assert_eq!(answer.status, expected, "{headers:?}: {}", answer.body);
    }
}
