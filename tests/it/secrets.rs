//! Secrets do not leave the bridge: neither in its log, also at trace level, nor in what it prints, answers and stores.
//!
//! The same is searched at the end of every other test, for every secret that a test has used (`support::secrets`).

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, RULES, captured};
use crate::support::secrets::{assert_no_secret, secret};
use crate::support::tools::eventually;

/// Every place of the configuration and of the environment that can hold a secret.
fn config(secrets: &Secrets) -> String {
    json!({
        "server": { "listen": "127.0.0.1:0" },
        "admin": {
            "listen": "127.0.0.1:0",
            "tokens": [{ "name": "on-call", "scope": "operate", "token_file": "secrets/admin" }],
            "users_file": "secrets/users",
            "users": [{ "name": "alice", "scope": "read" }],
            "metrics_unauthenticated": true,
        },
        "store": { "sqlite": { "path": "bridge.db" } },
        "sources": {
            "prod-eu": { "labels": { "cluster": "prod-eu", "region": "eu-west-1" }, "auth": { "bearer_token_files": ["secrets/bearer"], "basic_auth_users_file": "secrets/users" } },
            "by-jwt": { "auth": { "jwt": {
                "issuer": "https://login.example", "audience": "scalebridge",
                "jwks_url": "https://127.0.0.1:1/keys",
                "http": {
                    "authorization": { "credentials_file": "secrets/outgoing" },
                    "proxy_url": format!("http://proxy:{}@127.0.0.1:1", secrets.proxy),
                },
            } } },
        },
        "destinations": {
            "journal": { "file": { "path": "events.jsonl" } },
            "queue": { "sqs": { "queue_url": "http://127.0.0.1:1/123456789012/scaling", "region": "eu-west-1" } },
        },
        "rules": ["rules.yaml"],
        "log": { "format": "json", "level": "trace" },
    })
    .to_string()
}

struct Secrets {
    bearer: String,
    admin: String,
    password: String,
    outgoing: String,
    proxy: String,
    queue: String,
    endpoint: String,
    aws: String,
}

impl Secrets {
    fn new() -> Self {
        let one = |name: &str| secret(format!("{name}-5ecret-of-the-test"));
        Self {
            bearer: one("bearer"),
            admin: one("admin"),
            password: one("password"),
            outgoing: one("outgoing"),
            proxy: one("proxy"),
            queue: one("queue"),
            endpoint: one("endpoint"),
            aws: one("aws"),
        }
    }

    fn write(&self, bridge: &Bridge) {
        let folder = bridge.dir().join("secrets");
        std::fs::create_dir(&folder).expect("a directory");
        let hash = secret(bcrypt::hash(&self.password, 4).expect("a hash"));
        for (name, text) in [
            ("bearer", self.bearer.clone()),
            ("admin", self.admin.clone()),
            ("users", format!("alice:{hash}\n")),
            ("outgoing", self.outgoing.clone()),
        ] {
            std::fs::write(folder.join(name), text).expect("a file");
        }
    }
}

/// `Basic` with these credentials, which are a secret in this form too.
fn basic(user: &str, password: &str) -> String {
    let encoded = ureq_basic(&format!("{user}:{password}"));
    format!("Basic {}", secret(encoded))
}

fn ureq_basic(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_printed_answered_or_stored() {
    let secrets = Secrets::new();
    let rules = RULES.replace("[journal]", "[journal, queue]");
    let mut bridge = Bridge::new(&config(&secrets), &rules);
    bridge.env("AWS_ENDPOINT_URL", &format!("http://endpoint:{}@127.0.0.1:1", secrets.endpoint));
    bridge.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE");
    bridge.env("AWS_SECRET_ACCESS_KEY", &secrets.aws);
    secrets.write(&bridge);
    bridge.run().await;

    let bearer = format!("Bearer {}", secrets.bearer);
    // `Bearer `, and a wrong credential that is one all the same.
    let wrong = secret("wrong-5ecret-of-the-test");
    for (path, credential, expected) in [
        ("/webhook/prod-eu", bearer.clone(), 200),
        ("/webhook/prod-eu", basic("alice", &secrets.password), 200),
        ("/webhook/prod-eu", basic("alice", &wrong), 401),
        ("/webhook/prod-eu", format!("Bearer {wrong}"), 401),
        ("/webhook/prod-eu", format!("Strange {wrong}"), 401),
        ("/webhook/by-jwt", bearer.clone(), 403),
        ("/webhook/none", bearer, 404),
    ] {
        let answer = bridge.post_to(path, &[("authorization", &credential)], captured("three-firing")).await;
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
        assert_no_secret(path, format!("{answer:?}").as_bytes());
    }
    let admin = format!("Bearer {}", secrets.admin);
    for path in paths_of_get_routes(&bridge, &admin).await {
        let (status, text) = get_with(&format!("{}{path}", bridge.admin_url()), &admin).await;
        assert!(status == 200 || status == 404 || status == 400, "{path}: {status}");
        assert_no_secret(&path, text.as_bytes());
    }
    // The queue cannot be reached; its error is logged and shown.
    eventually("a failed call", async || {
        let (_, text) = get_with(&format!("{}/api/v1/destinations", bridge.admin_url()), &admin).await;
        assert_no_secret("destinations", text.as_bytes());
        let answer: Value = serde_json::from_str(&text).ok()?;
        let destinations = answer.as_array()?;
        destinations.iter().any(|destination| destination["last_error"].is_string()).then_some(())
    })
    .await;
    for words in [
        &["status"][..],
        &["sources"],
        &["destinations"],
        &["audit"],
        &["decisions"],
        &["reload"],
        &["check", "--config", "scalebridge.yaml"],
        &["iam-policy", "--config", "scalebridge.yaml"],
    ] {
        let words: Vec<&str> = words.iter().chain(&["--token-file", "secrets/admin"]).copied().collect();
        let words = if words[0] == "check" || words[0] == "iam-policy" { &words[..3] } else { &words };
        let (_, stdout, stderr) = bridge.cli(words);
        assert_no_secret(words[0], stdout.as_bytes());
        assert_no_secret(words[0], stderr.as_bytes());
    }
    // User info is not valid in the URL of a queue. The error does not repeat it.
    let url = format!("http://queue:{}@127.0.0.1:1/123456789012/scaling", secrets.queue);
    bridge
        .write("user-info.yaml", &config(&secrets).replace("http://127.0.0.1:1/123456789012/scaling", &url));
    let (code, stdout, stderr) = bridge.cli(&["check", "--config", "user-info.yaml"]);
    assert_eq!(code, Some(1));
    assert!(
        stdout.contains("not a valid queue URL") || stderr.contains("not a valid queue URL"),
        "{stdout}{stderr}"
    );
    assert_no_secret("check", format!("{stdout}{stderr}").as_bytes());
    // What the bridge has written is searched when it is dropped.
    assert!(bridge.log().contains("DEBUG"), "the log is at trace level");
    bridge.stop().await;
}

/// The routes that can be read without a parameter in the path.
async fn paths_of_get_routes(bridge: &Bridge, authorization: &str) -> Vec<String> {
    let (_, document) = get_with(&format!("{}/openapi.json", bridge.admin_url()), authorization).await;
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let read = |(path, item): (&String, &Value)| {
        (item.get("get").is_some() && !path.contains('{') && !path.ends_with("stream")).then(|| path.clone())
    };
    let found: Vec<String> = paths.iter().filter_map(read).collect();
    assert!(found.len() > 8, "{found:?}");
    found
}

async fn get_with(url: &str, authorization: &str) -> (u16, String) {
    let (url, authorization) = (url.to_owned(), authorization.to_owned());
    let call = tokio::task::spawn_blocking(move || {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(&url).header("authorization", authorization).call().expect("an answer");
        let text = answer.body_mut().read_to_string().expect("text");
        (answer.status().as_u16(), text)
    });
    call.await.expect("a call")
}
