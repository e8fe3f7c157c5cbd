//! No client keeps the others out: limits on connections, bytes, and the time of senders and readers.

use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::bridge::{Bridge, RULES, captured, notification, pending_pod};
use crate::support::raw::{Raw, config_with_server, post, status, unfinished_post};
use crate::support::tools::{eventually, get};

async fn bridge_with(settings: &str) -> Bridge {
    let mut bridge = Bridge::new(&config_with_server(settings), RULES);
    bridge.run().await;
    bridge
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// How many lines of the log have this message.
fn count_in_log(bridge: &Bridge, message: &str) -> usize {
    bridge.log().matches(&format!("\"message\":\"{message}")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let bridge = bridge_with("max_body_bytes: 100000, body_timeout: 10m").await;
    let announced = unfinished_post(100_001, 0);
    let chunk = format!("186a1\r\n{}\r\n", " ".repeat(100_001));
    let chunked = announced.replace("content-length: 100001", "transfer-encoding: chunked") + &chunk;
    let explain = announced.replace("/webhook/prod-eu", "/api/v1/explain");
    let explain = explain.replace("host: bridge", "host: 127.0.0.1\r\ncontent-type: application/json");
    for (listener, request) in
        [(bridge.address(), announced), (bridge.address(), chunked), (bridge.admin_address(), explain)]
    {
        let mut connection = Raw::request(listener, &request).await;
        let head = connection.head().await;
        assert!(status(&head) == 413 && head.contains("connection: close"), "{head}");
    }
}

/// Clients that read the answer only after they have sent everything: it must not be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_is_refused_early_still_sees_the_answer() {
    let bridge = bridge_with("max_body_bytes: 100000").await;
    let large = vec![b' '; 20 << 20];
    for (path, expected) in [("/webhook/prod-eu", 413), ("/webhook/unknown", 404), ("/", 404)] {
        let answer = bridge.post_to(path, &[], large.clone()).await;
        assert_eq!(answer.status, expected, "{path}: {}", answer.body);
        assert_eq!(answer.headers["connection"], "close", "{path}");
    }
    // A small body is skipped, and the connection can be used again.
    let mut connection = Raw::connect(bridge.address()).await;
    for _ in 0..2 {
        let request = crate::support::raw::post("{}").replace("prod-eu", "unknown");
        connection.send(&request).await.expect("a request");
        let head = connection.answer().await;
        assert!(status(&head) == 404 && !head.contains("close"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_drips_is_ended_early() {
    let bridge = bridge_with("header_timeout: 1s, body_timeout: 10m").await;
    for request in [unfinished_post(1000, 1), "POST /webhook/prod-eu HTTP/1.1\r\nhost: br".to_owned()] {
        let mut connection = Raw::request(bridge.address(), &request).await;
        // Ends when the bridge closes the connection, since nothing is read of it.
        while connection.send(" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let mut connection = Raw::request(bridge.address(), unfinished_post(1000, 1)).await;
    let head = connection.head().await;
    assert!(status(&head) == 503 && head.contains("retry-after: 1"), "{head}");
    // Nor can a connection be kept without any request.
    for listener in [bridge.address(), bridge.admin_address()] {
        assert_eq!(Raw::connect(listener).await.rest().await, "");
    }
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200);
}

/// What is announced takes nothing from the others, what is sent does.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_flight_are_taken_as_they_arrive() {
    // The unfinished body holds its part of the limit for as long as the test takes.
    let settings = "max_body_bytes: 100000, max_in_flight_bytes: 100000, body_timeout: 10m";
    let bridge = bridge_with(settings).await;
    let mut announced = Vec::new();
    for _ in 0..4 {
        announced.push(Raw::request(bridge.address(), unfinished_post(99_900, 1)).await);
    }
    for _ in 0..10 {
        assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
    }
    let mut sent = Vec::new();
    let refused = eventually("a rejection", async || {
        // It may itself be refused while the notification below is in flight, so each round sends another one.
        sent.push(Raw::request(bridge.address(), unfinished_post(99_900, 99_800)).await);
        let answer = bridge.post(captured("one-firing")).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!((refused.status, refused.headers["retry-after"].as_str()), (503, "1"));
    assert!(refused.body.contains("max_in_flight_bytes"), "{}", refused.body);
    drop((announced, sent));
    eventually("capacity for a notification", async || {
        (bridge.post(captured("one-firing")).await.status == 200).then_some(())
    })
    .await;
}

/// The decoded size of a body is not known in advance; it must not be guessed.
#[tokio::test(flavor = "multi_thread")]
async fn honest_senders_of_gzip_are_not_refused() {
    let bridge = bridge_with("max_body_bytes: 1000000, max_in_flight_bytes: 1000000").await;
    let bridge = Arc::new(bridge);
    let post = |bridge: Arc<Bridge>, sender: usize| async move {
        for round in 0..8 {
            let pods: Vec<_> =
                (0..8).map(|pod| pending_pod(&format!("{sender}-{round}"), &format!("pod-{pod}"))).collect();
            let body = gzip(notification(&pods).as_bytes());
            let answer = bridge.post_to("/webhook/prod-eu", &[("content-encoding", "gzip")], body).await;
            assert_eq!(answer.verdicts(), json!({ "emitted": 8 }));
        }
    };
    let senders: Vec<_> = (0..16).map(|sender| tokio::spawn(post(bridge.clone(), sender))).collect();
    for sender in senders {
        sender.await.expect("a sender");
    }
    let bomb = gzip(&vec![b' '; 900_000]).repeat(2);
    let refused = bridge.post_to("/webhook/prod-eu", &[("content-encoding", "gzip")], bomb).await;
    assert_eq!(refused.status, 413, "{}", refused.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_on_the_admin_listener_share_a_limit_of_their_own() {
    // The unfinished body holds its part of the limit for as long as the test takes.
    let settings = "max_body_bytes: 100000, max_in_flight_bytes: 100000, body_timeout: 10m";
    let bridge = bridge_with(settings).await;
    let head = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let unfinished = head("/api/v1/explain", 99_900) + &" ".repeat(99_800);
    let mut explain = Raw::request(bridge.admin_address(), unfinished).await;
    let pause = format!("{{\"author\":\"ops\",\"reason\":\"{}\"}}", "x".repeat(300));
    for path in ["/api/v1/pauses", "/api/v1/explain"] {
        let refused = eventually("a rejection", async || {
            let request = head(path, pause.len()) + &pause;
            let answer = Raw::request(bridge.admin_address(), request).await.head().await;
            (status(&answer) == 503).then_some(answer)
        });
        assert!(refused.await.contains("retry-after: 1"));
    }
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200, "the webhook has its own limit");
    explain.send(" ".repeat(100)).await.expect("the rest");
    assert_eq!(status(&explain.head().await), 400);
    let request = head("/api/v1/pauses", pause.len()) + &pause;
    assert_eq!(status(&Raw::request(bridge.admin_address(), request).await.head().await), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_closed_and_reported_once() {
    let bridge = bridge_with("max_connections: 8, header_timeout: 10m").await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Raw::connect(bridge.address()).await);
    }
    for _ in 0..20 {
        assert_eq!(Raw::connect(bridge.address()).await.rest().await, "");
    }
    assert_eq!(bridge.get_admin("/api/v1/status").await.0, 200, "each listener has its own limit");
    drop(open);
    eventually("an accepted notification", async || {
        get(&bridge.url("/-/ready")).await.ok().filter(|(status, _)| *status == 200)
    })
    .await;
    eventually("the end in the log", async || {
        (count_in_log(&bridge, "new connections are accepted again") == 1).then_some(())
    })
    .await;
    assert_eq!(count_in_log(&bridge, "too many connections"), 1);
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
}

fn open_files(bridge: &Bridge) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", bridge.pid())).expect("its files").count()
}

/// Clients that hold connections leave files for the store, the destinations and the other listener.
#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_room_below_the_limit_of_open_files() {
    let mut bridge = Bridge::new(&config_with_server("header_timeout: 10m"), RULES);
    bridge.wrap_with(&["sh", "-c", "ulimit -n 128; exec \"$0\" \"$@\""]);
    bridge.run().await;
    let limited = "server.max_connections is limited by the limit of open files";
    assert_eq!(count_in_log(&bridge, limited), 1);
    let mut sender = Raw::connect(bridge.address()).await;
    let mut open = Vec::new();
    for _ in 0..150 {
        open.push(Raw::connect(bridge.address()).await);
    }
    sender.send(post(&notification(&[pending_pod("workers", "a")]))).await.expect("a notification");
    assert_eq!(status(&sender.head().await), 200);
    assert_eq!(bridge.events().await.len(), 1, "it is delivered, and the admin listener answers");
    assert!(open_files(&bridge) < 128);
    assert_eq!(count_in_log(&bridge, "connections cannot be accepted"), 0);
    assert_eq!(count_in_log(&bridge, "too many connections"), 1);
}

/// The bridge has no file left for a connection: it says so once, and goes on when there is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_lack_of_files_is_reported_once_and_survived() {
    let bridge = bridge_with("header_timeout: 10m").await;
    // After the start, which would limit the connections too.
    let limit = format!("--nofile={}:", open_files(&bridge) + 8);
    let set = Command::new("prlimit").args(["--pid", &bridge.pid().to_string(), &limit]).status();
    assert!(set.is_ok_and(|status| status.success()), "prlimit");
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(Raw::connect(bridge.address()).await);
    }
    let failing = "connections cannot be accepted, retrying";
    eventually("the error", async || (count_in_log(&bridge, failing) > 0).then_some(())).await;
    drop(open);
    eventually("the end of the error", async || {
        drop(get(&bridge.url("/-/ready")).await);
        (count_in_log(&bridge, "connections are accepted again") == 1).then_some(())
    })
    .await;
    assert_eq!(count_in_log(&bridge, failing), 1);
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
}

/// The soft limit of files is usually 1,024, whatever the hard one is.
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_never_read_do_not_keep_senders_out() {
    let mut bridge = Bridge::new(&config_with_server("write_timeout: 2s"), RULES);
    bridge.wrap_with(&["sh", "-c", "ulimit -Sn 48; exec \"$0\" \"$@\""]);
    bridge.run().await;
    let before = open_files(&bridge);
    let request = "GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    let mut readers = Vec::new();
    for _ in 0..40 {
        let mut reader = Raw::connect_with_small_buffer(bridge.admin_address()).await;
        // More than the system buffers: the bridge has to wait for this reader.
        reader.send(request.repeat(100)).await.expect("the requests");
        readers.push(reader);
    }
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200);
    eventually("the end of the responses", async || (open_files(&bridge) <= before + 10).then_some(())).await;
    assert_eq!(bridge.get_admin("/metrics").await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_that_are_not_read_are_limited() {
    let bridge = bridge_with("max_body_bytes: 100000, max_in_flight_bytes: 200000, write_timeout: 3s").await;
    let request = "GET /openapi.json HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    assert_eq!(bridge.get_admin("/openapi.json").await.0, 200);
    let mut readers = Vec::new();
    eventually("a refused response", async || {
        let mut reader = Raw::connect_with_small_buffer(bridge.admin_address()).await;
        reader.send(request.repeat(200)).await.expect("the requests");
        readers.push(reader);
        (bridge.get_admin("/openapi.json").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(bridge.get_admin("/api/v1/status").await.0, 200, "small responses are sent");
    eventually("a large response", async || (bridge.get_admin("/openapi.json").await.0 == 200).then_some(()))
        .await;
}
