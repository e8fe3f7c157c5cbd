//! Readers of the sections `server` and `admin`.

use std::collections::BTreeMap;

use super::access::{self, AdminAuthDraft, ListenerDraft, SourceAuthDraft, admin_auth, listener};
use super::decode::Fields;
use super::diagnostic::{Code, Diagnostics, Location};
use super::file_stamp::FileStamp;
use super::scalar::{number, positive_duration};
use super::settings::{Admin, Server};
use super::yaml::Node;
use crate::domain::name::Name;

/// The webhook listener: its settings, if all are valid, and what later checks need.
pub(super) type ServerDraft = (Option<Server>, ListenerDraft);
/// The admin listener: its settings, if all are valid, and what later checks need.
pub(super) type AdminDraft = (Option<Admin>, ListenerDraft, AdminAuthDraft);

/// Reads the webhook listener.
pub(super) fn server(node: &Node, diagnostics: &mut Diagnostics) -> Option<ServerDraft> {
    let mut fields = Fields::from_node(node, "server", diagnostics)?;
    let listener = listener(&mut fields);
    let settings = settings(&mut fields, &listener);
    fields.finish();
    Some((settings, listener))
}

/// The address of the webhook listener and how it is protected.
#[cfg(feature = "server")]
pub(super) fn webhook_listener(
    root: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<(std::net::SocketAddr, access::ListenerAccess)> {
    let (_, listener) = server(root.get("server")?, diagnostics)?;
    let address = listener.address?.value;
    (!listener.is_faulty).then_some((address, listener.access))
}

fn settings(fields: &mut Fields<'_, '_>, listener: &ListenerDraft) -> Option<Server> {
    let max_body_bytes = fields.get("max_body_bytes", number::<usize>(1..=i64::MAX));
    let max_in_flight = fields.get("max_in_flight", number(1..=1_000_000));
    let max_in_flight_bytes = fields.get("max_in_flight_bytes", number(1..=i64::MAX));
    let max_connections = fields.get("max_connections", number(1..=1_000_000));
    let header_timeout = fields.get("header_timeout", positive_duration);
    let body_timeout = fields.get("body_timeout", positive_duration);
    let write_timeout = fields.get("write_timeout", positive_duration);
    let drain_timeout = fields.get("drain_timeout", positive_duration);
    if let (Some(body), Some(all)) = (max_body_bytes, max_in_flight_bytes)
        && body > all
    {
        let message = format!("`max_body_bytes` ({body}) exceeds `max_in_flight_bytes` ({all})");
        let help = "a body of that size would never be accepted: raise `max_in_flight_bytes` or lower \
                    `max_body_bytes`";
        // The other one may be the default.
        let locations = ["max_body_bytes", "max_in_flight_bytes"].map(|key| fields.location_of(key));
        let is_written = |location: &&Location| !matches!(location, Location::Default);
        let location = locations.into_iter().find(is_written).unwrap_or(locations[0]);
        fields.diagnostics.add_with_help(Code::Contradiction, location, message, help);
    }
    Some(Server {
        listen: listener.address.as_ref()?.value,
        max_body_bytes: max_body_bytes?,
        max_in_flight: max_in_flight?,
        max_in_flight_bytes: max_in_flight_bytes?,
        max_connections: max_connections?,
        header_timeout: header_timeout?,
        body_timeout: body_timeout?,
        write_timeout: write_timeout?,
        access: listener.access.clone(),
        drain_timeout: drain_timeout?,
    })
}

/// Reads the admin listener.
pub(super) fn admin(node: &Node, diagnostics: &mut Diagnostics) -> Option<AdminDraft> {
    let mut fields = Fields::from_node(node, "admin", diagnostics)?;
    let listener = listener(&mut fields);
    let auth = admin_auth(&mut fields);
    fields.finish();
    let address = listener.address.as_ref().map(|address| address.value);
    let admin =
        address.map(|listen| Admin { listen, access: listener.access.clone(), auth: auth.auth.clone() });
    Some((admin, listener, auth))
}

/// Checks the listeners against each other, and against the credentials of the sources. Returns their settings, and the
/// stamps of their web configurations.
pub(super) fn check_listeners(
    server: Option<ServerDraft>,
    admin: Option<AdminDraft>,
    sources: &BTreeMap<Name, SourceAuthDraft>,
    root: &Node,
    diagnostics: &mut Diagnostics,
) -> (Option<Server>, Option<Admin>, Vec<FileStamp>) {
    let admin_access = admin.as_ref().map(|(_, listener, auth)| (listener, auth));
    access::check(server.as_ref().map(|(_, listener)| listener), admin_access, sources, diagnostics);
    let mut stamps = Vec::new();
    let server = server.and_then(|(server, listener)| {
        stamps.extend(listener.web_config_stamp);
        server
    });
    let admin = admin.and_then(|(admin, listener, _)| {
        stamps.extend(listener.web_config_stamp);
        admin
    });
    if let (Some(server), Some(admin)) = (&server, &admin) {
        check_distinct_listeners(server, admin, root, diagnostics);
    }
    (server, admin, stamps)
}

/// Reports two listeners with the same address. Port 0 selects a free port for each.
fn check_distinct_listeners(server: &Server, admin: &Admin, node: &Node, diagnostics: &mut Diagnostics) {
    if server.listen == admin.listen && server.listen.port() != 0 {
        let written =
            ["admin", "server"].map(|section| node.get(section).and_then(|section| section.get("listen")));
        let listen =
            written.into_iter().flatten().find(|listen| listen.location != Location::Default).unwrap_or(node);
        let message = format!("`server.listen` and `admin.listen` are both {}", admin.listen);
        diagnostics.add_with_help(
            Code::Contradiction,
            &listen.location,
            message,
            "use a different port for each listener",
        );
    }
}
