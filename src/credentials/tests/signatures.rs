//! Signatures of bodies.

use std::time::Duration;

use axum::http::HeaderMap;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::support::{Folder, PEER, advance, basic, bearer, bearer_files, headers, name, outcome, sources};
use crate::config::access::{HmacAuth, HmacTimestamp, SourceAuth};
use crate::credentials::{Check, Denied, Presented, SourceCredentials, unix_now};

const PAYLOAD: &[u8] = br#"{"version":"1","alerts":[]}"#;

/// HMAC-SHA256 by its definition, in hexadecimal.
fn hmac(key: &str, message: &[u8]) -> String {
    let mut block = [0; 64];
    match key.len() {
        0..=64 => block[..key.len()].copy_from_slice(key.as_bytes()),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let padded = |with: u8| block.map(|byte| byte ^ with).to_vec();
    let inner = Sha256::digest([&padded(0x36), message].concat());
    let outer = Sha256::digest([&padded(0x5c), &inner[..]].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signed_at(key: &str, time: &str, body: &[u8]) -> HeaderMap {
    let signature = hmac(key, &[time.as_bytes(), b":", body].concat());
    headers([("x-grafana-alerting-signature", &signature), ("x-time", time)])
}

fn signed(key: &str) -> HeaderMap {
    signed_at(key, &unix_now().to_string(), PAYLOAD)
}

fn signatures<const N: usize>(files: [&std::path::Path; N], timestamp: bool) -> SourceAuth {
    let (header, tolerance) = ("X-Time".to_owned(), Duration::from_mins(5));
    let hmac = HmacAuth {
        key_files: files.map(std::path::Path::to_owned).into(),
        header: "X-Grafana-Alerting-Signature".to_owned(),
        timestamp: timestamp.then_some(HmacTimestamp { header, tolerance }),
    };
    SourceAuth { hmac: Some(hmac), ..SourceAuth::default() }
}

/// What becomes of a request with this body; `unread: …` if the body was not needed.
async fn outcome_of(credentials: &SourceCredentials, headers: &HeaderMap, body: &[u8]) -> String {
    let presented = Presented { headers, client_certificate: None, peer: PEER };
    match credentials.check(&name("eu"), presented).await {
        Ok(Check::Signed(request)) => outcome(request.check(&Bytes::copy_from_slice(body)).await),
        Ok(Check::Passed) => "unread: ok".to_owned(),
        Err(denied) => format!("unread: {}", outcome::<()>(Err(denied))),
    }
}

#[test]
fn the_computation_of_the_test_is_that_of_rfc_4231() {
    let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(hmac("Jefe", b"what do ya want for nothing?"), expected);
}

#[tokio::test]
async fn a_body_that_a_key_of_the_source_has_signed_passes_and_any_other_is_denied() {
    let folder = Folder::new();
    let long = "k".repeat(100);
    let [first, second, third] = [("first", "open sesame\n"), ("second", &*long), ("third", "  p\u{e4}ss ")]
        .map(|(file, key)| folder.write(file, key));
    let credentials =
        SourceCredentials::new(&sources([("eu", signatures([&first, &second, &third], true))]), None);
    let now = unix_now();
    let with = |signature: &str, time: &str| {
        headers([("x-grafana-alerting-signature", signature), ("x-time", time)])
    };
    let time = now.to_string();
    let good = hmac("open sesame", &[time.as_bytes(), b":", PAYLOAD].concat());
    let at = |offset: i64| signed_at("open sesame", &(now + offset).to_string(), PAYLOAD);
    let only_signature = |signature: &str| headers([("x-grafana-alerting-signature", signature)]);
    for (headers, expected) in [
        (signed("open sesame"), "ok"),
        (signed(&long), "ok"),
        (signed("p\u{e4}ss"), "ok"),
        (with(&good.to_uppercase(), &time), "ok"),
        (at(-290), "ok"),
        (at(290), "ok"),
        (at(-310), "unread: 401 expired"),
        (at(310), "unread: 401 expired"),
        (signed("other"), "401 wrong"),
        (signed_at("open sesame", &time, b"other"), "401 wrong"),
        (signed_at("open sesame", &format!("0{time}"), PAYLOAD), "ok"),
        (with(&hmac("open sesame", PAYLOAD), &time), "401 wrong"),
        (with(&good, &(now + 1).to_string()), "401 wrong"),
        (headers([]), "unread: 401 missing"),
        (headers([("x-time", &time)]), "unread: 401 missing"),
        (only_signature(&good), "unread: 401 missing_timestamp"),
        (with(&good[1..], &time), "unread: 401 malformed"),
        (with(&format!("sha256={good}"), &time), "unread: 401 malformed"),
        (with(&format!("g{}", &good[1..]), &time), "unread: 401 malformed"),
        (with("", &time), "unread: 401 malformed"),
        (with(&good, "soon"), "unread: 401 malformed"),
        (with(&good, ""), "unread: 401 malformed"),
        (with(&good, &format!("-{time}")), "unread: 401 malformed"),
        (with(&good, &format!("{time}.5")), "unread: 401 malformed"),
        (with(&good, &"9".repeat(400)), "unread: 401 malformed"),
        (with(&good, "999999999999"), "unread: 401 expired"),
        (
            headers([
                ("x-grafana-alerting-signature", &good),
                ("x-grafana-alerting-signature", &good),
                ("x-time", &time),
            ]),
            "unread: 401 malformed",
        ),
    ] {
        assert_eq!(outcome_of(&credentials, &headers, PAYLOAD).await, expected, "{headers:?}");
    }
    let large = vec![b' '; 1024 * 1024];
    assert_eq!(outcome_of(&credentials, &signed_at("open sesame", &time, &large), &large).await, "ok");
    assert_eq!(outcome_of(&credentials, &signed_at("other", &time, &large), &large).await, "401 wrong");
}

#[tokio::test]
async fn without_a_time_the_body_alone_is_signed() {
    let folder = Folder::new();
    let key = folder.write("key", "open sesame");
    let credentials = SourceCredentials::new(&sources([("eu", signatures([&key], false))]), None);
    let signature = hmac("open sesame", PAYLOAD);
    let alone = headers([("X-Grafana-Alerting-Signature", &signature)]);
    assert_eq!(outcome_of(&credentials, &alone, PAYLOAD).await, "ok");
    assert_eq!(outcome_of(&credentials, &alone, b"{}").await, "401 wrong");
    assert_eq!(outcome_of(&credentials, &signed("open sesame"), PAYLOAD).await, "401 wrong");
}

#[tokio::test]
async fn a_request_must_pass_one_of_the_methods() {
    let folder = Folder::new();
    let (key, token) = (folder.write("key", "open sesame"), folder.write("token", "token-eu"));
    let users = folder.write("users", format!("alice:{}", bcrypt::hash("hunter2", 4).unwrap()));
    let auth = SourceAuth {
        basic_auth_users_file: Some(users),
        hmac: signatures([&key], true).hmac,
        ..bearer_files([&token])
    };
    let us = signatures([&folder.write("us", "sesame of us")], true);
    let credentials = SourceCredentials::new(&sources([("eu", auth), ("us", us)]), None);
    let both = |mut one: HeaderMap, other: HeaderMap| {
        one.extend(other);
        one
    };
    for (headers, expected) in [
        (bearer("token-eu"), "unread: ok"),
        (basic("alice", "hunter2"), "unread: ok"),
        (both(bearer("token-eu"), signed("other")), "unread: ok"),
        (both(bearer("other"), signed("open sesame")), "ok"),
        (both(basic("alice", "other"), signed("open sesame")), "ok"),
        (both(basic("alice", "other"), signed("other")), "401 wrong"),
        (both(bearer("other"), headers([])), "unread: 401 wrong"),
        (signed("sesame of us"), "401 wrong"),
        (signed("open sesame"), "ok"),
    ] {
        assert_eq!(outcome_of(&credentials, &headers, PAYLOAD).await, expected, "{headers:?}");
    }
    folder.write("token", "");
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome_of(&credentials, &both(bearer("other"), signed("open sesame")), PAYLOAD).await, "ok");
    let unreadable = outcome_of(&credentials, &both(bearer("other"), signed("other")), PAYLOAD).await;
    assert!(unreadable.starts_with("503 source eu: ") && unreadable.contains("token"), "{unreadable}");
}

#[tokio::test]
async fn keys_are_rotated_by_their_files_and_an_unreadable_one_is_503_unless_another_one_matches() {
    let folder = Folder::new();
    let (old, new) = (folder.write("old", "first"), folder.path("new"));
    let credentials = SourceCredentials::new(&sources([("eu", signatures([&old, &new], true))]), None);
    assert_eq!(outcome_of(&credentials, &signed("first"), PAYLOAD).await, "ok");
    let unreadable = outcome_of(&credentials, &signed("second"), PAYLOAD).await;
    assert_eq!(unreadable.split(": ").nth(1), Some(&*new.display().to_string()), "{unreadable}");
    assert!(unreadable.starts_with("503 "), "{unreadable}");

    folder.write("new", "second");
    advance(Duration::from_secs(1)).await;
    for key in ["first", "second"] {
        assert_eq!(outcome_of(&credentials, &signed(key), PAYLOAD).await, "ok", "{key}");
    }
    folder.write("old", "second");
    advance(Duration::from_secs(1)).await;
    assert_eq!(outcome_of(&credentials, &signed("first"), PAYLOAD).await, "401 wrong");
    std::fs::write(&new, "third!").unwrap();
    assert_eq!(outcome_of(&credentials, &signed("third!"), PAYLOAD).await, "ok", "at once");
    let denied = credentials
        .check(&name("eu"), Presented { headers: &headers([]), client_certificate: None, peer: PEER })
        .await;
    assert!(matches!(denied, Err(Denied::Unauthenticated { .. })), "a stranger needs no file");
}
