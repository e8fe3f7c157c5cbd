//! Reads the address of a listener and how it is protected.

use std::net::SocketAddr;

use super::super::decode::{Fields, Spanned, spanned};
use super::super::diagnostic::{Code, Location};
use super::super::file_stamp::FileStamp;
use super::super::scalar::{address, flag};
use super::ListenerAccess;
use super::tls::{Format, tls};
use super::web_config::web_config_file;

/// A listener, with what later checks need.
#[derive(Debug)]
pub(in crate::config) struct ListenerDraft {
    /// The address, if it is valid.
    pub address: Option<Spanned<SocketAddr>>,
    pub access: ListenerAccess,
    /// Whether `tls` or `web_config_file` is invalid: then `access` does not have it.
    pub is_faulty: bool,
    /// The location of `allow_unauthenticated`.
    pub allow_unauthenticated: Location,
    /// The users of the `web_config_file`.
    pub web_users: Vec<Spanned<String>>,
    /// The `web_config_file` when it was read.
    pub web_config_stamp: Option<FileStamp>,
}

/// Reads the keys that both listeners have.
pub(in crate::config) fn listener(fields: &mut Fields<'_, '_>) -> ListenerDraft {
    let before = fields.diagnostics.errors();
    let allow_unauthenticated = fields.get("allow_unauthenticated", flag).unwrap_or_default();
    let tls = fields.get("tls", tls(Format::Own));
    let web_config = fields.get("web_config_file", web_config_file);
    if fields.has("tls") && fields.has("web_config_file") {
        let message = "`tls` and `web_config_file` are mutually exclusive";
        let help = "keep only one of them: `tls_server_config` in the `web_config_file` is the same as `tls`";
        let location = fields.location_of("web_config_file");
        fields.diagnostics.add_with_help(Code::ExactlyOne, location, message, help);
    }
    let is_faulty = fields.diagnostics.errors() > before;
    let address = fields.get("listen", spanned(address));
    let (web_config, web_users, web_tls, stamp) = match web_config {
        Some(file) => (Some(file.config), file.users, file.tls, Some(file.stamp)),
        None => (None, Vec::new(), None, None),
    };
    ListenerDraft {
        address,
        access: ListenerAccess { tls: tls.or(web_tls), web_config, allow_unauthenticated },
        is_faulty,
        allow_unauthenticated: fields.location_of("allow_unauthenticated").clone(),
        web_users,
        web_config_stamp: stamp,
    }
}
