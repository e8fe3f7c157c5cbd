//! Dead letters: what was given up, to be sent once more or thrown away.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::routing::{delete, get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::extract::{self, Id, Query, page_size, parse_name, services};
use super::operation::{Operation, ResponseBody, schema_of};
use super::problem::Problem;
use crate::domain::duration;
use crate::domain::header::EventHeader;
use crate::domain::name::Name;
use crate::http::{HttpState, Services};
use crate::store::{DeadLetter, DeadLetterError, DeliveryId, EventSeq, Redrive};

/// Dead letters that are read at once while many are redriven or discarded.
const BULK_PAGE_SIZE: usize = 500;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/dead-letters",
            "listDeadLetters",
            "Deliveries that were given up, oldest first",
            ResponseBody::Json(200, schema_of::<DeadLetterPage>),
            get(list),
        )
        .query::<ListDeadLettersParams>(),
        Operation::new(
            Method::POST,
            "/dead-letters/redrive",
            "redriveDeadLetters",
            "Send many once more",
            ResponseBody::Json(200, schema_of::<BulkResult>),
            post(redrive_selected),
        )
        .body::<BulkRedrive>(),
        Operation::new(
            Method::POST,
            "/dead-letters/discard",
            "discardDeadLetters",
            "Throw many away",
            ResponseBody::Json(200, schema_of::<BulkResult>),
            post(discard_selected),
        )
        .body::<BulkDiscard>(),
        Operation::new(
            Method::GET,
            "/dead-letters/{id}",
            "getDeadLetter",
            "One with its event",
            ResponseBody::Json(200, schema_of::<DeadLetterView>),
            get(show),
        ),
        Operation::new(
            Method::DELETE,
            "/dead-letters/{id}",
            "discardDeadLetter",
            "Throw one away",
            ResponseBody::Empty,
            delete(discard),
        )
        .query::<Actor>(),
        Operation::new(
            Method::POST,
            "/dead-letters/{id}/redrive",
            "redriveDeadLetter",
            "Send one once more",
            ResponseBody::Empty,
            post(redrive),
        )
        .body::<RedriveOptions>(),
    ]
}

/// Which dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDeadLettersParams {
    /// Of this destination.
    destination: Option<String>,
    /// How many at most, 1 to 1000. Default 100.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of dead letters, the oldest event first.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeadLetterPage {
    /// The dead letters.
    dead_letters: Vec<DeadLetterView>,
    /// The cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A delivery that was given up.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DeadLetterView {
    /// Which one: the event's number in the store and the destination.
    id: String,
    /// Where it was to go.
    destination: String,
    /// The event's id.
    event_id: String,
    /// The rule.
    rule: String,
    /// The target's key.
    subject: String,
    /// What was to be done.
    action: String,
    /// Whether it takes capacity away: it is redriven only when that is forced.
    #[serde(rename = "takes_away")]
    decreases_capacity: bool,
    /// When it was emitted, RFC 3339.
    emitted_at: String,
    /// When a consumer stops acting on it, RFC 3339; absent if the event cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// When it was given up, RFC 3339.
    given_up_at: String,
    /// How often it was tried.
    attempts: u32,
    /// Why it was given up.
    error: String,
    /// The event as it would be sent; only where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Value>,
}

fn format_id(delivery_id: &DeliveryId) -> String {
    format!("{}-{}", delivery_id.seq.0, delivery_id.destination)
}

fn parse_id(text: &str) -> Result<DeliveryId, Problem> {
    let parts = text
        .split_once('-')
        .and_then(|(seq, destination)| Some((seq.parse().ok()?, Name::new(destination).ok()?)));
    let (seq, destination) = parts.ok_or_else(|| {
        Problem::bad_request(format!("`{text}` is no id of a dead letter: it looks like 17-scaling-queue"))
    })?;
    Ok(DeliveryId { seq: EventSeq(seq), destination })
}

fn dead_letter_view(letter: &DeadLetter) -> DeadLetterView {
    let header = EventHeader::read(&letter.event).ok();
    DeadLetterView {
        id: format_id(&letter.delivery_id),
        destination: letter.delivery_id.destination.to_string(),
        event_id: letter.id.clone(),
        rule: letter.rule.clone(),
        subject: letter.target.clone(),
        action: letter.action.clone(),
        decreases_capacity: header.as_ref().is_some_and(EventHeader::decreases_capacity),
        emitted_at: letter.emitted_at.to_millis_string(),
        expires_at: header.map(|header| header.expirytime.to_millis_string()),
        given_up_at: letter.given_up_at.to_millis_string(),
        attempts: letter.attempts,
        error: letter.error.clone(),
        event: None,
    }
}

async fn list(
    State(shared): State<HttpState>,
    Query(params): Query<ListDeadLettersParams>,
) -> Result<Json<DeadLetterPage>, Problem> {
    let services = services(&shared)?;
    let max = page_size(params.limit)?;
    let destination = parse_name("destination", params.destination.as_deref())?;
    let after = params.cursor.as_deref().map(parse_id).transpose()?;
    let found = services.store.dead_letters(destination.as_ref(), after.as_ref(), max).await?;
    let next = found.last().map(|last| format_id(&last.delivery_id)).filter(|_| found.len() == max);
    Ok(Json(DeadLetterPage { dead_letters: found.iter().map(dead_letter_view).collect(), next }))
}

async fn show(State(shared): State<HttpState>, Id(id): Id) -> Result<Json<DeadLetterView>, Problem> {
    let services = services(&shared)?;
    let found = services.store.dead_letter(&parse_id(&id)?).await?;
    let letter = found.ok_or_else(|| Problem::not_found(DeadLetterError::NotDead.to_string()))?;
    let event = serde_json::from_str(&letter.event).unwrap_or_else(|_| Value::from(&*letter.event));
    Ok(Json(DeadLetterView { event: Some(event), ..dead_letter_view(&letter) }))
}

/// How a dead letter is sent once more.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RedriveOptions {
    /// For how long from now consumers may act on it, a Prometheus duration. Without it one that has expired stays
    /// a dead letter.
    valid_for: Option<String>,
    /// Also if it takes capacity away.
    force: bool,
    /// Who does it, for the log.
    author: Option<String>,
}

impl RedriveOptions {
    fn to_redrive(&self) -> Result<Redrive, Problem> {
        let read = |text: &str| {
            duration::parse(text).map_err(|error| Problem::bad_request(format!("valid_for: {error}")))
        };
        let valid_for = self.valid_for.as_deref().map(read).transpose()?;
        if valid_for.is_some_and(|valid_for| valid_for.is_zero()) {
            return Err(Problem::bad_request("valid_for: it has to be above zero"));
        }
        Ok(Redrive { valid_for, force: self.force })
    }
}

async fn redrive(
    State(shared): State<HttpState>,
    Id(id): Id,
    extract::Json(options): extract::Json<RedriveOptions>,
) -> Result<StatusCode, Problem> {
    let services = services(&shared)?;
    let delivery_id = parse_id(&id)?;
    services.store.redrive(&delivery_id, options.to_redrive()?).await.map_err(problem_for)?;
    tracing::info!(
        letter = id,
        author = options.author.as_deref().unwrap_or_default(),
        "redrove a dead letter"
    );
    Ok(StatusCode::NO_CONTENT)
}

async fn discard(
    State(shared): State<HttpState>,
    Id(id): Id,
    Query(actor): Query<Actor>,
) -> Result<StatusCode, Problem> {
    let services = services(&shared)?;
    services.store.discard(&parse_id(&id)?).await.map_err(problem_for)?;
    tracing::info!(
        letter = id,
        author = actor.author.as_deref().unwrap_or_default(),
        "discarded a dead letter"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Who does it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Actor {
    /// Who does it, for the log.
    pub author: Option<String>,
}

fn problem_for(error: DeadLetterError) -> Problem {
    match error {
        DeadLetterError::Store(error) => error.into(),
        DeadLetterError::NotDead => Problem::not_found(DeadLetterError::NotDead.to_string()),
        other => Problem::conflict(other.to_string()),
    }
}

/// Which dead letters are meant; at least one key, or `all`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DeadLetterSelector {
    /// Of this destination.
    destination: Option<String>,
    /// Of this rule.
    rule: Option<String>,
    /// With this action.
    action: Option<String>,
    /// Given up before this time: RFC 3339, or a duration before now.
    given_up_before: Option<String>,
    /// Every one.
    all: bool,
}

/// Which dead letters are sent once more, and how.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BulkRedrive {
    /// Which.
    selector: DeadLetterSelector,
    /// How.
    options: RedriveOptions,
}

/// Which dead letters are thrown away.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BulkDiscard {
    /// Which.
    selector: DeadLetterSelector,
    /// Who does it, for the log.
    author: Option<String>,
}

/// What was done with dead letters.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct BulkResult {
    /// How many it was done with.
    succeeded: u64,
    /// Those that stay dead letters, and why; at most a hundred are told.
    failed: Vec<BulkFailure>,
    /// How many stay.
    failed_total: u64,
}

/// A dead letter that stays one.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BulkFailure {
    /// Which one.
    id: String,
    /// Why.
    reason: String,
}

async fn redrive_selected(
    State(shared): State<HttpState>,
    extract::Json(params): extract::Json<BulkRedrive>,
) -> Result<Json<BulkResult>, Problem> {
    let services = services(&shared)?;
    let redrive = params.options.to_redrive()?;
    let result = for_each_selected(services, &params.selector, BulkAction::Redrive(redrive)).await?;
    tracing::info!(
        count = result.succeeded,
        author = params.options.author.as_deref().unwrap_or_default(),
        "redrove dead letters"
    );
    Ok(Json(result))
}

async fn discard_selected(
    State(shared): State<HttpState>,
    extract::Json(params): extract::Json<BulkDiscard>,
) -> Result<Json<BulkResult>, Problem> {
    let services = services(&shared)?;
    let result = for_each_selected(services, &params.selector, BulkAction::Discard).await?;
    tracing::info!(
        count = result.succeeded,
        author = params.author.as_deref().unwrap_or_default(),
        "discarded dead letters"
    );
    Ok(Json(result))
}

/// What is done with each of many.
#[derive(Debug, Clone, Copy)]
enum BulkAction {
    Redrive(Redrive),
    Discard,
}

/// Does it with each dead letter that is there now; one that becomes one meanwhile is not met twice.
async fn for_each_selected(
    services: &Services,
    selector: &DeadLetterSelector,
    act: BulkAction,
) -> Result<BulkResult, Problem> {
    let DeadLetterSelector { destination, rule, action, given_up_before, all } = selector;
    let named = destination.is_some() || rule.is_some() || action.is_some() || given_up_before.is_some();
    if named == *all {
        return Err(Problem::bad_request("say which dead letters are meant, or `all`, and not both"));
    }
    let started = services.store.now();
    let before =
        extract::parse_time("given_up_before", given_up_before.as_deref(), started)?.unwrap_or(started);
    let destination = parse_name("destination", destination.as_deref())?;
    let meant = |letter: &DeadLetter| {
        rule.as_ref().is_none_or(|rule| *rule == letter.rule)
            && action.as_ref().is_none_or(|action| *action == letter.action)
            && letter.given_up_at <= before.min(started)
    };
    let mut result = BulkResult::default();
    let mut after: Option<DeliveryId> = None;
    loop {
        let page = services.store.dead_letters(destination.as_ref(), after.as_ref(), BULK_PAGE_SIZE).await?;
        for letter in page.iter().filter(|letter| meant(letter)) {
            let acted = match act {
                BulkAction::Redrive(redrive) => services.store.redrive(&letter.delivery_id, redrive).await,
                BulkAction::Discard => services.store.discard(&letter.delivery_id).await,
            };
            match acted {
                Ok(()) => result.succeeded += 1,
                Err(DeadLetterError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    result.failed_total += 1;
                    if result.failed.len() < 100 {
                        result.failed.push(BulkFailure {
                            id: format_id(&letter.delivery_id),
                            reason: error.to_string(),
                        });
                    }
                }
            }
        }
        if page.len() < BULK_PAGE_SIZE {
            return Ok(result);
        }
        after = page.last().map(|last| last.delivery_id.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_whatever_the_name() {
        for destination in ["queue", "a-b-c", "7-7"] {
            let one = DeliveryId { seq: EventSeq(17), destination: Name::new(destination).unwrap() };
            assert_eq!(parse_id(&format_id(&one)), Ok(one));
        }
        for text in ["", "17", "x-queue", "17-Not A Name"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }
}
