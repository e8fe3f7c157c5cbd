//! The reception gaps of this process: what is not committed, and what may go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::control::{Controls, GapCause, ReceptionGap};
use crate::domain::name::Name;
use crate::domain::time::Time;
use crate::store::{self, Rewinds};
use crate::telemetry::Metrics;

/// Reads `CLOCK_BOOTTIME`, which also advances while the process is stopped or the machine is suspended. An argument,
/// so that decisions read no clock of their own.
pub(crate) type BootClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// A process that shows no activity for longer was stopped.
const MAX_INACTIVITY: Duration = Duration::from_secs(5);
/// The interval between two writes of the controls because of gaps.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// The interval after a write that has failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// The interval of writes without a gap. They tell the next process until when this one was running.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(60);

/// The reception gaps of this process.
pub(in crate::bridge) struct GapTracker {
    boot_clock: BootClock,
    metrics: Metrics,
    /// The last reading of the boot clock, in nanoseconds.
    last_tick: AtomicU64,
    /// How many losses of the store are counted.
    counted_losses: AtomicU64,
    /// Whether some gap is not committed, so that decisions take no lock if none is.
    has_pending: AtomicBool,
    gaps: Mutex<Gaps>,
}

struct Gaps {
    /// The configured sources.
    sources: BTreeSet<Name>,
    /// The gap that has not ended, while the bridge is not ready.
    open: Option<OpenGap>,
    /// Since when the queues of sources are not read, or not completely.
    unread: BTreeMap<Name, Time>,
    recent: BTreeMap<GapKey, RecentGap>,
    /// When gaps can be written again.
    next_write: Time,
    /// When the controls are written even if there is no gap.
    next_liveness: Time,
    /// Whether the last write has failed.
    is_failing: bool,
}

type GapKey = (Name, GapCause);

struct OpenGap {
    from: Time,
    sources: BTreeSet<Name>,
}

struct RecentGap {
    gap: ReceptionGap,
    /// Up to when it is committed.
    committed: Option<Time>,
}

impl RecentGap {
    fn is_pending(&self) -> bool {
        self.committed.is_none_or(|committed| committed < self.gap.until)
    }
}

/// Controls with the gaps that are not committed.
pub(in crate::bridge) struct Folded {
    pub controls: Controls,
    pub gaps: FoldedGaps,
}

/// The gaps of [`Folded`], and up to when.
#[derive(Default)]
pub(in crate::bridge) struct FoldedGaps(Vec<(GapKey, Time)>);

impl GapTracker {
    pub(in crate::bridge) fn new(boot_clock: BootClock, sources: BTreeSet<Name>, metrics: Metrics) -> Self {
        metrics.add_sources(sources.iter());
        let last_tick = AtomicU64::new(as_nanos(boot_clock()));
        let gaps = Gaps {
            sources,
            open: None,
            unread: BTreeMap::new(),
            recent: BTreeMap::new(),
            next_write: Time::from_nanos(i64::MIN),
            next_liveness: Time::from_nanos(i64::MIN),
            is_failing: false,
        };
        let (counted_losses, has_pending) = Default::default();
        Self { boot_clock, metrics, last_tick, counted_losses, has_pending, gaps: Mutex::new(gaps) }
    }

    /// Replaces the configured sources.
    pub(in crate::bridge) fn set_sources(&self, sources: BTreeSet<Name>) {
        self.metrics.add_sources(sources.iter());
        self.gaps.lock().sources = sources;
    }

    /// The configured sources, for [`Controls::set_receiving`].
    pub(in crate::bridge) fn set_receiving(&self, controls: &mut Controls) {
        controls.set_receiving(self.gaps.lock().sources.iter());
    }

    /// Begins a gap of the sources that `concerns` selects. It lasts until [`Self::end`].
    pub(in crate::bridge) fn begin(&self, from: Time, concerns: impl Fn(&Name) -> bool) {
        let mut gaps = self.gaps.lock();
        let sources = gaps.sources.iter().filter(|source| concerns(source)).cloned().collect();
        gaps.open = Some(OpenGap { from, sources });
        self.has_pending.store(true, Ordering::Release);
    }

    /// Ends the gap that [`Self::begin`] has begun.
    pub(in crate::bridge) fn end(&self, now: Time) {
        let mut gaps = self.gaps.lock();
        self.last_tick.fetch_max(as_nanos((self.boot_clock)()), Ordering::AcqRel);
        gaps.extend_open(now, &self.metrics);
        if let Some(OpenGap { from, sources }) = gaps.open.take().filter(|open| !open.sources.is_empty()) {
            log_gap_of_all(ReceptionGap { from, until: now, cause: GapCause::NotRunning }, sources.len());
        }
    }

    /// Records that a notification was refused, or could not be attributed.
    pub(in crate::bridge) fn record(&self, source: &Name, cause: GapCause, now: Time) {
        let mut gaps = self.gaps.lock();
        gaps.record(source, ReceptionGap { from: now, until: now, cause }, &self.metrics);
        self.has_pending.store(true, Ordering::Release);
    }

    /// Begins a gap of a source whose queue is not read since `from`. It lasts until [`Self::end_unread`].
    pub(in crate::bridge) fn begin_unread(&self, source: &Name, from: Time) {
        self.gaps.lock().unread.entry(source.clone()).or_insert(from);
        self.has_pending.store(true, Ordering::Release);
    }

    /// Ends the gap that [`Self::begin_unread`] has begun.
    pub(in crate::bridge) fn end_unread(&self, source: &Name, now: Time) {
        let mut gaps = self.gaps.lock();
        gaps.extend_open(now, &self.metrics);
        gaps.unread.remove(source);
    }

    /// Records that notifications of all sources would be refused.
    pub(in crate::bridge) fn record_for_all(&self, cause: GapCause, now: Time) {
        let mut gaps = self.gaps.lock();
        let sources = std::mem::take(&mut gaps.sources);
        let gap = ReceptionGap { from: now, until: now, cause };
        sources.iter().for_each(|source| gaps.record(source, gap, &self.metrics));
        gaps.sources = sources;
        self.has_pending.store(true, Ordering::Release);
    }

    /// Shows that the process is running, and records a gap if it was not. Every decision calls this: after a stop,
    /// none is made before the gap is known.
    pub(in crate::bridge) fn tick(&self, now: Time) {
        let reading = as_nanos((self.boot_clock)());
        let inactivity = |last: u64| Duration::from_nanos(reading.saturating_sub(last));
        if inactivity(self.last_tick.load(Ordering::Acquire)) > MAX_INACTIVITY {
            let mut gaps = self.gaps.lock();
            // Another thread may have recorded it meanwhile.
            let length = inactivity(self.last_tick.load(Ordering::Acquire));
            if length > MAX_INACTIVITY && gaps.open.is_none() {
                let from = Time::from_nanos(now.as_nanos().saturating_sub_unsigned(as_nanos(length)));
                let gap = ReceptionGap { from, until: now, cause: GapCause::Suspended };
                gaps.record_all(gap, &self.metrics);
                self.has_pending.store(true, Ordering::Release);
            }
        }
        // After the gap was recorded: whoever reads this does not look for one.
        self.last_tick.fetch_max(reading, Ordering::AcqRel);
    }

    /// Counts the gaps that the store has recorded by itself, because it came back behind.
    pub(in crate::bridge) fn count_losses(&self, rewinds: Rewinds) {
        let counted = self.counted_losses.swap(rewinds.count, Ordering::AcqRel);
        let Some(gap) = rewinds.last.filter(|_| counted < rewinds.count) else { return };
        for source in &self.gaps.lock().sources {
            self.metrics.record_gap(source, gap.cause, true, gap.until.since(gap.from));
        }
    }

    /// Whether some gap is not committed.
    pub(in crate::bridge) fn has_pending(&self, now: Time) -> bool {
        self.tick(now);
        self.has_pending.load(Ordering::Acquire)
    }

    /// The controls with the gaps that are not committed; `None` if all are.
    pub(in crate::bridge) fn fold(&self, controls: &Controls, now: Time) -> Option<Folded> {
        if !self.has_pending(now) {
            return None;
        }
        let mut gaps = self.gaps.lock();
        gaps.extend_open(now, &self.metrics);
        let pending = gaps.recent.iter().filter(|(_, recent)| recent.is_pending());
        let mut pending: Vec<(&GapKey, ReceptionGap)> = pending.map(|(key, it)| (key, it.gap)).collect();
        if pending.is_empty() {
            return None;
        }
        pending.sort_by_key(|(_, gap)| gap.until);
        let mut controls = controls.clone();
        pending.iter().for_each(|((source, _), gap)| controls.record_gap(source, *gap));
        let gaps = pending.into_iter().map(|(key, gap)| (key.clone(), gap.until)).collect();
        Some(Folded { controls, gaps: FoldedGaps(gaps) })
    }

    /// Whether the caller writes the folded controls: at most once a second.
    pub(in crate::bridge) fn claim_write(&self, now: Time) -> bool {
        let mut gaps = self.gaps.lock();
        let is_due = gaps.next_write <= now;
        if is_due {
            gaps.next_write = now.after(WRITE_INTERVAL);
        }
        is_due
    }

    /// The controls were committed at `now`, with these gaps.
    pub(in crate::bridge) fn committed(&self, committed: FoldedGaps, now: Time) {
        let mut gaps = self.gaps.lock();
        for (key, until) in committed.0 {
            if let Some(recent) = gaps.recent.get_mut(&key) {
                recent.committed = recent.committed.max(Some(until));
            }
        }
        gaps.next_write = now.after(WRITE_INTERVAL);
        gaps.next_liveness = now.after(LIVENESS_INTERVAL);
        if std::mem::take(&mut gaps.is_failing) {
            tracing::info!("committing reception gaps works again");
        }
        let has_open = gaps.open.is_some() || !gaps.unread.is_empty();
        let has_pending = has_open || gaps.recent.values().any(RecentGap::is_pending);
        self.has_pending.store(has_pending, Ordering::Release);
    }

    pub(in crate::bridge) fn is_write_due(&self, now: Time) -> bool {
        let gaps = self.gaps.lock();
        gaps.next_liveness <= now || self.has_pending.load(Ordering::Acquire) && gaps.next_write <= now
    }

    /// Whether the last write, or the last failure of one, is long enough ago.
    pub(in crate::bridge) fn can_write(&self, now: Time) -> bool {
        self.gaps.lock().next_write <= now
    }

    /// Writing the controls has failed.
    pub(in crate::bridge) fn postpone_writes(&self, now: Time, error: &store::Error) {
        let mut gaps = self.gaps.lock();
        gaps.next_write = now.after(RETRY_INTERVAL);
        gaps.next_liveness = now.after(RETRY_INTERVAL);
        if !std::mem::replace(&mut gaps.is_failing, true) {
            tracing::warn!(%error, "committing reception gaps failed, retrying");
        }
    }

    /// Forgets the gaps that are committed and over, and logs those of a single source.
    pub(in crate::bridge) fn forget_ended(&self, now: Time) {
        self.gaps.lock().recent.retain(|(source, _), recent| {
            let is_over = recent.gap.until.after(ReceptionGap::MAX_INTERRUPTION) < now;
            if !is_over || recent.is_pending() {
                return true;
            }
            log_gap(source, recent.gap);
            false
        });
    }
}

impl Gaps {
    /// The gaps that have not ended last until `now` at least.
    fn extend_open(&mut self, now: Time, metrics: &Metrics) {
        for (source, from) in std::mem::take(&mut self.unread) {
            self.record(&source, ReceptionGap { from, until: now, cause: GapCause::Queue }, metrics);
            self.unread.insert(source, from);
        }
        if let Some(OpenGap { from, sources }) = self.open.take() {
            let gap = ReceptionGap { from, until: now, cause: GapCause::NotRunning };
            sources.iter().for_each(|source| self.record(source, gap, metrics));
            self.open = Some(OpenGap { from, sources });
        }
    }

    /// Records a gap of all sources.
    fn record_all(&mut self, gap: ReceptionGap, metrics: &Metrics) {
        let sources = std::mem::take(&mut self.sources);
        sources.iter().for_each(|source| self.record(source, gap, metrics));
        log_gap_of_all(gap, sources.len());
        self.sources = sources;
    }

    fn record(&mut self, source: &Name, gap: ReceptionGap, metrics: &Metrics) {
        let key = (source.clone(), gap.cause);
        if let Some(recent) = self.recent.get_mut(&key) {
            // What cannot be committed is one gap, from the first refused notification to the last.
            if gap.continues(&recent.gap) || recent.is_pending() {
                let until = recent.gap.until.max(gap.until);
                metrics.record_gap(source, gap.cause, false, until.since(recent.gap.until));
                recent.gap.until = until;
                return;
            }
            log_gap(source, recent.gap);
        }
        metrics.record_gap(source, gap.cause, true, gap.until.since(gap.from));
        self.recent.insert(key, RecentGap { gap, committed: None });
    }
}

fn as_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Logs a gap of one source at its end. Those of all sources are logged by [`log_gap_of_all`].
fn log_gap(source: &Name, gap: ReceptionGap) {
    let ReceptionGap { from, until, cause } = gap;
    if matches!(cause, GapCause::NotRunning | GapCause::Suspended) {
        return;
    }
    let seconds = until.since(from).as_secs_f64();
    tracing::warn!(%source, %cause, from = %from.millis(), until = %until.millis(), seconds, "reception gap");
}

fn log_gap_of_all(gap: ReceptionGap, sources: usize) {
    let ReceptionGap { from, until, cause } = gap;
    let seconds = until.since(from).as_secs_f64();
    tracing::warn!(sources, %cause, from = %from.millis(), until = %until.millis(), seconds, "reception gap");
}
