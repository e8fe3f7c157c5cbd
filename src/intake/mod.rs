//! Notifications on their way in: what is done with a body, however it arrives, and the queues that are polled.
//!
//! A body that a request brings is received by `http`, one in a queue by the [`Poller`](poller). Both pass it to
//! [`Intake::process`], which returns after the commit: then the request is answered, or the message deleted.

mod log_limit;
mod poller;
mod pollers;
mod status;
mod visibility;

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::bridge::{Bridge, SourceHandle};
use crate::domain::control::GapCause;
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::summary::Summary;
use crate::domain::time::Time;
use crate::kinds::Settings;
use crate::sources::ParseError;
use crate::store::{self, KeptNotification, NotificationLimits, Store};
pub(crate) use log_limit::LogLimit;
pub(crate) use pollers::{Pollers, PreparedPoller};
pub(crate) use status::{QueueStatus, QueueStatuses};

/// A larger body is parsed and compressed on a blocking thread.
const MAX_INLINE_PARSE_BYTES: usize = 256 * 1024;

/// Processes bodies. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Intake {
    pub bridge: Bridge,
    pub store: Store,
    /// The active settings.
    pub settings: Arc<ArcSwap<Settings>>,
}

/// Why a body is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IntakeError {
    pub reason: RefusalReason,
    /// What the sender can act on.
    pub message: String,
    /// The cause of the reception gap of its source.
    pub cause: GapCause,
}

/// Whether a body can be accepted later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusalReason {
    /// Never: it is not in the format of the source.
    Malformed,
    /// Never: it has too many alerts.
    TooLarge,
    /// Perhaps: the bridge cannot process it now.
    Unavailable,
    /// When the state of a target that it is about can be read, or an operator has given it up. Everything else in it is
    /// committed.
    UnreadableState,
}

impl RefusalReason {
    /// The status code of the webhook, and the label `code` of `scalebridge_notifications_total`.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::TooLarge => 413,
            Self::Unavailable | Self::UnreadableState => 503,
        }
    }
}

impl IntakeError {
    fn unavailable(message: impl Into<String>, cause: GapCause) -> Self {
        Self { reason: RefusalReason::Unavailable, message: message.into(), cause }
    }

    fn interrupted(what: &str) -> Self {
        Self::unavailable(format!("{what} the body was interrupted"), GapCause::Refused)
    }
}

impl From<ParseError> for IntakeError {
    fn from(error: ParseError) -> Self {
        let reason = match error {
            ParseError::TooManyAlerts(_) => RefusalReason::TooLarge,
            ParseError::Format(_) => RefusalReason::Malformed,
        };
        Self { reason, message: error.to_string(), cause: GapCause::Refused }
    }
}

impl Intake {
    /// Checks in memory whether another notification can be accepted.
    ///
    /// # Errors
    /// There are too many unsettled deliveries.
    pub(crate) fn check_backlog(&self, settings: &Settings) -> Result<(), IntakeError> {
        if self.store.undelivered() >= settings.max_backlog {
            let message = "too many unsettled deliveries (delivery.max_backlog)";
            return Err(IntakeError::unavailable(message, GapCause::Backlog));
        }
        Ok(())
    }

    /// Parses a body and processes the notification. When this returns `Ok`, all its decisions and deliveries are on disk.
    ///
    /// # Errors
    /// The body cannot be parsed, or the store cannot read or write.
    pub(crate) async fn process(
        &self,
        settings: &Settings,
        handle: &SourceHandle,
        body: Bytes,
        parse: impl FnOnce(&[u8], Time) -> Result<Notification, ParseError> + Send + 'static,
        traceparent: Option<&str>,
    ) -> Result<Summary, IntakeError> {
        let received_at = self.store.clock().wall;
        let parsed = if body.len() > MAX_INLINE_PARSE_BYTES {
            let bytes = body.clone();
            let parsing = tokio::task::spawn_blocking(move || parse(&bytes, received_at));
            parsing.await.map_err(|_| IntakeError::interrupted("parsing"))?
        } else {
            parse(&body, received_at)
        };
        let notification = parsed?;
        let retention = settings.retention;
        let limits =
            NotificationLimits { max_age: retention.notifications, max_bytes: retention.notifications_bytes };
        let source = &handle.source().name;
        let kept = keep(source, body, limits).await?;
        let summary = self.bridge.ingest_and_keep(handle, notification, traceparent, kept).await;
        let summary = summary.map_err(store_unavailable)?;
        tracing::debug!(
            %source,
            alerts = summary.alerts,
            events = summary.events,
            verdicts = %verdicts(&summary),
            "notification processed"
        );
        Ok(summary)
    }
}

/// Compresses a body that is to be kept: here, since the thread of the store is the bottleneck.
async fn keep(
    source: &Name,
    body: Bytes,
    limits: NotificationLimits,
) -> Result<Option<KeptNotification>, IntakeError> {
    if limits.is_enabled() && body.len() > MAX_INLINE_PARSE_BYTES {
        let source = source.clone();
        let kept = tokio::task::spawn_blocking(move || KeptNotification::new(&source, &body, limits));
        return kept.await.map_err(|_| IntakeError::interrupted("compressing"));
    }
    Ok(KeptNotification::new(source, &body, limits))
}

fn verdicts(summary: &Summary) -> String {
    let list: Vec<String> =
        summary.verdicts.iter().map(|(verdict, count)| format!("{verdict}={count}")).collect();
    list.join(" ")
}

fn store_unavailable(error: store::Error) -> IntakeError {
    if let store::Error::Unreadable(states) = error {
        let (reason, message) = (RefusalReason::UnreadableState, states.to_string());
        return IntakeError { reason, message, cause: GapCause::Store };
    }
    tracing::debug!(%error, "storing notification failed");
    IntakeError::unavailable("store unavailable, retry", GapCause::Store)
}
