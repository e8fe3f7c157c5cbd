//! Reads a `web_config_file`, the web configuration file of Prometheus and its exporters.
//!
//! What Prometheus has a default for and the bridge does not offer is ignored where the default asks for it (`http2`);
//! all other keys that have no effect here are errors.

use std::collections::BTreeMap;

use super::super::decode::{Fields, Spanned, entries};
use super::super::diagnostic::{Code, Diagnostics};
use super::super::file;
use super::super::file_stamp::FileStamp;
use super::super::scalar::{any_text, flag};
use super::super::secret::Secret;
use super::super::yaml::{Kind, Node};
use super::local_file::path;
use super::secret_maps::fields;
use super::tls::{Format, tls};
use super::users_file::{hash_problem, is_like_hash};
use super::{Tls, WebConfig};

/// The content of a `web_config_file`.
#[derive(Debug)]
pub(super) struct WebConfigFile {
    pub config: WebConfig,
    /// The users, with the location of each.
    pub users: Vec<Spanned<String>>,
    pub tls: Option<Tls>,
    pub stamp: FileStamp,
}

/// The headers that Prometheus lets one set, with the values that some are limited to.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

/// Reads the file that `node` names.
pub(super) fn web_config_file(node: &Node, diagnostics: &mut Diagnostics) -> Option<WebConfigFile> {
    let path = path(node, diagnostics)?;
    let (tree, stamp) = file::read(&path, Some(&node.location), diagnostics)?;
    let mut fields = fields(&tree, "web_config", diagnostics)?;
    let tls = match fields.peek("tls_server_config").map(|node| &node.kind) {
        Some(Kind::Null) | None => {
            fields.lookup("tls_server_config");
            None
        }
        Some(Kind::Map(entries)) if entries.is_empty() => {
            fields.lookup("tls_server_config");
            None
        }
        Some(_) => Some(fields.get("tls_server_config", tls(Format::WebConfig))),
    };
    let (users, basic_auth_users) = fields.get("basic_auth_users", users).unwrap_or_default();
    let headers = fields.get("http_server_config", http).unwrap_or_default();
    fields.finish();
    let tls = match tls {
        Some(tls) => Some(tls?),
        None => None,
    };
    let config = WebConfig { path, basic_auth_users, headers };
    Some(WebConfigFile { config, users, tls, stamp })
}

/// The names of users with their locations, and their hashes.
type Users = (Vec<Spanned<String>>, BTreeMap<String, Secret>);

fn users(node: &Node, diagnostics: &mut Diagnostics) -> Option<Users> {
    let fields = fields(node, "web_config.basic_auth_users", diagnostics)?;
    let (mut names, mut users) = (Vec::new(), BTreeMap::new());
    for (user, hash) in entries(node, fields.diagnostics)? {
        let text = match &hash.kind {
            Kind::Text(text) => text.as_str(),
            _ => "",
        };
        let problem = if user.name.is_empty() || user.name.contains(':') {
            Some("the name of a user is not empty and contains no colon".to_owned())
        } else if is_like_hash(&user.name) {
            Some("the hash is in the place of the user".to_owned())
        } else {
            hash_problem(text).map(|problem| format!("user `{}`: {problem}", user.name))
        };
        match problem {
            Some(problem) => fields.diagnostics.add(Code::Value, &user.location, problem),
            None => {
                names.push(Spanned { value: user.name.clone(), location: user.location.clone() });
                users.insert(user.name.clone(), Secret::new(text.to_owned()));
            }
        }
    }
    Some((names, users))
}

fn http(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<(String, String)>> {
    let mut fields = Fields::from_node(node, "web_config.http_server_config", diagnostics)?;
    // By default true; here HTTP/2 is never offered, since Alertmanager would use it.
    fields.get("http2", flag);
    let headers = fields.get("headers", headers);
    fields.finish();
    headers
}

fn headers(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<(String, String)>> {
    let mut headers = Vec::new();
    for (name, value) in entries(node, diagnostics)? {
        let Some((_, values)) = HEADERS.iter().find(|(known, _)| *known == name.name) else {
            let known: Vec<&str> = HEADERS.iter().map(|(name, _)| *name).collect();
            let message = format!("the header `{}` cannot be set", name.name);
            let help = super::super::suggest::did_you_mean(&name.name, &known);
            diagnostics.add_with_help(Code::UnknownKey, &name.location, message, help);
            continue;
        };
        let Some(text) = any_text(value, diagnostics) else { continue };
        let is_allowed = values.is_empty() || values.contains(&text);
        if !is_allowed {
            let message = format!("`{}` cannot be `{text}`", name.name);
            let help = format!("use `{}`", values.join("` or `"));
            diagnostics.add_with_help(Code::Value, &value.location, message, help);
        } else if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let message = format!("the value of the header `{}` is not printable ASCII text", name.name);
            diagnostics.add(Code::Value, &value.location, message);
        } else if !text.is_empty() {
            headers.push((name.name.clone(), text.to_owned()));
        }
    }
    Some(headers)
}
