//! The meaning of the parameters, and the rules of TLS.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::split::{Parts, parse_port};
use super::{
    Authorities, ChannelBinding, DatabaseServer, DatabaseUrl, Liveness, ServerAddress, ServerTls, UrlError,
};
use crate::config::secret::Secret;
use crate::config::suggest::nearest;

/// The names of libpq that have an effect here.
const SUPPORTED: [&str; 21] = [
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "connect_timeout",
    "application_name",
    "options",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "channel_binding",
    "target_session_attrs",
    "load_balance_hosts",
];

/// Other names of libpq, with the fix.
#[rustfmt::skip] // a table, one entry per line
const NOT_SUPPORTED: [(&str, &str); 26] = [
    ("passfile", "write the password into the URL: its file is read again for each connection"),
    ("service", "write what the service file has into the URL"),
    ("servicefile", "write what the service file has into the URL"),
    ("sslpassword", "decrypt the key with `openssl pkey -in ENCRYPTED -out FILE`, and remove the parameter"),
    ("sslcrl", "revocation lists are not read: remove it"),
    ("sslcrldir", "revocation lists are not read: remove it"),
    ("sslcertmode", "remove it: a certificate is sent if the server asks for one and `sslcert` is set"),
    ("sslcompression", "remove it: TLS is never compressed"),
    ("sslnegotiation", "remove it: TLS is negotiated as by PostgreSQL 15"),
    ("sslsni", "remove it: the name of the host is always sent"),
    ("requiressl", "use `sslmode=verify-full`"),
    ("ssl_min_protocol_version", "remove it: TLS 1.2 and 1.3 are used"),
    ("ssl_max_protocol_version", "remove it: TLS 1.2 and 1.3 are used"),
    ("min_protocol_version", "remove it"),
    ("max_protocol_version", "remove it"),
    ("require_auth", "use `channel_binding=require`, which only SCRAM over TLS fulfils"),
    ("requirepeer", "remove it"),
    ("gssencmode", "remove it: GSSAPI is not used"),
    ("gsslib", "remove it: GSSAPI is not used"),
    ("gssdelegation", "remove it: GSSAPI is not used"),
    ("krbsrvname", "remove it: GSSAPI is not used"),
    ("client_encoding", "remove it: it is always UTF-8"),
    ("fallback_application_name", "use `application_name`"),
    ("replication", "remove it: this is not a standby"),
    ("scram_client_key", "use `password`"),
    ("scram_server_key", "use `password`"),
];

/// How long one server may take, if the URL does not say it. A request waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A failover that cuts connections without closing them is noticed after 25 seconds.
const LIVENESS: Liveness = Liveness {
    keepalives: true,
    idle: Duration::from_secs(10),
    interval: Duration::from_secs(5),
    count: 3,
    unacknowledged: Some(Duration::from_secs(20)),
};
const APPLICATION_NAME: &str = "scalebridge";
const DEFAULT_PORT: u16 = 5432;

/// The parameters that were not read yet, and the errors so far.
struct Reader<'p> {
    values: BTreeMap<&'static str, &'p str>,
    errors: Vec<UrlError>,
}

/// Reads all parameters, also after errors.
pub(super) fn read(parts: &Parts, iam: bool) -> Result<DatabaseUrl, Vec<UrlError>> {
    let mut reader = Reader { values: BTreeMap::new(), errors: Vec::new() };
    reader.collect(parts);
    let user = reader.text("user");
    let user = reader.required(user, "user", "write it before the host: `postgres://USER@HOST/DATABASE`");
    let database = reader.text("dbname");
    let database =
        reader.required(database, "database", "write it after the host: `postgres://USER@HOST/DATABASE`");
    let password = reader.text("password").map(|password| Secret::new(password.to_owned()));
    if iam && password.is_some() {
        reader.error(
            "the URL has a password, and `iam` is true",
            "remove the password: a token takes its place",
        );
    }
    let mut servers = reader.servers(parts);
    let authorities = reader.text("sslrootcert").map(|value| match value {
        "system" => Authorities::System,
        file => Authorities::File(file.into()),
    });
    reader.tls(&mut servers, authorities.as_ref(), iam);
    let client_certificate = reader.client_certificate(&servers);
    let channel_bindings = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    let channel_binding = reader.keyword("channel_binding", &channel_bindings);
    let random_order = reader.keyword("load_balance_hosts", &[("disable", false), ("random", true)]);
    let url = DatabaseUrl {
        read_write: reader.read_write().unwrap_or(servers.len() > 1),
        servers,
        user: user.to_owned(),
        password,
        database: database.to_owned(),
        authorities: authorities.unwrap_or(Authorities::System),
        client_certificate,
        channel_binding: channel_binding.unwrap_or(ChannelBinding::Prefer),
        random_order: random_order.unwrap_or(false),
        connect_timeout: reader.seconds("connect_timeout", 1).unwrap_or(CONNECT_TIMEOUT),
        application_name: reader.text("application_name").unwrap_or(APPLICATION_NAME).to_owned(),
        options: reader.text("options").map(ToOwned::to_owned),
        liveness: reader.liveness(),
    };
    if reader.errors.is_empty() { Ok(url) } else { Err(reader.errors) }
}

impl<'p> Reader<'p> {
    fn error(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.errors.push(UrlError::new(message, help));
    }

    /// Takes the parts before the query and the parameters under their names. One that is given twice is an error.
    fn collect(&mut self, parts: &'p Parts) {
        let before = [("user", &parts.user), ("password", &parts.password), ("dbname", &parts.database)];
        self.values.extend(before.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        for (index, (name, value)) in parts.parameters.iter().enumerate() {
            if let Some(name) = SUPPORTED.iter().find(|known| *known == name) {
                let has_hosts = parts.hosts.iter().any(|(host, _)| !host.is_empty());
                let has_ports = parts.hosts.iter().any(|(_, port)| port.is_some());
                let is_before = (*name == "host" && has_hosts) || (*name == "port" && has_ports);
                if self.values.insert(name, value).is_some() || is_before {
                    self.error(format!("`{name}` is given twice"), "keep one of them");
                }
            } else if let Some((name, help)) = NOT_SUPPORTED.iter().find(|(known, _)| known == name) {
                self.error(format!("`{name}` is not supported"), *help);
            } else {
                let known = SUPPORTED.iter().chain(NOT_SUPPORTED.iter().map(|(name, _)| name)).copied();
                let help = match nearest(&name.to_lowercase(), known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("expected one of: {}", SUPPORTED.join(", ")),
                };
                self.error(format!("parameter {} of the URL is unknown to libpq", index + 1), help);
            }
        }
    }

    /// The value of a parameter, if it is there and not empty.
    fn text(&self, name: &str) -> Option<&'p str> {
        self.values.get(name).copied().filter(|value| !value.is_empty())
    }

    fn required(&mut self, value: Option<&'p str>, what: &str, help: &str) -> &'p str {
        if value.is_none() {
            self.error(format!("the URL has no {what}"), help);
        }
        value.unwrap_or_default()
    }

    fn keyword<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.text(name)?;
        let found = words.iter().find(|(word, _)| *word == value);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(
                format!("`{name}` has an unknown value"),
                format!("expected one of: {}", words.join(", ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    fn number<T: FromStr + PartialOrd>(&mut self, name: &str, at_least: T) -> Option<T> {
        let value = self.text(name)?;
        let number = value.parse().ok().filter(|number| *number >= at_least);
        if number.is_none() {
            self.error(format!("`{name}` is out of range"), "use a whole number as libpq does, and no unit");
        }
        number
    }

    fn seconds(&mut self, name: &str, at_least: u64) -> Option<Duration> {
        // Up to a day, so that sums do not overflow.
        self.number(name, at_least).map(|seconds: u64| Duration::from_secs(seconds.min(86_400)))
    }

    /// The servers, without TLS.
    fn servers(&mut self, parts: &'p Parts) -> Vec<DatabaseServer> {
        let list = |value: Option<&'p str>| {
            value.map(|value| value.split(',').collect::<Vec<_>>()).unwrap_or_default()
        };
        let (hosts, addresses, ports) =
            (list(self.text("host")), list(self.text("hostaddr")), list(self.text("port")));
        let before: Vec<&str> = parts.hosts.iter().map(|(host, _)| host.as_str()).collect();
        let hosts = if hosts.is_empty() { before } else { hosts };
        let count = hosts.len().max(addresses.len());
        let fits = |len: usize, one_for_all: bool| len == 0 || len == count || (one_for_all && len == 1);
        let has_hosts = hosts.iter().any(|host| !host.is_empty());
        if (has_hosts && hosts.len() != count) || !fits(addresses.len(), false) || !fits(ports.len(), true) {
            self.error(
                "`host`, `hostaddr` and `port` have different numbers of values",
                "give one of each for every server, or one port for all",
            );
            return Vec::new();
        }
        let servers = (0..count).filter_map(|index| {
            let host = hosts.get(index).copied().unwrap_or_default();
            let address = addresses.get(index).copied().unwrap_or_default();
            let port = match ports.get(index).or(ports.first()) {
                Some(port) => parse_port(port).or_else(|| {
                    self.error("`port` is not a port", "use a number from 1 to 65535");
                    None
                })?,
                None => parts
                    .hosts
                    .get(index)
                    .or(parts.hosts.first())
                    .and_then(|(_, port)| *port)
                    .unwrap_or(DEFAULT_PORT),
            };
            let address = self.address(host, address)?;
            Some(DatabaseServer { address, port, tls: ServerTls::Off })
        });
        servers.collect()
    }

    fn address(&mut self, host: &str, address: &str) -> Option<ServerAddress> {
        if host.starts_with('/') {
            return Some(ServerAddress::Socket(PathBuf::from(host)));
        }
        let ip: Option<IpAddr> = address.parse().ok();
        if !address.is_empty() && ip.is_none() {
            self.error("`hostaddr` is not an IP address", "use an address, and the name in `host`");
            return None;
        }
        let host = match ip {
            Some(ip) if host.is_empty() => ip.to_string(),
            _ => host.to_owned(),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        if host.is_empty() || !host.chars().all(is_name) {
            let help =
                "write a name, an IP address, or the directory of a Unix socket as `%2Frun%2Fpostgresql`";
            self.error(if host.is_empty() { "the URL has no host" } else { "a host is invalid" }, help);
            return None;
        }
        Some(ServerAddress::Tcp { host, address: ip })
    }

    /// Decides what TLS verifies at each server.
    fn tls(&mut self, servers: &mut [DatabaseServer], authorities: Option<&Authorities>, iam: bool) {
        let mode = self.keyword(
            "sslmode",
            &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"].map(|word| (word, word)),
        );
        if iam && servers.iter().any(|server| matches!(server.address, ServerAddress::Socket(_))) {
            self.error(
                "`iam` is true, and a host is a Unix socket",
                "use the endpoint of the database in RDS",
            );
        }
        let has_file = matches!(authorities, Some(Authorities::File(_)));
        let verified = match mode {
            Some("allow" | "prefer") => {
                self.error(
                    "this `sslmode` falls back to plain text if an attacker on the network asks for it",
                    "use `sslmode=verify-full`",
                );
                return;
            }
            Some("disable") if iam => {
                self.error(
                    "`iam` is true, and `sslmode` is disable",
                    "use `sslmode=verify-full`: a token is a password",
                );
                return;
            }
            Some("disable") if servers.iter().any(|server| !server.is_local()) => {
                self.error(
                    "`sslmode` is disable, and a host is not on this machine",
                    "use `sslmode=verify-full`, with the authority of the server's certificate in `sslrootcert`",
                );
                return;
            }
            // As in libpq, with a file these two are the same.
            Some("require" | "verify-ca") if !has_file => {
                self.error(
                    "this `sslmode` does not verify who answers unless `sslrootcert` names a file",
                    "use `sslmode=verify-full`, or name the authority of the server's certificate in `sslrootcert`",
                );
                return;
            }
            Some("disable") => None,
            Some("require" | "verify-ca") => Some(ServerTls::Authority),
            Some(_) => Some(ServerTls::AuthorityAndName),
            None => None,
        };
        let is_asked = authorities.is_some() || iam;
        for server in servers {
            let is_socket = matches!(server.address, ServerAddress::Socket(_));
            server.tls = match verified {
                // As in libpq.
                _ if is_socket => ServerTls::Off,
                Some(verified) => verified,
                None if mode.is_none() && (is_asked || !server.is_local()) => ServerTls::AuthorityAndName,
                None => ServerTls::Off,
            };
        }
    }

    fn client_certificate(&mut self, servers: &[DatabaseServer]) -> Option<(PathBuf, PathBuf)> {
        let (certificate, key) = (self.text("sslcert"), self.text("sslkey"));
        if certificate.is_some() != key.is_some() {
            self.error("`sslcert` and `sslkey` belong together", "give both");
        }
        let pair = (PathBuf::from(certificate?), PathBuf::from(key?));
        if !servers.is_empty() && servers.iter().all(|server| server.tls == ServerTls::Off) {
            self.error(
                "`sslcert` is given, and no connection uses TLS",
                "add `sslmode=verify-full`, or remove it",
            );
        }
        Some(pair)
    }

    /// The store writes, so it cannot use what is read-only.
    fn read_write(&mut self) -> Option<bool> {
        let words = [("any", Some(false)), ("read-write", Some(true)), ("primary", Some(true))];
        let read_only = ["read-only", "standby", "prefer-standby"].map(|word| (word, None));
        let found = self.keyword("target_session_attrs", &[&words[..], &read_only].concat())?;
        if found.is_none() {
            self.error(
                "`target_session_attrs` asks for a read-only server",
                "use `read-write`: the bridge writes",
            );
        }
        found
    }

    fn liveness(&mut self) -> Liveness {
        // As in libpq, zero means the default of the system; here it is ours.
        let positive = |value: Option<Duration>| value.filter(|value| !value.is_zero());
        let unacknowledged = self.number::<u64>("tcp_user_timeout", 0);
        Liveness {
            keepalives: self
                .keyword("keepalives", &[("0", false), ("1", true)])
                .unwrap_or(LIVENESS.keepalives),
            idle: positive(self.seconds("keepalives_idle", 0)).unwrap_or(LIVENESS.idle),
            interval: positive(self.seconds("keepalives_interval", 0)).unwrap_or(LIVENESS.interval),
            count: self.number("keepalives_count", 0).filter(|count| *count > 0).unwrap_or(LIVENESS.count),
            unacknowledged: match unacknowledged {
                Some(0) => None,
                Some(milliseconds) => Some(Duration::from_millis(milliseconds.min(86_400_000))),
                None => LIVENESS.unacknowledged,
            },
        }
    }
}
