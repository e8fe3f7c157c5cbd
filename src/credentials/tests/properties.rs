//! No input panics, and no denial contains what was presented.

use jsonwebtoken::Algorithm;
use proptest::prelude::*;

use super::support::{Folder, PEER, SigningKey, bearer_files, claims, jwt, key_set, name, outcome, sources};
use crate::config::Secret;
use crate::config::access::{JwksLocation, SourceAuth};
use crate::credentials::password::UserTable;
use crate::credentials::{Denied, Presented, SourceCredentials};

/// Fragments of what is presented, so that inputs reach the inner parsers.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let key = SigningKey::new(Algorithm::ES256, Some("a"));
    let good = format!("Bearer {}", key.sign(&claims())).into_bytes();
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    prop_oneof![
        bytes(),
        bytes().prop_map(|bytes| [b"Bearer ", &bytes[..]].concat()),
        bytes().prop_map(|bytes| [b"Basic ", &bytes[..]].concat()),
        "Basic [A-Za-z0-9+/]{0,40}={0,2}".prop_map(String::into_bytes),
        "Bearer [A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}\\.[A-Za-z0-9_-]{0,40}".prop_map(String::into_bytes),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(move |(at, byte)| {
            let mut bytes = good.clone();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_header_panics_or_passes(values in prop::collection::vec(header(), 0..3)) {
        let folder = Folder::new();
        let keys = folder.write("keys", key_set(&[&SigningKey::new(Algorithm::ES256, Some("a"))]));
        let own = SourceAuth {
            basic_auth_users_file: Some(folder.write("users", format!("alice:{}", bcrypt::hash("x", 4).unwrap()))),
            jwt: Some(jwt(JwksLocation::File(keys))),
            ..bearer_files([&folder.write("token", "a token of".replace(' ', "-"))])
        };
        let mut headers = axum::http::HeaderMap::new();
        for value in &values {
            if let Ok(value) = axum::http::HeaderValue::from_bytes(value) {
                headers.append("authorization", value);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let denied = runtime.block_on(async {
            let credentials = SourceCredentials::new(&sources([("eu", own)]), None);
            credentials.check(&name("eu"), Presented { headers: &headers, client_certificate: None, peer: PEER }).await
        });
        prop_assert!(matches!(denied, Err(Denied::Unauthenticated { .. })), "{}", outcome(denied));
    }

    #[test]
    fn no_users_file_panics(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        text in "(alice|[a-z:{}$# \n]{0,9}): ?\\$2[abxy]\\$[0-9]{2}\\$[A-Za-z0-9./]{50,54}[\n#}]?.{0,9}",
    ) {
        for text in [String::from_utf8_lossy(&bytes).into_owned(), text] {
            if let Err(cause) = UserTable::parse(&text, None) {
                let salt = text.rsplit_once('$').and_then(|(_, hash)| hash.get(..20));
                prop_assert!(salt.is_none_or(|salt| !cause.contains(salt)), "{}", cause);
            }
        }
    }
}

#[test]
fn a_secret_and_what_contains_one_show_nothing_of_it() {
    let settings = crate::config::access::HttpClient {
        proxy_url: Some(Secret::new("http://alice:hunter2@proxy".to_owned())),
        ..Default::default()
    };
    assert!(!format!("{settings:?}").contains("hunter2"));
}
