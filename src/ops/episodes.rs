//! Episodes: those that are open, and closed ones with a deferred action.

use super::Ops;
use super::api::{DeferredView, EpisodePage, EpisodeView, ListEpisodesParams, OccurrenceView};
use super::error::Error;
use super::parse;
use crate::domain::phase::Phase;
use crate::domain::state::{ClosedEpisode, Deferred, Episode, Occurrence, RuleState};
use crate::domain::target::KeyKind;
use crate::domain::time::ClockReading;
use crate::store::StoredState;

impl Ops {
    /// Lists open episodes, and closed ones with a deferred action.
    ///
    /// # Errors
    /// A parameter is invalid, or the store cannot be read.
    pub(crate) async fn episodes(&self, params: &ListEpisodesParams) -> Result<EpisodePage, Error> {
        let (rule, target, max) = (
            parse::name("rule", params.rule.as_deref())?,
            parse::pattern(params.target.as_deref())?,
            parse::page_size(params.limit)?,
        );
        let states = self.0.store.states(params.cursor, max).await?;
        let next = states.last().map(|last| last.cursor).filter(|_| states.len() == max);
        let clock = self.0.store.clock();
        let mut episodes = Vec::new();
        for state in
            states.iter().filter(|state| target.as_ref().is_none_or(|pattern| pattern.covers(&state.key)))
        {
            let wanted =
                state.state.rules.iter().filter(|(name, _)| rule.as_ref().is_none_or(|rule| rule == *name));
            episodes.extend(
                wanted.flat_map(|(name, rule_state)| episode_views(clock, state, name.as_str(), rule_state)),
            );
        }
        Ok(EpisodePage { episodes, next })
    }
}

fn deferred_view(clock: ClockReading, deferred: &Deferred) -> DeferredView {
    DeferredView {
        verdict: deferred.blocked_by.map(|verdict| verdict.as_str().into()),
        since: clock.show(deferred.requested_at),
        until: deferred.recheck_at.map(|at| clock.show(at)),
    }
}

fn episode_views(
    clock: ClockReading,
    state: &StoredState,
    rule: &str,
    rule_state: &RuleState,
) -> Vec<EpisodeView> {
    let open = rule_state.episode.as_ref().map(|episode| {
        let alerts = episode.open.iter().map(|open| occurrence_view(clock, open)).collect();
        episode_view(clock, state, rule, Phase::Firing, episode, alerts, episode.deferred.as_ref())
    });
    let has_action = |closed: &&Box<ClosedEpisode>| closed.deferred.is_some() || closed.emitted.is_some();
    let closing = rule_state.closed.as_ref().filter(has_action).map(|closed| {
        let alerts = closed.closed.iter().map(|open| occurrence_view(clock, open)).collect();
        episode_view(clock, state, rule, Phase::Resolved, &closed.episode, alerts, closed.deferred.as_ref())
    });
    open.into_iter().chain(closing).collect()
}

fn occurrence_view(clock: ClockReading, open: &Occurrence) -> OccurrenceView {
    OccurrenceView {
        source: open.alert.source.to_string(),
        fingerprint: open.alert.fingerprint.to_string(),
        starts_at: open.starts_at.to_string(),
        heard_at: clock.show(open.heard_at),
        labels: open.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}

fn episode_view(
    clock: ClockReading,
    state: &StoredState,
    rule: &str,
    phase: Phase,
    episode: &Episode,
    alerts: Vec<OccurrenceView>,
    deferred: Option<&Deferred>,
) -> EpisodeView {
    let scope = match state.key.kind() {
        KeyKind::Heartbeat => "heartbeat",
        KeyKind::Hold => "hold",
        KeyKind::Target => "target",
    };
    EpisodeView {
        id: episode.id.to_string(),
        rule: rule.to_owned(),
        scope: scope.into(),
        subject: state.key.as_str().to_owned(),
        target: state.key.fields(),
        phase: phase.as_str().into(),
        opened_at: clock.show(episode.opened_at),
        emissions: episode.emissions,
        adopted: episode.adopted,
        expired: episode.expired,
        alerts,
        deferred: deferred.map(|deferred| deferred_view(clock, deferred)),
    }
}
