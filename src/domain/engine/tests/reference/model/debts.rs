//! "Owed decreases": what a rule has added to the target and not yet taken back.

use super::*;

impl Model {
    /// The events of `rule` that are owed, oldest first: each `on_firing` event that
    /// increases, from its emission until it is taken back or its last delivery has ended
    /// without an answer that says delivered.
    pub(crate) fn owed(&self, rule: RuleId) -> Vec<EventNo> {
        if !self.config.rules[rule].can_owe() {
            return vec![];
        }
        let owed = |e: &&Event| {
            let may_have_added = matches!(e.fate, Fate::Pending | Fate::Parked | Fate::Delivered(_));
            e.rule == rule
                && e.phase == Phase::Firing
                && e.effects.increases
                && may_have_added
                && e.paid_by.is_none()
                && !e.forgiven
        };
        self.ledger.iter().filter(owed).map(|e| e.no).collect()
    }

    pub(crate) fn owes(&self, rule: RuleId) -> bool {
        !self.owed(rule).is_empty()
    }
    pub(crate) fn anything_owed(&self) -> bool {
        (0..self.rules.len()).any(|rule| self.owes(rule))
    }

    /// An `on_resolved` decrease names the owed events that an answer says were delivered.
    pub(crate) fn nameable(&self, rule: RuleId) -> Vec<EventNo> {
        self.owed(rule).into_iter().filter(|no| matches!(self.ledger[*no].fate, Fate::Delivered(_))).collect()
    }

    pub(crate) fn pay(&mut self, decrease: EventNo) {
        if self.ledger[decrease].phase == Phase::Firing {
            return;
        }
        for no in self.ledger[decrease].reverts.clone() {
            self.ledger[no].paid_by = Some(decrease);
        }
        self.changed = true;
    }

    pub(crate) fn forgive_debts(&mut self, rule: RuleId) {
        for no in self.owed(rule) {
            self.ledger[no].forgiven = true;
        }
        self.changed = true;
    }

    fn debts_end_at(&self, rule: RuleId) -> Option<Time> {
        let state = &self.rules[rule];
        let last_close = state.last_close.filter(|_| state.open.is_none() && self.owes(rule))?;
        Some(last_close.0 + self.config.retention_owed)
    }

    /// `retention.owed` after the rule's last close, what it owes is forgotten.
    pub(crate) fn expire_debts(&mut self) {
        for rule in 0..self.rules.len() {
            if self.debts_end_at(rule).is_none_or(|t| t > self.now) {
                continue;
            }
            self.forgive_debts(rule);
            self.rules[rule].due_since = None;
            self.withdraw(rule, Phase::Resolved, Verdict::Expired);
        }
    }

    pub(crate) fn debts_due(&self, due: &mut Vec<Time>) {
        due.extend((0..self.rules.len()).filter_map(|rule| self.debts_end_at(rule)));
    }
}
