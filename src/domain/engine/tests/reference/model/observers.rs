//! What can be seen of the model.

use super::*;

impl Model {
    pub(crate) fn open(&self, rule: RuleId) -> bool {
        self.rules[rule].open.is_some()
    }
    pub(crate) fn deferred(&self, rule: RuleId) -> Vec<(Phase, Verdict, Option<Time>)> {
        let mut waiting = vec![];
        for phase in [Phase::Firing, Phase::Resolved] {
            if let Some(d) = &self.rules[rule].deferred[phase as usize] {
                let block = self.block(rule, phase, d, None);
                waiting.extend(block.map(|b| (phase, b.verdict, b.until)));
            }
        }
        waiting
    }
    /// When the evidence of calm for the deferred decrease of this rule is complete.
    pub(crate) fn calm_until(&self, rule: RuleId) -> Option<Time> {
        [Phase::Resolved, Phase::Firing].into_iter().find_map(|phase| {
            let d = self.rules[rule].deferred[phase as usize].as_ref()?;
            self.config.rules[rule].effects(phase).decreases.then(|| self.calm(rule, phase, d))
        })
    }
    /// Whether the last close of the rule was by resolve, in whole bodies, of heard alerts.
    pub(crate) fn last_close_was_clean(&self, rule: RuleId) -> Option<bool> {
        self.rules[rule].last_close.map(|c| c.1)
    }
    pub(crate) fn outstanding(&self) -> usize {
        self.ledger.iter().filter(|e| e.is_outstanding()).count()
    }
    pub(crate) fn late_firing_waits(&self) -> bool {
        self.alerts.values().any(|a| a.late.is_some() && !a.heartbeat)
    }
    pub(crate) fn invalid_firing_stands(&self) -> bool {
        self.alerts.values().any(|a| a.invalid.is_some())
    }
    /// The sum of `ChangeInCapacity` of this rule by what counts as delivered, and by what really arrived.
    pub(crate) fn sums(&self, rule: RuleId) -> (i64, i64) {
        let of = |pick: &dyn Fn(&Event) -> bool| {
            let events = self.ledger.iter().filter(|e| e.rule == rule && e.action != Action::SetCapacity);
            events.filter(|e| pick(e)).map(|e| e.value).sum()
        };
        (of(&|e| e.counts_as_delivered().is_some()), of(&|e| e.arrived_at.is_some()))
    }
}
