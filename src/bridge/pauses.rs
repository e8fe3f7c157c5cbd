//! Pauses: set and ended by operators, they block actions.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Bridge;
use crate::domain::control::{Pause, TargetPattern};
use crate::domain::direction::Direction;
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{self, Changes, Keys, Record};

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
    /// The operator, as given in the request.
    pub author: String,
    /// The operator's reason, as given in the request.
    pub reason: String,
}

/// The record of a pause or its end, stored beside the decision records.
#[derive(Serialize)]
struct PauseRecord<'a> {
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<&'a Pause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resumed: Option<&'a Pause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a str>,
}

impl Bridge {
    /// Blocks actions until the pause is resumed or expires. When this returns `Ok`, the pause is on disk.
    ///
    /// # Errors
    /// The store could not write; nothing is paused.
    pub async fn pause(&self, request: PauseRequest) -> Result<Pause, store::Error> {
        let pause = self.0.store.transact(Keys::default(), move |view| {
            let mut controls = (*view.controls).clone();
            let PauseRequest { rule, target, direction, ends_after, author, reason } = request.clone();
            let until = ends_after.map(|after| view.now.after(after));
            let pause = Pause { id: 0, rule, target, direction, since: view.now, until, author, reason };
            let id = controls.pause(pause.clone());
            let pause = Pause { id, ..pause };
            let record = record(view.now, Some(&pause), None, None);
            (Changes { controls: Some(Arc::new(controls)), record, ..Changes::default() }, pause)
        });
        let pause = pause.await?;
        tracing::info!(pause = pause.id, author = pause.author, reason = pause.reason, "paused");
        Ok(pause)
    }

    /// Ends a pause: the actions that it has blocked are rechecked at once. `None` if no pause has this
    /// id.
    ///
    /// # Errors
    /// The store could not write; nothing has changed.
    pub async fn resume(&self, id: u64, author: &str) -> Result<Option<Pause>, store::Error> {
        let by = author.to_owned();
        let ended = self.0.store.transact(Keys::default(), move |view| {
            let mut controls = (*view.controls).clone();
            let Some(pause) = controls.resume(id) else { return (Changes::default(), None) };
            let record = record(view.now, None, Some(&pause), Some(&by));
            (Changes { controls: Some(Arc::new(controls)), record, ..Changes::default() }, Some(pause))
        });
        let ended = ended.await?;
        if ended.is_some() {
            tracing::info!(pause = id, author, "resumed");
        }
        Ok(ended)
    }

    /// The active pauses, oldest first.
    pub fn pauses(&self) -> Vec<Pause> {
        self.0.store.controls().pauses(self.0.store.now()).cloned().collect()
    }
}

fn record(
    now: Time,
    paused: Option<&Pause>,
    resumed: Option<&Pause>,
    author: Option<&str>,
) -> Option<Record> {
    let entry = PauseRecord { at: now.to_millis_string(), paused, resumed, author };
    let body = serde_json::to_string(&entry).ok()?;
    Some(Record { targets: Vec::new(), body })
}
