//! `healthcheck` asks the bridge of a configuration: its liveness, its readiness, its TLS.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use crate::support::bridge::{Bridge, CONFIG, RULES, program};
use crate::support::certificates::{Authority, Issued};
use crate::support::tools::{Port, eventually, get};

/// A bridge whose configuration names its port, as `healthcheck` needs it.
struct Checked {
    bridge: Bridge,
    port: Port,
}

impl Checked {
    /// `listener` is the rest of the section `server`, and HOST its host.
    fn new(host: &str, listener: &str) -> Self {
        let port = Port::reserve();
        let server = format!("server: {{ listen: \"{host}:{}\"{listener} }}", port.number);
        let config = CONFIG.replace("server: { listen: \"127.0.0.1:0\" }", &server);
        assert_ne!(config, CONFIG);
        Self { bridge: Bridge::new(&config, RULES), port }
    }

    async fn start(host: &str, listener: &str) -> Self {
        let mut checked = Self::new(host, listener);
        checked.bridge.run().await;
        checked
    }

    /// Runs `healthcheck`: exit code, and what it prints, with `PORT` for the port.
    fn check(&self, args: &[&str]) -> (Option<i32>, String) {
        self.check_by("scalebridge.yaml", args)
    }

    fn check_by(&self, config: &str, args: &[&str]) -> (Option<i32>, String) {
        let done = Command::new(program())
            .args(["healthcheck", "--config", config])
            .args(args)
            .current_dir(self.bridge.dir())
            .output()
            .expect("the program");
        let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(out.is_empty() != errors.is_empty(), "one of both: {out}{errors}");
        let printed = format!("{out}{errors}").replace(&self.port.number.to_string(), "PORT");
        (done.status.code(), printed.trim_end().to_owned())
    }

    fn write_certificate(&self, issued: &Issued, name: &str) {
        self.bridge.write(&format!("{name}.pem"), &issued.certificate);
        self.bridge.write(&format!("{name}.key"), &issued.key);
    }
}

fn succeeded(printed: &str) -> (Option<i32>, String) {
    (Some(0), printed.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_is_not_ready_is_alive() {
    let checked = Checked::start("127.0.0.1", "").await;
    assert_eq!(checked.check(&[]), succeeded("http://127.0.0.1:PORT/-/healthy: scalebridge is alive"));
    assert_eq!(checked.check(&["--ready"]), succeeded("http://127.0.0.1:PORT/-/ready: scalebridge is ready"));
    let database = checked.bridge.dir().join("bridge.db");
    fs::rename(&database, checked.bridge.dir().join("away")).expect("a move");
    eventually("a refusal", async || (checked.check(&["--ready"]).0 == Some(1)).then_some(())).await;
    let (_, printed) = checked.check(&["--ready"]);
    let expected = "scalebridge: http://127.0.0.1:PORT/-/ready returned 503: ";
    assert!(printed.starts_with(expected) && printed.contains("removed or replaced"), "{printed}");
    assert_eq!(checked.check(&[]).0, Some(0), "alive");
}

/// A rejected reload must not restart a bridge that works.
#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_configuration_does_not_make_a_running_bridge_unhealthy() {
    let checked = Checked::start("127.0.0.1", "").await;
    checked.bridge.write("rules.yaml", "rules: [{ name: broken }]");
    let config =
        fs::read_to_string(checked.bridge.dir().join("scalebridge.yaml")).expect("its configuration");
    checked.bridge.write("scalebridge.yaml", &(config + "retention: { decisions: soon }\nunknown: key\n"));
    assert_eq!(checked.check(&["--ready"]).0, Some(0));
    checked.bridge.write("scalebridge.yaml", "server: { listen: nowhere }");
    let (code, printed) = checked.check(&[]);
    assert!(code == Some(2) && printed.contains("nowhere"), "{printed}");
    checked.bridge.write("scalebridge.yaml", CONFIG);
    let (code, printed) = checked.check(&[]);
    assert!(code == Some(2) && printed.contains("set a port"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_at_all_addresses_is_asked_at_loopback() {
    let checked = Checked::start("0.0.0.0", ", allow_unauthenticated: true").await;
    assert_eq!(checked.check(&[]), succeeded("http://127.0.0.1:PORT/-/healthy: scalebridge is alive"));
    let all = Checked::new("0.0.0.0", "");
    let by_environment = Command::new(program())
        .args(["healthcheck", "--config", "scalebridge.yaml"])
        .env("SCALEBRIDGE__SERVER__LISTEN", checked.bridge.address())
        .current_dir(all.bridge.dir())
        .output();
    assert!(by_environment.expect("the program").status.success(), "the environment overrides the file");
}

#[test]
fn no_answer_is_a_failure() {
    let checked = Checked::new("127.0.0.1", "");
    let (code, printed) = checked.check(&[]);
    assert_eq!(code, Some(1));
    assert!(printed.starts_with("scalebridge: http://127.0.0.1:PORT/-/healthy: "), "{printed}");
    // It accepts connections, and answers none: what a process looks like whose runtime is stuck.
    let _silent = TcpListener::bind(("127.0.0.1", checked.port.number)).expect("the port");
    let expected = "scalebridge: http://127.0.0.1:PORT/-/healthy: no complete response within 200ms";
    assert_eq!(checked.check(&["--timeout", "200ms"]), (Some(1), expected.to_owned()));
}

const TLS: &str = ", tls: { cert_file: own.pem, key_file: own.key CLIENTS }";

/// Nobody has to trust the certificate of a bridge to ask it whether it lives. But it must be its own.
#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_the_one_of_the_configuration_and_no_other() {
    let mut checked = Checked::new("127.0.0.1", &TLS.replace("CLIENTS", ""));
    let authority = Authority::new("CA");
    // Of an unknown CA, for another name, and expired.
    checked.write_certificate(&authority.expired_client("server", &["elsewhere.example"]), "own");
    checked.write_certificate(&authority.server(), "other");
    checked.bridge.run().await;
    let answered = "https://127.0.0.1:PORT/-/ready: scalebridge is ready";
    assert_eq!(checked.check(&["--ready"]), succeeded(answered));
    let config =
        fs::read_to_string(checked.bridge.dir().join("scalebridge.yaml")).expect("its configuration");
    checked.bridge.write("other.yaml", &config.replace("own.", "other."));
    let (code, printed) = checked.check_by("other.yaml", &[]);
    assert_eq!(code, Some(1));
    assert!(printed.contains("presents another certificate than `cert_file`"), "{printed}");
    // The certificate alone is public. Without its key, a server cannot pass for the bridge.
    checked.bridge.write("plain.yaml", &config.replace(&TLS.replace("CLIENTS", ""), ""));
    let (code, printed) = checked.check_by("plain.yaml", &[]);
    assert!(code == Some(1) && printed.contains("returned 400"), "{printed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_requires_a_client_certificate_is_asked_with_one() {
    let clients = ", client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem";
    let mut checked = Checked::new("127.0.0.1", &TLS.replace("CLIENTS", clients));
    let (servers, clients) = (Authority::new("server CA"), Authority::new("client CA"));
    checked.write_certificate(&servers.server(), "own");
    checked.bridge.write("ca.pem", &clients.pem());
    checked.write_certificate(&clients.client("probe", &[]), "probe");
    checked.write_certificate(&servers.client("stranger", &[]), "stranger");
    checked.bridge.run().await;
    let (code, printed) = checked.check(&[]);
    assert_eq!(code, Some(2));
    assert!(printed.contains("RequireAndVerifyClientCert") && printed.contains("--cert-file"), "{printed}");
    let probe = ["--cert-file", "probe.pem", "--key-file", "probe.key"];
    assert_eq!(checked.check(&probe), succeeded("https://127.0.0.1:PORT/-/healthy: scalebridge is alive"));
    let (code, printed) = checked.check(&["--cert-file", "stranger.pem", "--key-file", "stranger.key"]);
    assert_eq!(code, Some(1), "{printed}");
    assert_eq!(get(&checked.bridge.url("/-/healthy")).await.expect("an answer").0, 400, "it has TLS");
}
