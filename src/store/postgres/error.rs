//! Errors of PostgreSQL: what can be tried again, what passes, and what needs an operator.

mod connect;

use std::time::Duration;

use tokio_postgres::error::SqlState;

use crate::store::Error;
pub(super) use connect::{ConnectError, ServerError};

/// An error of a statement or a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum DbError {
    /// The server, or the connection to it.
    #[error("{}", describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No new connection could be opened.
    #[error("{0}")]
    Connect(ConnectError),
    /// No connection of the pool could be had.
    #[error("{0}")]
    Pool(String),
    /// The server, or what is between it and this process, does not answer.
    #[error("no answer from the database within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// What was read is not what this program writes.
    #[error("{0}")]
    Damaged(String),
    /// As those before it, it would wait for a lock.
    #[error("another session of the database holds locks of the bridge's tables")]
    Locked,
    /// What was read has changed before it was locked.
    #[error("another transaction was faster")]
    Contended,
    /// The database is on another server, or has not heard this process for long: what may be missing there, and what was
    /// refused here, is known with the next sign of life.
    #[error("the database has not confirmed a sign of life of this replica yet")]
    Unheard,
}

/// When an error has happened: it decides what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// When the store is opened: wrong settings are found.
    Open,
    /// Later: everything may pass.
    Use,
}

impl DbError {
    fn code(&self) -> Option<&SqlState> {
        match self {
            Self::Postgres(error) => error.code(),
            _ => None,
        }
    }

    /// Whether the transaction lost against another one and can succeed when it is run again.
    pub(super) fn is_conflict(&self) -> bool {
        let code = self.code();
        matches!(self, Self::Contended)
            || code == Some(&SqlState::T_R_SERIALIZATION_FAILURE)
            || code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether another session holds a lock for long.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self, Self::Locked) || self.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether the connection was lost, so that the server may not have executed the last statement, or may not have been
    /// able to say so.
    pub(super) fn is_disconnect(&self) -> bool {
        let error = match self {
            Self::Postgres(error) => error,
            Self::NoAnswer(_) => return true,
            _ => return false,
        };
        match error.code() {
            // Connection exceptions, and the server's shutdown.
            Some(code) => ["08", "57P"].iter().any(|class| code.code().starts_with(class)),
            None => {
                let is_io = |source: &(dyn std::error::Error + 'static)| source.is::<std::io::Error>();
                error.is_closed() || std::error::Error::source(error).is_some_and(is_io)
            }
        }
    }

    /// Whether the statement itself was refused, so that running it again fails again. Its batch may have others that
    /// succeed.
    pub(super) fn is_permanent(&self) -> bool {
        // Data exceptions, violated constraints and syntax errors.
        let of_statement = |code: &SqlState| {
            ["22", "23", "42"].iter().any(|class| code.code().starts_with(class)) && !is_of_database(code)
        };
        matches!(self, Self::Damaged(_)) || self.code().is_some_and(of_statement)
    }

    /// Whether the server does not have what was asked for.
    pub(super) fn is_unsupported(&self) -> bool {
        // Not supported, and not in a prerequisite state.
        self.code().is_some_and(|code| ["0A", "55"].iter().any(|class| code.code().starts_with(class)))
    }

    /// The error of the store's contract.
    pub(super) fn into_store(self, place: Stage) -> Error {
        match (place, self.needs_operator()) {
            (Stage::Open, true) => match self.fix() {
                Some(fix) => Error::Unusable(format!("store.postgres: {self}: {fix}")),
                None => Error::Unusable(format!("store.postgres: {self}")),
            },
            _ => Error::Unavailable(self.with_fix()),
        }
    }

    /// The error, with the fix if an operator has to change something.
    pub(super) fn with_fix(&self) -> String {
        match self.fix() {
            Some(fix) => format!("{self}: {fix}"),
            None => self.to_string(),
        }
    }

    /// Whether it stays until an operator changes something.
    fn needs_operator(&self) -> bool {
        match self {
            Self::Connect(error) => error.needs_operator(),
            // Errors of the program or its rights; what cannot be parsed was written by somebody else.
            Self::Postgres(_) => {
                let is_of =
                    |code: &SqlState| ["42", "3F", "0A"].iter().any(|class| code.code().starts_with(class));
                // A lock is released, sooner or later.
                !self.is_locked() && (self.fix().is_some() || self.code().is_some_and(is_of))
            }
            Self::Damaged(_) => true,
            Self::Pool(_) | Self::NoAnswer(_) | Self::Contended | Self::Unheard | Self::Locked => false,
        }
    }

    /// The fix of an error of a statement. An error of a connection has its own.
    fn fix(&self) -> Option<&'static str> {
        let Self::Postgres(error) = self else { return None };
        let db = error.as_db_error()?;
        match *db.code() {
            SqlState::INSUFFICIENT_PRIVILEGE => Some(fix_of_right(db.message())),
            SqlState::UNDEFINED_TABLE => Some(
                "the role's `search_path` has to begin with the schema that has the bridge's tables; if they were dropped, \
                 restore a backup, or restart the bridge, which creates them anew",
            ),
            SqlState::LOCK_NOT_AVAILABLE => Some(
                "another session holds the lock: find it in `pg_stat_activity` with `pg_blocking_pids`, and end its transaction",
            ),
            SqlState::QUERY_CANCELED if db.message().contains("statement timeout") => {
                Some(STATEMENT_TIMEOUT_FIX)
            }
            SqlState::INVALID_SCHEMA_NAME => {
                Some("create the schema that `search_path` of the role names, and let the role use it")
            }
            SqlState::READ_ONLY_SQL_TRANSACTION => Some(
                "if the server is a standby, connect to the primary, or add `target_session_attrs=read-write` to the URL; \
                 else `ALTER ROLE … SET default_transaction_read_only = off`, also for the database and the server, if it is \
                 on there",
            ),
            _ => connect::fix_at_pooler(db.message()),
        }
    }
}

/// The role's time-out ends statements of the bridge.
pub(super) const STATEMENT_TIMEOUT_FIX: &str = "`ALTER ROLE … SET statement_timeout = 0`, also for the database and the server, if it is \
     short there; the bridge limits its statements itself";

/// What a role needs that cannot read or write a table.
pub(super) const TABLE_RIGHTS_FIX: &str = "the role has to own the bridge's tables, sequences and functions: `ALTER TABLE … OWNER TO` \
     it; or `GRANT ALL ON ALL TABLES IN SCHEMA … TO` it, and the same of all sequences and functions";

/// Whether it is about the whole database, not about one statement: a missing right, or a missing table.
fn is_of_database(code: &SqlState) -> bool {
    [SqlState::INSUFFICIENT_PRIVILEGE, SqlState::UNDEFINED_TABLE].contains(code)
}

/// What a role without a right needs.
fn fix_of_right(message: &str) -> &'static str {
    match message.contains("for schema") {
        true => "`GRANT USAGE, CREATE ON SCHEMA …` to the role, see docs/postgres.md",
        false => TABLE_RIGHTS_FIX,
    }
}

/// The server's own message where there is one: the client's only says that there was an error.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
