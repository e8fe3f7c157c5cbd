//! Settings of credentials have the configured values.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::access::{
    AdminClientCert, AdminJwt, ClientAuth, ClientCertAuth, HmacAuth, HmacTimestamp, HttpAuthorization,
    HttpClient, JwksLocation, JwtAuth, NamedScope, Scope, Tls, TlsVersion,
};
use crate::config::diagnostic::Location;
use crate::config::tests::{environment, name};
use crate::config::{FileStamp, snippet};
use crate::kinds::load;

fn full() -> crate::kinds::Loaded {
    let path = Path::new("tests/config/good/full.yaml");
    load(path, environment(path)).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// A path that is relative to the configuration file.
fn beside(file: &str) -> PathBuf {
    Path::new("tests/config/good").join(file)
}

#[test]
fn credentials_of_sources_are_read() {
    let settings = full().settings;
    let eu = &settings.source_auth[&name("prod-eu")];
    assert_eq!(eu.bearer_token_files, [beside("secrets/prod-eu"), beside("secrets/prod-eu.next")]);
    assert_eq!(eu.basic_auth_users_file, Some(beside("secrets/senders.htpasswd")));
    let names = ["alertmanager.monitoring.svc", "alertmanager"].map(str::to_owned);
    let [sans, subjects] = names.map(|name| vec![name]);
    assert_eq!(eu.client_cert, Some(ClientCertAuth { sans, subjects }));
    let jwt = eu.jwt.as_ref().unwrap();
    assert_eq!((&*jwt.issuer, &*jwt.audience.join(" ")), ("https://kubernetes.default.svc", "scalebridge"));
    assert_eq!(jwt.subjects, ["system:serviceaccount:monitoring:*"]);
    let JwksLocation::Url { url, http } = &jwt.keys else { panic!("{jwt:?}") };
    assert_eq!(url, "https://kubernetes.default.svc/openid/v1/jwks");
    let credentials_file = beside("secrets/service-account");
    let kind = "Bearer".to_owned();
    assert_eq!(http.authorization, Some(HttpAuthorization::Credentials { kind, credentials_file }));
    assert_eq!(http.ca_file, Some(beside("secrets/ca.crt")));
    assert_eq!(http.client_cert, Some((beside("secrets/client.crt"), beside("secrets/client.key"))));
    assert_eq!(http.server_name.as_deref(), Some("kubernetes.default.svc"));
    assert_eq!(http.proxy_url.as_ref().unwrap().expose(), "http://user:pass@proxy.internal:3128");
    assert_eq!(http.no_proxy.as_deref(), Some("10.0.0.0/8,.svc"));

    let ap = &settings.source_auth[&name("prod-ap")];
    let file = beside("sources/../secrets/prod-ap");
    assert_eq!(ap.bearer_token_files, [file], "relative to the file of the source");
    assert!(settings.source_auth[&name("prod-us")].is_empty());
    let grafana = settings.source_auth[&name("grafana")].hmac.as_ref();
    let hmac = HmacAuth {
        key_files: vec![beside("secrets/grafana-key"), beside("secrets/grafana-key.next")],
        header: "X-Signature".to_owned(),
        timestamp: Some(HmacTimestamp {
            header: "X-Signed-At".to_owned(),
            tolerance: std::time::Duration::from_mins(2),
        }),
    };
    assert_eq!(grafana, Some(&hmac));
    let elsewhere = settings.source_auth[&name("elsewhere")].jwt.as_ref().unwrap();
    let JwksLocation::Url { http, .. } = &elsewhere.keys else { panic!("{elsewhere:?}") };
    let (username, password_file) = ("bridge".to_owned(), beside("secrets/password"));
    assert_eq!(http.authorization, Some(HttpAuthorization::Basic { username, password_file }));
}

#[test]
fn the_alertmanagers_of_a_source_are_read() {
    let settings = full().settings;
    assert_eq!(settings.alertmanagers.len(), 1);
    let api = &settings.alertmanagers[&name("prod-eu")];
    assert_eq!(api.urls, ["https://alertmanager-0.monitoring.svc:9093", "http://10.0.0.2:9093/alertmanager"]);
    assert_eq!(api.receivers.iter().collect::<Vec<_>>(), ["scaling", "scaling/night"]);
    let credentials_file = beside("secrets/service-account");
    let kind = "Bearer".to_owned();
    assert_eq!(api.http.authorization, Some(HttpAuthorization::Credentials { kind, credentials_file }));
    assert_eq!(api.http.ca_file, Some(beside("secrets/ca.crt")));
}

#[test]
fn credentials_of_the_admin_listener_are_read() {
    let auth = full().settings.admin.auth;
    let tokens: Vec<_> =
        auth.tokens.iter().map(|it| (it.name.as_str(), it.scope, it.token_file.clone())).collect();
    assert_eq!(
        tokens,
        [
            ("oncall", Scope::Operate, beside("secrets/oncall")),
            ("grafana", Scope::Read, beside("secrets/grafana"))
        ]
    );
    assert_eq!(auth.users_file, Some(beside("secrets/operators")));
    let user = |name: &str, scope| NamedScope { name: name.to_owned(), scope };
    assert_eq!(
        auth.users,
        [user("alice", Scope::Operate), user("bob", Scope::Read), user("carol", Scope::Read)]
    );
    let sans = ["deployer.ci.svc", "spiffe://ci/deployer"].map(str::to_owned).to_vec();
    let deployer = AdminClientCert { name: "deployer".to_owned(), scope: Scope::Operate, sans };
    assert_eq!(auth.client_certs, [deployer]);
    let [idp, ci] = &auth.jwt[..] else { panic!("{:?}", auth.jwt) };
    let url = "https://idp.example/keys".to_owned();
    let token = JwtAuth {
        issuer: "https://idp.example".to_owned(),
        audience: ["scalebridge", "ops"].map(str::to_owned).to_vec(),
        keys: JwksLocation::Url { url, http: HttpClient::default() },
        subjects: Vec::new(),
    };
    let (name_claim, header) = ("email".to_owned(), "x-forwarded-access-token".to_owned());
    let groups = vec!["sre".to_owned()];
    assert_eq!(*idp, AdminJwt { token, name_claim, scope: Scope::Read, groups, header });
    assert_eq!(ci.token.keys, JwksLocation::File(beside("secrets/keys.json")));
    assert_eq!((&*ci.name_claim, &*ci.header), ("sub", "authorization"), "the defaults");
    assert!(auth.metrics_unauthenticated);
    assert_eq!(auth.external_url.as_deref(), Some("https://ops.example/scalebridge"), "of the environment");
}

#[test]
fn tls_and_web_configurations_are_read() {
    let loaded = full();
    let server = loaded.settings.server.access.tls.as_ref().unwrap();
    let ca_file = beside("secrets/ca.crt");
    let sans = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let expected = Tls {
        cert_file: beside("secrets/server.crt"),
        key_file: beside("secrets/server.key"),
        client_auth: ClientAuth::VerifyClientCertIfGiven(ca_file.clone()),
        client_allowed_sans: sans(&["alertmanager.monitoring.svc"]),
        min_version: TlsVersion::Tls13,
        max_version: TlsVersion::Tls13,
    };
    assert_eq!(*server, expected, "the environment wins over the file");

    let access = &loaded.settings.admin.access;
    let expected = Tls {
        client_auth: ClientAuth::RequireAndVerifyClientCert(ca_file),
        client_allowed_sans: sans(&["deployer.ci.svc", "ops.example"]),
        min_version: TlsVersion::Tls12,
        ..expected
    };
    assert_eq!(access.tls.as_ref(), Some(&expected), "paths are relative to the web configuration");
    let web_config = access.web_config.as_ref().unwrap();
    assert_eq!(web_config.path, beside("secrets/web.yml"));
    assert_eq!(web_config.basic_auth_users.keys().collect::<Vec<_>>(), ["carol"]);
    assert!(web_config.basic_auth_users["carol"].expose().starts_with("$2y$10$hLq"));
    let headers: Vec<&str> = web_config.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        headers,
        ["Content-Security-Policy", "X-Frame-Options", "X-Content-Type-Options", "Strict-Transport-Security"],
        "a blank header is not sent"
    );
    let file = FileStamp::read(beside("secrets/web.yml"));
    assert!(loaded.files.contains(&file), "a change of the web configuration reloads: {:?}", loaded.files);
}

/// Loads a configuration in a folder with these files and their modes, and renders what is found.
fn load_with(config: &str, files: &[(&str, &str, u32)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text, mode) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
        std::fs::set_permissions(folder.path().join(name), Permissions::from_mode(*mode)).unwrap();
    }
    std::fs::create_dir(folder.path().join("a-folder")).unwrap();
    let rules = std::fs::read("tests/config/bad/ok.rules.yaml").unwrap();
    std::fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    let tail = "destinations: { journal: { file: { path: \"-\" } } }\nrules: [rules.yaml]\n";
    let path = folder.path().join("scalebridge.yaml");
    std::fs::write(&path, format!("{config}\n{tail}")).unwrap();
    let found = match load(&path, []) {
        Ok(loaded) => loaded.warnings,
        Err(diagnostics) => diagnostics,
    };
    let rendered = found.iter().map(|one| {
        let text = match &one.location {
            Location::File { file, .. } => Some(
                found.redacted(file).map_or_else(|| std::fs::read_to_string(file).unwrap(), str::to_owned),
            ),
            _ => None,
        };
        snippet::render(one, text.as_deref())
    });
    let rendered = rendered.collect::<Vec<_>>().join("\n");
    rendered.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn files_that_cannot_be_used_are_warned_about_and_never_shown() {
    const DIGEST: &str = "mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";
    let users = format!("alice:$2y$10${DIGEST}\nbob:$2y$15${DIGEST}\ncarol:sesame\n");
    let files = [
        ("empty", "\n", 0o600),
        ("two", "sesame sesame", 0o640),
        ("readable", "sesame", 0o644),
        ("good", "sesame\n", 0o600),
        ("users", &users, 0o600),
        ("keys.json", "{\"keys\": []}", 0o644),
        ("a.crt", "sesame", 0o644),
        ("a.key", "-----BEGIN PRIVATE KEY-----", 0o604),
    ];
    let config = "server: { tls: { cert_file: a.crt, key_file: a.key } }\nsources:\n  local:\n    auth:\n      \
                  bearer_token_files: [good, empty, two, readable, a-folder, missing]\n      \
                  basic_auth_users_file: users\n      jwt: { issuer: a, audience: b, jwks_file: keys.json }";
    let found = load_with(config, &files);
    insta::assert_snapshot!(found);
    assert!(!found.contains("sesame") && !found.contains(DIGEST));
}

#[test]
fn inline_secrets_are_never_shown() {
    let config = "sources:\n  a: { auth: { bearer_token: sesame } }\n  b:\n    auth:\n      password:\n        sesame\n      jwt: { \
                  issuer: a, audience: b, jwks_url: \"https://user:sesame@idp/keys\" }\nadmin:\n  tokens: [sesame]";
    let found = load_with(config, &[]);
    insta::assert_snapshot!(found);
    assert!(!found.contains("sesame"));
    for misplaced in [
        "sources:\n  a:\n    auth:\n      sesame",
        "sources:\n  a:\n    auth:\n      - sesame",
        "sources:\n  a:\n    auth:\n      bearer_token_files:\n        sesame",
        "sources:\n  a:\n    auth:\n      jwt:\n        sesame",
        "sources:\n  a:\n    auth:\n      toekn: sesame",
        "admin:\n  tokens:\n    sesame",
        "admin:\n  tokens:\n  - sesame",
        "admin:\n  tokens: [\n    sesame\n  ]",
        "admin:\n  users:\n    alice: sesame",
    ] {
        let found = load_with(misplaced, &[]);
        assert!(found.contains("******") && !found.contains("sesame"), "{found}");
    }
}

#[test]
fn a_users_file_that_is_a_pipe_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("users");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let users = "users: [{ name: alice, scope: read }]";
    let config = format!("sources: {{ a: {{}} }}\nadmin: {{ users_file: {}, {users} }}", pipe.display());
    assert!(load_with(&config, &[]).contains("not a regular file"));
}

#[test]
fn files_may_begin_with_a_byte_order_mark() {
    let hash = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";
    let line = format!("\u{feff}alice:{hash}\n");
    let map = format!("\u{feff}basic_auth_users: {{ alice: '{hash}' }}\n");
    let keys = "\u{feff}{ \"keys\": [{}] }";
    let jwt = "jwt: [{ issuer: i, audience: a, name_claim: sub, scope: read, jwks_file: keys }]";
    let users = "users: [{ name: alice, scope: read }]";
    for file in [&line, &map] {
        let config = format!(
            "sources: {{ a: {{ auth: {{ basic_auth_users_file: users, bearer_token_files: [token] }} }} }}\n\
             admin: {{ users_file: users, {users}, {jwt} }}"
        );
        let files = [("users", &**file, 0o600), ("keys", keys, 0o600), ("token", "\u{feff}t", 0o600)];
        assert_eq!(load_with(&config, &files), "");
    }
    let empty = load_with(
        "sources: { a: { auth: { bearer_token_files: [token] } } }",
        &[("token", "\u{feff}\n", 0o600)],
    );
    assert!(empty.contains("is empty"), "{empty}");
}
