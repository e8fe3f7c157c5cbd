//! Emission, and what happens to an event at the acting destination.

use super::*;

impl Model {
    pub(crate) fn emit(&mut self, rule: RuleId, phase: Phase) {
        let Some(evidence) = self.rules[rule].deferred[phase as usize].take() else { return };
        let config = &self.config.rules[rule];
        let (Some(action), effects) = (config.action(phase), config.effects(phase)) else { return };
        let (now, no, episode) = (self.now, self.ledger.len(), evidence.episode);
        let shadow = config.mode == Mode::Shadow;
        let pays = phase == Phase::Resolved && effects.decreases;
        let reverts = if pays { self.nameable(rule) } else { vec![] };
        let value = self.value(rule, phase, episode, &reverts);
        let emission = 1 + self.ledger.iter().filter(|e| e.episode == episode && e.phase == phase).count();
        let expires_at = now + config.expires_after;
        self.ledger.push(Event {
            no,
            rule,
            phase,
            action,
            effects,
            value,
            episode,
            emission,
            emitted_at: now,
            expires_at,
            reverts: reverts.clone(),
            fate: Fate::Pending,
            unknown: false,
            is_withheld: false,
            arrived_at: None,
            paid_by: None,
            forgiven: false,
            age_from: now,
            next_call: now,
            evidence,
        });
        let verdict = if shadow { Verdict::Shadowed } else { Verdict::Emitted };
        self.log.push(Decision {
            at: now,
            rule: Some(rule),
            verdict,
            phase: Some(phase),
            action: Some(action),
            value: Some(value),
            reverts,
            until: None,
            event: Some(no),
        });
        let state = &mut self.episodes[episode];
        if phase == Phase::Firing {
            state.growth_mark = state.growth_mark.max(state.open.len());
        }
        self.changed = true;
        if shadow {
            self.delivered(no);
        }
    }

    fn value(&self, rule: RuleId, phase: Phase, episode: EpisodeId, reverts: &[EventNo]) -> i64 {
        match (phase, &self.config.rules[rule].on_firing, &self.config.rules[rule].on_resolved) {
            (Phase::Firing, OnFiring::IncreaseBy(by), _) => *by,
            (Phase::Firing, OnFiring::DecreaseBy(by), _) => -by,
            (Phase::Firing, OnFiring::SetCapacity { to, .. }, _) => *to,
            (Phase::Firing, OnFiring::Steps(steps), _) => {
                let open = self.episodes[episode].open.iter().filter_map(|f| self.alerts[f].open.as_ref());
                let highest = open.filter_map(|o| o.metric).max().unwrap_or(0);
                steps.iter().rfind(|(from, _)| *from <= highest).map_or(0, |(_, by)| *by)
            }
            (Phase::Resolved, _, OnResolved::DecreaseBy(by)) => -by,
            (Phase::Resolved, _, OnResolved::Revert) => {
                -reverts.iter().map(|no| self.ledger[*no].value).sum::<i64>()
            }
            _ => 0,
        }
    }

    pub(crate) fn set_destination(&mut self, destination: Destination) {
        self.destination = destination;
        let next_call = self.now + self.config.backoff;
        for event in self.ledger.iter_mut().filter(|e| e.is_outstanding()) {
            event.next_call = next_call;
        }
    }

    fn end_rests(&mut self) {
        for state in &mut self.rules {
            for d in state.deferred.iter_mut().flatten() {
                d.rest_until = None;
            }
        }
    }

    /// Calls the destination for all that may be called now, in the order of emission.
    pub(crate) fn call_destination(&mut self) {
        for no in 0..self.ledger.len() {
            let event = &self.ledger[no];
            if event.fate != Fate::Pending || event.next_call > self.now {
                continue;
            }
            // A pause or hold withholds increases that are emitted and not delivered yet.
            if event.effects.increases && (self.is_paused(event.effects) || self.is_held(event.effects)) {
                continue;
            }
            if event.phase == Phase::Resolved && !event.effects.decreases && !self.may_follow(no) {
                continue;
            }
            self.call(no);
        }
        // Decisions come before its call: it is being tried then, and not delivered yet.
        self.unpark();
    }

    fn call(&mut self, no: EventNo) {
        let now = self.now;
        self.ledger[no].next_call = FOREVER; // until the destination changes: nothing else could be answered
        match self.destination {
            Destination::Down => (), // refused: known not to have arrived
            Destination::Up => self.delivered(no),
            Destination::Unknown { arrives } => {
                self.ledger[no].unknown = true;
                if arrives {
                    self.ledger[no].arrived_at.get_or_insert(now);
                }
            }
        }
    }

    fn delivered(&mut self, no: EventNo) {
        let now = self.now;
        self.ledger[no].fate = Fate::Delivered(now);
        self.ledger[no].arrived_at.get_or_insert(now);
        if self.is_active(self.ledger[no].rule) {
            self.end_rests();
        }
        self.pay(no);
        self.changed = true;
    }

    /// Another `on_resolved` event goes only where an `on_firing` event of its episode was
    /// delivered; it waits while one is pending there, and is withdrawn if none was.
    fn may_follow(&mut self, no: EventNo) -> bool {
        let (now, rule, phase, episode) =
            (self.now, self.ledger[no].rule, self.ledger[no].phase, self.ledger[no].episode);
        let firing = || self.ledger.iter().filter(|e| e.episode == episode && e.phase == Phase::Firing);
        if firing().any(|e| e.fate == Fate::Pending) {
            return false;
        }
        if firing().any(|e| matches!(e.fate, Fate::Delivered(_))) {
            return true;
        }
        self.ledger[no].fate = Fate::Withdrawn(now);
        self.record(rule, phase, Verdict::Withdrawn, None);
        self.changed = true;
        false
    }

    /// A taken-back decrease of unknown outcome is called again when nothing blocks it.
    fn unpark(&mut self) {
        for no in 0..self.ledger.len() {
            let e = &self.ledger[no];
            if e.fate != Fate::Parked || self.block(e.rule, e.phase, &e.evidence, Some(no)).is_some() {
                continue;
            }
            let now = self.now;
            let event = &mut self.ledger[no];
            (event.fate, event.age_from, event.next_call) = (Fate::Pending, now, now);
            self.changed = true;
        }
    }

    fn gives_up_at(&self, event: &Event) -> Option<Time> {
        let max_age =
            if event.effects.decreases { self.config.scale_in_max_age } else { self.config.max_age };
        match event.fate {
            Fate::Pending => Some(event.expires_at.min(event.age_from + max_age)),
            Fate::Parked => Some(event.expires_at),
            _ => None,
        }
    }

    /// Age and `expirytime`: given up, or, for the increase of an open episode, refreshed.
    pub(crate) fn end_stale_deliveries(&mut self) {
        for no in 0..self.ledger.len() {
            let event = &self.ledger[no];
            if self.gives_up_at(event).is_none_or(|t| t > self.now) {
                continue;
            }
            let now = self.now;
            let open = self.rules[event.rule].open == Some(event.episode);
            let is_blocked = self.is_paused(event.effects) || self.is_held(event.effects);
            self.changed = true;
            if event.phase == Phase::Firing && !event.effects.decreases && open && is_blocked {
                self.ledger[no].is_withheld = true;
                self.give_up(no);
                continue;
            }
            if event.phase == Phase::Firing && !event.effects.decreases && open {
                let expires_after = self.config.rules[event.rule].expires_after;
                (self.ledger[no].age_from, self.ledger[no].expires_at) = (now, now + expires_after);
            } else {
                self.give_up(no);
            }
        }
    }

    /// "passes pause and hold again": what was too old while something withheld it is tried again after that.
    pub(crate) fn renew_withheld(&mut self) {
        for no in 0..self.ledger.len() {
            let event = &self.ledger[no];
            let is_blocked = self.is_paused(event.effects) || self.is_held(event.effects);
            if !event.is_withheld || is_blocked {
                continue;
            }
            let (now, expires_after) = (self.now, self.config.rules[event.rule].expires_after);
            let is_open = self.rules[event.rule].open == Some(event.episode);
            let event = &mut self.ledger[no];
            event.is_withheld = false;
            if is_open {
                (event.fate, event.next_call) = (Fate::Pending, now);
                (event.age_from, event.expires_at) = (now, now + expires_after);
            }
            self.changed = true;
        }
    }

    /// "It becomes a dead letter when its episode closes": what is not too old yet is tried until then.
    pub(crate) fn end_renewals(&mut self, rule: RuleId, episode: EpisodeId) {
        let expires_after = self.config.rules[rule].expires_after;
        let unanswered = |e: &&mut Event| {
            e.episode == episode
                && e.phase == Phase::Firing
                && !e.effects.decreases
                && e.fate == Fate::Pending
        };
        for event in self.ledger.iter_mut().filter(unanswered) {
            (event.age_from, event.expires_at) = (event.emitted_at, event.emitted_at + expires_after);
        }
    }

    fn give_up(&mut self, no: EventNo) {
        let now = self.now;
        let event = &mut self.ledger[no];
        if event.effects.decreases && event.unknown {
            event.fate = Fate::CountsAsDelivered(now);
            return self.pay(no);
        }
        event.fate = Fate::Abandoned(now);
        if !event.effects.decreases {
            return;
        }
        let (rule, phase, give_ups) = (event.rule, event.phase, event.evidence.give_ups.min(16));
        let longest = self.config.max_age.max(self.config.rules[rule].window(phase));
        let rest = (longest << give_ups).min(DAY);
        self.defer_again(no, Some(now + rest));
    }

    pub(crate) fn deliveries_due(&self, due: &mut Vec<Time>) {
        for event in &self.ledger {
            due.extend(self.gives_up_at(event));
            if event.fate == Fate::Pending {
                due.push(event.next_call);
            }
        }
    }
}
