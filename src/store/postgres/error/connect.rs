//! Why a server cannot be used, and what to change.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use rustls::CertificateError;
use tokio_postgres::error::SqlState;

use super::describe;

/// Why there is no connection. No text has a part of the URL but hosts and ports.
#[derive(Debug)]
pub(in crate::store::postgres) enum ConnectError {
    /// The file with the URL, or one that it names, cannot be used.
    Settings(String),
    /// No server accepts a connection: each one with its cause.
    Servers(Vec<(String, ServerError)>),
}

/// Why one server cannot be used.
#[derive(Debug)]
pub(in crate::store::postgres) enum ServerError {
    /// It was not ready to be used within this time.
    TimedOut(Duration),
    /// No token of IAM could be made.
    Token(String),
    /// The client's or the server's error.
    Postgres(tokio_postgres::Error),
}

impl std::error::Error for ConnectError {}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(text) => f.write_str(text),
            Self::Servers(refusals) => {
                for (index, (server, error)) in refusals.iter().enumerate() {
                    let separator = if index == 0 { "" } else { "; " };
                    write!(f, "{separator}{server}: {error}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(limit) => {
                write!(f, "no connection within {} s (`connect_timeout`)", limit.as_secs())
            }
            Self::Token(cause) => write!(f, "no token of IAM: {cause}"),
            Self::Postgres(error) => {
                f.write_str(&describe(error))?;
                fix(error).map_or(Ok(()), |fix| write!(f, ": {fix}"))
            }
        }
    }
}

impl ConnectError {
    /// Whether it stays until an operator changes something. If not, trying again can help.
    pub(in crate::store::postgres) fn needs_operator(&self) -> bool {
        match self {
            Self::Settings(_) => true,
            Self::Servers(refusals) => refusals.iter().any(|(_, error)| error.needs_operator()),
        }
    }
}

impl ServerError {
    /// Whether the server has refused user and password.
    pub(in crate::store::postgres) fn is_refused_login(&self) -> bool {
        matches!(self, Self::Postgres(error) if error.code().is_some_and(|code| code.code().starts_with("28")))
    }

    fn needs_operator(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Token(_) => false,
            Self::Postgres(error) => fix(error).is_some(),
        }
    }
}

/// Messages of PgBouncer, which has one SQLSTATE for most of its errors.
const PGBOUNCER: [(&str, &str); 8] = [
    (
        "password authentication failed",
        "check user and password in the file of `url_file`, and those that PgBouncer sends to the server",
    ),
    ("SASL authentication failed", "check user and password in the file of `url_file`"),
    ("no such database", "add the database to `[databases]` of PgBouncer, or correct its name in the URL"),
    ("no such user", "add the user to `auth_file` of PgBouncer, or correct it in the URL"),
    (
        "server login failed",
        "check the password that PgBouncer has for the user, and pg_hba.conf of the server",
    ),
    (
        "unsupported startup parameter",
        "remove `options` from the URL, and set its settings with `ALTER ROLE … IN DATABASE … SET …`",
    ),
    ("not allowed in statement pooling mode", "set `pool_mode = transaction` for the database in PgBouncer"),
    ("SSL required", "use `sslmode=verify-full`"),
];

/// The fix of an error of PgBouncer that stays until an operator changes something.
pub(super) fn fix_at_pooler(message: &str) -> Option<&'static str> {
    PGBOUNCER.iter().find(|(text, _)| message.contains(text)).map(|(_, fix)| *fix)
}

/// The fix of an error that stays until an operator changes something; none for one that can pass.
fn fix(error: &tokio_postgres::Error) -> Option<&'static str> {
    if let Some(db) = error.as_db_error() {
        return match *db.code() {
            SqlState::INVALID_PASSWORD => Some(
                "check user and password in the file of `url_file`, or with `iam` the right `rds-db:connect`",
            ),
            SqlState::INVALID_AUTHORIZATION_SPECIFICATION => Some(
                "check the user in the file of `url_file`, its right to log in, and pg_hba.conf of the server",
            ),
            SqlState::INVALID_CATALOG_NAME => Some("create the database, or correct its name in the URL"),
            SqlState::INSUFFICIENT_PRIVILEGE => {
                Some("`GRANT CONNECT ON DATABASE …` to the role, see docs/postgres.md")
            }
            _ => fix_at_pooler(db.message()),
        };
    }
    let cause = error.source()?;
    if cause.to_string() == "server does not support TLS" {
        return Some("turn TLS on at the server (`ssl = on`, or `client_tls_sslmode` of PgBouncer)");
    }
    // Errors of the client have no code.
    if cause.to_string() == "password missing" {
        return Some("write the password into the URL: `postgres://USER:PASSWORD@HOST/DATABASE`");
    }
    if error.to_string().starts_with("authentication error") {
        return Some("check `channel_binding` in the URL, and the method in pg_hba.conf of the server");
    }
    let cause = cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(problem) = cause else { return None };
    Some(match problem {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "use the name for which the certificate of the server is, and its address in `hostaddr`"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "renew the certificate of the server, or correct the clock"
        }
        _ => "name the authority of the server's certificate in `sslrootcert`",
    })
}
