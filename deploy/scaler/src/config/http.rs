//! `http`: an outgoing HTTP client, with the names of Prometheus' `http_config`.

use std::path::PathBuf;

use scalebridge::config::Secret;
use scalebridge::config::access::{HttpAuthorization, HttpClient};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::file::Errors;
use super::values::host;

/// An outgoing HTTP client, with the names of Prometheus' `http_config`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Http")]
pub(super) struct RawHttp {
    /// The header `Authorization`; or `basic_auth`.
    #[schemars(with = "Option<RawAuthorization>")]
    authorization: Option<Spanned<RawAuthorization>>,
    /// Basic authentication; or `authorization`.
    #[schemars(with = "Option<RawBasicAuth>")]
    basic_auth: Option<Spanned<RawBasicAuth>>,
    /// TLS of the connection.
    #[schemars(with = "Option<RawTls>")]
    tls_config: Option<Spanned<RawTls>>,
    /// The URL of an HTTP proxy, such as `http://proxy.internal:3128`. By default none is used.
    #[schemars(with = "Option<String>", regex(pattern = "^https?://"))]
    proxy_url: Option<Spanned<String>>,
    /// Hosts that are reached without the proxy, separated by commas; requires `proxy_url`.
    #[schemars(with = "Option<String>")]
    no_proxy: Option<Spanned<String>>,
    /// Only false is allowed, which is also the default: redirects could send credentials to another host.
    #[schemars(with = "Option<bool>", extend("enum" = [false, null]))]
    follow_redirects: Option<Spanned<bool>>,
}

/// The header `Authorization`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Authorization")]
struct RawAuthorization {
    /// The first word of the header. Default Bearer.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// A file with the rest of the header, which is read for each request. Required.
    credentials_file: PathBuf,
}

/// Basic authentication.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BasicAuth")]
struct RawBasicAuth {
    /// The name of the user. Required.
    username: String,
    /// A file with the password, which is read for each request. Required.
    password_file: PathBuf,
}

/// TLS of a connection.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tls")]
struct RawTls {
    /// A file with the authorities of the server's certificate. By default those of the system.
    ca_file: Option<PathBuf>,
    /// A file with the client's certificate; together with `key_file`.
    cert_file: Option<PathBuf>,
    /// A file with the key of the client's certificate; together with `cert_file`.
    key_file: Option<PathBuf>,
    /// The name in the server's certificate. By default the host of the URL.
    server_name: Option<String>,
}

pub(super) fn http_client(raw: RawHttp, errors: &mut Errors) -> HttpClient {
    let RawHttp { authorization, basic_auth, tls_config, proxy_url, no_proxy, follow_redirects } = raw;
    if let Some(basic) = basic_auth.as_ref().filter(|_| authorization.is_some()) {
        errors.add(basic, "`basic_auth` and `authorization` are mutually exclusive; keep one of them");
    }
    if let Some(follow) = follow_redirects.filter(|follow| follow.value) {
        errors
            .add(&follow, "redirects are not followed: credentials could be sent to another host; remove it");
    }
    if let Some(no_proxy) = no_proxy.as_ref().filter(|_| proxy_url.is_none()) {
        errors.add(no_proxy, "`no_proxy` requires `proxy_url`");
    }
    if let Some(tls) = &tls_config
        && tls.value.cert_file.is_some() != tls.value.key_file.is_some()
    {
        errors.add(tls, "`cert_file` and `key_file` are set together");
    }
    let RawTls { ca_file, cert_file, key_file, server_name } =
        tls_config.map(|tls| tls.value).unwrap_or_default();
    let bearer = |RawAuthorization { kind, credentials_file }| HttpAuthorization::Credentials {
        kind: kind.unwrap_or_else(|| "Bearer".to_owned()),
        credentials_file,
    };
    let basic =
        |RawBasicAuth { username, password_file }| HttpAuthorization::Basic { username, password_file };
    HttpClient {
        authorization: authorization
            .map(|raw| bearer(raw.value))
            .or_else(|| basic_auth.map(|raw| basic(raw.value))),
        ca_file,
        client_cert: cert_file.zip(key_file),
        server_name,
        proxy_url: proxy_url.map(|url| proxy(url, errors)),
        no_proxy: no_proxy.map(|no_proxy| no_proxy.value),
    }
}

/// Its user info is a secret, so that the URL is never shown.
fn proxy(url: Spanned<String>, errors: &mut Errors) -> Secret {
    if host(&url.value).is_none() {
        errors.add(&url, "`proxy_url` is not the URL of a proxy, for example http://proxy.internal:3128");
    }
    Secret::new(url.value)
}
