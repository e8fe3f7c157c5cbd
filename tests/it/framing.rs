//! Requests that a proxy could understand differently are refused, whatever they contain.

use serde_json::{Value, json};

use crate::support::bridge::{Bridge, captured, notification, pending_pod};
use crate::support::raw::{Raw, post, status};

/// The bytes of a POST to the webhook with these header lines and this body.
fn raw_post(headers: &str, body: &str) -> String {
    format!("POST /webhook/prod-eu HTTP/1.1\r\n{headers}\r\n{body}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_framed_strictly_is_refused_and_its_connection_closed() {
    let bridge = Bridge::start().await;
    let body = notification(&[pending_pod("workers", "a")]);
    let length = format!("content-length: {}\r\n", body.len());
    let chunks = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let with = |headers: &str| raw_post(&format!("host: bridge\r\n{length}{headers}"), &body);
    let chunked = |headers: &str| raw_post(&format!("host: bridge\r\n{headers}"), &chunks);
    let at = |line: &str| format!("{line}\r\nhost: bridge\r\n{length}\r\n{body}");
    for (what, expected, request) in [
        ("no Host", 400, raw_post(&length, &body)),
        ("two Hosts", 400, with("host: bridge\r\n")),
        ("two different Hosts", 400, with("host: other\r\n")),
        ("a Host with user info", 400, raw_post(&format!("host: a@bridge\r\n{length}"), &body)),
        ("another host in the target", 400, at("POST http://other/webhook/prod-eu HTTP/1.1")),
        ("a target that is a host only", 400, at("POST bridge HTTP/1.1")),
        ("CONNECT", 400, at("CONNECT bridge:80 HTTP/1.1")),
        ("two lengths", 400, with(&length)),
        ("two different lengths", 400, with("content-length: 5\r\n")),
        ("a signed length", 400, raw_post("host: bridge\r\ncontent-length: +5\r\n", "12345")),
        ("a length that is a list", 400, raw_post("host: bridge\r\ncontent-length: 5, 5\r\n", "12345")),
        ("a negative length", 400, raw_post("host: bridge\r\ncontent-length: -1\r\n", "")),
        ("a huge length", 400, raw_post("host: bridge\r\ncontent-length: 99999999999999999999\r\n", "")),
        ("length and chunks", 400, with("transfer-encoding: chunked\r\n")),
        ("chunks and length", 400, chunked(&format!("transfer-encoding: chunked\r\n{length}"))),
        ("chunked twice", 400, chunked("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n")),
        ("chunked twice in a list", 400, chunked("transfer-encoding: chunked, chunked\r\n")),
        ("another encoding", 400, chunked("transfer-encoding: gzip\r\n")),
        ("a list of encodings", 400, chunked("transfer-encoding: gzip, chunked\r\n")),
        ("an unknown encoding", 400, chunked("transfer-encoding: xchunked\r\n")),
        (
            "chunks of HTTP/1.0",
            400,
            chunked("transfer-encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        ),
        ("a space before the colon", 400, with("transfer-encoding : chunked\r\n")),
        ("a header in two lines", 400, with("x-a: b\r\n c\r\n")),
        ("a header without a colon", 400, with("x-a\r\n")),
        ("a bare line feed", 400, with("x-a: b\nx-c: d\r\n")),
        ("a bare carriage return", 400, with("x-a: b\rc\r\n")),
        ("NUL in a header", 400, with("x-a: b\0c\r\n")),
        ("NUL in the name of a header", 400, with("x\0a: b\r\n")),
        ("NUL in the target", 400, at("POST /webhook/prod-eu\0 HTTP/1.1")),
        ("another expectation", 417, with("expect: 200-ok\r\n")),
        ("HTTP/0.9", 400, "GET /-/healthy\r\n\r\n".to_owned()),
        // hyper closes such a connection without an answer.
        ("HTTP/2 without TLS", 0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("HTTP/3", 400, at("POST /webhook/prod-eu HTTP/3")),
        ("TLS", 400, "\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03\r\n\r\n".to_owned()),
        ("a long head", 431, with(&format!("x-a: {}\r\n", "b".repeat(100_000)))),
        ("many headers", 431, with(&"x-a: b\r\n".repeat(200))),
        (
            "a chunk whose size is no number",
            400,
            raw_post("host: bridge\r\ntransfer-encoding: chunked\r\n", "xyz\r\n"),
        ),
    ] {
        let answer = Raw::request(bridge.address(), request).await.rest().await;
        assert_eq!(status(&answer), expected, "{what}: {answer}");
        assert!(answer.matches("\r\n\r\n").count() <= 1, "{what}: {answer}");
    }
    assert_eq!(bridge.all_decisions().await, Vec::<Value>::new());
    assert_eq!(bridge.post(body).await.verdicts(), json!({ "emitted": 1 }));
}

/// The second request hides in the body of the first, or is broken itself.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_behind_a_request_that_is_not_framed_strictly() {
    let bridge = Bridge::start().await;
    let hidden = post(&notification(&[pending_pod("workers", "a")]));
    let good = "GET /-/healthy HTTP/1.1\r\nhost: bridge\r\n\r\n";
    for (expected, request) in [
        (
            &[400][..],
            format!(
                "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"
            ),
        ),
        (&[200, 400], format!("{good}{}", hidden.replacen("host: bridge\r\n", "host: bridge\n", 1))),
        (
            &[200, 400],
            format!("{good}{}", hidden.replacen("host: bridge\r\n", "host: bridge\r\nhost: b\r\n", 1)),
        ),
    ] {
        let answer = Raw::request(bridge.address(), request).await.rest().await;
        let lines = answer.split("HTTP/1.1 ").skip(1);
        let statuses: Vec<u16> = lines.filter_map(|line| line.get(..3)?.parse().ok()).collect();
        assert_eq!(statuses, expected, "{answer}");
    }
    assert_eq!(bridge.all_decisions().await, Vec::<Value>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_request_is_accepted_in_each_form() {
    let bridge = Bridge::start().await;
    let body = captured("one-firing");
    let length = format!("content-length: {}\r\n", body.len());
    let chunks: String = body.chars().map(|one| format!("{:x};x=y\r\n{one}\r\n", one.len_utf8())).collect();
    for (what, request) in [
        ("HTTP/1.1", post(&body)),
        ("HTTP/1.0", format!("POST /webhook/prod-eu HTTP/1.0\r\n{length}\r\n{body}")),
        (
            "chunks",
            raw_post("host: bridge\r\nTransfer-Encoding: Chunked\r\n", &format!("{chunks}0\r\na: b\r\n\r\n")),
        ),
        (
            "the target with the host",
            format!("POST http://Bridge/webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\n{length}\r\n{body}"),
        ),
        ("an empty line before", format!("\r\n{}", post(&body))),
        (
            "an offer of HTTP/2",
            raw_post(&format!("host: bridge\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n{length}"), &body),
        ),
    ] {
        let mut connection = Raw::request(bridge.address(), request).await;
        let head = connection.head().await;
        assert_eq!(status(&head), 200, "{what}: {head}");
    }
    // Two at once, on one connection that stays open.
    let mut connection = Raw::request(bridge.address(), post(&body).repeat(2)).await;
    for _ in 0..2 {
        assert_eq!(status(&connection.answer().await), 200);
    }
    let mut connection =
        Raw::request(bridge.address(), raw_post(&format!("host: a\r\nexpect: 100-continue\r\n{length}"), ""))
            .await;
    assert!(connection.head().await.starts_with("HTTP/1.1 100 "));
    connection.send(&body).await.expect("the body");
    assert_eq!(status(&connection.head().await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_utf_8_is_refused_even_in_fields_that_are_ignored() {
    let bridge = Bridge::start().await;
    let body = notification(&[pending_pod("workers", "a")]);
    let places = [
        body.replacen("\"alerts\"", "\"ignored\":\"?\",\"alerts\"", 1),
        body.replacen("\"alerts\"", "\"?\":1,\"alerts\"", 1),
        body.replacen("workers", "?", 1),
        body.replacen("http://prom:9090/graph", "?", 1),
        format!("{body}?"),
    ];
    for place in places {
        assert_ne!(place, body);
        for odd in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"] {
            let at = place.find('?').expect("a place");
            let bytes = [&place.as_bytes()[..at], odd, &place.as_bytes()[at + 1..]].concat();
            let answer = bridge.post(bytes).await;
            assert_eq!(answer.status, 400, "{place}: {}", answer.body);
            assert!(answer.body.contains("not UTF-8"), "{}", answer.body);
        }
    }
    assert_eq!(bridge.all_decisions().await, Vec::<Value>::new());
    let headers = [("content-type", "application/json")];
    let url = format!("{}/api/v1/pauses", bridge.admin_url());
    let pause = b"{\"reason\":\"\xff\",\"duration\":\"1h\"}".to_vec();
    let answer = crate::support::bridge::post(url, &headers[..0], pause).await;
    assert!(answer.status == 400 && answer.body.contains("not UTF-8"), "{} {}", answer.status, answer.body);
}
