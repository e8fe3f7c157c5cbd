//! Reads `jwt` of sources and of the admin listener.

use super::super::decode::Fields;
use super::super::diagnostic::{Code, Diagnostics};
use super::super::scalar::{owned_text, text};
use super::super::yaml::Node;
use super::client_cert::{text_or_texts, texts};
use super::http_client::http_client;
use super::local_file;
use super::secret_maps::fields;
use super::url::jwks_url;
use super::{AdminJwt, JwksLocation, JwtAuth, Scope};
use crate::config::scalar::keyword;

pub(super) const JWT_EXAMPLE: &str =
    "jwt: { issuer: https://idp.example, audience: scalebridge, jwks_url: https://idp.example/keys }";

/// The scopes by their keywords.
pub(super) const SCOPES: [(&str, Scope); 2] = [("read", Scope::Read), ("operate", Scope::Operate)];

/// Headers with a meaning of their own, which cannot carry a token.
pub(super) const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "host",
    "origin",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Reads `jwt` of a source.
pub(super) fn source_jwt(node: &Node, diagnostics: &mut Diagnostics) -> Option<JwtAuth> {
    let mut fields = fields(node, "sources.*.auth.jwt", diagnostics)?;
    let jwt = jwt(&mut fields);
    fields.finish();
    if jwt.as_ref().is_some_and(|jwt| jwt.subjects.is_empty()) {
        warn_any_subject(node, "send", "`subjects`", diagnostics);
    }
    jwt
}

/// Reads an item of `admin.jwt`.
pub(super) fn admin_jwt(node: &Node, diagnostics: &mut Diagnostics) -> Option<AdminJwt> {
    let mut fields = fields(node, "admin.jwt.*", diagnostics)?;
    let token = jwt(&mut fields);
    let scope = fields.get_required("scope", "scope: read", keyword(&SCOPES));
    let name_claim = fields.get("name_claim", owned_text).unwrap_or_else(|| "sub".to_owned());
    let groups = fields.get("groups", texts).unwrap_or_default();
    let header = fields.get("header", header).unwrap_or_else(|| "authorization".to_owned());
    fields.finish();
    let accepts_any = token.as_ref().is_some_and(|token| token.subjects.is_empty()) && groups.is_empty();
    if accepts_any && scope == Some(Scope::Operate) {
        warn_any_subject(node, "operate", "`groups` or `subjects`", diagnostics);
    }
    Some(AdminJwt { token: token?, name_claim, scope: scope?, groups, header })
}

fn warn_any_subject(node: &Node, act: &str, keys: &str, diagnostics: &mut Diagnostics) {
    let message = format!("anyone who can get a token of the issuer for the audience can {act}");
    let help = format!("add {keys}");
    diagnostics.add_with_help(Code::AnySubject, &node.location, message, help);
}

/// Reads the keys that both have.
fn jwt(fields: &mut Fields<'_, '_>) -> Option<JwtAuth> {
    let issuer = fields.get_required("issuer", "issuer: https://idp.example", owned_text);
    let audience = fields.get_required("audience", "audience: scalebridge", text_or_texts);
    let help = "add `jwks_url: https://idp.example/keys`, or `jwks_file` with a JSON Web Key Set";
    let keys = fields.one_of(&["jwks_url", "jwks_file"], help);
    let http = fields.get("http", http_client);
    if fields.has("jwks_file") && fields.has("http") && !fields.has("jwks_url") {
        fields.reject(&["http"], "has no effect with `jwks_file`", "remove it, or use `jwks_url`");
    }
    let keys = match keys {
        Some(("jwks_url", node)) => jwks_url(node, fields.diagnostics)
            .map(|url| JwksLocation::Url { url, http: http.unwrap_or_default() }),
        Some((_, node)) => local_file::KEY_SET.at()(node, fields.diagnostics).map(JwksLocation::File),
        None => None,
    };
    let subjects = fields.get("subjects", texts).unwrap_or_default();
    Some(JwtAuth { issuer: issuer?, audience: audience?, keys: keys?, subjects })
}

/// Reads the name of a header, in lower case.
fn header(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let name = text(node, diagnostics)?.to_ascii_lowercase();
    let problem = if !is_header_name(&name) {
        "is not a valid name of a header"
    } else if RESERVED_HEADERS.contains(&name.as_str()) {
        "is a header that cannot carry a token"
    } else {
        return Some(name);
    };
    let help = "use the header in which the proxy sends the token, for example `x-forwarded-access-token`, or remove \
                `header` for `Authorization: Bearer …`";
    diagnostics.add_with_help(Code::Value, &node.location, format!("`{name}` {problem}"), help);
    None
}

pub(super) fn is_header_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}
