//! "Episodes" of (rule, target): opened, grew, closed; and the requests that follow.

use super::*;

impl Model {
    /// An occurrence opened under `rule`.
    pub(crate) fn join_episode(&mut self, fingerprint: Fingerprint, rule: RuleId, was_late: bool) {
        let previous = self.alerts[&fingerprint].episodes.get(&rule).copied();
        let episode = match (self.rules[rule].open, previous) {
            (Some(open), _) => {
                let other = previous != Some(open);
                // "the late firing joins it without growth (the growth mark rises by one)"
                if was_late && other && self.episodes[open].growth_mark > 0 {
                    self.episodes[open].growth_mark += 1;
                }
                open
            }
            (None, Some(previous)) if was_late && self.goes_on(rule, previous) => self.reopen(previous),
            _ => {
                self.episodes.push(Episode {
                    rule,
                    open: BTreeSet::new(),
                    growth_mark: 0,
                    tainted: false,
                    expired: false,
                    needed: false,
                    closed_at: None,
                    reopened_at: None,
                });
                self.episodes.len() - 1
            }
        };
        self.rules[rule].open = Some(episode);
        self.episodes[episode].open.insert(fingerprint);
        self.alerts.entry(fingerprint).or_default().episodes.insert(rule, episode);
        self.changed = true;
    }

    /// A late firing continues its episode while that episode's decrease was not delivered,
    /// and where the rule's `on_resolved` does not decrease. A call of unknown outcome is
    /// superseded by this opening, and so counts as delivered. Of an earlier episode than the rule's last one, of one that
    /// has emitted nothing, or of one that is kept no longer, nothing is known any more.
    pub(crate) fn goes_on(&self, rule: RuleId, episode: EpisodeId) -> bool {
        let is_last = self.episodes.iter().rposition(|e| e.rule == rule) == Some(episode);
        let has_emitted = self.ledger.iter().any(|e| e.episode == episode && e.phase == Phase::Firing);
        if !is_last || !has_emitted || self.episodes[episode].expired {
            return false;
        }
        let closed_at = self.episodes[episode].closed_at.unwrap_or(self.now);
        if self.now >= closed_at + self.config.retention_closed && !self.anything_owed() {
            return false;
        }
        !self.ledger.iter().any(|e| {
            e.rule == rule
                && e.phase == Phase::Resolved
                && e.effects.decreases
                && e.emitted_at >= closed_at
                && (e.counts_as_delivered().is_some() || (e.is_outstanding() && e.unknown))
        })
    }

    fn reopen(&mut self, episode: EpisodeId) -> EpisodeId {
        let alive = |e: &Event| {
            e.episode == episode
                && e.phase == Phase::Firing
                && (e.is_outstanding() || e.counts_as_delivered().is_some())
        };
        let anything = self.ledger.iter().any(alive);
        (self.episodes[episode].closed_at, self.episodes[episode].reopened_at) = (None, Some(self.now));
        // "nothing is emitted unless it grew, or nothing of it was delivered or is being tried"
        if !anything {
            self.episodes[episode].growth_mark = 0;
        }
        episode
    }

    pub(crate) fn taint(&mut self, rule: RuleId) {
        if let Some(open) = self.rules[rule].open {
            self.episodes[open].tainted = true;
        }
    }

    pub(crate) fn leave_episode(
        &mut self,
        fingerprint: Fingerprint,
        rule: RuleId,
        truncated: bool,
        expired: bool,
    ) {
        let Some(open) = self.rules[rule].open else { return };
        let episode = &mut self.episodes[open];
        episode.open.remove(&fingerprint);
        episode.tainted |= truncated || expired;
        episode.expired |= expired;
        if !episode.open.is_empty() {
            self.record(rule, Phase::Resolved, Verdict::StillOpen, None);
        }
    }

    /// Closes what is empty and requests what is due, when all alerts of a moment were seen.
    pub(crate) fn conclude_episodes(&mut self) {
        for rule in 0..self.rules.len() {
            let Some(open) = self.rules[rule].open else { continue };
            if self.episodes[open].open.is_empty() {
                self.close(rule, open);
            } else {
                self.withdraw_on_opening(rule);
                self.request_on_firing(rule, open);
            }
        }
    }

    /// The rule's own opening ends its `on_resolved` action; what is owed stays.
    fn withdraw_on_opening(&mut self, rule: RuleId) {
        self.rules[rule].due_since = None;
        self.withdraw(rule, Phase::Resolved, Verdict::Withdrawn);
    }

    pub(crate) fn withdraw(&mut self, rule: RuleId, phase: Phase, verdict: Verdict) {
        if self.rules[rule].deferred[phase as usize].take().is_some() {
            self.record(rule, phase, verdict, None);
            self.changed = true;
        }
    }

    fn request_on_firing(&mut self, rule: RuleId, open: EpisodeId) {
        if self.config.rules[rule].action(Phase::Firing).is_none() {
            return;
        }
        if self.config.rules[rule].effects(Phase::Firing).decreases && self.episodes[open].expired {
            // An alert of the episode ended without evidence: it decreases nothing any more.
            return self.withdraw(rule, Phase::Firing, Verdict::NoEvidence);
        }
        let grew = self.has_grown(rule, open);
        match &self.rules[rule].deferred[Phase::Firing as usize] {
            Some(d) if !grew && !d.stands => self.withdraw(rule, Phase::Firing, Verdict::Withdrawn),
            Some(_) => (),
            None if grew => self.defer(rule, Phase::Firing, open, false),
            None => self.request_repeat(rule, open),
        }
    }

    /// Its window runs beside the cooldown, from the last emission: "once for each cooldown".
    fn request_repeat(&mut self, rule: RuleId, open: EpisodeId) {
        if self.repeat_due_at(rule, open).is_none_or(|t| t > self.now) {
            return;
        }
        let last = self.ledger.iter().rfind(|e| e.episode == open && e.phase == Phase::Firing);
        let Some(emitted_at) = last.map(|e| e.emitted_at) else { return };
        self.defer(rule, Phase::Firing, open, true);
        if let Some(d) = &mut self.rules[rule].deferred[Phase::Firing as usize] {
            d.repeats = true;
            d.anchor = self.episodes[open].reopened_at.unwrap_or(emitted_at).max(emitted_at);
        }
    }

    /// More alerts are open than at any earlier emission. The first action needs no growth.
    fn has_grown(&self, rule: RuleId, open: EpisodeId) -> bool {
        let episode = &self.episodes[open];
        let repeats = self.config.rules[rule].repeat == Repeat::OnGrowth || episode.growth_mark == 0;
        repeats && episode.open.len() > episode.growth_mark
    }

    pub(crate) fn defer(&mut self, rule: RuleId, phase: Phase, episode: EpisodeId, stands: bool) {
        let now = self.now;
        self.rules[rule].deferred[phase as usize] = Some(Deferred {
            requested_at: now,
            anchor: now,
            episode,
            recorded: None,
            stands,
            repeats: false,
            rest_until: None,
            give_ups: 0,
        });
        if self.config.rules[rule].effects(phase).increases {
            self.episodes[episode].needed = true;
        }
        self.changed = true;
    }

    /// `while_firing`: requested once for each cooldown, by our own clock; the cooldown then counts from the delivery.
    fn repeat_due_at(&self, rule: RuleId, open: EpisodeId) -> Option<Time> {
        let Repeat::WhileFiring { max_emissions } = self.config.rules[rule].repeat else { return None };
        let emitted = |e: &&Event| e.episode == open && e.phase == Phase::Firing;
        let last = self.ledger.iter().rfind(emitted)?;
        let count = self.ledger.iter().filter(emitted).count();
        let cooldown = self.config.rules[rule].cooldown[Phase::Firing as usize];
        // An episode that goes on emits nothing at that moment.
        let since = self.episodes[open].reopened_at.map_or(last.emitted_at, |at| at.max(last.emitted_at));
        (count < max_emissions).then_some(since + cooldown)
    }

    pub(crate) fn repeats_due(&self, due: &mut Vec<Time>) {
        for (rule, state) in self.rules.iter().enumerate() {
            due.extend(state.open.and_then(|open| self.repeat_due_at(rule, open)));
        }
    }

    fn close(&mut self, rule: RuleId, open: EpisodeId) {
        let now = self.now;
        self.rules[rule].open = None;
        self.episodes[open].closed_at = Some(now);
        let (tainted, expired) = (self.episodes[open].tainted, self.episodes[open].expired);
        self.rules[rule].last_close = Some((now, !tainted));
        self.changed = true;
        self.withdraw(rule, Phase::Firing, Verdict::Withdrawn);
        self.end_firing_decreases(rule);
        self.end_renewals(rule, open);
        if self.config.rules[rule].is_hold() {
            if expired {
                self.restart_held_windows();
            }
            return;
        }
        if tainted {
            self.rules[rule].due_since = None;
            return self.record(
                rule,
                Phase::Resolved,
                if expired { Verdict::Expired } else { Verdict::NoAction },
                None,
            );
        }
        self.act_on_close(rule, open);
    }

    fn act_on_close(&mut self, rule: RuleId, episode: EpisodeId) {
        let emitted = self.ledger.iter().any(|e| e.episode == episode && e.phase == Phase::Firing);
        match self.config.rules[rule].on_resolved {
            OnResolved::None => self.record(rule, Phase::Resolved, Verdict::NoAction, None),
            OnResolved::Notify if emitted => self.defer(rule, Phase::Resolved, episode, false),
            OnResolved::Notify => self.record(rule, Phase::Resolved, Verdict::NoEvidence, None),
            OnResolved::DecreaseBy(_) | OnResolved::Revert if self.owes(rule) => {
                self.rules[rule].due_since = Some((self.now, episode));
                self.defer(rule, Phase::Resolved, episode, false);
            }
            _ => self.record(rule, Phase::Resolved, Verdict::NoEvidence, None),
        }
    }

    /// A hold expired: the windows of the decreases that it held start now.
    pub(crate) fn restart_held_windows(&mut self) {
        let now = self.now;
        for (rule, state) in self.rules.iter_mut().enumerate() {
            for phase in [Phase::Firing, Phase::Resolved] {
                if !self.config.rules[rule].effects(phase).decreases {
                    continue;
                }
                if let Some(d) = &mut state.deferred[phase as usize] {
                    d.anchor = now;
                }
            }
        }
        for event in self.ledger.iter_mut().filter(|e| e.fate == Fate::Parked) {
            event.evidence.anchor = now;
        }
    }
}
