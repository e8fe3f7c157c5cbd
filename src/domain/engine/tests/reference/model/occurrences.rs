//! "Occurrences": what is kept for each (source, fingerprint), and what a notification
//! makes of it. Firings of a body are applied before its resolves; decisions come later.

use super::*;

impl Model {
    pub(crate) fn apply_body(&mut self, body: &Body) {
        let is_resolve = |a: &&Alert| a.status == Status::Resolved;
        for alert in body.alerts.iter().filter(|a| !is_resolve(a)) {
            self.alerts.entry(alert.fingerprint).or_default().heartbeat |= alert.heartbeat;
            match alert.status {
                _ if self.is_outdated(alert, body.sent_at) => {
                    self.record_alert(&alert.rules, Verdict::Stale, None);
                }
                Status::InvalidFiring => self.hear_invalid(alert),
                _ => self.hear_firing(alert),
            }
        }
        for alert in body.alerts.iter().filter(is_resolve) {
            self.alerts.entry(alert.fingerprint).or_default().heartbeat |= alert.heartbeat;
            self.hear_resolve(alert, body.truncated);
        }
    }

    fn state(&mut self, fingerprint: Fingerprint) -> &mut AlertState {
        self.alerts.entry(fingerprint).or_default()
    }

    /// Its message was sent before the last end, and it began no later.
    fn is_outdated(&self, alert: &Alert, sent_at: Option<Time>) -> bool {
        let end = self.remembered_end(alert.fingerprint);
        sent_at.zip(end).is_some_and(|(sent_at, end)| sent_at < end && alert.starts_at <= end)
    }

    fn hear_firing(&mut self, alert: &Alert) {
        self.end_invalid(alert.fingerprint); // it is read again
        if alert.rules.is_empty() && !alert.heartbeat {
            return self.record_alert(&[], Verdict::Unmatched, None);
        }
        let now = self.now;
        let last_end = self.remembered_end(alert.fingerprint);
        let may_be_late = last_end.is_some_and(|end| alert.starts_at <= end);
        let late_window = self.config.late_window;
        let state = self.state(alert.fingerprint);
        if state.open.is_some() {
            return self.hear_open_again(alert);
        }
        if !may_be_late {
            state.late = None; // one that started later opens at once in its place
            return self.open_occurrence(alert, now, false);
        }
        if let Some(late) = &mut state.late {
            (late.copy, late.last_copy_at) = (alert.clone(), now);
            return self.record_alert(&alert.rules, Verdict::Duplicate, None);
        }
        let opens_at = now + late_window;
        state.late = Some(LateFiring { opens_at, copy: alert.clone(), last_copy_at: now });
        self.record_alert(&alert.rules, Verdict::Late, Some(opens_at));
    }

    /// A firing of an alert that is open: the same occurrence, or a new one in its place.
    fn hear_open_again(&mut self, alert: &Alert) {
        let now = self.now;
        let timed_out = alert.heartbeat && self.heartbeat_opened_at().is_none();
        let was_absent = self.end_absence(alert.fingerprint);
        let Some(open) = &mut self.state(alert.fingerprint).open else { return };
        let is_new = alert.starts_at > open.last_heard;
        if is_new {
            open.starts_at = alert.starts_at;
        }
        if is_new || timed_out || was_absent {
            open.opened_at = now;
        }
        open.valid_until =
            alert.valid_until.map(|until| open.valid_until.map_or(until, |known| known.max(until)));
        open.doubts.clear();
        open.last_heard = now;
        if alert.metric.is_some() {
            open.metric = alert.metric;
        }
        let joins: Vec<RuleId> = alert.rules.iter().copied().filter(|r| open.rules.insert(*r)).collect();
        for rule in joins {
            self.join_episode(alert.fingerprint, rule, false);
        }
        let verdict = if is_new { Verdict::NoAction } else { Verdict::Duplicate };
        self.record_alert(&alert.rules, verdict, None);
    }

    fn open_occurrence(&mut self, alert: &Alert, heard_at: Time, was_late: bool) {
        let now = self.now;
        let adopted = alert.starts_at < self.config.store_created_at;
        let rules: BTreeSet<RuleId> = alert.rules.iter().copied().collect();
        let state = self.state(alert.fingerprint);
        state.ever_open = true;
        state.open = Some(Occurrence {
            starts_at: alert.starts_at,
            last_heard: heard_at,
            opened_at: now,
            rules: rules.clone(),
            metric: alert.metric,
            valid_until: alert.valid_until,
            doubts: vec![],
        });
        for rule in rules {
            self.join_episode(alert.fingerprint, rule, was_late);
            if adopted {
                self.taint(rule);
            }
        }
        if alert.heartbeat {
            self.record_alert(&[], Verdict::Heartbeat, None);
        }
        self.changed = true;
    }

    /// An alert that is absent is heard again, or ends: nothing was heard of its sender meanwhile.
    fn end_absence(&mut self, fingerprint: Fingerprint) -> bool {
        let now = self.now;
        let state = &self.alerts[&fingerprint];
        let Some(open) = state.open.as_ref().filter(|o| o.is_absent(now)) else { return false };
        let rules: Vec<RuleId> = open.rules.iter().copied().collect();
        let about_target = !state.heartbeat && !rules.is_empty();
        self.ended.push(DoubtEnd { at: now, rules, about_target });
        self.changed = true;
        true
    }

    pub(crate) fn open_due_late_firings(&mut self) {
        let mut fingerprints: Vec<Fingerprint> = self.alerts.keys().copied().collect();
        // Of those that open in one instant, one that makes its episode go on comes first.
        fingerprints.sort_by_key(|fingerprint| {
            !self.alerts[fingerprint].episodes.iter().any(|(rule, episode)| self.goes_on(*rule, *episode))
        });
        for fingerprint in fingerprints {
            let now = self.now;
            let state = self.state(fingerprint);
            if let Some(late) = state.late.take_if(|late| late.opens_at <= now) {
                self.open_occurrence(&late.copy, late.last_copy_at, true);
            }
        }
    }

    /// An invalid firing: the alert was heard, but cannot be read.
    fn hear_invalid(&mut self, alert: &Alert) {
        let now = self.now;
        let known = self.is_known_on_target(alert.fingerprint);
        let about_target = known || !alert.rules.is_empty();
        // Of an alert that is read itself, it is known whether its sender vouches for it.
        let is_read = !alert.rules.is_empty();
        if is_read && alert.valid_until.is_none_or(|until| until > now) {
            self.end_absence(alert.fingerprint);
        }
        let state = self.state(alert.fingerprint);
        if let Some(open) = &mut state.open {
            if is_read {
                (open.valid_until, open.doubts) = (alert.valid_until, vec![]);
            }
            if alert.starts_at > open.last_heard {
                open.starts_at = alert.starts_at;
            }
            open.last_heard = now;
        }
        let earlier = state.invalid.take();
        let mut rules = alert.rules.clone();
        if let Some(open) = &state.open {
            rules.extend(&open.rules);
        }
        if known {
            rules.extend(state.episodes.keys());
        }
        let about_target = about_target || earlier.is_some_and(|e| e.about_target);
        state.invalid =
            Some(InvalidFiring { starts_at: alert.starts_at, last_heard: now, rules, about_target });
        self.record_alert(&alert.rules, Verdict::Invalid, None);
    }

    /// Open on the target, or closed there while anything is owed or within `retention.closed`.
    fn is_known_on_target(&self, fingerprint: Fingerprint) -> bool {
        let Some(state) = self.alerts.get(&fingerprint) else { return false };
        let recent = |e: &EpisodeId| {
            self.episodes[*e].closed_at.is_none_or(|t| self.now < t + self.config.retention_closed)
        };
        state.open.as_ref().is_some_and(|o| !o.rules.is_empty())
            || state.episodes.values().any(recent)
            || (!state.episodes.is_empty() && self.anything_owed())
    }

    fn end_invalid(&mut self, fingerprint: Fingerprint) {
        let now = self.now;
        if let Some(invalid) = self.state(fingerprint).invalid.take() {
            self.ended.push(DoubtEnd { at: now, rules: invalid.rules, about_target: invalid.about_target });
            self.changed = true;
        }
    }

    fn hear_resolve(&mut self, alert: &Alert, truncated: bool) {
        let now = self.now;
        let ends_at = alert.ends_at;
        let last_end = self.remembered_end(alert.fingerprint);
        let state = self.state(alert.fingerprint);
        let rules: Vec<RuleId> = match &state.open {
            Some(o) => o.rules.iter().copied().collect(),
            None => alert.rules.clone(),
        };
        let invalid = state.invalid.as_ref().filter(|i| ends_at >= i.starts_at);
        if let Some(invalid) = invalid.map(|invalid| invalid.rules.clone()) {
            let of_hold = invalid.iter().any(|rule| self.config.rules[*rule].is_hold());
            self.end_invalid(alert.fingerprint);
            if of_hold && alert.is_absence {
                self.restart_held_windows();
            }
        }
        let state = self.state(alert.fingerprint);
        let vouched_until = state.late.as_ref().and_then(|late| late.copy.valid_until);
        if vouched_until.is_some_and(|until| now < until) && last_end >= Some(ends_at) {
            // What one sender has said before takes back nothing that another one says now.
            return self.record_alert(&rules, Verdict::Duplicate, None);
        }
        if let Some(late) = state.late.take_if(|late| ends_at >= late.copy.starts_at) {
            state.last_end = Some(ends_at.max(last_end.unwrap_or(ends_at)));
            (state.end_heard_at, state.ever_open) = (now, true);
            self.ended.push(DoubtEnd {
                at: now,
                rules: late.copy.rules.clone(),
                about_target: !alert.heartbeat,
            });
            return self.record_alert(&late.copy.rules, Verdict::Withdrawn, None);
        }
        if state.open.as_ref().is_some_and(|open| ends_at < open.starts_at) {
            return self.record_alert(&rules, Verdict::Stale, None);
        }
        if last_end.is_some_and(|end| ends_at <= end) {
            return self.record_alert(&rules, Verdict::Duplicate, None);
        }
        if !alert.is_absence && state.open.as_mut().is_some_and(|open| !open.ends_with(ends_at, now)) {
            return self.record_alert(&rules, Verdict::Duplicate, None);
        }
        (state.last_end, state.end_heard_at) = (Some(ends_at), now);
        self.end_absence(alert.fingerprint);
        let state = self.state(alert.fingerprint);
        if state.open.take().is_some() {
            self.resolves.push(DoubtEnd { at: now, rules: rules.clone(), about_target: !alert.heartbeat });
            for rule in rules {
                let (truncated, expired) = (truncated && !alert.is_absence, alert.is_absence);
                self.leave_episode(alert.fingerprint, rule, truncated, expired);
            }
            self.changed = true;
        } else if !state.ever_open {
            self.record_alert(&rules, Verdict::NoEvidence, None);
        } else {
            self.record_alert(&rules, Verdict::NoAction, None);
        }
    }

    /// The last `endsAt` applied, unless it is forgotten: `retention.closed` after it was
    /// heard, unless it was open here and anything is owed on the target.
    fn remembered_end(&self, fingerprint: Fingerprint) -> Option<Time> {
        let state = self.alerts.get(&fingerprint)?;
        let fresh = self.now < state.end_heard_at + self.config.retention_closed;
        // That of a hold's alert is kept with the hold, where nothing is owed.
        let is_on_target = state.episodes.keys().any(|&rule| !self.config.rules[rule].is_hold());
        let is_kept = state.ever_open && is_on_target && self.anything_owed();
        state.last_end.filter(|_| fresh || is_kept)
    }

    /// What is forgotten is not remembered when something is owed later.
    pub(crate) fn forget_ends(&mut self) {
        let fingerprints: Vec<Fingerprint> = self.alerts.keys().copied().collect();
        for fingerprint in fingerprints {
            let kept = self.remembered_end(fingerprint);
            let state = self.state(fingerprint);
            let is_forgotten = state.last_end.is_some() && kept.is_none();
            state.last_end = kept;
            if is_forgotten && state.open.is_none() {
                // With its end it is forgotten that it was open, and in which episodes.
                state.ever_open = false;
                state.episodes.clear();
            }
        }
    }

    /// Absence is no evidence: what is not heard of for `occurrence_ttl` expires.
    pub(crate) fn expire_silent(&mut self) {
        let (now, ttl) = (self.now, self.config.occurrence_ttl);
        let fingerprints: Vec<Fingerprint> = self.alerts.keys().copied().collect();
        for fingerprint in fingerprints {
            let state = self.state(fingerprint);
            let silent = |i: &InvalidFiring| i.last_heard + ttl <= now;
            if state.invalid.as_ref().is_some_and(silent) {
                self.end_invalid(fingerprint);
            }
            let is_silent = |open: &Occurrence| open.last_heard + ttl <= now;
            if self.state(fingerprint).open.as_ref().is_some_and(is_silent) {
                self.end_absence(fingerprint);
            }
            let expired = self.state(fingerprint).open.take_if(|open| open.last_heard + ttl <= now);
            let Some(occurrence) = expired else { continue };
            for rule in occurrence.rules {
                self.leave_episode(fingerprint, rule, false, true);
            }
            self.changed = true;
        }
    }

    pub(crate) fn occurrences_due(&self, due: &mut Vec<Time>) {
        let ttl = self.config.occurrence_ttl;
        for state in self.alerts.values() {
            due.extend(state.last_end.map(|_| state.end_heard_at + self.config.retention_closed));
            due.extend(state.late.as_ref().map(|l| l.opens_at));
            due.extend(state.open.as_ref().map(|o| o.last_heard + ttl));
            due.extend(state.open.as_ref().and_then(|o| o.valid_until));
            due.extend(state.invalid.as_ref().map(|i| i.last_heard + ttl));
        }
    }
}
