//! Settings of credentials have the configured values.

use std::path::{Path, PathBuf};

use crate::config::access::{
    AdminClientCert, AdminJwt, ClientCertAuth, HttpAuthorization, JwksLocation, JwtAuth, NamedScope, Scope,
};
use crate::config::tests::{environment, name};
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
    let credentials_file = "/var/run/secrets/kubernetes.io/serviceaccount/token".into();
    let kind = "Bearer".to_owned();
    assert_eq!(http.authorization, Some(HttpAuthorization::Credentials { kind, credentials_file }));
    assert_eq!(http.ca_file, Some(beside("secrets/ca.crt")));
    assert_eq!(http.client_cert, Some((beside("secrets/client.crt"), beside("secrets/client.key"))));
    assert_eq!(http.server_name.as_deref(), Some("kubernetes.default.svc"));
    assert_eq!(http.proxy_url.as_ref().unwrap().expose(), "http://user:pass@proxy.internal:3128");
    assert_eq!(http.no_proxy.as_deref(), Some("10.0.0.0/8,.svc"));

    assert!(settings.source_auth[&name("prod-us")].is_empty());
    let elsewhere = settings.source_auth[&name("elsewhere")].jwt.as_ref().unwrap();
    let JwksLocation::Url { http, .. } = &elsewhere.keys else { panic!("{elsewhere:?}") };
    let (username, password_file) = ("bridge".to_owned(), beside("secrets/password"));
    assert_eq!(http.authorization, Some(HttpAuthorization::Basic { username, password_file }));
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
    assert_eq!(auth.users, [user("alice", Scope::Operate), user("bob", Scope::Read)]);
    let sans = ["deployer.ci.svc", "spiffe://ci/deployer"].map(str::to_owned).to_vec();
    let deployer = AdminClientCert { name: "deployer".to_owned(), scope: Scope::Operate, sans };
    assert_eq!(auth.client_certs, [deployer]);
    let [idp, ci] = &auth.jwt[..] else { panic!("{:?}", auth.jwt) };
    let url = "https://idp.example/keys".to_owned();
    let token = JwtAuth {
        issuer: "https://idp.example".to_owned(),
        audience: ["scalebridge", "ops"].map(str::to_owned).to_vec(),
        keys: JwksLocation::Url { url, http: crate::config::access::HttpClient::default() },
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
