//! Dead letters: list, redrive and discard deliveries that were given up.

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
use crate::store::{AuditEntry, AuditWrite, DeadLetter, DeadLetterError, DeliveryId, EventSeq, Redrive};

/// Dead letters read per query by a bulk operation.
const BULK_PAGE_SIZE: usize = 500;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/dead-letters",
            "listDeadLetters",
            "List dead letters, oldest first",
            ResponseBody::Json(200, schema_of::<DeadLetterPage>),
            get(list),
        )
        .query::<ListDeadLettersParams>(),
        Operation::new(
            Method::POST,
            "/dead-letters/redrive",
            "redriveDeadLetters",
            "Redrive dead letters in bulk",
            ResponseBody::Json(200, schema_of::<BulkResult>),
            post(redrive_selected),
        )
        .body::<BulkRedrive>(),
        Operation::new(
            Method::POST,
            "/dead-letters/discard",
            "discardDeadLetters",
            "Discard dead letters in bulk",
            ResponseBody::Json(200, schema_of::<BulkResult>),
            post(discard_selected),
        )
        .body::<BulkDiscard>(),
        Operation::new(
            Method::GET,
            "/dead-letters/{id}",
            "getDeadLetter",
            "Get a dead letter with its event",
            ResponseBody::Json(200, schema_of::<DeadLetterView>),
            get(show),
        ),
        Operation::new(
            Method::DELETE,
            "/dead-letters/{id}",
            "discardDeadLetter",
            "Discard a dead letter",
            ResponseBody::Empty,
            delete(discard),
        )
        .query::<Actor>(),
        Operation::new(
            Method::POST,
            "/dead-letters/{id}/redrive",
            "redriveDeadLetter",
            "Redrive a dead letter",
            ResponseBody::Empty,
            post(redrive),
        )
        .body::<RedriveOptions>(),
    ]
}

/// Filters and paging.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDeadLettersParams {
    /// Filter by destination.
    destination: Option<String>,
    /// Maximum number of results, 1 to 1000. Default 100.
    limit: Option<usize>,
    /// `next` of the previous page.
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
    /// Its id: the event's number in the store and the destination, such as `17-scaling-queue`.
    id: String,
    /// The destination.
    destination: String,
    /// The event's id.
    event_id: String,
    /// The rule.
    rule: String,
    /// The target's key.
    subject: String,
    /// The action of the event.
    action: String,
    /// Whether it decreases capacity; such an event is redriven only with `force`.
    #[serde(rename = "takes_away")]
    decreases_capacity: bool,
    /// When it was emitted, RFC 3339.
    emitted_at: String,
    /// The event's `expirytime`, after which consumers do not act on it, RFC 3339; absent if the event is unreadable.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// When it was given up, RFC 3339.
    given_up_at: String,
    /// The number of failed attempts.
    attempts: u32,
    /// Why it was given up.
    error: String,
    /// The event; only when a single dead letter is requested.
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
        Problem::bad_request(format!("invalid dead letter id `{text}`; expected the form 17-scaling-queue"))
    })?;
    Ok(DeliveryId { seq: EventSeq(seq), destination })
}

fn dead_letter_view(dead_letter: &DeadLetter) -> DeadLetterView {
    let header = EventHeader::read(&dead_letter.event).ok();
    DeadLetterView {
        id: format_id(&dead_letter.delivery_id),
        destination: dead_letter.delivery_id.destination.to_string(),
        event_id: dead_letter.id.clone(),
        rule: dead_letter.rule.clone(),
        subject: dead_letter.target.clone(),
        action: dead_letter.action.clone(),
        decreases_capacity: header.as_ref().is_some_and(EventHeader::decreases_capacity),
        emitted_at: dead_letter.emitted_at.to_millis_string(),
        expires_at: header.map(|header| header.expirytime.to_millis_string()),
        given_up_at: dead_letter.given_up_at.to_millis_string(),
        attempts: dead_letter.attempts,
        error: dead_letter.error.clone(),
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
    let dead_letter = found.ok_or_else(|| Problem::not_found(DeadLetterError::NotDead.to_string()))?;
    let event = serde_json::from_str(&dead_letter.event).unwrap_or_else(|_| Value::from(&*dead_letter.event));
    Ok(Json(DeadLetterView { event: Some(event), ..dead_letter_view(&dead_letter) }))
}

/// Options of a redrive.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RedriveOptions {
    /// Sets the event's expiry to this duration (in Prometheus' format) from now. Without it, redriving an expired event
    /// fails.
    valid_for: Option<String>,
    /// Whether to redrive events that decrease capacity, too.
    force: bool,
    /// The operator, for the log.
    author: Option<String>,
}

impl RedriveOptions {
    fn to_redrive(&self) -> Result<Redrive, Problem> {
        let read = |text: &str| {
            duration::parse(text).map_err(|error| Problem::bad_request(format!("valid_for: {error}")))
        };
        let valid_for = self.valid_for.as_deref().map(read).transpose()?;
        if valid_for.is_some_and(|valid_for| valid_for.is_zero()) {
            return Err(Problem::bad_request("valid_for: must be greater than zero"));
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
    let audit = audit_entry("redrive", options.author.as_deref(), &id);
    services.store.redrive(&delivery_id, options.to_redrive()?, audit).await.map_err(problem_for)?;
    tracing::info!(
        dead_letter = id,
        author = options.author.as_deref().unwrap_or_default(),
        "dead letter redriven"
    );
    Ok(StatusCode::NO_CONTENT)
}

async fn discard(
    State(shared): State<HttpState>,
    Id(id): Id,
    Query(actor): Query<Actor>,
) -> Result<StatusCode, Problem> {
    let services = services(&shared)?;
    let audit = audit_entry("discard", actor.author.as_deref(), &id);
    services.store.discard(&parse_id(&id)?, audit).await.map_err(problem_for)?;
    tracing::info!(
        dead_letter = id,
        author = actor.author.as_deref().unwrap_or_default(),
        "dead letter discarded"
    );
    Ok(StatusCode::NO_CONTENT)
}

fn audit_entry(act: &str, author: Option<&str>, id: &str) -> AuditWrite {
    let actor = author.filter(|author| !author.is_empty()).unwrap_or("unknown").to_owned();
    let body = serde_json::json!({ "dead_letter": id }).to_string();
    AuditWrite::Add(AuditEntry { actor, act: act.to_owned(), body })
}

/// The operator who makes a change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Actor {
    /// The operator, for the log.
    pub author: Option<String>,
}

fn problem_for(error: DeadLetterError) -> Problem {
    match error {
        DeadLetterError::Store(error) => error.into(),
        DeadLetterError::NotDead => Problem::not_found(DeadLetterError::NotDead.to_string()),
        other => Problem::conflict(other.to_string()),
    }
}

/// Selects dead letters: at least one filter, or `all`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct DeadLetterSelector {
    /// Select by destination.
    destination: Option<String>,
    /// Select by rule.
    rule: Option<String>,
    /// Select by action.
    action: Option<String>,
    /// Select those given up before this time: RFC 3339, or a duration before now.
    given_up_before: Option<String>,
    /// Select all dead letters.
    all: bool,
}

/// A bulk redrive.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BulkRedrive {
    /// The dead letters.
    selector: DeadLetterSelector,
    /// The options that apply to each of them.
    options: RedriveOptions,
}

/// A bulk discard.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct BulkDiscard {
    /// The dead letters.
    selector: DeadLetterSelector,
    /// The operator, for the log.
    author: Option<String>,
}

/// The result of a bulk operation.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(super) struct BulkResult {
    /// The number of dead letters that were redriven or discarded.
    succeeded: u64,
    /// The failures, at most 100.
    failed: Vec<BulkFailure>,
    /// The number of failures; these dead letters are unchanged.
    failed_total: u64,
}

/// A dead letter for which a bulk operation failed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct BulkFailure {
    /// The dead letter's id.
    id: String,
    /// The cause.
    reason: String,
}

async fn redrive_selected(
    State(shared): State<HttpState>,
    extract::Json(params): extract::Json<BulkRedrive>,
) -> Result<Json<BulkResult>, Problem> {
    let services = services(&shared)?;
    let redrive = params.options.to_redrive()?;
    let result = for_each_selected(
        services,
        &params.selector,
        BulkAction::Redrive(redrive),
        params.options.author.as_deref(),
    )
    .await?;
    tracing::info!(
        count = result.succeeded,
        author = params.options.author.as_deref().unwrap_or_default(),
        "dead letters redriven"
    );
    Ok(Json(result))
}

async fn discard_selected(
    State(shared): State<HttpState>,
    extract::Json(params): extract::Json<BulkDiscard>,
) -> Result<Json<BulkResult>, Problem> {
    let services = services(&shared)?;
    let result =
        for_each_selected(services, &params.selector, BulkAction::Discard, params.author.as_deref()).await?;
    tracing::info!(
        count = result.succeeded,
        author = params.author.as_deref().unwrap_or_default(),
        "dead letters discarded"
    );
    Ok(Json(result))
}

#[derive(Debug, Clone, Copy)]
enum BulkAction {
    Redrive(Redrive),
    Discard,
}

/// Applies an action to each selected dead letter. A delivery that is given up after the start is not included, so one
/// that is redriven and given up again is processed once.
async fn for_each_selected(
    services: &Services,
    selector: &DeadLetterSelector,
    bulk_action: BulkAction,
    author: Option<&str>,
) -> Result<BulkResult, Problem> {
    let DeadLetterSelector { destination, rule, action, given_up_before, all } = selector;
    let has_filter = destination.is_some() || rule.is_some() || action.is_some() || given_up_before.is_some();
    if has_filter == *all {
        return Err(Problem::bad_request("selector: at least one filter or `all` is required, but not both"));
    }
    let started = services.store.now();
    let before =
        extract::parse_time("given_up_before", given_up_before.as_deref(), started)?.unwrap_or(started);
    let destination = parse_name("destination", destination.as_deref())?;
    let is_selected = |dead_letter: &DeadLetter| {
        rule.as_ref().is_none_or(|rule| *rule == dead_letter.rule)
            && action.as_ref().is_none_or(|action| *action == dead_letter.action)
            && dead_letter.given_up_at <= before.min(started)
    };
    let mut result = BulkResult::default();
    let mut after: Option<DeliveryId> = None;
    loop {
        let page = services.store.dead_letters(destination.as_ref(), after.as_ref(), BULK_PAGE_SIZE).await?;
        for dead_letter in page.iter().filter(|dead_letter| is_selected(dead_letter)) {
            let outcome = match bulk_action {
                BulkAction::Redrive(redrive) => {
                    let audit = audit_entry("redrive", author, &format_id(&dead_letter.delivery_id));
                    services.store.redrive(&dead_letter.delivery_id, redrive, audit).await
                }
                BulkAction::Discard => {
                    let audit = audit_entry("discard", author, &format_id(&dead_letter.delivery_id));
                    services.store.discard(&dead_letter.delivery_id, audit).await
                }
            };
            match outcome {
                Ok(()) => result.succeeded += 1,
                Err(DeadLetterError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    result.failed_total += 1;
                    if result.failed.len() < 100 {
                        result.failed.push(BulkFailure {
                            id: format_id(&dead_letter.delivery_id),
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
    fn an_id_is_parsed_back_for_any_destination_name() {
        for destination in ["queue", "a-b-c", "7-7"] {
            let one = DeliveryId { seq: EventSeq(17), destination: Name::new(destination).unwrap() };
            assert_eq!(parse_id(&format_id(&one)), Ok(one));
        }
        for text in ["", "17", "x-queue", "17-Not A Name"] {
            assert!(parse_id(text).is_err(), "{text}");
        }
    }
}
