//! "Decreases are level-triggered": there is exactly one while something is owed; what
//! cancels an emitted one; and how it is deferred again.

use super::*;

impl Model {
    /// While a rule owes and has no open episode, exactly one decrease of it is deferred or
    /// being tried, from its last close by resolve on.
    pub(crate) fn keep_one_decrease(&mut self) {
        for rule in 0..self.rules.len() {
            if !self.config.rules[rule].can_owe() {
                continue;
            }
            if !self.owes(rule) {
                self.rules[rule].due_since = None;
                self.withdraw(rule, Phase::Resolved, Verdict::Withdrawn);
                continue;
            }
            let Some((since, episode)) = self.rules[rule].due_since else { continue };
            let tried = self
                .ledger
                .iter()
                .any(|e| e.rule == rule && e.phase == Phase::Resolved && e.is_outstanding());
            if tried || self.rules[rule].deferred[Phase::Resolved as usize].is_some() {
                continue;
            }
            self.defer(rule, Phase::Resolved, episode, false);
            if let Some(d) = &mut self.rules[rule].deferred[Phase::Resolved as usize] {
                (d.requested_at, d.anchor) = (since, since);
            }
        }
    }

    /// What cancels emitted decreases that no answer has confirmed.
    pub(crate) fn cancel_decreases(&mut self) {
        let outstanding = |e: &&Event| e.is_outstanding() && e.effects.decreases;
        let decreases: Vec<EventNo> = self.ledger.iter().filter(outstanding).map(|e| e.no).collect();
        for no in decreases {
            let (rule, phase) = (self.ledger[no].rule, self.ledger[no].phase);
            let own_opening = phase == Phase::Resolved && self.rules[rule].open.is_some();
            let is_outranked = self.is_outranked(rule, phase);
            if is_outranked && self.ledger[no].unknown {
                // Increases come first: what counts as delivered only because of them does not block them.
                self.decide_increases();
            }
            if own_opening || is_outranked {
                self.supersede(no, !own_opening);
            } else if self.ledger[no].fate == Fate::Pending && self.is_taken_back(rule, phase) {
                self.take_back(no);
            }
        }
    }

    /// "What would block its emission (a pause, a hold, a late or invalid firing, a
    /// heartbeat that is not open, a reception gap)"
    fn is_taken_back(&self, rule: RuleId, phase: Phase) -> bool {
        let effects = self.config.rules[rule].effects(phase);
        self.is_paused(effects)
            || self.is_held(effects)
            || self.doubt_until(rule) > self.now
            || self.gap_until() > self.now
    }

    fn take_back(&mut self, no: EventNo) {
        if !self.ledger[no].unknown {
            return self.supersede(no, true);
        }
        self.ledger[no].fate = Fate::Parked;
        self.changed = true;
    }

    pub(crate) fn supersede(&mut self, no: EventNo, again: bool) {
        let now = self.now;
        let event = &mut self.ledger[no];
        let (rule, phase) = (event.rule, event.phase);
        event.fate = if event.unknown { Fate::CountsAsDelivered(now) } else { Fate::Superseded(now) };
        let unknown = event.unknown;
        self.record(rule, phase, Verdict::Superseded, None);
        if let Some(decision) = self.log.last_mut() {
            decision.event = Some(no);
        }
        self.changed = true;
        if unknown {
            self.pay(no);
        } else if again {
            self.defer_again(no, None);
        }
    }

    /// "is deferred again with the evidence it had and, when emitted, a new id"
    pub(crate) fn defer_again(&mut self, no: EventNo, rest_until: Option<Time>) {
        let (rule, phase) = (self.ledger[no].rule, self.ledger[no].phase);
        let mut d = self.ledger[no].evidence.clone();
        let still_wanted = match phase {
            Phase::Firing => self.rules[rule].open == Some(d.episode),
            Phase::Resolved => {
                self.rules[rule].open.is_none() && self.rules[rule].due_since.is_some() && self.owes(rule)
            }
        };
        if !still_wanted {
            return;
        }
        (d.recorded, d.stands, d.rest_until) = (None, true, rest_until);
        if rest_until.is_some() {
            d.give_ups += 1;
        }
        // One that grew meanwhile waits already: one action, with the later evidence.
        if let Some(grown) = &self.rules[rule].deferred[phase as usize] {
            d.anchor = d.anchor.max(grown.anchor);
            d.recorded = grown.recorded;
        }
        self.rules[rule].deferred[phase as usize] = Some(d);
        self.changed = true;
    }

    /// The close of its episode ends an `on_firing` decrease.
    pub(crate) fn end_firing_decreases(&mut self, rule: RuleId) {
        let outstanding = |e: &&Event| {
            e.rule == rule && e.phase == Phase::Firing && e.effects.decreases && e.is_outstanding()
        };
        let decreases: Vec<EventNo> = self.ledger.iter().filter(outstanding).map(|e| e.no).collect();
        for no in decreases {
            self.supersede(no, false);
        }
    }
}
