//! Keys of an identity provider.

use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::support::{
    Reply, Server, SigningKey, advance, bearer, claims, claims_with, jwt_source, key_set, sources,
};
use crate::config::access::{HttpClient, JwksLocation};
use crate::credentials::SourceCredentials;

fn with_server(server: &Server) -> SourceCredentials {
    SourceCredentials::new(
        &sources([("eu", jwt_source(server.keys())), ("us", jwt_source(server.keys()))]),
        None,
    )
}

#[tokio::test]
async fn keys_are_fetched_once_for_all_sources_and_kept_by_a_reload() {
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let server = Server::start(Reply::Ok(key_set(&[&key]))).await;
    let credentials = with_server(&server);
    let token = bearer(&key.sign(&claims()));
    for source in ["eu", "us", "eu"] {
        assert_eq!(credentials.outcome(source, &token).await, "ok");
    }
    let reloaded = credentials.reloaded(&sources([("eu", jwt_source(server.keys()))]), None);
    assert_eq!(reloaded.outcome("eu", &token).await, "ok");
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn an_unknown_key_is_fetched_at_most_once_a_minute_and_busy_until_then() {
    let (old, new) =
        (SigningKey::new(Algorithm::ES256, Some("old")), SigningKey::new(Algorithm::EdDSA, Some("new")));
    let server = Server::start(Reply::Ok(key_set(&[&old]))).await;
    let credentials = with_server(&server);
    assert_eq!(credentials.outcome("eu", &bearer(&old.sign(&claims()))).await, "ok");
    advance(Duration::from_secs(61)).await;
    // Rotation: the provider uses a key that was not there before.
    server.reply(Reply::Ok(key_set(&[&old, &new])));
    assert_eq!(credentials.outcome("eu", &bearer(&new.sign(&claims()))).await, "ok");
    assert_eq!(server.requests(), 2);
    let unknown = SigningKey::new(Algorithm::ES256, Some("unknown"));
    for _ in 0..100 {
        // It may be new: a stranger must not use up the fetch that an honest token needs.
        assert_eq!(credentials.outcome("eu", &bearer(&unknown.sign(&claims()))).await, "503 busy");
    }
    assert_eq!(server.requests(), 2, "an attacker does not make the bridge call the provider");
    advance(Duration::from_secs(61)).await;
    assert_eq!(credentials.outcome("us", &bearer(&unknown.sign(&claims()))).await, "401 invalid_token");
    for _ in 0..100 {
        assert_eq!(credentials.outcome("us", &bearer(&unknown.sign(&claims()))).await, "503 busy");
    }
    assert_eq!(server.requests(), 3);
    advance(Duration::from_secs(61)).await;
    for claims in [claims_with("exp", 1.into()), claims_with("aud", "other".into())] {
        assert!(credentials.outcome("eu", &bearer(&unknown.sign(&claims))).await.starts_with("401"));
    }
    assert_eq!(server.requests(), 3, "a token that cannot count fetches nothing");
}

#[tokio::test]
async fn without_keys_a_token_is_503_and_known_keys_outlast_a_failure() {
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let unknown = bearer(&SigningKey::new(Algorithm::ES256, Some("b")).sign(&claims()));
    let token = bearer(&key.sign(&claims()));
    let server = Server::start(Reply::Status("500 Internal Server Error")).await;
    let credentials = with_server(&server);
    let expected = format!("503 source eu: {}: the response has the status 500", server.url);
    for _ in 0..100 {
        assert_eq!(credentials.outcome("eu", &token).await, expected);
    }
    assert!(server.requests() <= 2, "{} requests", server.requests());
    server.reply(Reply::Ok(key_set(&[&key])));
    advance(Duration::from_secs(11)).await;
    assert_eq!(credentials.outcome("eu", &token).await, "ok");
    for reply in [
        Reply::Status("503 Service Unavailable"),
        Reply::Status("302 Found"),
        Reply::Ok("<html>".to_owned()),
        Reply::Ok("x".repeat(257 * 1024)),
    ] {
        server.reply(reply);
        advance(Duration::from_secs(61)).await;
        for _ in 0..2 {
            assert_eq!(credentials.outcome("eu", &unknown).await, "503 busy", "no gap");
        }
        assert_eq!(credentials.outcome("eu", &token).await, "ok", "the last keys stay valid");
    }
}

#[tokio::test]
async fn keys_are_fetched_again_in_the_background() {
    let (old, new) =
        (SigningKey::new(Algorithm::ES256, Some("old")), SigningKey::new(Algorithm::ES256, Some("new")));
    let server = Server::start(Reply::Ok(key_set(&[&old]))).await;
    let credentials = with_server(&server);
    assert_eq!(credentials.outcome("eu", &bearer(&old.sign(&claims()))).await, "ok");
    server.reply(Reply::Ok(key_set(&[&new])));
    advance(Duration::from_secs(5 * 60 + 1)).await;
    // No request has come in the meantime.
    while server.requests() < 2 {
        tokio::task::yield_now().await;
    }
    // The provider has withdrawn the old key.
    while credentials.outcome("eu", &bearer(&old.sign(&claims()))).await == "ok" {
        tokio::task::yield_now().await;
    }
    assert_eq!(credentials.outcome("eu", &bearer(&new.sign(&claims()))).await, "ok");
    let requests = server.requests();
    drop(credentials);
    advance(Duration::from_secs(24 * 3600)).await;
    assert_eq!(server.requests(), requests, "the background ends with the credentials");
}

#[tokio::test]
async fn a_slow_provider_holds_few_requests_and_no_known_key() {
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let server = Server::start(Reply::Ok(key_set(&[&key]))).await;
    let credentials = std::sync::Arc::new(with_server(&server));
    let token = bearer(&key.sign(&claims()));
    assert_eq!(credentials.outcome("eu", &token).await, "ok");
    server.reply(Reply::Never);
    advance(Duration::from_secs(61)).await;
    let unknown = bearer(&SigningKey::new(Algorithm::ES256, Some("b")).sign(&claims()));
    let waiting: Vec<_> = (0..100)
        .map(|_| {
            let (credentials, unknown) = (credentials.clone(), unknown.clone());
            tokio::spawn(async move { credentials.outcome("eu", &unknown).await })
        })
        .collect();
    while server.requests() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(credentials.outcome("eu", &token).await, "ok");
    advance(Duration::from_secs(6)).await;
    let mut outcomes = Vec::new();
    for task in waiting {
        outcomes.push(task.await.unwrap());
    }
    let busy = outcomes.iter().filter(|outcome| *outcome == "503 busy").count();
    assert_eq!(busy, 100, "{outcomes:?}");
    assert_eq!(server.requests(), 2);
}

#[tokio::test]
async fn an_error_shows_the_url_without_its_secrets() {
    let url = "http://127.0.0.1:1/keys?key=secret-query#secret-fragment".to_owned();
    let keys = JwksLocation::Url { url, http: HttpClient::default() };
    let credentials = SourceCredentials::new(&sources([("eu", jwt_source(keys))]), None);
    let token = SigningKey::new(Algorithm::ES256, Some("b")).sign(&claims());
    let outcome = credentials.outcome("eu", &bearer(&token)).await;
    assert!(outcome.starts_with("503 source eu: http://127.0.0.1:1/keys: the request failed"), "{outcome}");
    assert!(!outcome.contains("secret") && !outcome.contains(&token), "{outcome}");
}

#[tokio::test]
async fn a_fetched_key_set_may_begin_with_a_byte_order_mark() {
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let server = Server::start(Reply::Ok(format!("\u{feff}{}", key_set(&[&key])))).await;
    assert_eq!(with_server(&server).outcome("eu", &bearer(&key.sign(&claims()))).await, "ok");
}
