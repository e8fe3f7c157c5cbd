//! The limit of open files: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kinds::Settings;

/// Files for everything but connections and calls: the store, the log, `file` destinations, and configuration, secrets and
/// certificates while they are read.
const RESERVED: u64 = 64;

/// The listeners, each with `server.max_connections`.
const LISTENERS: u64 = 2;

/// Raises the soft limit to the hard one. The soft limit is 1,024 nearly everywhere, for programs that use `select`.
pub(super) fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!(from = current, to = maximum, "limit of open files raised"),
        Err(error) => tracing::warn!(%error, from = current, "the limit of open files cannot be raised"),
    }
}

/// `server.max_connections`, or as many as the limit of open files has room for. Otherwise, clients that hold connections
/// would leave no file for the store, for destinations and for other clients.
pub(super) fn max_connections(settings: &Settings) -> usize {
    let configured = settings.server.max_connections;
    let Some(limit) = getrlimit(Resource::Nofile).current else { return configured };
    let calls = settings.destinations.values().map(|destination| destination.concurrency as u64).sum();
    let fitting = fitting_connections(limit, calls);
    if configured as u64 <= fitting {
        return configured;
    }
    tracing::warn!(
        configured,
        max_connections = fitting,
        open_files = limit,
        fix = "raise the hard limit of open files (`ulimit -n`, systemd's LimitNOFILE) or lower server.max_connections",
        "server.max_connections is limited by the limit of open files"
    );
    usize::try_from(fitting).unwrap_or(configured)
}

/// How many connections of each listener fit into a limit of open files, beside as many calls of destinations. At least a
/// quarter of the limit is for connections.
fn fitting_connections(limit: u64, calls: u64) -> u64 {
    let others = RESERVED.saturating_add(calls).min(limit - limit / 4);
    ((limit - others) / LISTENERS).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_room_for_everything_else() {
        assert_eq!(fitting_connections(1024, 32), 464);
        assert_eq!(fitting_connections(20_096, 32), 10_000, "the default");
        assert_eq!(fitting_connections(1024, 10_000), 128, "calls do not keep connections out");
        assert_eq!(fitting_connections(64, 8), 8);
        for limit in 0..10_000 {
            for calls in [0, 8, 1_000] {
                let (fitting, next) =
                    (fitting_connections(limit, calls), fitting_connections(limit + 1, calls));
                assert!(fitting >= 1 && (limit < 8 || LISTENERS * fitting <= limit) && next >= fitting);
            }
        }
        assert!(fitting_connections(u64::MAX, u64::MAX) > 1_000_000);
    }
}
