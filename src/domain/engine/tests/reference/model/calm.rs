//! "Evidence of calm": until when a decrease has to wait for it.

use super::*;

impl Model {
    /// The time at which the evidence for this action is complete, as known now. Late and
    /// invalid firings that stand count until the time at which they end by themselves.
    pub(crate) fn calm(&self, rule: RuleId, phase: Phase, d: &Deferred) -> Time {
        let window = self.config.rules[rule].window(phase);
        if !self.config.rules[rule].effects(phase).decreases {
            return d.anchor + window;
        }
        let anchor = d.anchor.max(self.last_need_ended(rule, d.episode)).max(self.last_doubt_ended(rule));
        (anchor + window)
            .max(self.doubt_until(rule))
            .max(self.gap_until())
            .max(self.heartbeat_calm(rule, window))
    }

    /// "the close of any other episode of the target that had an emitted or deferred increase"
    fn last_need_ended(&self, rule: RuleId, own: EpisodeId) -> Time {
        let episodes = self.episodes.iter().enumerate();
        let ends = episodes.filter(|(id, e)| *id != own && e.needed && self.sees(rule, e.rule));
        ends.filter_map(|(_, e)| e.closed_at).max().unwrap_or(Time::MIN / 2)
    }

    /// The end of a late firing that was withdrawn, or of an invalid firing, about the target.
    fn last_doubt_ended(&self, rule: RuleId) -> Time {
        self.last_of(&self.ended, rule)
    }

    fn last_of(&self, ends: &[DoubtEnd], rule: RuleId) -> Time {
        let about = |e: &&DoubtEnd| e.about_target && self.concerns(rule, &e.rules);
        ends.iter().filter(about).map(|e| e.at).max().unwrap_or(Time::MIN / 2)
    }

    /// Alerts under a rule that `rule` reckons with. Holds are controls: they have a guard.
    fn concerns(&self, rule: RuleId, rules: &[RuleId]) -> bool {
        rules.is_empty() || rules.iter().any(|r| self.sees(rule, *r) && !self.config.rules[*r].is_hold())
    }

    /// An open occurrence of a rule that `rule` reckons with, and that is no hold.
    fn concerns_open(&self, rule: RuleId, rules: &BTreeSet<RuleId>) -> bool {
        rules.iter().any(|r| self.sees(rule, *r) && !self.config.rules[*r].is_hold())
    }

    /// Whether all alerts of an open episode are absent.
    pub(crate) fn is_silent(&self, episode: EpisodeId) -> bool {
        let open = &self.episodes[episode].open;
        let is_absent = |f: &Fingerprint| self.alerts[f].open.as_ref().is_some_and(|o| o.is_absent(self.now));
        !open.is_empty() && open.iter().all(is_absent)
    }

    /// While a late, an absent or an invalid firing about the target stands, a decrease waits.
    pub(crate) fn doubt_until(&self, rule: RuleId) -> Time {
        let ttl = self.config.occurrence_ttl;
        let alerts = || self.alerts.values().filter(|a| !a.heartbeat);
        let late = alerts().filter_map(|a| a.late.as_ref()).filter(|l| self.concerns(rule, &l.copy.rules));
        let invalid = alerts().filter_map(|a| a.invalid.as_ref());
        let invalid = invalid.filter(|i| i.about_target && self.concerns(rule, &i.rules));
        let absent = alerts().filter_map(|a| a.open.as_ref()).filter(|o| o.is_absent(self.now));
        let absent = absent.filter(|o| self.concerns_open(rule, &o.rules));
        let ends = late.map(|l| l.opens_at).chain(invalid.map(|i| i.last_heard + ttl));
        let ends = ends.chain(absent.map(|o| o.last_heard + ttl));
        ends.max().unwrap_or(Time::MIN / 2)
    }

    /// `late_window` has passed since the last reception gap.
    pub(crate) fn gap_until(&self) -> Time {
        let begun = self.gaps.iter().filter(|(from, _)| *from <= self.now);
        begun.map(|(_, until)| until + self.config.late_window).max().unwrap_or(Time::MIN / 2)
    }

    /// For a source with a heartbeat: `late_window` since the last close (or end of a doubt)
    /// was heard, and the longer of window and grace since the heartbeat opened.
    fn heartbeat_calm(&self, rule: RuleId, window: Time) -> Time {
        let Some(heartbeat) = self.config.heartbeat else { return Time::MIN / 2 };
        let heard =
            self.last_of(&self.resolves, rule).max(self.last_doubt_ended(rule)) + self.config.late_window;
        let opened = self.heartbeat_opened_at().unwrap_or(Time::MIN / 2);
        heard.max(opened + window.max(heartbeat.grace))
    }

    /// Since when the heartbeat is open. Late or silent for `heartbeat_timeout`, it is not.
    pub(crate) fn heartbeat_opened_at(&self) -> Option<Time> {
        let state = self.alerts.values().find(|a| a.heartbeat)?;
        let open = state.open.as_ref().filter(|o| state.late.is_none() && !o.is_absent(self.now))?;
        self.heartbeat_times_out_at().is_none_or(|t| self.now < t).then_some(open.opened_at)
    }

    /// `heartbeat_timeout` counts only time without a gap.
    pub(crate) fn heartbeat_times_out_at(&self) -> Option<Time> {
        let timeout = self.config.heartbeat?.timeout?;
        let state = self.alerts.values().find(|a| a.heartbeat)?;
        let mut end = state.open.as_ref()?.last_heard;
        let mut left = timeout;
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        for (from, until) in gaps {
            if until <= end {
                continue;
            }
            if from - end >= left {
                break;
            }
            left -= (from - end).max(0);
            end = until;
        }
        Some(end + left)
    }
}
