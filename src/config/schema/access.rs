//! The schema of credentials and outgoing HTTP clients.

use schemars::JsonSchema;

use super::Duration;

/// TLS of a listener, with the names and meanings of Prometheus' web configuration. Files are read again when they
/// change.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct Tls {
    /// The PEM file with the certificate and its chain, relative to this file. Required.
    cert_file: String,
    /// The PEM file with the private key, relative to this file. Required.
    key_file: String,
    /// Whether client certificates are requested, and verified. Default NoClientCert.
    client_auth_type: Option<ClientAuthType>,
    /// The PEM file with the CAs of client certificates, relative to this file. Required if `client_auth_type` verifies.
    client_ca_file: Option<String>,
    /// Subject alternative names, of which a verified client certificate must have one.
    client_allowed_sans: Option<Vec<String>>,
    /// The lowest version of TLS. Default TLS12.
    min_version: Option<TlsVersion>,
    /// The highest version of TLS. Default TLS13.
    max_version: Option<TlsVersion>,
}

/// Whether client certificates are requested, and verified. Only the last two verify.
#[derive(JsonSchema)]
enum ClientAuthType {
    NoClientCert,
    RequestClientCert,
    RequireAnyClientCert,
    RequireClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(JsonSchema)]
enum TlsVersion {
    #[schemars(rename = "TLS12")]
    Tls12,
    #[schemars(rename = "TLS13")]
    Tls13,
}

/// The credentials of a source; a request must present one of them. At least one.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SourceAuth {
    /// Files with one bearer token each; any of them is valid. Relative to this file.
    bearer_token_files: Option<Vec<String>>,
    /// The file with users and bcrypt hashes: lines of `htpasswd -nB`, or Prometheus' map. Relative to this file.
    basic_auth_users_file: Option<String>,
    /// The client certificates that are accepted. The listener must verify them.
    client_cert: Option<ClientCert>,
    /// The JSON Web Tokens that are accepted.
    jwt: Option<Jwt>,
    /// The signatures of bodies that are accepted, as Grafana makes them.
    hmac: Option<Hmac>,
}

/// Signatures of bodies, as Grafana's webhook contact point makes them.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Hmac {
    /// Files with one key each; any of them is valid. Relative to this file. Required.
    key_files: Vec<String>,
    /// The header with the signature. Default X-Grafana-Alerting-Signature.
    header: Option<String>,
    /// The header with the time of the signature, as set in Grafana. Without it, a request can be sent again at any time.
    timestamp_header: Option<String>,
    /// The maximum difference between that time and the arrival; requires `timestamp_header`. Default 5m.
    tolerance: Option<Duration>,
}

/// Verified client certificates: any of the names is enough.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct ClientCert {
    /// Subject alternative names, exactly.
    sans: Option<Vec<String>>,
    /// Common names of the subject, exactly.
    subjects: Option<Vec<String>>,
}

/// One text, or a list of them.
#[derive(JsonSchema)]
#[schemars(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// JSON Web Tokens of one issuer.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct Jwt {
    /// The exact `iss`. Required.
    issuer: String,
    /// One of these must be in `aud`. Required.
    audience: OneOrMore,
    /// The https:// URL of the JSON Web Key Set; or `jwks_file`.
    jwks_url: Option<String>,
    /// The file with the JSON Web Key Set; or `jwks_url`. Relative to this file.
    jwks_file: Option<String>,
    /// How `jwks_url` is called.
    http: Option<HttpClient>,
    /// Patterns of which `sub` must match one; `*` stands for any characters.
    subjects: Option<Vec<String>>,
}

/// What a credential may do: `read` everything, or also `operate`.
#[derive(JsonSchema)]
#[schemars(rename_all = "snake_case")]
enum Scope {
    Read,
    Operate,
}

/// A bearer token of the admin listener.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AdminToken {
    /// The actor in the audit trail. Required.
    name: String,
    /// What it may do. Required.
    scope: Scope,
    /// The file with the token, relative to this file. Required.
    token_file: String,
}

/// A user and what it may do.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AdminUser {
    /// The user. Required.
    name: String,
    /// What it may do. Required.
    scope: Scope,
}

/// Verified client certificates that act as one name.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AdminClientCert {
    /// The actor in the audit trail. Required.
    name: String,
    /// What it may do. Required.
    scope: Scope,
    /// Subject alternative names, exactly; the certificate must have one of them. Required.
    sans: Vec<String>,
}

/// JSON Web Tokens of an identity provider, for single sign-on behind a proxy.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AdminJwt {
    /// The exact `iss`. Required.
    issuer: String,
    /// One of these must be in `aud`. Required.
    audience: OneOrMore,
    /// The https:// URL of the JSON Web Key Set; or `jwks_file`.
    jwks_url: Option<String>,
    /// The file with the JSON Web Key Set; or `jwks_url`. Relative to this file.
    jwks_file: Option<String>,
    /// How `jwks_url` is called.
    http: Option<HttpClient>,
    /// Patterns of which `sub` must match one; `*` stands for any characters.
    subjects: Option<Vec<String>>,
    /// What the bearers may do. Required.
    scope: Scope,
    /// The claim with the name of the actor. Default sub.
    name_claim: Option<String>,
    /// The claim `groups` must contain one of these.
    groups: Option<Vec<String>>,
    /// The header that carries the token. Default authorization, after `Bearer `.
    header: Option<String>,
}

/// An outgoing HTTP client, with the names of Prometheus' `http_config`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct HttpClient {
    /// Credentials of the `Authorization` header; or `basic_auth`.
    authorization: Option<HttpAuthorization>,
    /// Basic authentication; or `authorization`.
    basic_auth: Option<HttpBasicAuth>,
    /// TLS of the client.
    tls_config: Option<HttpTls>,
    /// The URL of the proxy.
    proxy_url: Option<String>,
    /// Hosts that are called without the proxy, comma-separated; requires `proxy_url`.
    no_proxy: Option<String>,
    /// Redirects are not followed; only `false` is possible.
    follow_redirects: Option<bool>,
}

/// Credentials of the `Authorization` header.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpAuthorization {
    /// The scheme. Default Bearer.
    #[schemars(rename = "type")]
    kind: Option<String>,
    /// The file with the credentials, relative to this file. Required.
    credentials_file: String,
}

/// Basic authentication.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpBasicAuth {
    /// The user. Required.
    username: String,
    /// The file with the password, relative to this file. Required.
    password_file: String,
}

/// TLS of an outgoing client.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
struct HttpTls {
    /// The PEM file with the CAs that are trusted instead of the system's.
    ca_file: Option<String>,
    /// The PEM file with the client certificate; requires `key_file`.
    cert_file: Option<String>,
    /// The PEM file with the private key; requires `cert_file`.
    key_file: Option<String>,
    /// The name that the server's certificate must have, if not that of the URL.
    server_name: Option<String>,
}
