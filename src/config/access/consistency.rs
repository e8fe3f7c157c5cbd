//! Checks the credentials of sources and of the admin listener against the listeners that ask for them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::super::decode::Spanned;
use super::super::diagnostic::{Code, Diagnostics, Location};
use super::admin_auth::{AdminAuthDraft, actor_problem};
use super::listener::ListenerDraft;
use super::shared::{self, names};
use super::source_auth::SourceAuthDraft;
use super::{ListenerAccess, local_file, users_file};
use crate::domain::name::Name;

/// Checks all credentials. A section that is invalid is not checked.
pub(in crate::config) fn check(
    server: Option<&ListenerDraft>,
    admin: Option<(&ListenerDraft, &AdminAuthDraft)>,
    sources: &BTreeMap<Name, SourceAuthDraft>,
    diagnostics: &mut Diagnostics,
) {
    check_sources(server, sources, diagnostics);
    if let Some((admin, auth)) = admin {
        check_admin(admin, auth, diagnostics);
    }
    shared::check(sources, admin.map(|(_, auth)| auth), diagnostics);
}

fn check_sources(
    server: Option<&ListenerDraft>,
    sources: &BTreeMap<Name, SourceAuthDraft>,
    diagnostics: &mut Diagnostics,
) {
    let Some(server) = server.filter(|server| !server.is_faulty) else { return };
    for certificates in sources.values().filter_map(|source| source.client_cert.as_ref()) {
        check_verifies(&server.access, "server", "client_cert", certificates, diagnostics);
    }
    let users = server.access.has_users();
    let is_open = |auth: &SourceAuthDraft| auth.auth.is_empty() && !auth.is_faulty && !users;
    let open = sources.iter().filter(|(_, auth)| is_open(auth)).map(|(name, _)| format!("`{name}`"));
    let open: Vec<String> = open.collect();
    let why = match &open[..] {
        [] => None,
        [source] => Some(format!("source {source} asks for no credentials")),
        _ => Some(format!("the sources {} ask for no credentials", names(&open))),
    };
    let help = "add `auth: { bearer_token_files: […] }` to the source, or use a `web_config_file` with \
                `basic_auth_users`; or listen on 127.0.0.1; or set `allow_unauthenticated: true` next to `listen` if a \
                proxy or network policy restricts access";
    let has_secrets = users || sources.values().any(|source| source.auth.has_secrets_in_requests());
    check_open(server, why.as_deref(), "every source asks for credentials", help, diagnostics);
    check_plain_http(server, has_secrets, diagnostics);
}

fn check_admin(admin: &ListenerDraft, auth: &AdminAuthDraft, diagnostics: &mut Diagnostics) {
    if admin.is_faulty || auth.is_faulty {
        return;
    }
    if let Some(certificates) = &auth.client_certs {
        check_verifies(&admin.access, "admin", "client_certs", certificates, diagnostics);
    }
    check_users(admin, auth, diagnostics);
    check_names_of_web_users(admin, auth, diagnostics);
    let has_credentials = admin.access.has_users() || !auth.auth.is_empty();
    let why = (!has_credentials).then_some("the admin listener asks for no credentials");
    let help = "add `tokens: [{ name: …, scope: operate, token_file: … }]`, or use a `web_config_file` with \
                `basic_auth_users`; or listen on 127.0.0.1; or set `allow_unauthenticated: true` next to `listen` if a \
                proxy or network policy restricts access";
    check_open(admin, why, "the listener asks for credentials", help, diagnostics);
    check_plain_http(admin, has_credentials, diagnostics);
}

/// The address of a listener that others than this machine reach.
fn open_address(listener: &ListenerDraft) -> Option<&Spanned<SocketAddr>> {
    listener.address.as_ref().filter(|address| !address.value.ip().to_canonical().is_loopback())
}

/// Reports a listener that is not loopback and accepts requests without credentials; `why` says which.
fn check_open(
    listener: &ListenerDraft,
    why: Option<&str>,
    all_ask: &str,
    help: &str,
    diagnostics: &mut Diagnostics,
) {
    let Some(address) = open_address(listener) else { return };
    match (why, listener.access.allow_unauthenticated) {
        (Some(why), false) => {
            let message = format!("{} is not a loopback address, and {why}", address.value);
            diagnostics.add_with_help(Code::Unauthenticated, &address.location, message, help);
        }
        (None, true) => {
            let message = format!("`allow_unauthenticated: true` has no effect: {all_ask}");
            let help = "remove it, so that a configuration without credentials is refused";
            diagnostics.add_with_help(Code::NoEffect, &listener.allow_unauthenticated, message, help);
        }
        _ => {}
    }
}

/// Warns about credentials that anyone on the way can read.
fn check_plain_http(listener: &ListenerDraft, has_credentials: bool, diagnostics: &mut Diagnostics) {
    let Some(address) = open_address(listener).filter(|_| has_credentials) else { return };
    if listener.access.tls.is_none() {
        let message = format!("credentials are sent to {} over plain HTTP", address.value);
        let help = "set `tls: { cert_file: …, key_file: … }` next to `listen`, unless TLS ends in a proxy on this \
                    machine or in this pod; then listen on 127.0.0.1";
        diagnostics.add_with_help(Code::PlainHttp, &address.location, message, help);
    }
}

/// Reports client certificates as credentials on a listener that does not verify any.
fn check_verifies(
    access: &ListenerAccess,
    section: &str,
    key: &str,
    location: &Location,
    diagnostics: &mut Diagnostics,
) {
    let why = match &access.tls {
        None => "which has no TLS",
        Some(tls) if !tls.client_auth.verifies() => "which does not verify client certificates",
        Some(_) => return,
    };
    let message = format!("`{key}` never matches on the listener `{section}`, {why}");
    let help = format!(
        "set `client_auth_type: VerifyClientCertIfGiven` and `client_ca_file` in `{section}.tls` or in its \
         `web_config_file`"
    );
    diagnostics.add_with_help(Code::Contradiction, location, message, help);
}

/// Reports users of the `web_config_file` whose names the audit trail cannot show, and tokens and certificates with the
/// name of such a user: the audit trail could not distinguish them.
fn check_names_of_web_users(admin: &ListenerDraft, auth: &AdminAuthDraft, diagnostics: &mut Diagnostics) {
    let Some(config) = &admin.access.web_config else { return };
    for user in &admin.web_users {
        if let Some((code, message)) = actor_problem(&user.value) {
            let help = "users of this file are actors on the admin listener: rename the user";
            diagnostics.add_with_help(code, &user.location, message, help);
        }
    }
    let tokens = auth.auth.tokens.iter().zip(&auth.tokens).map(|(token, at)| (&token.name, at));
    let certificates = auth.auth.client_certs.iter().zip(auth.client_certs.iter().cycle());
    for (name, location) in tokens.chain(certificates.map(|(certificate, at)| (&certificate.name, at))) {
        if config.basic_auth_users.contains_key(name) {
            let message = format!("`{name}` is the name of two credentials");
            let help = format!(
                "a user in {} has this name too; the name is the actor in the audit trail, so use a different one",
                config.path.display()
            );
            diagnostics.add_with_help(Code::DuplicateName, location, message, help);
        }
    }
}

/// Checks that each item of `users` is a user, and that a `users_file` has `users`.
fn check_users(admin: &ListenerDraft, auth: &AdminAuthDraft, diagnostics: &mut Diagnostics) {
    let of_web_config = admin.access.web_config.as_ref().map(|config| &config.basic_auth_users);
    if let (Some(location), []) = (&auth.users_file, &auth.users[..]) {
        let message = "`users_file` has no effect without `users`: a user that is not listed has no access";
        let help = "add `users: [{ name: …, scope: operate }]`";
        diagnostics.add_with_help(Code::Missing, location, message, help);
    }
    if let (Some(first), None, None) = (auth.users.first(), &auth.users_file, of_web_config) {
        let message = "`users` requires `users_file`, or a `web_config_file` with `basic_auth_users`";
        let help = "add `users_file: /run/secrets/users` with lines of `htpasswd -nB`, or remove `users`";
        diagnostics.add_with_help(Code::Contradiction, &first.location, message, help);
        return;
    }
    // A file that cannot be read has been reported, or is on another machine.
    let of_file = match &auth.auth.users_file {
        Some(path) => match local_file::read(path) {
            Ok(text) => users_file::parse(&text).users,
            Err(_) => return,
        },
        None => BTreeMap::new(),
    };
    for user in &auth.users {
        let is_known = |users: &BTreeMap<String, _>| users.contains_key(&user.value);
        if !is_known(&of_file) && !of_web_config.is_some_and(is_known) {
            let message = format!("there is no user `{}`", user.value);
            let help =
                "add it to the `users_file`, for example with `htpasswd -B FILE USER`, or remove it here";
            diagnostics.add_with_help(Code::UnknownUser, &user.location, message, help);
        }
    }
}
