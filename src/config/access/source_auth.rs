//! Reads `sources.*.auth`.

use std::path::PathBuf;

use super::super::decode::{Spanned, check_not_empty, spanned};
use super::super::diagnostic::{Code, Diagnostics, Location};
use super::super::yaml::{Kind, Node};
use super::SourceAuth;
use super::client_cert::client_cert;
use super::hmac::{HMAC_EXAMPLE, hmac};
use super::jwt::{JWT_EXAMPLE, source_jwt};
use super::local_file::{self, users_file};
use super::secret_maps::{distinct_files, fields, list};

/// The credentials of a source, with the locations that later checks need.
#[derive(Debug, Clone, Default)]
pub(in crate::config) struct SourceAuthDraft {
    pub auth: SourceAuth,
    /// `bearer_token_files`, with the location of each.
    pub bearer_token_files: Vec<Spanned<PathBuf>>,
    /// `hmac.key_files`, with the location of each.
    pub hmac_key_files: Vec<Spanned<PathBuf>>,
    /// The location of `client_cert`.
    pub client_cert: Option<Location>,
    /// The location of `auth`, if it is set.
    pub location: Option<Location>,
    /// Whether `auth` is invalid.
    pub is_faulty: bool,
}

/// Reads the credentials of a source.
pub(in crate::config) fn source_auth(node: &Node, diagnostics: &mut Diagnostics) -> Option<SourceAuthDraft> {
    let before = diagnostics.errors();
    let draft = read(node, diagnostics);
    let is_faulty = diagnostics.errors() > before;
    let location = Some(node.location.clone());
    Some(SourceAuthDraft { is_faulty, location, ..draft.unwrap_or_default() })
}

fn read(node: &Node, diagnostics: &mut Diagnostics) -> Option<SourceAuthDraft> {
    let mut fields = fields(node, "sources.*.auth", diagnostics)?;
    let bearer_token_files = fields.get("bearer_token_files", |node, diagnostics| {
        let help = "add a file with a token, for example `[/run/secrets/prod-eu]`, or remove the key";
        check_not_empty(node, help, diagnostics);
        distinct_files(list(spanned(local_file::TOKEN.at()))(node, diagnostics)?, diagnostics)
    });
    let basic_auth_users_file = fields.get("basic_auth_users_file", users_file);
    let client_cert = fields.get("client_cert", client_cert);
    let jwt = fields.get("jwt", source_jwt);
    let hmac = fields.get("hmac", hmac);
    let location = fields.location();
    fields.finish();
    if is_empty(node) {
        let help = format!(
            "add one of `bearer_token_files: [/run/secrets/prod-eu]`, `basic_auth_users_file`, `client_cert`, \
             `{JWT_EXAMPLE}` and `{HMAC_EXAMPLE}`, or remove `auth`"
        );
        diagnostics.add_with_help(Code::Missing, location, "`auth` is empty", help);
    }
    let bearer_token_files = bearer_token_files.unwrap_or_default();
    let (client_cert, certificates_at) = client_cert.unzip();
    let (hmac, hmac_key_files) = hmac.unzip();
    let files = bearer_token_files.iter().map(|file| file.value.clone()).collect();
    let auth = SourceAuth { bearer_token_files: files, basic_auth_users_file, client_cert, jwt, hmac };
    Some(SourceAuthDraft {
        auth,
        bearer_token_files,
        hmac_key_files: hmac_key_files.unwrap_or_default(),
        client_cert: certificates_at,
        ..SourceAuthDraft::default()
    })
}

/// Whether there is no key. An unknown one is reported by itself.
fn is_empty(node: &Node) -> bool {
    match &node.kind {
        Kind::Null => true,
        Kind::Map(entries) => entries.is_empty(),
        _ => false,
    }
}
