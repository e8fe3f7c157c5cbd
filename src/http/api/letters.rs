//! Dead letters: what was given up, to be sent once more or thrown away.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ask::{self, Id, Query, limit, name, running};
use super::problem::Problem;
use crate::domain::duration;
use crate::domain::header::EventHeader;
use crate::domain::name::Name;
use crate::http::{Running, Shared};
use crate::store::{DeadLetter, DeadLetterError, DeliveryId, EventSeq, Redrive};

/// Dead letters that are read at once while many are redriven or discarded.
const AT_ONCE: usize = 500;

/// Which dead letters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Of this destination.
    destination: Option<String>,
    /// How many at most, 1 to 1000. Default 100.
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A page of dead letters, the oldest event first.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Letters {
    /// The dead letters.
    dead_letters: Vec<ApiLetter>,
    /// The cursor of the next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A delivery that was given up.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ApiLetter {
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
    takes_away: bool,
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

fn id(place: &DeliveryId) -> String {
    format!("{}-{}", place.seq.0, place.destination)
}

fn place(text: &str) -> Result<DeliveryId, Problem> {
    let parts = text
        .split_once('-')
        .and_then(|(seq, destination)| Some((seq.parse().ok()?, Name::new(destination).ok()?)));
    let (seq, destination) = parts.ok_or_else(|| {
        Problem::bad(format!("`{text}` is no id of a dead letter: it looks like 17-scaling-queue"))
    })?;
    Ok(DeliveryId { seq: EventSeq(seq), destination })
}

fn told(letter: &DeadLetter) -> ApiLetter {
    let header = EventHeader::read(&letter.event).ok();
    ApiLetter {
        id: id(&letter.delivery_id),
        destination: letter.delivery_id.destination.to_string(),
        event_id: letter.id.clone(),
        rule: letter.rule.clone(),
        subject: letter.target.clone(),
        action: letter.action.clone(),
        takes_away: header.as_ref().is_some_and(EventHeader::decreases_capacity),
        emitted_at: letter.emitted_at.to_millis_string(),
        expires_at: header.map(|header| header.expirytime.to_millis_string()),
        given_up_at: letter.given_up_at.to_millis_string(),
        attempts: letter.attempts,
        error: letter.error.clone(),
        event: None,
    }
}

pub async fn list(State(shared): State<Shared>, Query(ask): Query<Ask>) -> Result<Json<Letters>, Problem> {
    let running = running(&shared)?;
    let max = limit(ask.limit)?;
    let destination = name("destination", ask.destination.as_deref())?;
    let after = ask.cursor.as_deref().map(place).transpose()?;
    let found = running.store.dead_letters(destination.as_ref(), after.as_ref(), max).await?;
    let next = found.last().map(|last| id(&last.delivery_id)).filter(|_| found.len() == max);
    Ok(Json(Letters { dead_letters: found.iter().map(told).collect(), next }))
}

pub async fn show(State(shared): State<Shared>, Id(id): Id) -> Result<Json<ApiLetter>, Problem> {
    let running = running(&shared)?;
    let found = running.store.dead_letter(&place(&id)?).await?;
    let letter = found.ok_or_else(|| Problem::missing(DeadLetterError::NotDead.to_string()))?;
    let event = serde_json::from_str(&letter.event).unwrap_or_else(|_| Value::from(&*letter.event));
    Ok(Json(ApiLetter { event: Some(event), ..told(&letter) }))
}

/// How a dead letter is sent once more.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HowToRedrive {
    /// For how long from now consumers may act on it, a Prometheus duration. Without it one that has expired stays
    /// a dead letter.
    valid_for: Option<String>,
    /// Also if it takes capacity away.
    force: bool,
    /// Who does it, for the log.
    author: Option<String>,
}

impl HowToRedrive {
    fn redrive(&self) -> Result<Redrive, Problem> {
        let read =
            |text: &str| duration::parse(text).map_err(|error| Problem::bad(format!("valid_for: {error}")));
        let valid_for = self.valid_for.as_deref().map(read).transpose()?;
        if valid_for.is_some_and(|valid_for| valid_for.is_zero()) {
            return Err(Problem::bad("valid_for: it has to be above zero"));
        }
        Ok(Redrive { valid_for, force: self.force })
    }
}

pub async fn redrive(
    State(shared): State<Shared>,
    Id(id): Id,
    ask::Json(how): ask::Json<HowToRedrive>,
) -> Result<StatusCode, Problem> {
    let running = running(&shared)?;
    let place = place(&id)?;
    running.store.redrive(&place, how.redrive()?).await.map_err(refused)?;
    tracing::info!(letter = id, author = how.author.as_deref().unwrap_or_default(), "redrove a dead letter");
    Ok(StatusCode::NO_CONTENT)
}

pub async fn discard(
    State(shared): State<Shared>,
    Id(id): Id,
    Query(who): Query<Who>,
) -> Result<StatusCode, Problem> {
    let running = running(&shared)?;
    running.store.discard(&place(&id)?).await.map_err(refused)?;
    tracing::info!(
        letter = id,
        author = who.author.as_deref().unwrap_or_default(),
        "discarded a dead letter"
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Who does it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Who {
    /// Who does it, for the log.
    pub author: Option<String>,
}

fn refused(error: DeadLetterError) -> Problem {
    match error {
        DeadLetterError::Store(error) => error.into(),
        DeadLetterError::NotDead => Problem::missing(DeadLetterError::NotDead.to_string()),
        other => Problem::refused(other.to_string()),
    }
}

/// Which dead letters are meant; at least one key, or `all`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Those {
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
pub struct RedriveThose {
    /// Which.
    which: Those,
    /// How.
    how: HowToRedrive,
}

/// Which dead letters are thrown away.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DiscardThose {
    /// Which.
    which: Those,
    /// Who does it, for the log.
    author: Option<String>,
}

/// What was done with dead letters.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Done {
    /// How many it was done with.
    done: u64,
    /// Those that stay dead letters, and why; at most a hundred are told.
    stay: Vec<Stays>,
    /// How many stay.
    stay_total: u64,
}

/// A dead letter that stays one.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Stays {
    /// Which one.
    id: String,
    /// Why.
    reason: String,
}

pub async fn redrive_those(
    State(shared): State<Shared>,
    ask::Json(ask): ask::Json<RedriveThose>,
) -> Result<Json<Done>, Problem> {
    let running = running(&shared)?;
    let redrive = ask.how.redrive()?;
    let done = with_each(running, &ask.which, Act::Redrive(redrive)).await?;
    tracing::info!(
        count = done.done,
        author = ask.how.author.as_deref().unwrap_or_default(),
        "redrove dead letters"
    );
    Ok(Json(done))
}

pub async fn discard_those(
    State(shared): State<Shared>,
    ask::Json(ask): ask::Json<DiscardThose>,
) -> Result<Json<Done>, Problem> {
    let running = running(&shared)?;
    let done = with_each(running, &ask.which, Act::Discard).await?;
    tracing::info!(
        count = done.done,
        author = ask.author.as_deref().unwrap_or_default(),
        "discarded dead letters"
    );
    Ok(Json(done))
}

/// What is done with each of many.
#[derive(Debug, Clone, Copy)]
enum Act {
    Redrive(Redrive),
    Discard,
}

/// Does it with each dead letter that is there now; one that becomes one meanwhile is not met twice.
async fn with_each(running: &Running, which: &Those, act: Act) -> Result<Done, Problem> {
    let Those { destination, rule, action, given_up_before, all } = which;
    let named = destination.is_some() || rule.is_some() || action.is_some() || given_up_before.is_some();
    if named == *all {
        return Err(Problem::bad("say which dead letters are meant, or `all`, and not both"));
    }
    let started = running.store.now();
    let before = ask::time("given_up_before", given_up_before.as_deref(), started)?.unwrap_or(started);
    let destination = name("destination", destination.as_deref())?;
    let meant = |letter: &DeadLetter| {
        rule.as_ref().is_none_or(|rule| *rule == letter.rule)
            && action.as_ref().is_none_or(|action| *action == letter.action)
            && letter.given_up_at <= before.min(started)
    };
    let mut done = Done::default();
    let mut after: Option<DeliveryId> = None;
    loop {
        let page = running.store.dead_letters(destination.as_ref(), after.as_ref(), AT_ONCE).await?;
        for letter in page.iter().filter(|letter| meant(letter)) {
            let acted = match act {
                Act::Redrive(redrive) => running.store.redrive(&letter.delivery_id, redrive).await,
                Act::Discard => running.store.discard(&letter.delivery_id).await,
            };
            match acted {
                Ok(()) => done.done += 1,
                Err(DeadLetterError::Store(error)) => return Err(error.into()),
                Err(error) => {
                    done.stay_total += 1;
                    if done.stay.len() < 100 {
                        done.stay.push(Stays { id: id(&letter.delivery_id), reason: error.to_string() });
                    }
                }
            }
        }
        if page.len() < AT_ONCE {
            return Ok(done);
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
            assert_eq!(place(&id(&one)), Ok(one));
        }
        for text in ["", "17", "x-queue", "17-Not A Name"] {
            assert!(place(text).is_err(), "{text}");
        }
    }
}
