//! Pauses: set and ended by operators, they block actions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Ops;
use super::act::Initiator;
use super::api::{AuditDetails, AuditEntryView, ListAuditParams, ListPausesParams, NewPause, PauseView};
use super::audit::{self, OperatorAct};
use super::error::Error;
use super::parse;
use crate::bridge::withheld::covers;
use crate::domain::control::Pause;
use crate::domain::direction::Direction;
use crate::domain::name::Name;
use crate::domain::target_pattern::TargetPattern;
use crate::store::{self, Changes, Keys, Store};

/// Every decision evaluates all pauses, so their number is limited.
const MAX_PAUSES: usize = 1000;

/// The maximum number of ended pauses that are listed.
const MAX_ENDED_PAUSES: usize = 1000;

/// The maximum number of undelivered events of a destination that a new pause looks at.
const MAX_COUNTED_EVENTS: usize = 20_000;

/// The number of undelivered events that a pause covers, and of calls that may be under way with them.
struct CoveredEvents {
    events: u64,
    calls: u64,
}

/// A pause to be set. An absent condition covers all actions.
#[derive(Debug, Clone)]
pub struct PauseRequest {
    /// Only actions of this rule.
    pub rule: Option<Name>,
    /// Only actions on targets whose key the pattern covers.
    pub target: Option<TargetPattern>,
    /// Only actions in this direction.
    pub direction: Option<Direction>,
    /// The pause expires after this time; without it, it lasts until it is resumed.
    pub ends_after: Option<Duration>,
}

/// Sets and ends pauses, each in one transaction with its audit entry. Cheap to clone.
#[derive(Clone)]
pub struct Pauses {
    store: Store,
}

impl Pauses {
    /// The pauses of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The active pauses, oldest first.
    pub fn active(&self) -> Vec<Pause> {
        self.store.controls().pauses(self.store.now()).cloned().collect()
    }

    /// Blocks actions until the pause is resumed or expires. When this returns `Ok`, the pause is on disk.
    ///
    /// # Errors
    /// The store could not write; nothing is paused.
    pub async fn pause(&self, by: Initiator, request: PauseRequest) -> Result<Pause, store::Error> {
        let pause = self.store.transact(Keys::default(), move |view| {
            let mut controls = (*view.controls).clone();
            let PauseRequest { rule, target, direction, ends_after } = request.clone();
            let until = ends_after.map(|after| view.now.after(after));
            let (author, reason) = (by.actor.to_string(), by.reason_text().to_owned());
            let pause = Pause { id: 0, rule, target, direction, since: view.now, until, author, reason };
            let id = controls.pause(pause.clone());
            let pause = Pause { id, ..pause };
            let details = AuditDetails {
                pause: Some(pause.clone().on_wall(view.clock()).into()),
                ..AuditDetails::done()
            };
            let audit = Some(audit::entry(OperatorAct::Pause, &by, details));
            (Changes { controls: Some(Arc::new(controls)), audit, ..Changes::default() }, pause)
        });
        let pause = pause.await?;
        self.log("paused", &pause, &pause.author, &pause.reason);
        Ok(pause)
    }

    /// Ends a pause: the actions that it has blocked are rechecked at once. `None` if no pause has this id.
    ///
    /// # Errors
    /// The store could not write; nothing has changed.
    pub async fn resume(&self, by: Initiator, id: u64) -> Result<Option<Pause>, store::Error> {
        let (author, reason) = (by.actor.to_string(), by.reason_text().to_owned());
        let ended = self.store.transact(Keys::default(), move |view| {
            let mut controls = (*view.controls).clone();
            let Some(pause) = controls.resume(id) else { return (Changes::default(), None) };
            let details = AuditDetails {
                pause: Some(pause.clone().on_wall(view.clock()).into()),
                ..AuditDetails::done()
            };
            let audit = Some(audit::entry(OperatorAct::Resume, &by, details));
            (Changes { controls: Some(Arc::new(controls)), audit, ..Changes::default() }, Some(pause))
        });
        let ended = ended.await?;
        if let Some(pause) = &ended {
            self.log("resumed", pause, &author, &reason);
        }
        Ok(ended)
    }

    /// Logs what was done to a pause, with what it covers.
    fn log(&self, done: &str, pause: &Pause, author: &str, reason: &str) {
        let clock = self.store.clock();
        let until = pause.until.map(|until| clock.on_wall(until).to_millis_string());
        let (rule, target) = (pause.rule.as_ref(), pause.target.as_ref());
        let (rule, target) = (rule.map(Name::as_str), target.map(TargetPattern::as_str));
        let direction = pause.direction.map(Direction::as_str);
        tracing::info!(pause = pause.id, rule, target, direction, until, author, reason, "{done}");
    }
}

impl Ops {
    /// Lists the active pauses, oldest first; before them, if they are requested, those that have ended.
    ///
    /// # Errors
    /// The audit trail, which has the ended pauses, cannot be read.
    pub(crate) async fn list_pauses(&self, params: &ListPausesParams) -> Result<Vec<PauseView>, Error> {
        let clock = self.0.store.clock();
        let active: Vec<PauseView> =
            self.pauses().active().into_iter().map(|pause| pause.on_wall(clock).into()).collect();
        if params.ended != Some(true) {
            return Ok(active);
        }
        let mut pauses = self.ended_pauses(&active).await?;
        pauses.extend(active);
        Ok(pauses)
    }

    /// The pauses of the audit trail that are not active any more, oldest first.
    async fn ended_pauses(&self, active: &[PauseView]) -> Result<Vec<PauseView>, Error> {
        let mut resumed: BTreeMap<u64, AuditEntryView> = BTreeMap::new();
        for entry in self.recent_acts(OperatorAct::Resume).await? {
            if let Some(pause) = &entry.details.pause {
                resumed.entry(pause.id).or_insert(entry);
            }
        }
        let set =
            self.recent_acts(OperatorAct::Pause).await?.into_iter().filter_map(|entry| entry.details.pause);
        let mut ended: Vec<PauseView> = set
            .filter(|pause| active.iter().all(|known| known.id != pause.id))
            .map(|pause| match resumed.get(&pause.id) {
                Some(by) => {
                    PauseView { ended_at: Some(by.at.clone()), ended_by: Some(by.actor.clone()), ..pause }
                }
                None => PauseView { ended_at: pause.until.clone(), ..pause },
            })
            .collect();
        ended.reverse();
        Ok(ended)
    }

    /// The newest entries of an act, newest first.
    async fn recent_acts(&self, act: OperatorAct) -> Result<Vec<AuditEntryView>, Error> {
        let act = Some(act.as_str().to_owned());
        let params = ListAuditParams { act, limit: Some(MAX_ENDED_PAUSES), ..ListAuditParams::default() };
        Ok(self.audit_trail(&params).await?.entries)
    }

    /// Pauses actions.
    ///
    /// # Errors
    /// A parameter is invalid, the rule is unknown, there are too many pauses, or the store cannot write.
    pub(crate) async fn pause(&self, by: Initiator, new: &NewPause) -> Result<PauseView, Error> {
        let rule = parse::name("rule", new.rule.as_deref())?;
        let settings = self.0.settings.load();
        if let Some(rule) = rule.as_ref().filter(|rule| settings.rules.rule(rule).is_none()) {
            let known: Vec<&str> = settings.rules.rules().iter().map(|rule| rule.name.as_str()).collect();
            return Err(Error::NotFound(format!("unknown rule `{rule}`; known rules: {}", known.join(", "))));
        }
        let request = PauseRequest {
            rule,
            target: parse::pattern(new.target.as_deref())?,
            direction: new.direction,
            ends_after: parse::duration("ends_after", new.ends_after.as_deref())?,
        };
        let pauses = self.pauses();
        if pauses.active().len() >= MAX_PAUSES {
            return Err(Error::Conflict(format!(
                "too many pauses ({MAX_PAUSES}); end some, or use one that covers more actions"
            )));
        }
        let pause = pauses.pause(by, request).await?;
        // It is in force, whether or not this can be read.
        let covered = self.covered_events(&pause).await.ok();
        Ok(PauseView {
            undelivered_events: covered.as_ref().map(|covered| covered.events),
            calls_in_flight: covered.as_ref().map(|covered| covered.calls),
            ..pause.on_wall(self.0.store.clock()).into()
        })
    }

    /// The undelivered events that a new pause covers.
    async fn covered_events(&self, pause: &Pause) -> Result<CoveredEvents, Error> {
        let settings = self.0.settings.load_full();
        let (mut ids, mut calls) = (BTreeSet::new(), 0);
        for destination in settings.destinations.keys() {
            let found = self.0.store.unsettled_events(destination, MAX_COUNTED_EVENTS).await?;
            for event in found.iter().filter(|event| covers(pause, &event.header, pause.since)) {
                ids.insert(event.header.id.clone());
                calls += u64::from(event.is_claimed);
            }
        }
        Ok(CoveredEvents { events: ids.len() as u64, calls })
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// There is no such pause, or the store cannot write.
    pub(crate) async fn resume(&self, by: Initiator, id: &str) -> Result<PauseView, Error> {
        let id: u64 = id.parse().map_err(|_| {
            Error::Invalid(format!("invalid pause number `{id}`; use the `id` of a pause in the list"))
        })?;
        let ended = self.pauses().resume(by, id).await?;
        let ended =
            ended.ok_or_else(|| Error::NotFound(format!("no active pause {id}; it may have ended")))?;
        Ok(ended.on_wall(self.0.store.clock()).into())
    }
}
