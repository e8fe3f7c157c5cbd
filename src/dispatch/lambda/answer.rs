//! What the answer of a function says about its events.
//!
//! A scaler answers `{"id", "outcome", "from", "to", "reason"}` for each event; the answer to a single event can be the
//! only element of an array. Any other answer to a single event is stored and not interpreted. For an array of events,
//! the function can report those that failed, as it would to a queue:
//! `{"batchItemFailures":[{"itemIdentifier":"the event's id"}]}`.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dispatch::{Answer, Class, Failure, OutgoingEvent};
use crate::json::Object;

/// The maximum size of a stored response.
pub(super) const MAX_ANSWER_BYTES: usize = 4096;
/// The maximum size of the parts of a stored answer whose response was too large.
const MAX_REASON_CHARS: usize = 500;
const MAX_COUNT_CHARS: usize = 100;

/// One answer for each event of the batch, from the response of a function that did not fail. `is_array`: the function
/// was sent an array.
pub(super) fn read(payload: &[u8], batch: &[OutgoingEvent], is_array: bool) -> Vec<Answer> {
    let mut answers = ScalerAnswer::read_all(payload);
    let by_id: Option<Vec<ScalerAnswer>> =
        batch.iter().map(|event| answers.remove(&*event.header.id)).collect();
    if let Some(by_id) = by_id.filter(|_| answers.is_empty()) {
        return batch.iter().zip(by_id).map(|(event, answer)| answer.into_answer(event, payload)).collect();
    }
    let stored = stored_answer(payload);
    if !is_array {
        return vec![Ok(stored); batch.len()];
    }
    let failed_ids = match parse_failed_ids(payload, batch) {
        Ok(failed_ids) => failed_ids,
        Err(reason) => {
            // The function has run, and nobody knows what it did.
            let failure = Failure::transient(reason).with_uncertainty(true);
            return vec![Err(Failure { answer: excerpt(payload), ..failure }); batch.len()];
        }
    };
    let answer = |event: &OutgoingEvent| {
        if failed_ids.contains(&*event.header.id) {
            let failure = Failure::transient("the function reported the event in `batchItemFailures`");
            Err(Failure { answer: excerpt(payload), ..failure })
        } else {
            Ok(stored.clone())
        }
    };
    batch.iter().map(answer).collect()
}

/// What a scaler says that it did with an event.
#[derive(Debug, Clone, Deserialize, Serialize)]
struct ScalerAnswer {
    id: String,
    outcome: Outcome,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    from: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    to: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    reason: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Applied,
    Capped,
    AlreadyApplied,
    Overtaken,
    Expired,
    Refused,
    Retry,
    DryRun,
}

impl ScalerAnswer {
    /// The answers by the id of their events; none if the response has another form.
    fn read_all(payload: &[u8]) -> HashMap<String, Self> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Response {
            One(Box<Object<ScalerAnswer>>),
            Several(Vec<Object<ScalerAnswer>>),
        }
        let answers = match serde_json::from_slice(payload) {
            Ok(Response::One(one)) => vec![*one],
            Ok(Response::Several(several)) => several,
            Err(_) => return HashMap::new(),
        };
        answers.into_iter().map(|Object(answer)| (answer.id.clone(), answer)).collect()
    }

    fn into_answer(self, event: &OutgoingEvent, payload: &[u8]) -> Answer {
        // Only a decrease is decided again; an increase that came too late is not needed any more.
        let is_decrease = event.header.action == "scale_in";
        let class = match self.outcome {
            Outcome::Refused => Class::Permanent,
            Outcome::Retry => Class::Transient,
            Outcome::Overtaken | Outcome::Expired if is_decrease => Class::NotApplied,
            _ => return Ok(Some(self.stored(payload))),
        };
        let outcome = match self.outcome {
            Outcome::Refused => "refused it",
            Outcome::Retry => "requested a retry",
            Outcome::Overtaken => "did not apply it: a later event has overtaken it",
            _ => "did not apply it: it had expired",
        };
        let answer = Some(self.stored(payload).chars().take(Failure::MAX_CHARS).collect());
        Err(Failure { answer, ..Failure::new(class, format!("the function {outcome}")) })
    }

    /// The response, or if it is too large or about several events, what it says about this one.
    fn stored(mut self, payload: &[u8]) -> String {
        if let Ok(text) = std::str::from_utf8(payload)
            && text.len() <= MAX_ANSWER_BYTES
            && text.trim_start().starts_with('{')
        {
            return text.to_owned();
        }
        self.from = cut(self.from, MAX_COUNT_CHARS);
        self.to = cut(self.to, MAX_COUNT_CHARS);
        self.reason = cut(self.reason, MAX_REASON_CHARS);
        serde_json::to_string(&self).unwrap_or_default()
    }
}

/// A value that is not too long; another one is cut as text.
fn cut(value: Value, max_chars: usize) -> Value {
    let text = match &value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => Value::from(&text[..end]),
        None => value,
    }
}

/// The start of a response, stored with a failure.
pub(super) fn excerpt(payload: &[u8]) -> Option<String> {
    // A character has at most four bytes: a long response is not decoded to its end.
    let start = &payload[..payload.len().min(4 * Failure::MAX_CHARS)];
    Some(String::from_utf8_lossy(start).chars().take(Failure::MAX_CHARS).collect())
}

/// The start of a response, in whole characters, stored with the delivery. None if it is empty.
pub(super) fn stored_answer(payload: &[u8]) -> Option<String> {
    let start = &payload[..payload.len().min(MAX_ANSWER_BYTES)];
    // A character that was cut is dropped. Replacement characters make invalid UTF-8 longer.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text.to_owned(),
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(&start[..error.valid_up_to()]).into_owned()
        }
        Err(_) => {
            let mut text = String::from_utf8_lossy(start).into_owned();
            text.truncate(text.floor_char_boundary(MAX_ANSWER_BYTES));
            text
        }
    };
    (!text.is_empty()).then_some(text)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialBatchResponse {
    batch_item_failures: Option<Vec<Object<BatchItemFailure>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchItemFailure {
    item_identifier: String,
}

/// The ids of the events that a function reports as failed, parsed as AWS does: an empty response, null,
/// an object without the list and an empty list are success; an invalid response, or one with an id that
/// was not sent, fails the whole batch.
pub(super) fn parse_failed_ids(
    payload: &[u8],
    batch: &[OutgoingEvent],
) -> Result<HashSet<String>, &'static str> {
    if payload.trim_ascii().is_empty() {
        return Ok(HashSet::new());
    }
    let answer: Option<Object<PartialBatchResponse>> = serde_json::from_slice(payload)
        .map_err(|_| "the function returned an invalid `batchItemFailures` response")?;
    let failures = answer.and_then(|Object(answer)| answer.batch_item_failures).unwrap_or_default();
    let ids: HashSet<String> = failures.into_iter().map(|Object(failure)| failure.item_identifier).collect();
    if ids.iter().any(|id| batch.iter().all(|event| *event.header.id != **id)) {
        return Err("the function reported an event in `batchItemFailures` that it was not sent");
    }
    Ok(ids)
}
