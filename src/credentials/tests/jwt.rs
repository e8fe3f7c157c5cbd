//! JSON Web Tokens of sources, with the keys in a file.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::support::{
    Folder, ISSUER, SigningKey, bearer, bearer_files, claims, claims_with, jwt, jwt_source, key_set, sign,
    sources,
};
use crate::config::access::{JwksLocation, JwtAuth, SourceAuth};
use crate::credentials::{SourceCredentials, unix_now};

/// The one RSA key of these tests: to generate one takes long.
static RSA: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::new(Algorithm::RS256, Some("rsa")));

/// Source `eu` takes tokens of these keys.
fn with_keys(folder: &Folder, keys: &[&SigningKey]) -> SourceCredentials {
    let file = folder.write("keys.json", key_set(keys));
    SourceCredentials::new(&sources([("eu", jwt_source(JwksLocation::File(file)))]), None)
}

#[tokio::test]
async fn a_token_passes_with_each_supported_algorithm() {
    let folder = Folder::new();
    let keys = [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA]
        .map(|algorithm| SigningKey::new(algorithm, None));
    let credentials = with_keys(&folder, &[&keys[0], &keys[1], &keys[2]]);
    for key in &keys {
        assert_eq!(
            credentials.outcome("eu", &bearer(&key.sign(&claims()))).await,
            "ok",
            "{:?}",
            key.algorithm
        );
    }
    // Without `alg` an RSA key has six algorithms.
    let mut jwk = RSA.jwk();
    jwk.as_object_mut().unwrap().remove("alg");
    folder.write("keys.json", json!({ "keys": [jwk] }).to_string());
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        let token = RSA.sign_as(algorithm, &claims());
        assert_eq!(credentials.outcome("eu", &bearer(&token)).await, "ok", "{algorithm:?}");
    }
    folder.write("keys.json", key_set(&[&RSA]));
    crate::credentials::tests::support::advance(std::time::Duration::from_secs(1)).await;
    let token = RSA.sign_as(Algorithm::PS256, &claims());
    assert_eq!(
        credentials.outcome("eu", &bearer(&token)).await,
        "401 invalid_token",
        "not the `alg` of the key"
    );
}

#[tokio::test]
async fn claims_that_do_not_fit_are_denied() {
    let folder = Folder::new();
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let credentials = with_keys(&folder, &[&key]);
    let now = unix_now();
    for (claim, value, expected) in [
        ("iss", json!("https://other"), "401 invalid_token"),
        ("iss", json!([ISSUER]), "401 invalid_token"),
        ("iss", Value::Null, "401 invalid_token"),
        ("aud", json!("scalebridge"), "ok"),
        ("aud", json!("other"), "401 invalid_token"),
        ("aud", json!([]), "401 invalid_token"),
        ("aud", json!({ "scalebridge": 1 }), "401 invalid_token"),
        ("exp", json!(now - 30), "ok"),
        ("exp", json!(now - 90), "401 expired"),
        ("exp", json!(0.5), "401 expired"),
        ("exp", json!(-1e300), "401 expired"),
        ("exp", json!(1e300), "ok"),
        ("exp", json!((now + 600).to_string()), "401 invalid_token"),
        ("exp", Value::Null, "401 invalid_token"),
        ("nbf", json!(now + 30), "ok"),
        ("nbf", json!(now + 90), "401 expired"),
        ("nbf", json!("soon"), "401 invalid_token"),
        ("sub", json!("system:serviceaccount:monitoring:prometheus"), "ok"),
        ("sub", json!("system:serviceaccount:default:alertmanager"), "401 invalid_token"),
        ("sub", json!(["system:serviceaccount:monitoring:x"]), "401 invalid_token"),
    ] {
        let token = key.sign(&claims_with(claim, value.clone()));
        assert_eq!(credentials.outcome("eu", &bearer(&token)).await, expected, "{claim}: {value}");
    }
    for claim in ["iss", "aud", "exp", "sub"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        assert_eq!(
            credentials.outcome("eu", &bearer(&key.sign(&claims))).await,
            "401 invalid_token",
            "no {claim}"
        );
    }
}

fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[tokio::test]
async fn forged_tokens_are_denied() {
    let folder = Folder::new();
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let same_id = SigningKey::new(Algorithm::ES256, Some("a"));
    let credentials = with_keys(&folder, &[&key, &RSA]);
    let good = key.sign(&claims());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let claims_part = message.split_once('.').unwrap().1;
    let hmac = |secret: &[u8], id: &str| {
        sign(&EncodingKey::from_secret(secret).unwrap(), Algorithm::HS256, Some(id), &claims())
    };
    let with_header = |header: Value| format!("{}.{claims_part}.{signature}", part(&header));
    for (case, token) in [
        ("another key with the same id", same_id.sign(&claims())),
        ("none", with_header(json!({ "alg": "none", "kid": "a" }))),
        ("none without a signature", format!("{}.{claims_part}.", part(&json!({ "alg": "none" })))),
        ("None", with_header(json!({ "alg": "None" }))),
        ("HMAC with the public key", hmac(key.pair.public_key_raw(), "a")),
        ("HMAC with the public key in PEM", hmac(RSA.pair.public_key_pem().as_bytes(), "rsa")),
        ("HMAC with the key set", hmac(key_set(&[&key]).as_bytes(), "a")),
        ("the algorithm of another type of key", with_header(json!({ "alg": "RS256", "kid": "a" }))),
        ("another id", with_header(json!({ "alg": "ES256", "kid": "rsa" }))),
        ("its own key", with_header(json!({ "alg": "ES256", "jwk": same_id.jwk() }))),
        ("an extension", with_header(json!({ "alg": "ES256", "kid": "a", "crit": ["exp"], "exp": 1 }))),
        ("an unencoded payload", with_header(json!({ "alg": "ES256", "kid": "a", "b64": false }))),
        ("no signature", format!("{message}.")),
        ("a cut signature", good[..good.len() - 4].to_owned()),
        (
            "other claims",
            format!(
                "{}.{}.{signature}",
                part(&json!({ "alg": "ES256", "kid": "a" })),
                part(&claims_with("sub", json!("system:serviceaccount:monitoring:x")))
            ),
        ),
        (
            "claims that are no object",
            format!("{}.{}.{signature}", part(&json!({ "alg": "ES256" })), part(&json!([]))),
        ),
        ("no JSON", "e30.e30.e30".to_owned()),
        ("no base64", "?.?.?".to_owned()),
        ("two dots", "..".to_owned()),
        ("no token", "token".to_owned()),
    ] {
        assert_eq!(credentials.outcome("eu", &bearer(&token)).await, "401 invalid_token", "{case}: {token}");
    }
    let padding = key.sign(&claims_with("padding", json!("x".repeat(8000))));
    assert_eq!(credentials.outcome("eu", &bearer(&padding)).await, "401 malformed", "a huge token");
    assert_eq!(credentials.outcome("eu", &bearer(&good)).await, "ok");
}

#[tokio::test]
async fn a_token_of_another_source_is_403() {
    let folder = Folder::new();
    let (eu, us) =
        (SigningKey::new(Algorithm::ES256, Some("a")), SigningKey::new(Algorithm::ES256, Some("a")));
    let location = |name: &str, key: &SigningKey| JwksLocation::File(folder.write(name, key_set(&[key])));
    let (eu_keys, us_keys) = (location("eu", &eu), location("us", &us));
    let mixed = SourceAuth {
        bearer_token_files: vec![folder.write("token", "token")],
        jwt: Some(JwtAuth { subjects: vec!["other".to_owned()], ..jwt(eu_keys.clone()) }),
        ..SourceAuth::default()
    };
    let auth = sources([
        ("eu", jwt_source(eu_keys)),
        ("us", jwt_source(us_keys)),
        ("mixed", mixed),
        ("bearer", bearer_files([&folder.write("token-2", "token-2")])),
    ]);
    let credentials = SourceCredentials::new(&auth, None);
    let (of_eu, of_us) = (bearer(&eu.sign(&claims())), bearer(&us.sign(&claims())));
    for (source, headers, expected) in [
        ("eu", &of_eu, "ok"),
        ("us", &of_us, "ok"),
        ("eu", &of_us, "403 other_source"),
        ("bearer", &of_us, "403 other_source"),
        ("mixed", &of_eu, "403 other_source"),
        ("mixed", &bearer(&eu.sign(&claims_with("sub", json!("other")))), "ok"),
        ("mixed", &bearer("token"), "ok"),
        ("mixed", &bearer("a.b.c"), "401 invalid_token"),
        ("eu", &bearer("token"), "403 other_source"),
        ("bearer", &bearer(&us.sign(&claims_with("exp", json!(1)))), "401 wrong"),
    ] {
        assert_eq!(credentials.outcome(source, headers).await, expected, "{source}");
    }
}

#[tokio::test]
async fn a_key_set_file_is_read_again_and_must_be_usable() {
    let folder = Folder::new();
    let (old, new) =
        (SigningKey::new(Algorithm::ES256, Some("old")), SigningKey::new(Algorithm::ES256, Some("new")));
    let credentials = with_keys(&folder, &[&old]);
    assert_eq!(credentials.outcome("eu", &bearer(&new.sign(&claims()))).await, "401 invalid_token");
    folder.write("keys.json", key_set(&[&new]));
    assert_eq!(credentials.outcome("eu", &bearer(&new.sign(&claims()))).await, "ok");
    assert_eq!(credentials.outcome("eu", &bearer(&old.sign(&claims()))).await, "401 invalid_token");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut jwk = old.jwk();
        change(&mut jwk);
        json!({ "keys": [jwk] }).to_string()
    };
    for (case, text, cause) in [
        ("no JSON", "{".to_owned(), "not a JSON Web Key Set"),
        ("no keys", json!({ "keys": [] }).to_string(), "no usable key"),
        ("a list", json!([old.jwk()]).to_string(), "not a JSON Web Key Set"),
        (
            "a symmetric key",
            r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","alg":"HS256"}]}"#.to_owned(),
            "no usable key",
        ),
        ("a key for encryption", with(&|jwk| jwk["use"] = json!("enc")), "no usable key"),
        ("a key to sign", with(&|jwk| jwk["key_ops"] = json!(["sign"])), "no usable key"),
        ("another curve", with(&|jwk| jwk["crv"] = json!("P-521")), "no usable key"),
        ("another algorithm", with(&|jwk| jwk["alg"] = json!("RS256")), "no usable key"),
        (
            "a short RSA key",
            r#"{"keys":[{"kty":"RSA","n":"AAAAxTVZ","e":"AQAB"}]}"#.to_owned(),
            "no usable key",
        ),
        ("too many", json!({ "keys": vec![old.jwk(); 65] }).to_string(), "has 65 keys"),
        ("too large", "x".repeat(257 * 1024), "larger than 256 KiB"),
    ] {
        folder.write("keys.json", text);
        super::support::advance(std::time::Duration::from_secs(1)).await;
        let outcome = credentials.outcome("eu", &bearer(&old.sign(&claims()))).await;
        assert!(outcome.starts_with("503 source eu: ") && outcome.contains(cause), "{case}: {outcome}");
        assert_eq!(credentials.outcome("eu", &bearer("not-a-jwt")).await, "401 invalid_token", "{case}");
    }
    folder.write("keys.json", key_set(&[&old]));
    super::support::advance(std::time::Duration::from_secs(1)).await;
    assert_eq!(credentials.outcome("eu", &bearer(&old.sign(&claims()))).await, "ok");
}

#[tokio::test]
async fn a_forged_token_costs_one_verification_however_many_sources_have_the_key_set() {
    use crate::credentials::jwt::VERIFICATIONS;

    let folder = Folder::new();
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let file = folder.write("keys.json", key_set(&[&key]));
    let source = |number: usize| {
        (super::support::name(&format!("source-{number}")), jwt_source(JwksLocation::File(file.clone())))
    };
    let credentials = SourceCredentials::new(&(0..100).map(source).collect(), None);
    let forged = SigningKey::new(Algorithm::ES256, Some("a")).sign(&claims());
    let before = VERIFICATIONS.get();
    assert_eq!(credentials.outcome("source-0", &bearer(&forged)).await, "401 invalid_token");
    assert_eq!(VERIFICATIONS.get() - before, 1);
}
