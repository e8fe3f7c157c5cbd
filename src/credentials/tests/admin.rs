//! Who uses the admin listener, and what that may do.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::HeaderMap;
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::support::{
    Folder, PEER, SigningKey, advance, basic, bearer, claims, claims_with, headers, jwt, key_set, outcome,
};
use crate::config::Secret;
use crate::config::access::{
    AdminAuth, AdminClientCert, AdminJwt, AdminToken, JwksLocation, JwtAuth, NamedScope, Scope, WebConfig,
};
use crate::credentials::{AdminCredentials, ClientCertificate, Presented, San};

/// The name and scope of who is admitted, or why nobody is.
async fn check(credentials: &AdminCredentials, headers: &HeaderMap, san: Option<&str>) -> String {
    let certificate = san.map(|san| ClientCertificate {
        common_name: None,
        sans: vec![San::from_settings(san)],
        not_after: i64::MAX,
    });
    let presented = Presented { headers, client_certificate: certificate.as_ref(), peer: PEER };
    match credentials.check(presented).await {
        Ok(principal) => format!("{} {:?}", principal.name, principal.scope),
        Err(denied) => outcome::<()>(Err(denied)),
    }
}

fn hash(password: &str) -> Secret {
    Secret::new(bcrypt::hash(password, 4).unwrap())
}

fn scope(name: &str, scope: Scope) -> NamedScope {
    NamedScope { name: name.to_owned(), scope }
}

fn token(name: &str, scope: Scope, token_file: std::path::PathBuf) -> AdminToken {
    AdminToken { name: name.to_owned(), scope, token_file }
}

#[tokio::test]
async fn without_credentials_everybody_operates() {
    let credentials = AdminCredentials::new(&AdminAuth::default(), None);
    assert!(credentials.is_open());
    assert_eq!(check(&credentials, &headers([]), None).await, "anonymous Operate");
}

#[tokio::test]
async fn a_token_is_the_actor_with_its_scope_and_rotates() {
    let folder = Folder::new();
    let auth = AdminAuth {
        tokens: vec![
            token("grafana", Scope::Read, folder.write("read", "token-read")),
            token("ci", Scope::Operate, folder.write("ci", "token-ci")),
            token("twin", Scope::Operate, folder.write("twin", "token-read")),
        ],
        ..AdminAuth::default()
    };
    let credentials = AdminCredentials::new(&auth, None);
    assert!(!credentials.is_open());
    for (headers, expected) in [
        (bearer("token-read"), "grafana Read"),
        (bearer("token-ci"), "ci Operate"),
        (bearer("token"), "401 wrong"),
        (basic("ci", "token-ci"), "401 wrong"),
        (headers([]), "401 missing"),
        (
            headers([("authorization", "Bearer token-ci"), ("authorization", "Bearer token-ci")]),
            "401 malformed",
        ),
    ] {
        assert_eq!(check(&credentials, &headers, None).await, expected, "{headers:?}");
    }
    folder.write("ci", "token-new");
    assert_eq!(check(&credentials, &bearer("token-new"), None).await, "ci Operate");
    assert_eq!(check(&credentials, &bearer("token-ci"), None).await, "401 wrong");
    folder.write("ci", "");
    advance(Duration::from_secs(1)).await;
    assert_eq!(check(&credentials, &bearer("token-read"), None).await, "grafana Read");
    let outcome = check(&credentials, &bearer("token-new"), None).await;
    assert!(outcome.starts_with("503 admin: ") && outcome.contains("ci: the file is empty"), "{outcome}");
}

#[tokio::test]
async fn users_have_the_scope_of_the_list() {
    let folder = Folder::new();
    let line = |name: &str| format!("{name}:{}\n", hash(name).expose());
    let users_file = folder.write("users", ["alice", "bob", "carol"].map(line).concat());
    let auth = AdminAuth {
        users_file: Some(users_file),
        users: vec![scope("alice", Scope::Operate), scope("bob", Scope::Read), scope("dave", Scope::Read)],
        ..AdminAuth::default()
    };
    let web = WebConfig {
        path: "web.yml".into(),
        basic_auth_users: ["bob", "dave", "eve"]
            .map(|name| (name.to_owned(), hash(if name == "bob" { "other" } else { name })))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        headers: Vec::new(),
    };
    let credentials = AdminCredentials::new(&auth, Some(&web));
    for (user, password, expected) in [
        ("alice", "alice", "alice Operate"),
        ("bob", "bob", "bob Read"),
        ("bob", "other", "401 wrong"),
        ("carol", "carol", "403 scope"),
        ("carol", "wrong", "401 wrong"),
        ("dave", "dave", "dave Read"),
        ("eve", "eve", "eve Operate"),
        ("frank", "frank", "401 wrong"),
    ] {
        assert_eq!(check(&credentials, &basic(user, password), None).await, expected, "{user}");
    }
    folder.write("users", "nothing");
    advance(Duration::from_secs(1)).await;
    assert_eq!(check(&credentials, &basic("eve", "eve"), None).await, "eve Operate");
    assert!(check(&credentials, &basic("alice", "alice"), None).await.starts_with("503 admin: "));
    let web_only = credentials.reloaded(&AdminAuth::default(), Some(&web));
    assert!(!web_only.is_open());
    assert_eq!(check(&web_only, &basic("bob", "other"), None).await, "bob Operate");
}

#[tokio::test]
async fn tokens_of_an_identity_provider_are_tried_in_order() {
    let folder = Folder::new();
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let keys = JwksLocation::File(folder.write("keys", key_set(&[&key])));
    let settings = |scope, groups: &[&str], header: &str| AdminJwt {
        token: JwtAuth { subjects: Vec::new(), ..jwt(keys.clone()) },
        name_claim: "email".to_owned(),
        scope,
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        header: header.to_owned(),
    };
    let auth = AdminAuth {
        tokens: vec![token("ci", Scope::Operate, folder.write("ci", "token-ci"))],
        client_certs: vec![AdminClientCert {
            name: "proxy".to_owned(),
            scope: Scope::Read,
            sans: vec!["proxy.internal".to_owned()],
        }],
        jwt: vec![
            settings(Scope::Operate, &["sre"], "x-token"),
            settings(Scope::Read, &["sre", "dev"], "x-token"),
            settings(Scope::Read, &[], "authorization"),
        ],
        ..AdminAuth::default()
    };
    let credentials = AdminCredentials::new(&auth, None);
    let with_groups = |groups: serde_json::Value| {
        let mut claims = claims_with("email", json!("ada@example.org"));
        claims["groups"] = groups;
        claims
    };
    let sign = |groups| key.sign(&with_groups(groups));
    let x_token = |token: &str| headers([("x-token", token)]);
    let expired = key.sign(&claims_with("exp", json!(1)));
    for (headers, san, expected) in [
        (x_token(&sign(json!(["dev", "sre"]))), None, "ada@example.org Operate"),
        (x_token(&sign(json!("dev"))), None, "ada@example.org Read"),
        (x_token(&sign(json!(["sales"]))), None, "403 scope"),
        (x_token(&sign(json!([["sre"]]))), None, "403 scope"),
        (x_token(&sign(json!(["sre"]))), Some("proxy.internal"), "ada@example.org Operate"),
        (x_token(&expired), Some("proxy.internal"), "401 expired"),
        (x_token("x"), None, "401 invalid_token"),
        (x_token(&"x".repeat(9000)), None, "401 malformed"),
        (
            headers([("x-token", &sign(json!("sre"))), ("x-token", &sign(json!("sre")))]),
            None,
            "401 malformed",
        ),
        (bearer(&sign(json!([]))), None, "ada@example.org Read"),
        (bearer(&key.sign(&claims_with("email", json!("ci")))), None, "403 scope"),
        (bearer(&key.sign(&claims_with("email", json!(" proxy ")))), None, "403 scope"),
        (bearer(&key.sign(&claims())), None, "401 invalid_token"),
        (bearer(&key.sign(&claims_with("email", json!("a\nb")))), None, "401 invalid_token"),
        (bearer(&key.sign(&claims_with("email", json!("x".repeat(257))))), None, "401 invalid_token"),
        (bearer("token-ci"), None, "ci Operate"),
        (bearer("wrong"), Some("proxy.internal"), "401 invalid_token"),
        (headers([]), Some("proxy.internal"), "proxy Read"),
        (headers([]), Some("other.internal"), "401 unknown_certificate"),
    ] {
        assert_eq!(check(&credentials, &headers, san).await, expected, "{headers:?}");
    }
}

#[tokio::test]
async fn a_token_of_an_identity_provider_is_never_a_user_of_the_file() {
    let folder = Folder::new();
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let line = |name: &str| format!("{name}:{}\n", hash(name).expose());
    let auth = AdminAuth {
        users_file: Some(folder.write("users", ["alice", "carol"].map(line).concat())),
        users: vec![scope("alice", Scope::Operate)],
        jwt: vec![AdminJwt {
            token: JwtAuth {
                subjects: Vec::new(),
                ..jwt(JwksLocation::File(folder.write("keys", key_set(&[&key]))))
            },
            name_claim: "email".to_owned(),
            scope: Scope::Operate,
            groups: Vec::new(),
            header: "authorization".to_owned(),
        }],
        ..AdminAuth::default()
    };
    let credentials = AdminCredentials::new(&auth, None);
    let as_user = async |credentials: &AdminCredentials, name: &str| {
        check(credentials, &bearer(&key.sign(&claims_with("email", json!(name)))), None).await
    };
    for name in ["alice", "carol", " carol "] {
        assert_eq!(as_user(&credentials, name).await, "403 scope", "{name}");
    }
    assert_eq!(as_user(&credentials, "dave").await, "dave Operate");
    // The file changes.
    folder.write("users", ["alice", "dave"].map(line).concat());
    advance(Duration::from_secs(1)).await;
    assert_eq!(as_user(&credentials, "dave").await, "403 scope");
    assert_eq!(as_user(&credentials, "carol").await, "carol Operate");
    // While it cannot be read, its users are still the known ones, also after a reload.
    folder.write("users", "nothing");
    advance(Duration::from_secs(1)).await;
    let reloaded = credentials.reloaded(&auth, None);
    for credentials in [&credentials, &reloaded] {
        assert_eq!(as_user(credentials, "dave").await, "403 scope");
        assert_eq!(as_user(credentials, "carol").await, "carol Operate");
    }
}
