//! A stop ends in time, whatever clients, files and destinations do.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Command;

use crate::support::bridge::{Bridge, RULES, captured};
use crate::support::raw::{Raw, config_with_server, post, status, unfinished_post};
use crate::support::tools::eventually;

/// More than a test waits for.
const LONG: &str = "header_timeout: 10m, body_timeout: 10m, write_timeout: 10m, drain_timeout: 10m";

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stall_do_not_hold_up_a_stop() {
    let mut bridge = Bridge::new(&config_with_server(LONG), RULES);
    bridge.run().await;
    let mut stalled = Vec::new();
    for request in [
        // Idle, from the start and after a request.
        String::new(),
        post(&captured("one-firing")),
        // Within a head, and within a body.
        "POST /webhook/prod-eu HTTP/1.1\r\nhost: br".to_owned(),
        unfinished_post(1000, 1),
        unfinished_post(1000, 500),
        // Answered, and the body does not come.
        unfinished_post(1 << 30, 0),
        "POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12"
            .to_owned(),
    ] {
        stalled.push(Raw::request(bridge.address(), request).await);
    }
    let mut reader = Raw::connect_with_small_buffer(bridge.admin_address()).await;
    let request = "GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    reader.send(request.repeat(200)).await.expect("the requests");
    let stream = "GET /api/v1/decisions/stream HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    stalled.push(Raw::request(bridge.admin_address(), stream).await);
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
    assert!(bridge.stop().await.success());
    let log = bridge.log();
    assert!(log.contains("\"stopped\"") && !log.contains("did not"), "{log}");
}

/// A configuration file on a file system that hangs, or one that a program has not written yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_hangs_does_not_hold_up_a_stop() {
    let mut bridge = Bridge::new(&config_with_server(LONG), RULES);
    bridge.run().await;
    let (pipe, rules) = (bridge.dir().join("pipe"), bridge.dir().join("rules.yaml"));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    std::fs::rename(&pipe, &rules).expect("renamed");
    let request = "POST /-/reload HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n";
    let mut reload = Raw::request(bridge.admin_address(), request).await;
    // It can be opened without waiting once the bridge reads it.
    let open = || OpenOptions::new().write(true).custom_flags(0o4000).open(&rules).ok();
    let _writer = eventually("the bridge to read the rules", async || open()).await;
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200, "the bridge works meanwhile");
    bridge.terminate();
    assert_eq!(status(&reload.head().await), 503, "the request for the reload is answered");
    assert!(bridge.wait_exit().await.success());
    assert!(bridge.log().contains("reload abandoned, stopping"));
    std::fs::remove_file(&rules).expect("removed");
    bridge.write("rules.yaml", RULES);
    bridge.run().await;
    assert_eq!(bridge.events().await.len(), 1);
}
