//! `http`: an outgoing HTTP client, with the names of Prometheus' `http_config`.

use std::path::PathBuf;

use scalebridge::config::Secret;
use scalebridge::config::access::{HttpAuthorization, HttpClient};
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::file::Errors;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    authorization: Option<Spanned<RawAuthorization>>,
    basic_auth: Option<Spanned<RawBasicAuth>>,
    tls_config: Option<Spanned<RawTls>>,
    proxy_url: Option<Spanned<String>>,
    no_proxy: Option<Spanned<String>>,
    follow_redirects: Option<Spanned<bool>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAuthorization {
    #[serde(rename = "type")]
    kind: Option<String>,
    credentials_file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBasicAuth {
    username: String,
    password_file: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawTls {
    ca_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
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
    if !url.value.starts_with("http://") && !url.value.starts_with("https://") {
        errors.add(&url, "`proxy_url` is not the URL of a proxy, for example http://proxy.internal:3128");
    }
    Secret::new(url.value)
}
