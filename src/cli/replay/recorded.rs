//! What a running bridge has recorded: the notifications that it has kept, and what else decided about its actions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::outages::{Attempt, outage_steps};
use super::scenario::{Action, NotComparable, Period, ReceivedNotification, Scenario, Step, floor_millis};
use crate::cli::client::{ClientError, Server};
use crate::cli::output::pluralize;
use crate::domain::control::{GapCause, Pause};
use crate::domain::direction::Direction;
use crate::domain::name::Name;
use crate::domain::target_pattern::TargetPattern;
use crate::domain::time::Time;
use crate::ops::api::{
    AuditEntryView, AuditPage, DeliveryPage, ListAuditParams, ListDeliveriesParams, ListNotificationsParams,
    NotificationBodyView, NotificationPage, PauseView, SourceView,
};
use crate::sources::SourceKind;

/// Items of a page.
const PAGE_SIZE: usize = 1000;
/// Deliveries of earlier events show that a destination fails when the period begins.
const LOOK_BACK: Duration = Duration::from_hours(1);

/// What the bridge has recorded.
pub(super) struct Recorded {
    pub scenario: Scenario,
    pub not_comparable: Vec<NotComparable>,
    /// How long the bridge keeps notifications, or `off`.
    pub retention: String,
    /// What the simulation does not know.
    pub notes: Vec<String>,
}

impl Recorded {
    /// Reads what a bridge has recorded.
    /// `kinds` are those of the sources that are configured.
    pub(super) fn fetch(
        server: &Server,
        period: &Period,
        kinds: &BTreeMap<Name, SourceKind>,
    ) -> Result<Self, ClientError> {
        let mut notes = Vec::new();
        let (mut steps, retention) = notifications(server, period, kinds)?;
        notes.extend(begins_late(server, period)?);
        steps.extend(pauses(server, period)?);
        steps.extend(outages(server, period, &mut notes)?);
        steps.extend(gaps(server, period, &steps)?);
        let mut scenario = Scenario { start: period.from, steps, end: period.until };
        let not_comparable = scenario.order();
        let adopted = scenario.adopted_alerts();
        if adopted > 0 {
            let alerts = pluralize(adopted, "alert");
            notes.push(format!(
                "{alerts} began before: in the simulation they can increase capacity, not decrease it"
            ));
        }
        Ok(Self { scenario, not_comparable, retention, notes })
    }
}

fn notifications(
    server: &Server,
    period: &Period,
    kinds: &BTreeMap<Name, SourceKind>,
) -> Result<(Vec<Step>, String), ClientError> {
    let mut steps = Vec::new();
    let mut cursor = None;
    loop {
        let params = ListNotificationsParams {
            source: period.source.clone(),
            since: Some(period.from.to_millis_string()),
            until: Some(period.until.to_millis_string()),
            limit: Some(PAGE_SIZE),
            cursor,
        };
        let page: NotificationPage = server.get("/api/v1/notifications", &params)?;
        for kept in page.notifications {
            steps.push(notification(kept, kinds)?);
        }
        if page.next.is_none() {
            return Ok((steps, page.retention));
        }
        cursor = page.next;
    }
}

/// Says so if the record may not reach back to the beginning of the period.
fn begins_late(server: &Server, period: &Period) -> Result<Option<String>, ClientError> {
    let params =
        ListNotificationsParams { source: period.source.clone(), limit: Some(1), ..Default::default() };
    let page: NotificationPage = server.get("/api/v1/notifications", &params)?;
    let Some(NotificationBodyView { received_at, .. }) = page.notifications.first() else { return Ok(None) };
    let begins = Time::parse(received_at).ok().filter(|at| *at > period.from);
    Ok(begins.map(|_| {
        format!(
            "the record begins at {received_at}: what was received before is not kept (any more) and not replayed; \
             see retention.notifications and retention.notifications_bytes"
        )
    }))
}

/// Reads a kept notification as one of the kind of its source. The kind may have changed since, and the source may be
/// gone: then the format of the body decides.
fn notification(kept: NotificationBodyView, kinds: &BTreeMap<Name, SourceKind>) -> Result<Step, ClientError> {
    let NotificationBodyView { source, received_at, body } = kept;
    let unreadable = |error: &dyn std::fmt::Display| {
        ClientError::RequestFailed(format!("the notification of {source} at {received_at}: {error}"))
    };
    let name = Name::new(&source).map_err(|error| unreadable(&error))?;
    let at = Time::parse(&received_at).map_err(|error| unreadable(&error))?;
    let kind = kinds.get(&name).cloned().unwrap_or_default();
    // The time is cut to milliseconds: what had ended when it was received must not end a moment later.
    let received_at = at.after(Duration::from_millis(1));
    let notification =
        kind.parse_any(body.get().as_bytes(), received_at).map_err(|error| unreadable(&error))?;
    let received = ReceivedNotification {
        name: source,
        source: Some(name),
        notification,
        not_comparable: Default::default(),
    };
    Ok(Step { at: floor_millis(at), action: Action::Notify(Box::new(received)) })
}

/// All pages of a list.
fn pages<P: DeserializeOwned, I>(
    fetch: impl Fn(Option<String>) -> Result<P, ClientError>,
    split: impl Fn(P) -> (Vec<I>, Option<String>),
) -> Result<Vec<I>, ClientError> {
    let (mut items, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = split(fetch(cursor)?);
        items.extend(page);
        if next.is_none() {
            return Ok(items);
        }
        cursor = next;
    }
}

/// The pauses of the audit trail and those that are active, each until it ended.
fn pauses(server: &Server, period: &Period) -> Result<Vec<Step>, ClientError> {
    let acts = |act: &str| {
        let fetch = |cursor| {
            let act = Some(act.to_owned());
            let params = ListAuditParams { act, limit: Some(PAGE_SIZE), cursor, ..Default::default() };
            server.get::<AuditPage<AuditEntryView>>("/api/v1/audit", &params)
        };
        pages(fetch, |page| (page.entries, page.next))
    };
    let mut pauses: BTreeMap<u64, (PauseView, Option<Time>)> = BTreeMap::new();
    for pause in server.get::<Vec<PauseView>>("/api/v1/pauses", &())? {
        pauses.insert(pause.id, (pause, None));
    }
    for pause in acts("pause")?.into_iter().filter_map(|entry| entry.details.pause) {
        pauses.entry(pause.id).or_insert((pause, None));
    }
    for AuditEntryView { at, details, .. } in acts("resume")? {
        let Some(pause) = details.pause else { continue };
        pauses.insert(pause.id, (pause, Time::parse(&at).ok()));
    }
    Ok(pauses.into_values().filter_map(|(pause, resumed)| pause_step(&pause, resumed, period)).collect())
}

fn pause_step(view: &PauseView, resumed: Option<Time>, period: &Period) -> Option<Step> {
    let since = Time::parse(&view.since).ok()?;
    let expires = view.until.as_deref().and_then(|until| Time::parse(until).ok());
    let until = expires.into_iter().chain(resumed).min().map(floor_millis);
    let at = floor_millis(since.max(period.from));
    if at > period.until || until.is_some_and(|until| until <= at) {
        return None;
    }
    let direction =
        Direction::ALL.into_iter().find(|known| Some(known.as_str()) == view.direction.as_deref());
    let pause = Pause {
        id: 0,
        rule: view.rule.as_deref().and_then(|rule| Name::new(rule).ok()),
        target: view.target.as_deref().and_then(TargetPattern::new),
        direction,
        since: at,
        until,
        author: view.author.clone(),
        reason: view.reason.clone(),
    };
    Some(Step { at, action: Action::Pause(pause) })
}

/// When each destination failed: from the emission of an event whose delivery took retries until it was delivered.
fn outages(server: &Server, period: &Period, notes: &mut Vec<String>) -> Result<Vec<Step>, ClientError> {
    let from = Time::from_nanos(period.from.as_nanos().saturating_sub(LOOK_BACK.as_nanos() as i64));
    let fetch = |cursor| {
        let params = ListDeliveriesParams {
            since: Some(from.to_millis_string()),
            until: Some(period.until.to_millis_string()),
            limit: Some(PAGE_SIZE),
            cursor,
        };
        server.get::<DeliveryPage>("/api/v1/deliveries", &params)
    };
    // An event that is not stored any more was delivered.
    let events = pages(fetch, |page| (page.events, page.next))?;
    let mut attempts: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    let mut refused = 0;
    for event in events {
        let Ok(emitted_at) = Time::parse(&event.emitted_at) else { continue };
        for delivery in &event.deliveries {
            let attempt = Attempt::new(floor_millis(emitted_at), delivery);
            refused += usize::from(attempt.is_refused);
            attempts.entry(delivery.destination.clone()).or_default().push(attempt);
        }
    }
    if refused > 0 {
        notes.push(format!(
            "{refused} deliveries were refused by their destinations; in the simulation they arrive"
        ));
    }
    let named = attempts.into_iter().filter_map(|(name, attempts)| Some((Name::new(&name).ok()?, attempts)));
    Ok(named.flat_map(|(name, attempts)| outage_steps(&name, &attempts, period)).collect())
}

/// The last reception gap of each source, which is the one that the bridge knows.
fn gaps(server: &Server, period: &Period, steps: &[Step]) -> Result<Vec<Step>, ClientError> {
    let mut gaps: Vec<Step> = Vec::new();
    for SourceView { name, last_gap, .. } in server.get::<Vec<SourceView>>("/api/v1/sources", &())? {
        let (Some(gap), Ok(name)) = (last_gap, Name::new(&name)) else { continue };
        let (Ok(from), Ok(until)) = (Time::parse(&gap.from), Time::parse(&gap.until)) else { continue };
        let (from, until) = (floor_millis(from).max(period.from), floor_millis(until));
        if until < period.from || from > period.until {
            continue;
        }
        // An instant is the shortest gap that a test knows. While notifications arrived, the bridge decided: only the
        // end of the gap is simulated.
        let instant = Duration::from_millis(1);
        let decided_meanwhile = steps.iter().any(|step| step.at > from && step.at < until);
        let (at, length) = match decided_meanwhile {
            true => (until, instant),
            false => (from, until.since(from).max(instant)),
        };
        let is_downtime = gap.cause == GapCause::NotRunning;
        let is_same = |step: &Step| matches!(step.action, Action::Restart(_)) && step.at == at;
        if is_downtime && gaps.iter().any(is_same) {
            continue;
        }
        let action = if is_downtime { Action::Restart(length) } else { Action::Gap(name, length) };
        gaps.push(Step { at, action });
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        Time::from_millis(second * 1000)
    }

    #[test]
    fn a_pause_lasts_from_the_period_until_it_was_ended_or_expired() {
        let period = Period { from: at(100), until: at(200), source: None };
        let pause = |since: i64, until: Option<i64>, resumed: Option<i64>| {
            let view = PauseView {
                id: 1,
                rule: Some("nodes".to_owned()),
                target: None,
                direction: Some("scale_in".into()),
                since: at(since).to_millis_string(),
                until: until.map(|until| at(until).to_millis_string()),
                author: "ann".to_owned(),
                reason: String::new(),
                undelivered_events: None,
                calls_in_flight: None,
                ended_at: None,
                ended_by: None,
            };
            let step = pause_step(&view, resumed.map(at), &period)?;
            let Action::Pause(pause) = step.action else { unreachable!("a pause") };
            assert_eq!(pause.direction, Some(Direction::ScaleIn));
            Some((step.at.as_millis() / 1000, pause.until.map(|until| until.as_millis() / 1000)))
        };
        assert_eq!(pause(120, None, None), Some((120, None)));
        assert_eq!(pause(50, Some(190), Some(150)), Some((100, Some(150))));
        assert_eq!(pause(120, Some(130), None), Some((120, Some(130))));
        assert_eq!(pause(50, Some(90), None), None);
        assert_eq!(pause(50, None, Some(100)), None);
        assert_eq!(pause(201, None, None), None);
    }
}
