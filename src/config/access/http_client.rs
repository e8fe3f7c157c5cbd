//! Reads `http`, the settings of an outgoing HTTP client.

use super::super::decode::Fields;
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{flag, owned_text, text};
use super::super::secret::Secret;
use super::super::yaml::Node;
use super::local_file;
use super::secret_maps::fields;
use super::{HttpAuthorization, HttpClient, url};

/// Reads the settings of an outgoing HTTP client.
pub(crate) fn http_client(node: &Node, diagnostics: &mut Diagnostics) -> Option<HttpClient> {
    let mut fields = fields(node, "http", diagnostics)?;
    let both = fields.has("authorization") && fields.has("basic_auth");
    let authorization = fields.get("authorization", authorization);
    let basic_auth = fields.get("basic_auth", basic_auth);
    if both {
        let why = "and `authorization` are mutually exclusive";
        fields.reject(&["basic_auth"], why, "keep only one of them");
    }
    let tls = fields.get("tls_config", tls_config).unwrap_or_default();
    let proxy_url = fields.get("proxy_url", proxy_url);
    let no_proxy = fields.get("no_proxy", owned_text);
    if fields.has("no_proxy") && !fields.has("proxy_url") {
        fields.reject(&["no_proxy"], "requires `proxy_url`", "add `proxy_url`, or remove `no_proxy`");
    }
    if fields.get("follow_redirects", flag) == Some(true) {
        let help = "remove it, and use the URL to which the redirect leads";
        let location = fields.location_of("follow_redirects");
        let message = "redirects are not followed: credentials could be sent to another host";
        fields.diagnostics.add_with_help(Code::Unsupported, location, message, help);
    }
    fields.finish();
    Some(HttpClient {
        authorization: authorization.or(basic_auth),
        ca_file: tls.ca_file,
        client_cert: tls.client_cert,
        server_name: tls.server_name,
        proxy_url,
        no_proxy,
    })
}

fn authorization(node: &Node, diagnostics: &mut Diagnostics) -> Option<HttpAuthorization> {
    let mut fields = fields(node, "http.authorization", diagnostics)?;
    let kind = fields.get("type", scheme).unwrap_or_else(|| "Bearer".to_owned());
    let example = "credentials_file: /run/secrets/token";
    let credentials_file =
        fields.get_required("credentials_file", example, local_file::OUTGOING_CREDENTIALS.at());
    fields.finish();
    Some(HttpAuthorization::Credentials { kind, credentials_file: credentials_file? })
}

/// Reads the scheme of an `Authorization` header.
fn scheme(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let problem = if text.eq_ignore_ascii_case("basic") {
        "`Basic` needs a user and a password"
    } else if text.len() > 32 || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        // Not shown: it may be the whole header.
        "not the scheme of an `Authorization` header"
    } else {
        return Some(text.to_owned());
    };
    let help =
        "use `type: Bearer` with `credentials_file`, or `basic_auth: { username: …, password_file: … }`";
    diagnostics.add_with_help(Code::Value, &node.location, problem, help);
    None
}

fn basic_auth(node: &Node, diagnostics: &mut Diagnostics) -> Option<HttpAuthorization> {
    let mut fields = fields(node, "http.basic_auth", diagnostics)?;
    let username = fields.get_required("username", "username: scalebridge", username);
    let example = "password_file: /run/secrets/password";
    let password_file = fields.get_required("password_file", example, local_file::OUTGOING_CREDENTIALS.at());
    fields.finish();
    Some(HttpAuthorization::Basic { username: username?, password_file: password_file? })
}

fn username(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if text.contains(':') || text.contains(char::is_control) {
        let message = "a user of basic authentication contains no colon and no control character";
        diagnostics.add(Code::Value, &node.location, message);
        return None;
    }
    Some(text.to_owned())
}

#[derive(Default)]
struct TlsConfig {
    ca_file: Option<std::path::PathBuf>,
    client_cert: Option<(std::path::PathBuf, std::path::PathBuf)>,
    server_name: Option<String>,
}

fn tls_config(node: &Node, diagnostics: &mut Diagnostics) -> Option<TlsConfig> {
    let mut fields = fields(node, "http.tls_config", diagnostics)?;
    let ca_file = fields.get("ca_file", local_file::CLIENT_CERTIFICATES.at());
    let cert_file = fields.get("cert_file", local_file::CLIENT_CERTIFICATES.at());
    let key_file = fields.get("key_file", local_file::CLIENT_KEY.at());
    require_both(&mut fields);
    let server_name = fields.get("server_name", server_name);
    fields.finish();
    Some(TlsConfig { ca_file, client_cert: cert_file.zip(key_file), server_name })
}

/// Reports one of `cert_file` and `key_file` without the other.
fn require_both(fields: &mut Fields<'_, '_>) {
    if fields.has("cert_file") != fields.has("key_file") {
        fields.require("cert_file", "cert_file: client.crt");
        fields.require("key_file", "key_file: client.key");
    }
}

fn server_name(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if !text.chars().all(is_name) {
        let message = format!("`{text}` is not the name of a host");
        let help =
            "use the name in the server's certificate, without scheme and port, for example `idp.internal`";
        diagnostics.add_with_help(Code::Value, &node.location, message, help);
        return None;
    }
    Some(text.to_owned())
}

fn proxy_url(node: &Node, diagnostics: &mut Diagnostics) -> Option<Secret> {
    let text = text(node, diagnostics)?;
    if !url::is_proxy(text) {
        // Its user info is a secret.
        let message = "`proxy_url` is not the URL of a proxy";
        let help = "use scheme, host and port, for example `http://proxy.internal:3128`";
        diagnostics.add_with_help(Code::Value, &node.location, message, help);
        return None;
    }
    Some(Secret::new(text.to_owned()))
}
