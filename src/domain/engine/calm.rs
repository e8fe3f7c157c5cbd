//! Evidence of calm: until when a decrease has to wait so that nothing speaks against it.

use super::step::StepContext;
use super::visible_state::VisibleState;
use crate::domain::blocker::Blocker;
use crate::domain::duration::format;
use crate::domain::heartbeat_key::HeartbeatKey;
use crate::domain::rule::{Action, Mode, RuleTarget};
use crate::domain::source::Source;
use crate::domain::state::{Deferred, Episode, Occurrence};
use crate::domain::target::Target;
use crate::domain::time::Time;

/// What a decrease has to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wait {
    pub until: Time,
    /// What it waits for.
    pub by: Blocker,
}

/// The wait for the stabilization window of an action that starts then.
pub(super) fn window_wait(action: &Action, start: Time) -> Wait {
    let window = action.stabilization_window;
    Wait { until: start.after(window), by: Blocker::StabilizationWindow { length: format(window) } }
}

/// The last of the waits of a decrease that are not over.
pub(super) fn wait(
    step: &StepContext<'_>,
    visible: VisibleState<'_>,
    action: &Action,
    episode: &Episode,
    request: &Deferred,
) -> Option<Wait> {
    let start = window_start(step, visible, action, episode, request.stable_since());
    let window = window_wait(action, start);
    let waits = std::iter::once(window)
        .chain(disturbances(step, visible))
        .chain(heartbeat_waits(step, visible, action, episode));
    // The first of those that end last.
    let last = waits.reduce(|last, wait| if wait.until > last.until { wait } else { last });
    last.filter(|wait| wait.until > step.context.now)
}

/// Late, absent and invalid firings about the target, and reception gaps of its sources. They also take back a decrease that is
/// emitted and not confirmed.
pub(super) fn disturbances(step: &StepContext<'_>, visible: VisibleState<'_>) -> impl Iterator<Item = Wait> {
    let late = visible.last_late().map(|late| Wait { until: late.opens_at, by: Blocker::LateFiring });
    let invalid = visible.last_invalid().map(|invalid| Wait {
        until: invalid.expires_at,
        by: Blocker::InvalidFiring { fingerprint: invalid.alert.fingerprint.to_string() },
    });
    let absent = visible.last_absent(step.context.now).map(absence_wait);
    let sources = step.sources(visible.sources());
    let gaps: Vec<Wait> = sources.filter_map(|source| gap_wait(step, source)).collect();
    late.into_iter().chain(absent).chain(invalid).chain(gaps)
}

/// An absent alert may fire or have resolved. It is heard again, or expires.
pub(super) fn absence_wait(absent: &Occurrence) -> Wait {
    let fingerprint = absent.alert.fingerprint.to_string();
    Wait { until: absent.expires_at, by: Blocker::AbsentAlert { fingerprint } }
}

/// After a reception gap of a source, Alertmanager may need `late_window` to send what it could not send, unless it was
/// asked and nothing is missing.
fn gap_wait(step: &StepContext<'_>, source: &Source) -> Option<Wait> {
    let gaps = step.controls().reception_gaps(&source.name).filter(|gaps| !gaps.is_reconciled())?;
    let gap = gaps.last;
    let by = Blocker::ReceptionGap { source: source.name.to_string(), cause: gap.cause };
    Some(Wait { until: gap.until.after(source.late_window), by })
}

/// When the stabilization window starts: with the request, or with the last disturbance after it.
fn window_start(
    step: &StepContext<'_>,
    visible: VisibleState<'_>,
    action: &Action,
    episode: &Episode,
    stable_since: Time,
) -> Time {
    let disturbed_at = visible.disturbed_at();
    let expired = episode.scope.target().and_then(|target| last_expired_hold(step, target, action));
    disturbed_at.into_iter().chain(expired).fold(stable_since, Time::max)
}

/// When a hold that blocked the action expired.
fn last_expired_hold(step: &StepContext<'_>, target: &Target, action: &Action) -> Option<Time> {
    let blocking = step.controls().expired_holds_on(target).filter(|(rule, _)| {
        step.rule(rule).filter(|rule| rule.mode == Mode::Active).is_some_and(|rule| match &rule.target {
            RuleTarget::Hold(hold) => hold.blocks.iter().any(|blocked| action.change.has_direction(*blocked)),
            RuleTarget::Target(_) => false,
        })
    });
    blocking.map(|(_, at)| at).max()
}

/// If Prometheus fails, Alertmanager resolves its alerts, and the heartbeat may end up to `late_window` later. After a
/// heartbeat has opened, alerts need time to fire.
fn heartbeat_waits<'a>(
    step: &'a StepContext<'_>,
    visible: VisibleState<'a>,
    action: &'a Action,
    episode: &'a Episode,
) -> impl Iterator<Item = Wait> + 'a {
    let closed_at = visible.closed_at();
    let after_end = step.with_heartbeat(visible.sources()).filter_map(move |(source, _)| {
        let by = Blocker::HeartbeatMayEnd { source: source.name.to_string() };
        Some(Wait { until: closed_at?.after(source.late_window), by })
    });
    let own = step.with_heartbeat(&episode.sources);
    let after_opening = own.flat_map(move |(source, heartbeat)| {
        let grace = heartbeat.grace.max(action.stabilization_window);
        let opened = heartbeats(episode, source)
            .into_iter()
            .filter_map(|key| step.controls().heartbeat(&key).open_since);
        opened.map(move |open_since| Wait {
            until: open_since.after(grace),
            by: Blocker::HeartbeatOpened { source: source.name.to_string() },
        })
    });
    after_end.chain(after_opening)
}

/// The heartbeat of a source on which a decrease of the episode depends and that is not open.
pub(super) fn missing_heartbeat(step: &StepContext<'_>, episode: &Episode) -> Option<HeartbeatKey> {
    let keys = step.with_heartbeat(&episode.sources).flat_map(|(source, _)| heartbeats(episode, source));
    let is_open = |key: &HeartbeatKey| step.controls().heartbeat(key).open_since.is_some();
    keys.into_iter().find(|key| !is_open(key))
}

/// The heartbeats of a source on which an episode depends. If the source has got `equal` since the episode opened, none
/// of them is known, and the one without values is never open.
fn heartbeats(episode: &Episode, source: &Source) -> Vec<HeartbeatKey> {
    let known: Vec<HeartbeatKey> =
        episode.heartbeats.iter().filter(|key| key.is_of(&source.name)).cloned().collect();
    let has_equal = source.heartbeat.as_ref().is_some_and(|heartbeat| !heartbeat.equal.is_empty());
    if has_equal && !known.is_empty() { known } else { vec![HeartbeatKey::for_source(&source.name)] }
}
