//! Readers of the sections `server` and `admin`.

use std::net::SocketAddr;

use super::access::{ListenerAccess, admin_auth};
use super::decode::{Fields, Spanned, spanned};
use super::diagnostic::{Code, Diagnostics, Location};
use super::scalar::{address, flag, number, positive_duration};
use super::settings::{Admin, Server};
use super::yaml::Node;

pub(super) fn server(node: &Node, diagnostics: &mut Diagnostics) -> Option<Server> {
    let mut fields = Fields::from_node(node, "server", diagnostics)?;
    let (listen, access) = listen(&mut fields);
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
    fields.finish();
    Some(Server {
        listen: listen?.value,
        max_body_bytes: max_body_bytes?,
        max_in_flight: max_in_flight?,
        max_in_flight_bytes: max_in_flight_bytes?,
        max_connections: max_connections?,
        header_timeout: header_timeout?,
        body_timeout: body_timeout?,
        write_timeout: write_timeout?,
        access,
        drain_timeout: drain_timeout?,
    })
}

pub(super) fn admin(node: &Node, diagnostics: &mut Diagnostics) -> Option<Admin> {
    let mut fields = Fields::from_node(node, "admin", diagnostics)?;
    let (listen, access) = listen(&mut fields);
    let draft = admin_auth(&mut fields);
    fields.finish();
    Some(Admin { listen: listen?.value, access, auth: draft.auth })
}

/// Reports two listeners with the same address. Port 0 selects a free port for each.
pub(super) fn check_distinct_listeners(
    server: &Server,
    admin: &Admin,
    node: &Node,
    diagnostics: &mut Diagnostics,
) {
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

/// Reads a listen address. A non-loopback address requires `allow_unauthenticated: true`, since there is no
/// authentication.
fn listen(fields: &mut Fields<'_, '_>) -> (Option<Spanned<SocketAddr>>, ListenerAccess) {
    let allowed = fields.get("allow_unauthenticated", flag);
    let access =
        ListenerAccess { allow_unauthenticated: allowed.unwrap_or_default(), ..ListenerAccess::default() };
    let Some(listen) = fields.get("listen", spanned(address)) else { return (None, access) };
    let loopback = listen.value.ip().to_canonical().is_loopback();
    if !loopback && allowed == Some(false) {
        let message =
            format!("{} is not a loopback address, and the listener has no authentication", listen.value);
        let help = "listen on 127.0.0.1, or set `allow_unauthenticated: true` next to `listen` if a proxy or \
                    network policy restricts access";
        fields.diagnostics.add_with_help(Code::Unauthenticated, &listen.location, message, help);
    }
    (Some(listen), access)
}
