//! The checked settings of credentials, TLS and outgoing HTTP: who may use a listener or a source, and with what the
//! bridge itself calls others.
//!
//! Secrets are only ever named by file here; `credentials` reads the files, again when they change. The one exception
//! are the bcrypt hashes of a `web_config_file`, which Prometheus' format has inline.

mod admin_auth;
mod client_cert;
mod consistency;
mod hmac;
mod http_client;
mod jwt;
mod listener;
mod local_file;
mod secret_maps;
mod shared;
mod source_auth;
mod tls;
mod url;
pub(crate) mod users_file;
mod web_config;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
pub(super) use admin_auth::{AdminAuthDraft, admin_auth};
pub(super) use consistency::check;
#[cfg(feature = "server")]
pub(crate) use hmac::signing_key_files;
pub(crate) use http_client::http_client;
pub(super) use listener::{ListenerDraft, listener};
pub(super) use local_file::database_url_file;
pub(super) use source_auth::{SourceAuthDraft, source_auth};
pub(super) use url::alertmanager_url;

/// How a listener is protected: its own `tls`, or a `web_config_file`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerAccess {
    /// TLS; `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// What a `web_config_file` adds; `None` without one.
    pub web_config: Option<WebConfig>,
    /// Whether requests without credentials are accepted on an address that is not loopback.
    pub allow_unauthenticated: bool,
}

/// TLS of a listener, with the names and meanings of Prometheus' web configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The PEM file with the certificate and its chain.
    pub cert_file: PathBuf,
    /// The PEM file with the private key.
    pub key_file: PathBuf,
    /// Whether client certificates are requested, and verified.
    pub client_auth: ClientAuth,
    /// If not empty, a verified client certificate must have one of these subject alternative names.
    pub client_allowed_sans: Vec<String>,
    /// The lowest version that is offered.
    pub min_version: TlsVersion,
    /// The highest version that is offered, not below `min_version`.
    pub max_version: TlsVersion,
}

/// `client_auth_type` of Prometheus' web configuration, with the CA where it verifies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate is requested.
    #[default]
    NoClientCert,
    /// A certificate is requested, and not verified. It counts for nothing.
    RequestClientCert,
    /// A certificate is required, and not verified. It counts for nothing.
    RequireAnyClientCert,
    /// A certificate is requested; one that is given must be issued by a CA of this PEM file.
    VerifyClientCertIfGiven(PathBuf),
    /// A certificate that is issued by a CA of this PEM file is required.
    RequireAndVerifyClientCert(PathBuf),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// The parts of a `web_config_file` beside TLS, which becomes [`ListenerAccess::tls`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebConfig {
    /// The file, for messages.
    pub path: PathBuf,
    /// Users and the bcrypt hashes of their passwords.
    pub basic_auth_users: BTreeMap<String, Secret>,
    /// Headers of every response, from `http_server_config.headers`.
    pub headers: Vec<(String, String)>,
}

/// The credentials of a source, of which a request must present one. Empty: the users of the listener's
/// `web_config_file`, or none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceAuth {
    /// Files with one bearer token each. Any of them is valid.
    pub bearer_token_files: Vec<PathBuf>,
    /// The file with users and bcrypt hashes: lines of `htpasswd -nB`, or Prometheus' map.
    pub basic_auth_users_file: Option<PathBuf>,
    /// The client certificates that are accepted.
    pub client_cert: Option<ClientCertAuth>,
    /// The JSON Web Tokens that are accepted.
    pub jwt: Option<JwtAuth>,
    /// The signatures of bodies that are accepted.
    pub hmac: Option<HmacAuth>,
}

/// Signatures of bodies, as Grafana's webhook contact point makes them: the HMAC-SHA256 in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacAuth {
    /// Files with one key each. Any of them is valid. Not empty.
    pub key_files: Vec<PathBuf>,
    /// The header with the signature.
    pub header: String,
    /// The time that is signed with the body. Without it, a request can be sent again at any time.
    pub timestamp: Option<HmacTimestamp>,
}

/// The time of a signature, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HmacTimestamp {
    /// The header with the time.
    pub header: String,
    /// The maximum difference to the time at which the request arrives.
    pub tolerance: Duration,
}

/// Verified client certificates: any of the names is enough.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientCertAuth {
    /// Subject alternative names, exactly: DNS names, URIs, email or IP addresses.
    pub sans: Vec<String>,
    /// Common names of the subject, exactly.
    pub subjects: Vec<String>,
}

/// JSON Web Tokens of one issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuth {
    /// The exact `iss`.
    pub issuer: String,
    /// One of these must be in `aud`. Not empty.
    pub audience: Vec<String>,
    /// Where the keys come from.
    pub keys: JwksLocation,
    /// If not empty, `sub` must match one of these patterns, in which `*` stands for any characters.
    pub subjects: Vec<String>,
}

/// Where a JSON Web Key Set comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwksLocation {
    /// An `https://` URL, or `http://` on loopback.
    Url {
        /// The URL; it contains no user info.
        url: String,
        /// How it is called.
        http: HttpClient,
    },
    /// A local file.
    File(PathBuf),
}

/// What a credential of the admin listener may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Everything that changes nothing.
    Read,
    /// Everything.
    Operate,
}

/// The credentials of the admin listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminAuth {
    /// Bearer tokens.
    pub tokens: Vec<AdminToken>,
    /// The file with users and bcrypt hashes, in the formats of [`SourceAuth::basic_auth_users_file`].
    pub users_file: Option<PathBuf>,
    /// The scopes of users, of `users_file` or of the `web_config_file`. A user of a `users_file` that is not listed
    /// has no access; one of a `web_config_file` may operate.
    pub users: Vec<NamedScope>,
    /// Verified client certificates.
    pub client_certs: Vec<AdminClientCert>,
    /// JSON Web Tokens, tried in this order.
    pub jwt: Vec<AdminJwt>,
    /// Whether `/metrics` needs no credentials.
    pub metrics_unauthenticated: bool,
    /// The address under which browsers and proxies reach the listener, such as `https://ops.example/scalebridge`.
    pub external_url: Option<String>,
}

/// A bearer token of the admin listener. The name is the actor in the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// The actor.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// The file with the token.
    pub token_file: PathBuf,
}

/// A user and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedScope {
    /// The user.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
}

/// Client certificates that act as one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminClientCert {
    /// The actor.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// Subject alternative names, exactly; one of them must be in the certificate. Not empty.
    pub sans: Vec<String>,
}

/// JSON Web Tokens of an identity provider, for single sign-on behind a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminJwt {
    /// Issuer, audience, keys and subjects.
    pub token: JwtAuth,
    /// The claim with the name of the actor, such as `email`.
    pub name_claim: String,
    /// What its bearers may do.
    pub scope: Scope,
    /// If not empty, the claim `groups` must contain one of these.
    pub groups: Vec<String>,
    /// The header that carries the token, in lower case; `authorization` carries it after `Bearer `.
    pub header: String,
}

/// `http:` of an outgoing client, with the names of Prometheus' `http_config`. Redirects are not followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HttpClient {
    /// Credentials sent with each request.
    pub authorization: Option<HttpAuthorization>,
    /// The PEM file with the CAs that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key, two PEM files.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// The name that the server's certificate must have, if not that of the URL.
    pub server_name: Option<String>,
    /// The proxy. Its user info is a secret.
    pub proxy_url: Option<Secret>,
    /// Hosts that are called without the proxy, comma-separated.
    pub no_proxy: Option<String>,
}

/// Credentials that an outgoing client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAuthorization {
    /// `Authorization: TYPE CREDENTIALS`.
    Credentials {
        /// The type, `Bearer` by default.
        kind: String,
        /// The file with the credentials, read for each request.
        credentials_file: PathBuf,
    },
    /// Basic authentication.
    Basic {
        /// The user.
        username: String,
        /// The file with the password, read for each request.
        password_file: PathBuf,
    },
}

impl ListenerAccess {
    /// Whether the `web_config_file` has users, who are asked for where nothing else is.
    pub fn has_users(&self) -> bool {
        self.web_config.as_ref().is_some_and(|config| !config.basic_auth_users.is_empty())
    }
}

impl ClientAuth {
    /// Whether a certificate that a client presents is verified.
    pub const fn verifies(&self) -> bool {
        self.ca_file().is_some()
    }

    /// The file of the CAs that verify it.
    pub const fn ca_file(&self) -> Option<&PathBuf> {
        match self {
            Self::NoClientCert | Self::RequestClientCert | Self::RequireAnyClientCert => None,
            Self::VerifyClientCertIfGiven(file) | Self::RequireAndVerifyClientCert(file) => Some(file),
        }
    }
}

impl SourceAuth {
    /// Whether no credential is configured.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a sender sends a secret with each request: a signature is none.
    pub fn has_secrets_in_requests(&self) -> bool {
        Self { client_cert: None, hmac: None, ..self.clone() } != Self::default()
    }
}

impl AdminAuth {
    /// Whether no credential is configured here; a `web_config_file` may have users.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
            && self.users_file.is_none()
            && self.client_certs.is_empty()
            && self.jwt.is_empty()
    }
}
