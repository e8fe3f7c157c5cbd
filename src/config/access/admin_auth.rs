//! Reads the credentials of the admin listener.

use super::super::decode::{Fields, Spanned, check_not_empty, spanned};
use super::super::diagnostic::{Code, Diagnostics, Location};
use super::super::scalar::{flag, keyword, text};
use super::super::yaml::Node;
use super::client_cert::texts;
use super::jwt::{SCOPES, admin_jwt};
use super::local_file::{self, users_file};
use super::secret_maps::{fields, list};
use super::url::external_url;
use super::{AdminAuth, AdminClientCert, AdminToken, NamedScope, Scope};
use crate::domain::actor_name::{is_hidden, is_reserved};

/// Maximum length of the name of an actor.
const MAX_NAME_CHARS: usize = 100;

/// The credentials of the admin listener, with the locations that later checks need.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct AdminAuthDraft {
    pub auth: AdminAuth,
    /// The location of each of `tokens`.
    pub tokens: Vec<Location>,
    /// The users that `users` lists.
    pub users: Vec<Spanned<String>>,
    /// The location of `users_file`.
    pub users_file: Option<Location>,
    /// The location of `client_certs`.
    pub client_certs: Option<Location>,
    /// Whether a key is invalid.
    pub is_faulty: bool,
}

/// Reads the keys of `admin` that are about credentials.
pub(in crate::config) fn admin_auth(fields: &mut Fields<'_, '_>) -> AdminAuthDraft {
    let before = fields.diagnostics.errors();
    let tokens = named_list(fields, "tokens", token);
    let users_file = fields.get("users_file", users_file);
    let users = named_list(fields, "users", user);
    let client_certs = named_list(fields, "client_certs", client_cert);
    let jwt = fields.get("jwt", |node, diagnostics| {
        check_not_empty(node, "add one, or remove the key", diagnostics);
        list(admin_jwt)(node, diagnostics)
    });
    let metrics_unauthenticated = fields.get("metrics_unauthenticated", flag).unwrap_or_default();
    let external_url = fields.get("external_url", external_url);
    check_names_are_distinct(
        [
            tokens.iter().map(|(name, _)| name).collect(),
            users.iter().map(|(name, _)| name).collect(),
            client_certs.iter().map(|(name, _)| name).collect(),
        ],
        fields.diagnostics,
    );
    let location_of = |key: &str| fields.has(key).then(|| fields.location_of(key).clone());
    let is_valid = |(name, token): &Named<AdminToken>| token.as_ref().map(|_| name.location.clone());
    AdminAuthDraft {
        tokens: tokens.iter().filter_map(is_valid).collect(),
        users: users.iter().map(|(name, _)| name.clone()).collect(),
        users_file: location_of("users_file"),
        client_certs: location_of("client_certs"),
        is_faulty: fields.diagnostics.errors() > before,
        auth: AdminAuth {
            tokens: values(tokens),
            users_file,
            users: values(users),
            client_certs: values(client_certs),
            jwt: jwt.unwrap_or_default(),
            metrics_unauthenticated,
            external_url,
        },
    }
}

/// An item of a list, with its name; `None` if something else in it is invalid.
type Named<T> = (Spanned<String>, Option<T>);

fn values<T>(named: Vec<Named<T>>) -> Vec<T> {
    named.into_iter().filter_map(|(_, value)| value).collect()
}

fn named_list<'n, T>(
    fields: &mut Fields<'n, '_>,
    key: &'static str,
    read: impl Fn(&'n Node, &mut Diagnostics) -> Option<Named<T>>,
) -> Vec<Named<T>> {
    let items = fields.get(key, |node, diagnostics| {
        check_not_empty(node, "add one, or remove the key", diagnostics);
        list(read)(node, diagnostics)
    });
    items.unwrap_or_default()
}

fn token(node: &Node, diagnostics: &mut Diagnostics) -> Option<Named<AdminToken>> {
    let mut fields = fields(node, "admin.tokens.*", diagnostics)?;
    let (name, scope) = name_and_scope(&mut fields);
    let token_file =
        fields.get_required("token_file", "token_file: /run/secrets/admin", local_file::TOKEN.at());
    fields.finish();
    let name = name?;
    let token = scope.zip(token_file);
    let token = token.map(|(scope, token_file)| AdminToken { name: name.value.clone(), scope, token_file });
    Some((name, token))
}

fn user(node: &Node, diagnostics: &mut Diagnostics) -> Option<Named<NamedScope>> {
    let mut fields = fields(node, "admin.users.*", diagnostics)?;
    let (name, scope) = name_and_scope(&mut fields);
    fields.finish();
    let name = name?;
    let user = scope.map(|scope| NamedScope { name: name.value.clone(), scope });
    Some((name, user))
}

fn client_cert(node: &Node, diagnostics: &mut Diagnostics) -> Option<Named<AdminClientCert>> {
    let mut fields = fields(node, "admin.client_certs.*", diagnostics)?;
    let (name, scope) = name_and_scope(&mut fields);
    let sans = fields.get_required("sans", "sans: [ops.example]", texts);
    fields.finish();
    let name = name?;
    let certificate =
        scope.zip(sans).map(|(scope, sans)| AdminClientCert { name: name.value.clone(), scope, sans });
    Some((name, certificate))
}

fn name_and_scope(fields: &mut Fields<'_, '_>) -> (Option<Spanned<String>>, Option<Scope>) {
    let name = fields.get_required("name", "name: oncall", spanned(actor));
    let scope = fields.get_required("scope", "scope: read", keyword(&SCOPES));
    (name, scope)
}

/// Reads the name of an actor, which the audit trail shows.
fn actor(node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = text(node, diagnostics)?;
    if let Some((code, message)) = actor_problem(text) {
        diagnostics.add(code, &node.location, message);
        return None;
    }
    Some(text.to_owned())
}

/// Why the audit trail cannot show this name as that of an actor.
pub(super) fn actor_problem(name: &str) -> Option<(Code, String)> {
    if name.contains(is_hidden) || name.trim() != name {
        let message = "a name has no control or invisible characters, and no space at its ends";
        return Some((Code::Value, message.to_owned()));
    }
    if is_reserved(name) {
        let message =
            format!("`{name}` is what the bridge calls itself in the audit trail; use another name");
        return Some((Code::Value, message));
    }
    let is_long = name.chars().count() > MAX_NAME_CHARS;
    is_long.then(|| (Code::Range, format!("a name has at most {MAX_NAME_CHARS} characters")))
}

/// Reports names that are used twice: the audit trail could not tell who has acted.
fn check_names_are_distinct(lists: [Vec<&Spanned<String>>; 3], diagnostics: &mut Diagnostics) {
    let mut known: Vec<&Spanned<String>> = Vec::new();
    for name in lists.into_iter().flatten() {
        if let Some(first) = known.iter().find(|known| known.value == name.value) {
            let message = format!("`{}` is the name of two credentials", name.value);
            let help = format!(
                "first used at {}; the name is the actor in the audit trail, so use a different one",
                first.location
            );
            diagnostics.add_with_help(Code::DuplicateName, &name.location, message, help);
        } else {
            known.push(name);
        }
    }
}
