//! Reconciliation: what fires in the Alertmanagers of a source, compared with what is open here.
//!
//! Who asks them is not decided here: `app/reconciliation.rs` does, and passes what they have answered. What is missing here
//! is processed like a notification of the source, by the same rules and guards. Nothing resolves because it is missing
//! there. If nothing is missing here, the wait after a reception gap is over.

mod knowledge;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::decision_view::DecisionView;
use super::reception::Folded;
use super::{Bridge, SourceHandle};
use crate::domain::alert_key::AlertKey;
use crate::domain::control::{Controls, ReceptionGap};
use crate::domain::engine::{EvaluatedAlert, States};
use crate::domain::name::Name;
use crate::domain::notification::{Envelope, Notification};
use crate::domain::reported::Report;
use crate::domain::source::Source;
use crate::domain::time::{ClockReading, Time};
use crate::domain::verdict::Verdict;
use crate::store::{self, Changes, Keys};
pub(super) use knowledge::Reconciliations;
pub(crate) use knowledge::{Knowledge, Suppression};
use plan::{Candidate, Circumstances, KnownAlert, KnownOpen, LastEnd, Plan};

/// The reason in the decisions and events of what is taken over.
pub(crate) const REASON: &str = "reconciliation";
/// Alerts whose states are read in one transaction.
const ALERTS_PER_READ: usize = 500;

/// What the Alertmanagers of a source have answered.
pub(crate) struct PeerAnswers {
    /// When they were asked: what happens later is not part of the answers.
    pub at: ClockReading,
    /// The receivers of the source that are configured; if there are none, those that its notifications name.
    pub receivers: BTreeSet<String>,
    /// The answer of each peer that has answered completely; at least one.
    pub reports: Vec<Report>,
}

/// What is remembered from one reconciliation of a source to the next.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// When the last one began after which nothing was missing, by the store's clock.
    agreed_at: Option<Time>,
    /// Whether notifications may be missing, because an open alert was not heard of for long.
    has_quiet: bool,
    /// Since when only some of the peers know an alert.
    disputed: BTreeMap<Arc<str>, Time>,
}

/// The result of a reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reconciled {
    /// The number of alerts that were not open and have been processed.
    pub opened: usize,
    /// The number of open alerts that were heard again.
    pub heard: usize,
    /// Whether everything that the Alertmanagers would send is open here, or not for this bridge.
    pub agrees: bool,
    /// The reception gap whose wait has ended. That needs receivers that are configured, since others than those that are
    /// known may send to the source, and an alert that all peers send and that is open here.
    pub ended_gap: Option<ReceptionGap>,
}

impl Progress {
    /// Whether alerts are opened: at the start, after a reception gap, and if an open alert was not heard of for long.
    /// From then on until nothing is missing.
    fn opens(&self, gap: Option<ReceptionGap>) -> bool {
        let has_gap = |agreed_at: Time| gap.is_some_and(|gap| gap.until > agreed_at);
        self.has_quiet || self.agreed_at.is_none_or(has_gap)
    }
}

impl Bridge {
    /// Replaces the sources that have Alertmanagers to ask.
    pub(crate) fn set_reconciled_sources(&self, names: &BTreeSet<Name>) {
        self.0.reconciliations.set_sources(names);
        self.0.metrics.add_reconciled_sources(names);
    }

    /// What the Alertmanagers of a source have said last; `None` if it has none.
    pub(crate) fn reconciliation(&self, source: &str) -> Option<Arc<Knowledge>> {
        self.0.reconciliations.knowledge(source)
    }

    /// Why Alertmanager notifies nobody of an alert, if that is known.
    pub(crate) fn suppressions(&self, source: &str, fingerprint: &str) -> Vec<Suppression> {
        let knowledge = self.reconciliation(source);
        let found = knowledge.as_ref().and_then(|knowledge| knowledge.suppressed.get(fingerprint));
        found.map(|alert| alert.by.clone()).unwrap_or_default()
    }

    /// Adds to decisions why Alertmanager notifies nobody of their alerts.
    pub(crate) fn show_suppressions(&self, decisions: &mut [DecisionView]) {
        for alert in decisions.iter_mut().flat_map(|decision| &mut decision.alerts) {
            if let Some(source) = &alert.source {
                alert.suppressed_by = self.suppressions(source, &alert.fingerprint);
            }
        }
    }

    /// The receivers that notifications of a source have named.
    pub(crate) fn known_receivers(&self, source: &Name) -> BTreeSet<String> {
        let mut receivers = self.0.reconciliations.learned(source);
        receivers.extend(self.0.store.controls().receivers(source).into_iter().flatten().cloned());
        receivers
    }

    /// The present moment.
    pub(crate) fn clock(&self) -> ClockReading {
        self.0.store.clock()
    }

    /// Whether notifications of a source may be missing, so that its Alertmanagers should be asked soon.
    pub(crate) fn may_have_missed(&self, source: &Name, progress: &Progress) -> bool {
        progress.opens(last_gap(&self.controls(), source))
    }

    /// Records that a peer has not answered, or that nothing could be taken over; `None` if all is well.
    pub(crate) fn record_reconciliation_error(&self, source: &Name, error: Option<String>) {
        self.0.reconciliations.update(source, |knowledge| knowledge.last_error = error);
    }

    /// Compares what the Alertmanagers of a source have answered with what is open here, processes what is missing, and
    /// ends the wait after a reception gap if nothing is. `None` if the source is not configured any more.
    ///
    /// # Errors
    /// The store could not read or write. What was processed before stays.
    pub(crate) async fn reconcile(
        &self,
        source: &Name,
        asked: PeerAnswers,
        progress: &mut Progress,
    ) -> Result<Option<Reconciled>, store::Error> {
        let Some(handle) = self.source(source.as_str()) else { return Ok(None) };
        let are_configured = !asked.receivers.is_empty();
        let receivers = match are_configured {
            true => asked.receivers,
            false => self.known_receivers(source),
        };
        let (suppressed_total, suppressed) = knowledge::suppressed(&asked.reports, &receivers);
        self.0.reconciliations.update(source, |knowledge| {
            let suppressed = Arc::new(suppressed);
            *knowledge = Knowledge {
                answered_at: Some(asked.at.wall),
                suppressed_total,
                suppressed,
                ..knowledge.clone()
            };
        });
        let opens = progress.opens(last_gap(&self.controls(), source));
        let candidates = plan::candidates(&asked.reports, &receivers);
        let known = self.known(&handle, &candidates).await?;
        let circumstances = Circumstances {
            asked_at: asked.at,
            peers: asked.reports.len(),
            late_window: handle.source.late_window,
            occurrence_ttl: handle.source.occurrence_ttl,
            opens,
            disputed: &progress.disputed,
        };
        let Plan { opens: opening, hears, waits, has_quiet, disputed } =
            plan::plan(&candidates, &known, &circumstances);
        let is_confirmed = are_configured && is_confirmed(&candidates, &known, asked.reports.len());
        progress.disputed = disputed;
        progress.has_quiet |= has_quiet;
        self.take_over(&handle, candidates, &opening, &hears).await?;
        let can_agree = asked.reports.iter().all(|report| knows_all(report, &handle.source, asked.at.wall));
        let agrees = waits == 0 && can_agree;
        let mut ended_gap = None;
        if opens && agrees && is_confirmed {
            ended_gap = self.end_gap_wait(source, asked.at.now).await?;
        }
        if opens && agrees && (is_confirmed || last_gap(&self.controls(), source).is_none()) {
            progress.agreed_at = Some(asked.at.now);
            progress.has_quiet = false;
        }
        Ok(Some(Reconciled { opened: opening.len(), heard: hears.len(), agrees, ended_gap }))
    }

    /// Processes alerts as a notification of each receiver: those that open, and those that are heard again.
    async fn take_over(
        &self,
        handle: &SourceHandle,
        candidates: Vec<Candidate>,
        opening: &[usize],
        hears: &[usize],
    ) -> Result<(), store::Error> {
        let mut by_receiver: BTreeMap<Arc<str>, Vec<_>> = BTreeMap::new();
        let chosen: BTreeSet<usize> = opening.iter().chain(hears).copied().collect();
        for (at, candidate) in candidates.into_iter().enumerate() {
            if chosen.contains(&at) {
                by_receiver.entry(candidate.receiver).or_default().push(Ok(candidate.alert));
            }
        }
        for (receiver, alerts) in by_receiver {
            let envelope = Envelope {
                receiver: receiver.to_string(),
                reason: Some(REASON.to_owned()),
                ..Envelope::default()
            };
            let notification = Notification { envelope, truncated_alerts: 0, alerts, sent_at: None };
            self.ingest(handle, notification, None).await?;
        }
        Ok(())
    }

    /// What is known here of each candidate.
    async fn known(
        &self,
        handle: &SourceHandle,
        candidates: &[Candidate],
    ) -> Result<Vec<KnownAlert>, store::Error> {
        let SourceHandle { source, snapshot } = handle.clone();
        let alerts: Vec<_> = candidates.iter().map(|candidate| candidate.alert.clone()).collect();
        let evaluated = tokio::task::spawn_blocking(move || {
            let evaluate = |alert| EvaluatedAlert::new(&snapshot.rules, &source, Ok(alert));
            alerts.into_iter().map(|alert| is_taken(&evaluate(alert))).collect::<Vec<_>>()
        });
        let taken = evaluated.await.map_err(|_| store::Error::Closed)?;
        let mut known = Vec::with_capacity(candidates.len());
        for chunk in candidates.chunks(ALERTS_PER_READ) {
            let key = |candidate: &Candidate| AlertKey {
                source: handle.source.name.clone(),
                fingerprint: candidate.alert.fingerprint.clone(),
            };
            known.extend(self.read_known(chunk.iter().map(key).collect()).await?);
        }
        for (known, is_taken) in known.iter_mut().zip(taken) {
            known.is_taken = is_taken;
        }
        Ok(known)
    }

    async fn read_known(&self, keys: Vec<AlertKey>) -> Result<Vec<KnownAlert>, store::Error> {
        let mut readable = keys.clone();
        let states = loop {
            let read = Keys { targets: Vec::new(), alerts: readable.clone() };
            let states = self.0.store.transact(read, |view| (Changes::default(), view.states.clone())).await;
            let Err(store::Error::Unreadable(unreadable)) = states else { break states? };
            let before = readable.len();
            readable.retain(|key| !unreadable.alerts.contains(key));
            if readable.len() == before {
                return Err(store::Error::Unreadable(unreadable));
            }
        };
        // Nothing is decided about a target that cannot be read.
        let unreadable = KnownAlert { is_waiting: true, ..KnownAlert::default() };
        let readable: BTreeSet<AlertKey> = readable.into_iter().collect();
        let known = |key: &AlertKey| if readable.contains(key) { known_of(key, &states) } else { unreadable };
        Ok(keys.iter().map(known).collect())
    }

    /// Ends the wait after the last reception gap of a source, if it ended before `asked_at`. Decreases are rechecked.
    async fn end_gap_wait(
        &self,
        source: &Name,
        asked_at: Time,
    ) -> Result<Option<ReceptionGap>, store::Error> {
        let waits = last_gap(&self.controls(), source).is_some_and(|gap| gap.until <= asked_at);
        if !waits {
            return Ok(None);
        }
        let (gaps, source) = (self.0.gaps.clone(), source.clone());
        let committed = self.0.store.transact(Keys::default(), move |view| {
            let folded = gaps.fold(&view.controls, view.now);
            let (mut controls, folded) = match folded {
                Some(Folded { controls, gaps }) => (controls, gaps),
                None => ((*view.controls).clone(), Default::default()),
            };
            let Some(gap) = controls.reconcile_gap(&source, asked_at) else {
                return (Changes::default(), None);
            };
            let changes = Changes { controls: Some(Arc::new(controls)), ..Changes::default() };
            (changes, Some((gap, folded, view.now)))
        });
        let ended = committed.await?;
        Ok(ended.map(|(gap, folded, now)| {
            self.0.gaps.committed(folded, now);
            gap
        }))
    }
}

/// The last reception gap of a source for which decreases may wait.
fn last_gap(controls: &Controls, source: &Name) -> Option<ReceptionGap> {
    let gaps = controls.reception_gaps(source)?;
    (!gaps.is_reconciled()).then_some(gaps.last)
}

/// Whether an Alertmanager knows all alerts that fire, as far as it can tell: after a start it has none until Prometheus
/// sends them again.
fn knows_all(report: &Report, source: &Source, now: Time) -> bool {
    let has_settled = |started_at: Time| started_at.after(source.late_window.max(plan::SETTLE_TIME)) <= now;
    report.unreadable == 0 && report.started_at.is_some_and(has_settled)
}

/// Whether all peers send an alert that is open here, such as the heartbeat. Without one, they may be cut off from Prometheus,
/// or may know the receivers by other names: that they have nothing to send says nothing then.
fn is_confirmed(candidates: &[Candidate], known: &[KnownAlert], peers: usize) -> bool {
    let mut pairs = candidates.iter().zip(known);
    pairs.any(|(candidate, known)| candidate.sending == peers && known.open.is_some())
}

/// Whether a notification of the alert would concern a target, a hold or a heartbeat.
fn is_taken(evaluated: &EvaluatedAlert) -> bool {
    let is_invalid = match evaluated {
        EvaluatedAlert::Firing(_, evaluation) => {
            evaluation.not_matched.as_ref().is_some_and(|not_matched| not_matched.verdict == Verdict::Invalid)
        }
        _ => false,
    };
    is_invalid || evaluated.targets().next().is_some()
}

fn known_of(key: &AlertKey, states: &States) -> KnownAlert {
    let mut known = KnownAlert::default();
    let mut ends: Vec<LastEnd> = Vec::new();
    for state in states.alerts.get(key).into_iter().flatten().filter_map(|target| states.targets.get(target))
    {
        known.is_waiting |= state.invalid.contains(key);
        for (_, rule) in state.all_rules() {
            let open = rule.episode.as_ref().and_then(|episode| episode.open.get(key));
            known.is_waiting |= rule.late.contains(key) || rule.unreadable.contains(key);
            let open = open.map(|open| KnownOpen { starts_at: open.starts_at, heard_at: open.heard_at });
            // The one that was heard first.
            known.open = [known.open, open].into_iter().flatten().min_by_key(|open| open.heard_at);
        }
        ends.extend(
            state.last_resolve(key).map(|end| LastEnd { ends_at: end.ends_at, closed_at: end.closed_at }),
        );
    }
    let closed_at: Option<Vec<Time>> = ends.iter().map(|end| end.closed_at).collect();
    known.last_end = ends
        .iter()
        .map(|end| end.ends_at)
        .max()
        .map(|ends_at| LastEnd { ends_at, closed_at: closed_at.and_then(|all| all.into_iter().max()) });
    known
}
