//! Episodes: those that are open, and closed ones whose action has not ended or whose rule still owes a decrease.

use super::Ops;
use super::api::{
    DeferredView, EpisodePage, EpisodeView, ListEpisodesParams, OccurrenceView, OwedView, Word,
};
use super::error::Error;
use super::parse;
use crate::domain::engine::DeferredAction;
use crate::domain::name::Name;
use crate::domain::phase::Phase;
use crate::domain::state::{ClosedEpisode, Deferred, Emission, Episode, Occurrence, RuleState, TargetState};
use crate::domain::target::KeyKind;
use crate::domain::time::ClockReading;
use crate::domain::verdict::Verdict;
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
        let is_shown =
            |state: &&StoredState| target.as_ref().is_none_or(|pattern| pattern.covers(&state.key));
        let shown: Vec<&StoredState> = states.iter().filter(is_shown).collect();
        let has_deferred = |state: &&&StoredState| state.state.deferred_verdicts().next().is_some();
        let deferred = shown.iter().filter(has_deferred).map(|state| state.key.clone());
        let waiting = self.0.bridge.deferred_actions(deferred.collect()).await?;
        let mut episodes = Vec::new();
        for state in shown {
            let waiting = waiting.get(&state.key).map(Vec::as_slice).unwrap_or_default();
            let of_rules =
                rules(&state.state).filter(|(name, ..)| rule.as_ref().is_none_or(|rule| rule == *name));
            episodes.extend(of_rules.flat_map(|(name, rule_state, own)| {
                let late = late_view(clock, state, name, rule_state);
                let owed = owed_views(clock, own, name);
                let mut views = episode_views(clock, state, name.as_str(), rule_state, owed);
                views.iter_mut().for_each(|view| show_blockers(clock, view, name, waiting));
                views.into_iter().chain(late)
            }));
        }
        episodes.retain(|episode| params.owing != Some(true) || !episode.owed.is_empty());
        Ok(EpisodePage { episodes, next })
    }
}

/// The rules of a target, with the states that have their emissions.
fn rules(state: &TargetState) -> impl Iterator<Item = (&Name, &RuleState, &TargetState)> {
    let shadows = state.shadows.values().map(|shadow| &**shadow);
    let states = std::iter::once(state).chain(shadows);
    states.flat_map(|own| own.rules.iter().map(move |(name, rule_state)| (name, rule_state, own)))
}

fn owed_views(clock: ClockReading, own: &TargetState, rule: &Name) -> Vec<OwedView> {
    let owed = own.emissions.iter().filter(|emission| emission.is_owed && emission.rule == *rule);
    let view = |emission: &Emission| OwedView {
        event: emission.id.to_string(),
        emitted_at: clock.show(emission.emitted_at),
        delivered_at: emission.delivered_at().map(|at| clock.show(at)),
        value: emission.value,
    };
    owed.map(view).collect()
}

fn deferred_view(clock: ClockReading, deferred: &Deferred) -> DeferredView {
    DeferredView {
        verdict: deferred.blocked_by.map(|verdict| verdict.as_str().into()),
        action: None,
        detail: None,
        blocked_by: None,
        since: clock.show(deferred.requested_at),
        until: deferred.recheck_at.map(|at| clock.show(at)),
    }
}

/// Shows what blocks the deferred action of an episode now.
fn show_blockers(clock: ClockReading, view: &mut EpisodeView, rule: &Name, waiting: &[DeferredAction]) {
    let Some(deferred) = &mut view.deferred else { return };
    let is_of_view = |known: &&DeferredAction| known.rule == *rule && known.phase.as_str() == view.phase;
    let Some(DeferredAction { action, verdict, until, blocked_by, .. }) = waiting.iter().find(is_of_view)
    else {
        return;
    };
    deferred.action = action.map(Into::into);
    if let Some(verdict) = verdict {
        deferred.verdict = Some(verdict.as_str().into());
        deferred.until = until.map(|until| clock.show(until));
    }
    deferred.detail = blocked_by.as_ref().map(ToString::to_string);
    deferred.blocked_by.clone_from(blocked_by);
}

/// The late firings of a rule as an episode that has not opened, with the last of the times at which they open.
fn late_view(
    clock: ClockReading,
    state: &StoredState,
    rule: &Name,
    rule_state: &RuleState,
) -> Option<EpisodeView> {
    let opens_at = rule_state.late.iter().map(|late| late.opens_at).max()?;
    let late = || rule_state.late.iter();
    Some(EpisodeView {
        id: String::new(),
        rule: rule.to_string(),
        scope: scope(state),
        subject: state.key.as_str().to_owned(),
        target: state.key.fields(),
        phase: Verdict::Late.as_str().into(),
        opened_at: clock.show(opens_at),
        emissions: 0,
        adopted: false,
        expired: false,
        alerts: late().map(|late| occurrence_view(clock, &late.occurrence)).collect(),
        deferred: Some(DeferredView {
            verdict: Some(Verdict::Late.as_str().into()),
            action: None,
            detail: Some("waits in case its resolve arrives".to_owned()),
            blocked_by: None,
            since: late().map(|late| clock.show(late.occurrence.heard_at)).min().unwrap_or_default(),
            until: Some(clock.show(opens_at)),
        }),
        hold_until: None,
        hold_over: false,
        owed: Vec::new(),
    })
}

fn scope(state: &StoredState) -> Word {
    match state.key.kind() {
        KeyKind::Heartbeat => "heartbeat",
        KeyKind::Hold => "hold",
        KeyKind::Target => "target",
    }
    .into()
}

fn episode_views(
    clock: ClockReading,
    state: &StoredState,
    rule: &str,
    rule_state: &RuleState,
    owed: Vec<OwedView>,
) -> Vec<EpisodeView> {
    let open = rule_state.episode.as_ref().map(|episode| {
        let alerts = episode.open.iter().map(|open| occurrence_view(clock, open)).collect();
        episode_view(clock, state, rule, Phase::Firing, episode, alerts, episode.deferred.as_ref())
    });
    let is_shown =
        |closed: &&ClosedEpisode| closed.deferred.is_some() || closed.emitted.is_some() || !owed.is_empty();
    let closing = rule_state.closed.as_deref().filter(is_shown).map(|closed| {
        let alerts = closed.closed.iter().map(|open| occurrence_view(clock, open)).collect();
        episode_view(clock, state, rule, Phase::Resolved, &closed.episode, alerts, closed.deferred.as_ref())
    });
    let episode = open.or(closing);
    let hold_until = rule_state.hold_until.map(|until| clock.show(until));
    episode.map(|episode| EpisodeView { owed, hold_until, ..episode }).into_iter().collect()
}

fn occurrence_view(clock: ClockReading, open: &Occurrence) -> OccurrenceView {
    OccurrenceView {
        source: open.alert.source.to_string(),
        fingerprint: open.alert.fingerprint.to_string(),
        starts_at: open.starts_at.to_string(),
        heard_at: clock.show(open.heard_at),
        absent_since: open
            .validity
            .as_ref()
            .filter(|_| open.is_absent(clock.now))
            .map(|validity| clock.show(validity.absent_at)),
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
    EpisodeView {
        id: episode.id.to_string(),
        rule: rule.to_owned(),
        scope: scope(state),
        subject: state.key.as_str().to_owned(),
        target: state.key.fields(),
        phase: phase.as_str().into(),
        opened_at: clock.show(episode.opened_at),
        emissions: episode.emissions,
        adopted: episode.adopted,
        expired: episode.expired,
        alerts,
        deferred: deferred.map(|deferred| deferred_view(clock, deferred)),
        hold_until: None,
        hold_over: episode.hold_over,
        owed: Vec::new(),
    }
}
