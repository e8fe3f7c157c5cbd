//! Checks a reload against what it does not change: the sockets and TLS of the listeners, which only a restart replaces.
//!
//! A configuration that is valid from the next start on can be unsafe before: its credentials with the old address.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::config::access::{AdminAuth, ListenerAccess, SourceAuth};
use crate::domain::name::Name;
use crate::kinds::Settings;

/// Why the settings that a reload would put in force are refused, one line each; empty if they hold.
pub(super) fn faults(in_force: &Settings) -> Vec<String> {
    let (server, admin) = (&in_force.server, &in_force.admin);
    let mut faults = server_faults(server.listen, &server.access, &in_force.source_auth);
    faults.extend(admin_faults(admin.listen, &admin.access, &admin.auth));
    faults
}

fn server_faults(
    listen: SocketAddr,
    access: &ListenerAccess,
    sources: &BTreeMap<Name, SourceAuth>,
) -> Vec<String> {
    let must_ask = must_ask(listen, access) && !access.has_users();
    let mut faults = Vec::new();
    for (name, auth) in sources {
        if must_ask && auth.is_empty() {
            faults.push(format!(
                "source `{name}` would ask for no credentials while the webhook still listens on {listen}: a reload does \
                 not change `server.listen` and `server.allow_unauthenticated`. Restart to apply the configuration, or \
                 set `sources.{name}.auth`"
            ));
        }
        if auth.client_cert.is_some() && !verifies(access) {
            faults.push(unverified(&format!("sources.{name}.auth.client_cert"), "server"));
        }
    }
    faults
}

fn admin_faults(listen: SocketAddr, access: &ListenerAccess, auth: &AdminAuth) -> Vec<String> {
    let mut faults = Vec::new();
    if must_ask(listen, access) && auth.is_empty() && !access.has_users() {
        faults.push(format!(
            "the admin listener would ask for no credentials while it still listens on {listen}: a reload does not \
             change `admin.listen` and `admin.allow_unauthenticated`. Restart to apply the configuration, or set \
             `admin.tokens`"
        ));
    }
    if !auth.client_certs.is_empty() && !verifies(access) {
        faults.push(unverified("admin.client_certs", "admin"));
    }
    faults
}

/// Whether a listener must ask everybody for credentials.
fn must_ask(listen: SocketAddr, access: &ListenerAccess) -> bool {
    !listen.ip().to_canonical().is_loopback() && !access.allow_unauthenticated
}

fn verifies(access: &ListenerAccess) -> bool {
    access.tls.as_ref().is_some_and(|tls| tls.client_auth.verifies())
}

fn unverified(key: &str, section: &str) -> String {
    format!(
        "`{key}` would match no certificate: the TLS in force does not verify client certificates, and a reload does not \
         change `{section}.tls` nor the TLS of `{section}.web_config_file`. Restart to apply the configuration"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::access::{
        AdminClientCert, ClientAuth, ClientCertAuth, Scope, Tls, TlsVersion, WebConfig,
    };
    use crate::config::secret::Secret;

    const ALL_ADDRESSES: &str = "0.0.0.0:9096";
    const LOOPBACK: &str = "127.0.0.1:9096";

    fn with_tls(client_auth: ClientAuth) -> ListenerAccess {
        let tls = Tls {
            cert_file: "cert.pem".into(),
            key_file: "key.pem".into(),
            client_auth,
            client_allowed_sans: Vec::new(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
        };
        ListenerAccess { tls: Some(tls), ..ListenerAccess::default() }
    }

    fn with_users() -> ListenerAccess {
        let users = BTreeMap::from([("am".to_owned(), Secret::new("hash".to_owned()))]);
        let web_config = WebConfig { basic_auth_users: users, ..WebConfig::default() };
        ListenerAccess { web_config: Some(web_config), ..ListenerAccess::default() }
    }

    #[test]
    fn credentials_must_hold_with_the_address_and_the_tls_that_a_reload_does_not_change() {
        let plain = ListenerAccess::default();
        let allowed = ListenerAccess { allow_unauthenticated: true, ..plain.clone() };
        let given = with_tls(ClientAuth::VerifyClientCertIfGiven("ca.pem".into()));
        let requested = with_tls(ClientAuth::RequestClientCert);
        let users = with_users();
        // Of the listener, its access and the credential (none, a token, a certificate): whether it is accepted.
        for (listen, access, accepted) in [
            (ALL_ADDRESSES, &plain, [false, true, false]),
            (ALL_ADDRESSES, &allowed, [true, true, false]),
            (ALL_ADDRESSES, &users, [true, true, false]),
            (ALL_ADDRESSES, &requested, [false, true, false]),
            (ALL_ADDRESSES, &given, [false, true, true]),
            (LOOPBACK, &plain, [true, true, false]),
            (LOOPBACK, &given, [true, true, true]),
            ("[::ffff:127.0.0.1]:9096", &plain, [true, true, false]),
        ] {
            let listen = listen.parse().unwrap();
            let certificates = ClientCertAuth { sans: vec!["am".into()], subjects: Vec::new() };
            let sources = [
                SourceAuth::default(),
                SourceAuth { bearer_token_files: vec!["token".into()], ..SourceAuth::default() },
                SourceAuth { client_cert: Some(certificates), ..SourceAuth::default() },
            ];
            let certificate =
                AdminClientCert { name: "ann".into(), scope: Scope::Read, sans: vec!["ann".into()] };
            let admins = [
                AdminAuth::default(),
                AdminAuth { users_file: Some("users".into()), ..AdminAuth::default() },
                AdminAuth { client_certs: vec![certificate], ..AdminAuth::default() },
            ];
            for ((source, admin), accepted) in sources.into_iter().zip(admins).zip(accepted) {
                // Another source that asks for credentials does not help.
                let with_token = SourceAuth { bearer_token_files: vec!["b".into()], ..SourceAuth::default() };
                let sources = BTreeMap::from([
                    (Name::new("a").unwrap(), source),
                    (Name::new("b").unwrap(), with_token),
                ]);
                let found = server_faults(listen, access, &sources);
                assert_eq!(found.is_empty(), accepted, "{listen} {access:?} {sources:?}: {found:?}");
                let found = admin_faults(listen, access, &admin);
                assert_eq!(found.is_empty(), accepted, "{listen} {access:?} {admin:?}: {found:?}");
            }
        }
    }
}
