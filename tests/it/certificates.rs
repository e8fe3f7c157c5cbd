//! TLS of the listeners, from the configuration to the requests.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::bridge::{Bridge, RULES, notification, pending_pod};
use crate::support::certificates::Authority;
use crate::support::raw::{Raw, config_with_server, status};
use crate::support::tools::eventually;

const TLS: &str = "tls: { cert_file: cert.pem, key_file: key.pem }";

/// Writes a new certificate and its key, one after the other, as certificate managers do.
fn write_certificate(authority: &Authority, bridge: &Bridge) {
    let issued = authority.server();
    bridge.write("cert.pem", &issued.certificate);
    bridge.write("key.pem", &issued.key);
}

/// A client that trusts this authority only, and opens a connection for each request.
fn client(authority: &Authority) -> reqwest::Client {
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let trusted = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("a certificate");
    let client = reqwest::Client::builder().tls_certs_only([trusted]).pool_max_idle_per_host(0).no_proxy();
    client.build().expect("a client")
}

/// The URL of `server.listen`, with the name in the certificate.
fn url(bridge: &Bridge, path: &str) -> String {
    let port = bridge.address().rsplit(':').next().expect("a port");
    format!("https://localhost:{port}{path}")
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_under_load_without_a_failed_request() {
    let authority = Authority::new("CA");
    let mut bridge = Bridge::new(&config_with_server(TLS), RULES);
    write_certificate(&authority, &bridge);
    bridge.run().await;
    assert!(bridge.log().contains("\"webhook\":\"https://127.0.0.1:"), "the log says how to reach it");
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..3)
        .map(|sender| {
            let (client, stop, url) = (client(&authority), stop.clone(), url(&bridge, "/webhook/prod-eu"));
            tokio::spawn(async move {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    let body = notification(&[pending_pod(&format!("{sender}-{sent}"), "a")]);
                    let answer = client.post(&url).body(body).send().await.expect("an answer");
                    assert_eq!(answer.status(), 200);
                    sent += 1;
                }
                sent
            })
        })
        .collect();
    for exchanged in 1..=3 {
        write_certificate(&authority, &bridge);
        eventually("the new certificate", async || {
            (bridge.log().matches("certificates reloaded").count() >= exchanged).then_some(())
        })
        .await;
    }
    // One that cannot be used changes nothing.
    bridge.write("key.pem", "not a key");
    eventually("the error", async || bridge.log().contains("certificates rejected").then_some(())).await;
    stop.store(true, Ordering::Relaxed);
    let mut sent = 0;
    for sender in senders {
        sent += sender.await.expect("a sender");
    }
    assert_eq!(bridge.events().await.len(), sent);
    // Plain HTTP is told what is wrong, and counted.
    let answer =
        Raw::request(bridge.address(), "GET /-/ready HTTP/1.1\r\nhost: localhost\r\n\r\n").await.rest().await;
    assert_eq!(status(&answer), 400, "{answer}");
    let failures = "scalebridge_auth_failures_total{listener=\"server\",reason=\"tls_handshake\"}";
    eventually("the failure", async || (bridge.metric(failures).await >= 1.0).then_some(())).await;
}

#[test]
fn a_certificate_that_cannot_be_used_is_an_error_at_the_start() {
    let bridge = Bridge::new(&config_with_server(TLS), RULES);
    bridge.write("key.pem", &Authority::new("CA").server().key);
    for certificate in [None, Some("not a certificate")] {
        if let Some(text) = certificate {
            bridge.write("cert.pem", text);
        }
        let ended = bridge.command().stdout(Stdio::null()).stderr(Stdio::piped()).output().expect("an exit");
        let says = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(2), "{says}");
        assert!(says.contains("server.tls.cert_file") && says.contains("cert.pem"), "{says}");
    }
}
