//! The Lambda function.
//!
//! What it answers: for an event, its answer; for a list of events, their answers in the same order; for messages of a
//! queue, those that stay in it (`batchItemFailures`).
//!
//! An event that is to be tried again is a *function error* where the function is invoked with events: it cannot see
//! whether it is invoked asynchronously, and only an error makes Lambda repeat such an invocation. The bridge delivers it
//! again as well, with all the events of the list; those that were applied are then `already_applied`.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use lambda_runtime::{Diagnostic, LambdaEvent, Runtime, service_fn};
use parking_lot::Mutex;
use scalebridge::domain::time::Time;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Events;
use super::log::{Level, log};
use super::order::{Key, Peek, lanes};
use crate::invocation::{Batch, Invocation, Message};
use crate::outcome::{Answer, Outcome};

/// The maximum number of events of one invocation that are applied at the same time.
const CONCURRENCY: usize = 8;
/// An event is begun only if this much is left until the deadline of the invocation: enough for the calls of a change.
pub const MIN_TIME_LEFT: Duration = Duration::from_secs(25);
/// The answer is given this long before the deadline at the latest; what is not done by then is tried again.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);
/// The maximum length of the message of a function error, in characters.
const MAX_ERROR_CHARS: usize = 2_000;

/// Handles invocations until Lambda ends the process.
///
/// # Errors
/// The Runtime API is not available.
///
/// # Panics
/// The environment variables that Lambda sets are missing, `AWS_LAMBDA_RUNTIME_API` among them.
pub async fn run<E: Events>(events: Arc<E>) -> Result<(), lambda_runtime::Error> {
    let handler = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let events = Arc::clone(&events);
        async move {
            let deadline = i64::try_from(event.context.deadline).unwrap_or(i64::MAX);
            let deadline = Time::from_millis(deadline);
            answer(event.payload.get(), deadline, &events, super::now).await.map_err(Diagnostic::from)
        }
    });
    Runtime::new(handler).run().await
}

/// What Lambda calls a function error.
#[derive(Debug, PartialEq, Eq)]
enum FunctionError {
    /// The function is not invoked with what it is made for.
    InvalidPayload(String),
    /// An event is to be tried again.
    Retry(String),
}

impl From<FunctionError> for Diagnostic {
    fn from(error: FunctionError) -> Self {
        let (error_type, error_message) = match error {
            FunctionError::InvalidPayload(message) => ("InvalidPayload", message),
            FunctionError::Retry(message) => ("Retry", message),
        };
        Self { error_type: error_type.to_owned(), error_message }
    }
}

/// The answer for a payload.
async fn answer<E: Events>(
    payload: &str,
    deadline: Time,
    events: &Arc<E>,
    clock: fn() -> Time,
) -> Result<Value, FunctionError> {
    let work = Work { deadline, clock, events: Arc::clone(events) };
    match Invocation::read(payload).map_err(FunctionError::InvalidPayload)? {
        Invocation::Event(event) => {
            let answers = work.handle_events(vec![event]).await?;
            Ok(answers.into_iter().next().map_or(Value::Null, json))
        }
        Invocation::Events(events) => {
            Ok(Value::Array(work.handle_events(events).await?.into_iter().map(json).collect()))
        }
        Invocation::Messages(messages) => {
            let response = work.handle_messages(&messages).await.response();
            serde_json::to_value(response).map_err(|error| FunctionError::Retry(error.to_string()))
        }
    }
}

fn json(answer: Answer) -> Value {
    serde_json::to_value(answer).unwrap_or_default()
}

/// The work of one invocation.
struct Work<E> {
    deadline: Time,
    clock: fn() -> Time,
    events: Arc<E>,
}

/// An event, and what it has in common with others.
struct Item {
    key: Key,
    body: String,
}

impl<E: Events> Work<E> {
    async fn handle_events(self, events: Vec<Box<RawValue>>) -> Result<Vec<Answer>, FunctionError> {
        let items = events.iter().zip(0..);
        let items = items.map(|(event, number)| Item {
            key: Key::of(None, event.get(), number),
            body: event.get().to_owned(),
        });
        let answers = self.handle(items.collect()).await;
        let again: Vec<&Answer> = answers.iter().filter(|answer| answer.outcome == Outcome::Retry).collect();
        if again.is_empty() { Ok(answers) } else { Err(retry_of(&again)) }
    }

    async fn handle_messages(self, messages: &[Message]) -> Batch {
        let items = messages.iter().zip(0..).map(|(message, number)| Item {
            key: Key::of(message.group.as_deref(), &message.body, number),
            body: message.body.clone(),
        });
        let answers = self.handle(items.collect()).await;
        let mut batch = Batch::default();
        for (message, answer) in messages.iter().zip(&answers) {
            if batch.begins(message) {
                batch.ends(message, answer);
            }
        }
        batch
    }

    /// Handles the items, and answers for all of them before the deadline.
    async fn handle(self, items: Vec<Item>) -> Vec<Answer> {
        let Self { deadline, clock, events } = self;
        let keys: Vec<Key> = items.iter().map(|item| item.key.clone()).collect();
        // What is not replaced was not done.
        let unfinished = |item: &Item| not_done(item, "it was not finished within the invocation".to_owned());
        let answers: Arc<Mutex<Vec<Answer>>> = Arc::new(Mutex::new(items.iter().map(unfinished).collect()));
        let (items, slots) = (Arc::new(items), Arc::new(Semaphore::new(CONCURRENCY)));
        // Dropped at the deadline, which ends all of them.
        let mut tasks = JoinSet::new();
        for positions in lanes(&keys) {
            let lane = Lane {
                positions,
                deadline,
                clock,
                events: Arc::clone(&events),
                items: Arc::clone(&items),
                answers: Arc::clone(&answers),
            };
            let slots = Arc::clone(&slots);
            tasks.spawn(async move {
                // It is never closed.
                let _slot = slots.acquire().await;
                lane.handle().await;
            });
        }
        let time = deadline.since(clock()).saturating_sub(ANSWER_MARGIN);
        let all = async {
            while let Some(ended) = tasks.join_next().await {
                if let Err(error) = ended {
                    log(Level::Error, "an event was not handled", &[("error", &error)]);
                }
            }
        };
        drop(tokio::time::timeout(time, all).await);
        tasks.shutdown().await;
        let answers = answers.lock().clone();
        warn_of_retries(&answers);
        answers
    }
}

/// Events that are handled one after the other.
struct Lane<E> {
    positions: Vec<usize>,
    deadline: Time,
    clock: fn() -> Time,
    events: Arc<E>,
    items: Arc<Vec<Item>>,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl<E: Events> Lane<E> {
    async fn handle(self) {
        let mut positions = self.positions.iter();
        for position in positions.by_ref() {
            let item = &self.items[*position];
            let left = self.deadline.since((self.clock)());
            let answer = match left < MIN_TIME_LEFT {
                true => not_done(item, no_time(left)),
                false => self.events.handle(&item.body).await,
            };
            let stops = answer.outcome == Outcome::Retry;
            self.answers.lock()[*position] = answer;
            if stops {
                break;
            }
        }
        for position in positions {
            let reason = match self.items[*position].key {
                Key::Group(_) => "an earlier event of its message group is to be tried again",
                _ => "an earlier event of its target is to be tried again",
            };
            self.answers.lock()[*position] = not_done(&self.items[*position], reason.to_owned());
        }
    }
}

fn no_time(left: Duration) -> String {
    format!(
        "{} s are left of the invocation, and {} s are needed: set the function's timeout to 60 s or more, or its batches smaller",
        left.as_secs(),
        MIN_TIME_LEFT.as_secs()
    )
}

fn not_done(item: &Item, reason: String) -> Answer {
    let id = Peek::at(&item.body).id.into_owned();
    Answer { id, outcome: Outcome::Retry, from: None, to: None, reason }
}

/// Some may not have begun, and appear in no other line of the log.
fn warn_of_retries(answers: &[Answer]) {
    let again: Vec<&Answer> = answers.iter().filter(|answer| answer.outcome == Outcome::Retry).collect();
    let count = again.len();
    if let Some(Answer { reason, .. }) = again.last() {
        let fields: [(&str, &dyn std::fmt::Display); 2] = [("events", &count), ("reason", reason)];
        log(Level::Warn, "events of the invocation are to be tried again", &fields);
    }
}

/// The error for events of which these are to be tried again.
fn retry_of(again: &[&Answer]) -> FunctionError {
    let said: Vec<String> = again.iter().map(|answer| format!("{}: {}", answer.id, answer.reason)).collect();
    let said = format!("to be tried again: {}", said.join("; "));
    FunctionError::Retry(said.chars().take(MAX_ERROR_CHARS).collect())
}
