//! Reloads: requested through a handle, performed by `app`, recorded in the audit trail.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::Ops;
use super::act::{Actor, Initiator};
use super::api::{AuditDetails, OUTCOME_FAILED, ReloadDetails, ReloadReport};
use super::audit::{self, OperatorAct};
use crate::domain::time::Time;
use crate::store::{AuditWrite, Store};

/// Why a reload failed; the running configuration stays active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReloadError {
    /// The configuration has errors, one diagnostic each.
    Invalid(Vec<String>),
    /// The configuration is valid but could not be applied, or its files cannot be read for a reason that may pass.
    Failed(String),
    /// The bridge is starting or stopping; nothing was read.
    Unavailable,
}

impl ReloadError {
    /// The individual errors.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Invalid(findings) => findings.clone(),
            Self::Failed(reason) => vec![reason.clone()],
            Self::Unavailable => vec!["scalebridge is starting or stopping".to_owned()],
        }
    }
}

/// The result of a reload.
pub(crate) type ReloadResult = Result<ReloadReport, ReloadError>;

/// Requests reloads. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReloadHandle(mpsc::Sender<ReloadRequest>);

/// A requested reload, to be answered.
pub(crate) struct ReloadRequest {
    pub by: Initiator,
    reply: oneshot::Sender<ReloadResult>,
}

impl ReloadRequest {
    /// Answers the request. The requester may have gone.
    pub(crate) fn reply(self, result: ReloadResult) {
        drop(self.reply.send(result));
    }
}

/// The requests of all handles.
pub(crate) struct ReloadRequests(mpsc::Receiver<ReloadRequest>);

impl ReloadRequests {
    /// The next request; `None` when it is closed.
    pub(crate) async fn next(&mut self) -> Option<ReloadRequest> {
        self.0.recv().await
    }

    /// Refuses further requests.
    pub(crate) fn close(&mut self) {
        self.0.close();
    }
}

impl ReloadHandle {
    pub(crate) fn new() -> (Self, ReloadRequests) {
        let (sender, receiver) = mpsc::channel(1);
        (Self(sender), ReloadRequests(receiver))
    }

    /// Reloads the configuration, all of it or nothing. Requests are performed one after the other.
    ///
    /// # Errors
    /// The running configuration stays active.
    pub(crate) async fn reload(&self, by: Initiator) -> ReloadResult {
        let (reply, answer) = oneshot::channel();
        self.0.send(ReloadRequest { by, reply }).await.map_err(|_| ReloadError::Unavailable)?;
        answer.await.unwrap_or(Err(ReloadError::Unavailable))
    }
}

impl Ops {
    /// Reloads the configuration, all of it or nothing.
    ///
    /// # Errors
    /// The running configuration stays active.
    pub(crate) async fn reload(&self, by: Initiator) -> ReloadResult {
        self.0.reloads.reload(by).await
    }

    /// Whether the last reload was rejected, so that an older configuration is in force than the files have.
    pub(crate) fn is_reload_rejected(&self) -> bool {
        self.0.configuration.load().last_error.is_some()
    }
}

/// Retries of the file watcher are counted in one entry for this long.
const MAX_RETRY_PERIOD: Duration = Duration::from_secs(3600);

/// Records reloads in the audit trail.
pub(crate) struct ReloadTrail {
    store: Store,
    /// The last entry, if it is of a failed reload.
    last_failure: Option<RecordedFailure>,
}

struct RecordedFailure {
    id: i64,
    /// When the entry was added.
    since: Time,
    by: Initiator,
    errors: Vec<String>,
    attempts: u64,
}

impl ReloadTrail {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, last_failure: None }
    }

    /// Records the result of a reload. A retry of the file watcher that fails for the same reason is counted in the entry
    /// of the first failure; an act of a person always has an entry of its own.
    pub(crate) async fn record(&mut self, by: &Initiator, result: &ReloadResult) {
        let (details, errors) = match result {
            Ok(report) => (AuditDetails { reload: Some(report.into()), ..AuditDetails::done() }, Vec::new()),
            Err(error) => {
                let errors = error.lines();
                let details = AuditDetails {
                    outcome: OUTCOME_FAILED.into(),
                    errors: errors.clone(),
                    ..AuditDetails::default()
                };
                (details, errors)
            }
        };
        let now = self.store.now();
        let is_retry = |last: &RecordedFailure| {
            last.by == *by
                && by.actor == Actor::file_watcher()
                && last.errors == errors
                && now.since(last.since) < MAX_RETRY_PERIOD
        };
        let repeated = self.last_failure.take().filter(is_retry);
        let since = repeated.as_ref().map_or(now, |last| last.since);
        let (write, attempts) = match &repeated {
            Some(last) => {
                let attempts = last.attempts + 1;
                let reload = Some(ReloadDetails { attempts, ..ReloadDetails::default() });
                let details = AuditDetails { reason: by.reason.clone(), reload, ..details };
                (audit::update(last.id, &details), attempts)
            }
            None => (AuditWrite::Add(audit::entry(OperatorAct::Reload, by, details)), 1),
        };
        match self.store.audit(write).await {
            Ok(id) if result.is_err() => {
                self.last_failure = Some(RecordedFailure { id, since, by: by.clone(), errors, attempts });
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "writing the audit trail failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{AuditQuery, Memory};

    async fn bodies(store: &Store) -> Vec<AuditDetails> {
        let trail = store.audit_trail(AuditQuery::default()).await.unwrap().entries;
        trail.iter().map(|stored| serde_json::from_str(&stored.entry.body).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_repeated_failure_of_the_file_watcher_has_one_entry() {
        let store = Store::Memory(Memory::new(&[], Arc::new(|| Time::from_millis(0))));
        let mut trail = ReloadTrail::new(store.clone());
        let watcher = Initiator::from(Actor::file_watcher());
        let failed = Err(ReloadError::Failed("the store is full".into()));
        for _ in 0..3 {
            trail.record(&watcher, &failed).await;
        }
        let [entry] = bodies(&store).await.try_into().unwrap();
        assert_eq!(
            (entry.outcome.as_ref(), entry.errors.as_slice()),
            ("failed", &["the store is full".to_owned()][..])
        );
        assert_eq!(entry.reload.unwrap().attempts, 3);
        for _ in 0..2 {
            trail.record(&Actor::signal().into(), &failed).await;
        }
        assert_eq!(bodies(&store).await.len(), 3, "each act of another actor has an entry");
        trail.record(&watcher, &Ok(ReloadReport::default())).await;
        trail.record(&watcher, &failed).await;
        assert_eq!(bodies(&store).await.len(), 5, "a failure after a success is a new one");
    }

    #[tokio::test]
    async fn a_request_after_the_end_is_answered() {
        let (handle, requests) = ReloadHandle::new();
        drop(requests);
        assert_eq!(handle.reload(Actor::signal().into()).await.unwrap_err(), ReloadError::Unavailable);
    }
}
