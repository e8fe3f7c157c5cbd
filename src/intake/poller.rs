//! Polls the queue of one source: receive, process, delete.
//!
//! - A message is deleted after the commit of its decisions. What is received again changes nothing.
//! - One call receives at a time, and up to [`MAX_BATCHES`] batches are processed meanwhile. The messages of a batch are
//!   processed one after the other, in the order in which they were sent.
//! - A message that cannot be processed now, because the store refuses, is held and tried again, hidden from others: each
//!   time that it were received again would bring it nearer to the dead-letter queue.
//! - A message about a target whose state cannot be read is set aside, hidden from others, until an operator has given up
//!   the state. Meanwhile the messages behind it are processed, and others received.
//! - A message that cannot be read stays in the queue, whose redrive policy moves it away.
//! - The source has a reception gap until everything was read that was in the queue at the connection: until an empty
//!   answer, or a batch of messages that were all sent later; and everything received before is processed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::visibility::{Extension, VISIBILITY};
use super::{Intake, IntakeError, LogLimit, QueueStatus, QueueStatuses, RefusalReason};
use crate::domain::control::GapCause;
use crate::domain::failure::{Class, Failure};
use crate::domain::name::Name;
use crate::domain::notification::Notification;
use crate::domain::time::Time;
use crate::sources::SourceKind;
use crate::sources::sqs::{self, Queue, QueueMessage};
use crate::telemetry::Metrics;

/// Batches that are processed at the same time.
const MAX_BATCHES: u32 = 8;
/// How long a call waits for messages: the maximum of SQS, and the least while the source has a reception gap, so that an
/// empty queue ends it soon.
const WAIT: Duration = Duration::from_secs(20);
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// The delay before a message that was refused is processed again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How many messages are set aside at the same time.
const MAX_SET_ASIDE: usize = 64;
/// How often they are processed again, and how long they are hidden, longer than that takes. Each time, the store keeps
/// the bodies that have other alerts.
const SET_ASIDE_INTERVAL: Duration = Duration::from_mins(1);
const SET_ASIDE_VISIBILITY: Duration = Duration::from_mins(5);
/// The delays after a call that has failed.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// How often messages are tried to be deleted.
const DELETE_ATTEMPTS: u32 = 3;
const DELETE_RETRY_DELAY: Duration = Duration::from_millis(500);
/// The codes of `scalebridge_notifications_total` that a queue has.
const CODES: [u16; 4] = [200, 400, 413, 503];

/// Polls the queue of one source.
pub(super) struct Poller {
    source: Name,
    settings: sqs::Settings,
    queue: Queue,
    intake: Intake,
    metrics: Metrics,
    statuses: QueueStatuses,
    connection: Mutex<Connection>,
    /// Until when messages can be hidden that a lost answer contained, by the wall clock.
    hidden_until: Mutex<Option<Time>>,
    /// Messages about targets whose states cannot be read.
    set_aside: Mutex<Vec<QueueMessage>>,
    lines: LogLimit<&'static str>,
    /// Whether it is known that the queue has a redrive policy, or not.
    has_checked_redrive: AtomicBool,
}

/// What is known of the queue. Times are those of the store's clock, unless noted.
#[derive(Debug)]
enum Connection {
    /// Calls fail.
    Unreachable,
    /// Calls succeed since this time, by the wall clock. What was sent before is not read completely.
    Behind { connected_at: Time },
    /// Everything was read that was sent before this time.
    Current { read_at: Time },
}

/// What becomes of a message.
enum Outcome {
    /// It is committed, and can be deleted.
    Processed,
    /// It stays in the queue.
    Unreadable,
    /// It is tried again, and what is behind it waits.
    Refused,
    /// It is about a target whose state cannot be read. What is behind it does not wait.
    SetAside,
}

/// A batch that ends with a panic is a bug, which must not look like one that was processed.
fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        std::panic::resume_unwind(Box::new(error.to_string()));
    }
}

impl Poller {
    pub(super) fn new(
        source: Name,
        settings: sqs::Settings,
        queue: Queue,
        intake: Intake,
        metrics: Metrics,
        statuses: QueueStatuses,
    ) -> Self {
        CODES.into_iter().for_each(|code| metrics.record_notification(source.as_str(), 0, code));
        Self {
            source,
            settings,
            queue,
            intake,
            metrics,
            statuses,
            connection: Mutex::new(Connection::Unreachable),
            hidden_until: Mutex::new(None),
            set_aside: Mutex::default(),
            lines: LogLimit::default(),
            has_checked_redrive: AtomicBool::new(false),
        }
    }

    pub(super) fn source(&self) -> &Name {
        &self.source
    }

    /// Runs until `stop` is cancelled and the messages in hand are processed or released.
    pub(super) async fn run(self: Arc<Self>, stop: CancellationToken) {
        // Also if the previous poller of this source has read its queue meanwhile.
        self.begin_gap();
        tokio::join!(self.clone().receive(&stop), self.retry_set_aside(&stop));
        let set_aside = std::mem::take(&mut *self.set_aside.lock());
        self.release(&set_aside).await;
    }

    /// Begins the reception gap of the source, which lasts until everything is read.
    pub(super) fn begin_gap(&self) {
        self.statuses.set(&self.source, QueueStatus::default());
        self.intake.bridge.begin_unread_queue(&self.source, self.intake.store.now());
    }

    async fn receive(self: Arc<Self>, stop: &CancellationToken) {
        let batches = Arc::new(Semaphore::new(MAX_BATCHES as usize));
        let mut tasks = JoinSet::new();
        let mut backoff = MIN_BACKOFF;
        loop {
            let permit = stop.run_until_cancelled(batches.clone().acquire_owned()).await;
            // The semaphore is never closed.
            let Some(Ok(permit)) = permit else { break };
            while let Some(ended) = tasks.try_join_next() {
                pass_on_panic(ended);
            }
            let called_at = self.intake.store.clock().wall;
            let wait = if self.is_current() { WAIT } else { SHORT_WAIT };
            let received = stop.run_until_cancelled(self.queue.receive(wait, VISIBILITY)).await;
            let messages = match received {
                None => break,
                Some(Ok(messages)) => messages,
                Some(Err(failure)) => {
                    drop(permit);
                    self.failed(&failure);
                    let delay = backoff.mul_f64(0.75 + fastrand::f64() / 2.0);
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                    stop.run_until_cancelled(tokio::time::sleep(delay)).await;
                    continue;
                }
            };
            backoff = MIN_BACKOFF;
            let connected_at = self.reached(called_at);
            let is_later = |message: &QueueMessage| message.sent_at > connected_at;
            // Before that, messages that nobody has can be missing in the answer.
            let is_complete = self.hidden_until.lock().is_none_or(|until| called_at > until);
            let ends_gap = connected_at.is_some() && is_complete && messages.iter().all(is_later);
            if messages.is_empty() {
                drop(permit);
            } else {
                let (poller, stop) = (self.clone(), stop.clone());
                tasks.spawn(async move {
                    poller.process_batch(messages, &stop).await;
                    drop(permit);
                });
            }
            if ends_gap {
                // Until everything received is processed.
                let all = batches.acquire_many(MAX_BATCHES);
                let Some(_all) = stop.run_until_cancelled(all).await else { break };
                while let Some(ended) = tasks.join_next().await {
                    pass_on_panic(ended);
                }
                self.caught_up();
            }
            self.check_redrive_policy().await;
        }
        while let Some(ended) = tasks.join_next().await {
            pass_on_panic(ended);
        }
    }

    fn is_current(&self) -> bool {
        matches!(*self.connection.lock(), Connection::Current { .. })
    }

    /// A call has succeeded. Returns when the connection began, by the wall clock, if there is a gap.
    fn reached(&self, called_at: Time) -> Option<Time> {
        let mut connection = self.connection.lock();
        match *connection {
            Connection::Current { .. } => {
                *connection = Connection::Current { read_at: self.intake.store.now() };
                None
            }
            Connection::Behind { connected_at } => Some(connected_at),
            Connection::Unreachable => {
                *connection = Connection::Behind { connected_at: called_at };
                if self.statuses.get(&self.source).is_some_and(|status| status.last_error.is_some()) {
                    tracing::info!(source = %self.source, "the queue can be read again");
                }
                self.statuses.set(&self.source, QueueStatus::default());
                Some(called_at)
            }
        }
    }

    /// Everything was read that was in the queue at the connection.
    fn caught_up(&self) {
        let mut connection = self.connection.lock();
        self.intake.bridge.end_unread_queue(&self.source);
        *connection = Connection::Current { read_at: self.intake.store.now() };
        self.statuses.set(&self.source, QueueStatus { is_current: true, last_error: None });
    }

    /// A call to receive messages has failed.
    fn failed(&self, failure: &Failure) {
        let mut connection = self.connection.lock();
        let now = self.intake.store.now();
        let from = match *connection {
            Connection::Current { read_at } => read_at,
            _ => now,
        };
        self.intake.bridge.begin_unread_queue(&self.source, from);
        *connection = Connection::Unreachable;
        drop(connection);
        if failure.uncertain {
            // The call may still wait in SQS, and then hide what it receives.
            *self.hidden_until.lock() = Some(self.intake.store.clock().wall.after(WAIT + VISIBILITY));
        }
        let is_new = self.statuses.get(&self.source).is_none_or(|status| status.last_error.is_none());
        if is_new {
            tracing::warn!(source = %self.source, error = %failure, "the queue cannot be read, retrying");
        }
        let last_error = Some(failure.to_string());
        self.statuses.set(&self.source, QueueStatus { is_current: false, last_error });
    }

    /// Processes messages, deletes those that are committed, and holds those that are refused.
    async fn process_batch(&self, mut messages: Vec<QueueMessage>, stop: &CancellationToken) {
        if !self.settings.is_fifo() {
            messages.sort_by_key(|message| message.sent_at);
        }
        let mut waiting = VecDeque::from(messages);
        let mut committed = Vec::new();
        let mut extension = Extension::new();
        while !waiting.is_empty() {
            let held = waiting.make_contiguous();
            // Those that are committed are deleted later.
            let outcome = extension.during(&self.queue, [&committed, held], self.process(&held[0])).await;
            match outcome {
                Outcome::Processed => committed.extend(waiting.pop_front()),
                Outcome::Unreadable => drop(waiting.pop_front()),
                Outcome::SetAside => {
                    if let Some(message) = waiting.pop_front() {
                        let held = waiting.make_contiguous();
                        extension.during(&self.queue, [&committed, held], self.set_aside(message)).await;
                    }
                }
                Outcome::Refused => {
                    self.delete(std::mem::take(&mut committed)).await;
                    let delay = stop.run_until_cancelled(tokio::time::sleep(RETRY_DELAY));
                    let held = waiting.make_contiguous();
                    if extension.during(&self.queue, [&[], held], delay).await.is_none() {
                        break;
                    }
                }
            }
        }
        self.delete(committed).await;
        self.release(waiting.make_contiguous()).await;
    }

    /// Sets a message aside. If too many are, it stays in the queue, and is received again later. So does one of a FIFO
    /// queue, at once: it would hold up its message group until the redrive policy moves it away.
    async fn set_aside(&self, message: QueueMessage) {
        if self.settings.is_fifo() {
            return;
        }
        self.hide_set_aside(std::slice::from_ref(&message)).await;
        let mut all = self.set_aside.lock();
        // SQS hides a message for 12 hours at most. Then it is received again, with another receipt.
        all.retain(|known| known.id != message.id);
        if all.len() < MAX_SET_ASIDE {
            all.push(message);
        }
    }

    async fn hide_set_aside(&self, messages: &[QueueMessage]) {
        if let Err(error) = self.queue.set_visibility(messages, SET_ASIDE_VISIBILITY).await {
            tracing::debug!(source = %self.source, %error, "hiding messages that are set aside failed");
        }
    }

    /// Processes the messages that are set aside again and again, until `stop` is cancelled.
    async fn retry_set_aside(&self, stop: &CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(SET_ASIDE_INTERVAL)).await.is_some() {
            let messages = std::mem::take(&mut *self.set_aside.lock());
            self.hide_set_aside(&messages).await;
            let mut is_available = true;
            for message in messages {
                let is_tried = is_available && !stop.is_cancelled();
                let outcome = if is_tried { self.process(&message).await } else { Outcome::SetAside };
                is_available &= !matches!(outcome, Outcome::Refused);
                match outcome {
                    Outcome::Processed => self.delete(vec![message]).await,
                    Outcome::Unreadable => {}
                    Outcome::Refused | Outcome::SetAside => self.set_aside.lock().push(message),
                }
            }
        }
    }

    /// Shows messages to others at once, since the bridge stops.
    async fn release(&self, messages: &[QueueMessage]) {
        if let Err(error) = self.queue.set_visibility(messages, Duration::ZERO).await {
            tracing::debug!(source = %self.source, %error, "releasing messages failed, they are visible later");
        }
    }

    /// Processes a message as the webhook does with a request.
    async fn process(&self, message: &QueueMessage) -> Outcome {
        let bridge = &self.intake.bridge;
        let reception = bridge.receive(&self.source);
        let processed = self.try_process(message).await;
        let code = processed.as_ref().map_or_else(|refusal| refusal.reason.code(), |()| 200);
        self.metrics.record_notification(self.source.as_str(), 1, code);
        let Err(refusal) = processed else {
            reception.accept();
            return Outcome::Processed;
        };
        reception.refuse(refusal.cause);
        let outcome = match refusal.reason {
            RefusalReason::Malformed | RefusalReason::TooLarge => Outcome::Unreadable,
            RefusalReason::Unavailable => Outcome::Refused,
            RefusalReason::UnreadableState => Outcome::SetAside,
        };
        let is_unreadable = matches!(outcome, Outcome::Unreadable);
        let event = if is_unreadable { "unreadable" } else { refusal.cause.as_str() };
        if let Some(count) = self.lines.count_to_log(event, std::time::Instant::now()) {
            let (source, id) = (&self.source, &message.id);
            let reason = &refusal.message;
            if is_unreadable {
                tracing::warn!(%source, message_id = id, code, reason, count, "message cannot be read, it stays in the queue");
            } else {
                tracing::warn!(%source, message_id = id, code, reason, count, "message not processed, retrying");
            }
        }
        outcome
    }

    async fn try_process(&self, message: &QueueMessage) -> Result<(), IntakeError> {
        let settings = self.intake.settings.load_full();
        self.intake.check_backlog(&settings)?;
        let opened = sqs::open(&self.settings, &message.body)?;
        let Some(handle) = self.intake.bridge.source(self.source.as_str()) else {
            return Err(IntakeError::unavailable("the source is being removed", GapCause::Refused));
        };
        let sent_at = opened.sent_at.or(message.sent_at);
        let parse = move |body: &[u8], received_at: Time| {
            let notification = SourceKind::Alertmanager.parse(body, received_at)?;
            Ok(Notification { sent_at, ..notification })
        };
        let body = Bytes::from(opened.notification.into_owned());
        let traceparent = message.traceparent.as_deref().or(opened.traceparent.as_deref());
        self.intake.process(&settings, &handle, body, parse, traceparent).await.map(drop)
    }

    /// Deletes messages that are committed. Those that stay are received again, and change nothing.
    async fn delete(&self, committed: Vec<QueueMessage>) {
        let mut remaining: Vec<&QueueMessage> = committed.iter().collect();
        for attempt in 1..=DELETE_ATTEMPTS {
            if remaining.is_empty() {
                return;
            }
            let failure = match self.queue.delete(&remaining).await {
                Ok((failed, cause)) => {
                    remaining = failed;
                    cause
                }
                Err(failure) => Some(failure),
            };
            let Some(failure) = failure else { return };
            if attempt < DELETE_ATTEMPTS && failure.class != Class::Misconfigured {
                tokio::time::sleep(DELETE_RETRY_DELAY).await;
                continue;
            }
            if let Some(count) = self.lines.count_to_log("delete", std::time::Instant::now()) {
                let source = &self.source;
                tracing::warn!(%source, error = %failure, count, "processed messages were not deleted, they will be received again");
            }
            return;
        }
    }

    /// Warns once if messages that cannot be read stay in the queue.
    async fn check_redrive_policy(&self) {
        if self.has_checked_redrive.swap(true, Ordering::Relaxed) {
            return;
        }
        let source = &self.source;
        match self.queue.has_redrive_policy().await {
            Ok(true) => {}
            Ok(false) => tracing::warn!(
                %source,
                "the queue has no redrive policy: a message that cannot be read is received again and again, and nothing \
                 is decreased meanwhile; set a dead-letter queue"
            ),
            Err(error) if error.class == Class::Misconfigured => tracing::warn!(
                %source,
                %error,
                "cannot check whether the queue has a redrive policy; this needs sqs:GetQueueAttributes"
            ),
            // Asked again after the next call.
            Err(_) => self.has_checked_redrive.store(false, Ordering::Relaxed),
        }
    }
}
