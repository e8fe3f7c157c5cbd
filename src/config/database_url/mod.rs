//! The URL of a PostgreSQL database: libpq's form with libpq's names.
//!
//! What could be a part of a password is never repeated in an error: a password with characters that are not
//! percent-encoded splits the URL at the wrong places. Names that libpq knows and that this version does not are errors,
//! since a setting that is ignored protects nothing.

mod parameters;
mod split;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;

/// A checked URL. Where it is silent, the defaults are ours: they are stricter than libpq's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    /// The servers in the order in which they are tried. At least one.
    pub servers: Vec<DatabaseServer>,
    /// The role.
    pub user: String,
    /// Its password, if it has one.
    pub password: Option<Secret>,
    /// The name of the database.
    pub database: String,
    /// Whom TLS trusts.
    pub authorities: Authorities,
    /// The PEM files with the client certificate and its key: `sslcert`, `sslkey`.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// `channel_binding`.
    pub channel_binding: ChannelBinding,
    /// Whether a server that is read-only, such as a standby, is passed over: `target_session_attrs`.
    pub read_write: bool,
    /// Whether the servers are tried in a random order: `load_balance_hosts`.
    pub random_order: bool,
    /// How long one server may take until it can be used. Never zero.
    pub connect_timeout: Duration,
    /// How the server names these connections in its views and logs.
    pub application_name: String,
    /// Settings of the connection: `options`.
    pub options: Option<String>,
    /// How a connection whose other end is gone is found.
    pub liveness: Liveness,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseServer {
    /// Where it is.
    pub address: ServerAddress,
    /// Its port, which is also part of the name of a socket.
    pub port: u16,
    /// Whether the connection is encrypted, and what is verified.
    pub tls: ServerTls,
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// The directory of a Unix socket.
    Socket(PathBuf),
    /// A name or an IP address.
    Tcp {
        /// What its certificate must be for.
        host: String,
        /// The address to connect to instead of resolving `host`.
        address: Option<IpAddr>,
    },
}

/// What TLS verifies. Without verification there is no TLS at all: anyone on the way could answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerTls {
    /// Plain text: only on the same machine.
    Off,
    /// The certificate is signed by one of the authorities: `verify-ca`.
    Authority,
    /// It is also for the host: `verify-full`.
    AuthorityAndName,
}

/// The certificate authorities that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorities {
    /// Those of the system.
    System,
    /// Those in a PEM file: `sslrootcert`.
    File(PathBuf),
}

/// `channel_binding`: whether the password is bound to the certificate of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// If the server can.
    Prefer,
    /// A server that cannot is refused.
    Require,
}

/// How a connection whose other end is gone is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liveness {
    /// `keepalives`: whether TCP asks an idle peer whether it is there.
    pub keepalives: bool,
    /// `keepalives_idle`: after how long.
    pub idle: Duration,
    /// `keepalives_interval`: the time between two questions.
    pub interval: Duration,
    /// `keepalives_count`: how many unanswered questions end the connection.
    pub count: u32,
    /// `tcp_user_timeout`: how long sent data may be unacknowledged; `None` leaves it to the system.
    pub unacknowledged: Option<Duration>,
}

/// Why a text is not a usable URL: the cause, and the fix. Contains nothing of the text but names of libpq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrlError {
    /// The cause.
    pub message: String,
    /// The fix.
    pub help: String,
}

impl UrlError {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.message, self.help)
    }
}

impl DatabaseUrl {
    /// Parses the content of a `url_file`. With `iam`, a token takes the place of the password.
    ///
    /// # Errors
    /// All that is wrong with it, at least one.
    pub fn parse(text: &str, iam: bool) -> Result<Self, Vec<UrlError>> {
        let parts = split::split(text).map_err(|error| vec![error])?;
        parameters::read(&parts, iam)
    }
}

impl DatabaseServer {
    /// Whether the server is on this machine: what is sent to it does not leave the machine.
    pub fn is_local(&self) -> bool {
        match &self.address {
            ServerAddress::Socket(_) => true,
            ServerAddress::Tcp { host, address } => {
                let address = address.or_else(|| host.parse().ok());
                address.map_or_else(
                    || host.eq_ignore_ascii_case("localhost"),
                    |address| address.to_canonical().is_loopback(),
                )
            }
        }
    }
}

impl fmt::Display for DatabaseServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            ServerAddress::Socket(directory) => write!(f, "{}/.s.PGSQL.{}", directory.display(), self.port),
            ServerAddress::Tcp { host, .. } if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            ServerAddress::Tcp { host, .. } => write!(f, "{host}:{}", self.port),
        }
    }
}
