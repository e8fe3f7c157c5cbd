//! Warns about credentials that are valid for more than one source: the sender of one could send as the other.

use std::collections::BTreeMap;

use super::super::diagnostic::{Code, Diagnostics, Location};
use super::SourceAuth;
use super::admin_auth::AdminAuthDraft;
use super::source_auth::SourceAuthDraft;
use crate::domain::name::Name;

/// Maximum number of names in a message.
const MAX_NAMES: usize = 3;

/// Warns once for each credential with several owners, at the second one.
pub(super) fn check(
    sources: &BTreeMap<Name, SourceAuthDraft>,
    admin: Option<&AdminAuthDraft>,
    diagnostics: &mut Diagnostics,
) {
    let mut owners: BTreeMap<String, Vec<(String, &Location)>> = BTreeMap::new();
    let mut add = |credential: String, owner: String, location| {
        let of_credential = owners.entry(credential).or_default();
        if of_credential.iter().all(|(known, _)| *known != owner) {
            of_credential.push((owner, location));
        }
    };
    for (name, source) in sources {
        let owner = || format!("source `{name}`");
        for file in &source.bearer_token_files {
            add(format!("the token in {}", file.value.display()), owner(), &file.location);
        }
        for file in &source.hmac_key_files {
            add(format!("the key in {}", file.value.display()), owner(), &file.location);
        }
        let Some(location) = &source.location else { continue };
        for credential in others(&source.auth) {
            add(credential, owner(), location);
        }
    }
    for (token, location) in admin.iter().flat_map(|admin| admin.auth.tokens.iter().zip(&admin.tokens)) {
        let owner = format!("`{}` of `admin.tokens`", token.name);
        add(format!("the token in {}", token.token_file.display()), owner, location);
    }
    for (credential, owners) in owners {
        let [_, (_, location), ..] = &owners[..] else { continue };
        let owners: Vec<String> = owners.iter().map(|(owner, _)| owner.clone()).collect();
        let message = format!("{credential} is valid for {}: one can act as the other", names(&owners));
        let help = "use credentials of its own for each of them";
        diagnostics.add_with_help(Code::SharedCredential, location, message, help);
    }
}

/// The credentials of a source that are not tokens in files.
fn others(auth: &SourceAuth) -> Vec<String> {
    let users = auth.basic_auth_users_file.iter().map(|file| format!("a user in {}", file.display()));
    let certificates = auth.client_cert.iter().flat_map(|certificates| {
        let sans = certificates.sans.iter().map(|name| format!("a certificate with the name `{name}`"));
        sans.chain(certificates.subjects.iter().map(|name| format!("a certificate of the subject `{name}`")))
    });
    let tokens = auth.jwt.iter().flat_map(|jwt| {
        let subjects = match jwt.subjects.join("`, `") {
            any if any.is_empty() => String::new(),
            subjects => format!(" with the subject `{subjects}`"),
        };
        let token =
            move |audience| format!("a JSON Web Token of `{}` for `{audience}`{subjects}", jwt.issuer);
        jwt.audience.iter().map(token)
    });
    users.chain(certificates).chain(tokens).collect()
}

/// A list of names for a message.
pub(super) fn names(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let more = (more > 0).then(|| format!("{more} more"));
    let shown: Vec<String> = names.iter().take(MAX_NAMES).cloned().chain(more).collect();
    match shown.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => shown.concat(),
    }
}
