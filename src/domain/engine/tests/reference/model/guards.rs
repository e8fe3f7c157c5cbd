//! "Guards": the first that blocks an action names the verdict. Deferred actions are
//! evaluated in the order: what cannot decrease first, then the oldest request, then the rule table.

use super::*;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Block {
    pub(in crate::domain::engine::tests) verdict: Verdict,
    pub(in crate::domain::engine::tests) until: Option<Time>,
}

impl Model {
    /// `itself`: an emitted event that asks whether it may be called again.
    pub(crate) fn block(
        &self,
        rule: RuleId,
        phase: Phase,
        d: &Deferred,
        itself: Option<EventNo>,
    ) -> Option<Block> {
        let effects = self.config.rules[rule].effects(phase);
        let block = |verdict, until| Some(Block { verdict, until });
        if self.is_paused(effects) {
            return block(Verdict::Paused, None);
        }
        if self.is_held(effects) {
            return block(Verdict::Held, None);
        }
        if effects.decreases && self.is_outranked(rule, phase) {
            return block(Verdict::Outranked, None);
        }
        // Nobody says any more that what it repeats is needed.
        if d.repeats && self.is_silent(d.episode) {
            return block(Verdict::Stabilizing, None);
        }
        let calm = self.calm(rule, phase, d);
        if calm > self.now {
            return block(Verdict::Stabilizing, Some(calm));
        }
        if d.rest_until.is_some_and(|t| t > self.now) {
            return block(Verdict::CoolingDown, None);
        }
        self.cooldown(rule, phase, itself)
    }

    pub(crate) fn is_paused(&self, effects: Effects) -> bool {
        self.pauses.iter().any(|pause| match pause {
            None => true,
            Some(Direction::Increase) => effects.increases,
            Some(Direction::Decrease) => effects.decreases,
        })
    }

    pub(crate) fn is_held(&self, effects: Effects) -> bool {
        let heartbeat_lost = self.config.heartbeat.is_some() && self.heartbeat_opened_at().is_none();
        let hold = |(id, rule): (RuleId, &Rule)| match rule.on_firing {
            OnFiring::Hold { blocks_increases } if rule.is_active() => {
                (self.hold_in_force(id) && (effects.decreases || (blocks_increases && effects.increases)))
                    || (self.hold_unreadable(id) && effects.decreases)
            }
            _ => false,
        };
        (effects.decreases && heartbeat_lost) || self.config.rules.iter().enumerate().any(hold)
    }

    /// Open, or late: while a firing of a hold's alert is late, the hold is in force.
    fn hold_in_force(&self, hold: RuleId) -> bool {
        let late = |a: &AlertState| a.late.as_ref().is_some_and(|l| l.copy.rules.contains(&hold));
        self.rules[hold].open.is_some() || self.alerts.values().any(late)
    }

    fn hold_unreadable(&self, hold: RuleId) -> bool {
        self.alerts.values().any(|a| a.invalid.as_ref().is_some_and(|i| i.rules.contains(&hold)))
    }

    /// Another active rule has an open episode with an emitted or deferred increase.
    pub(crate) fn is_outranked(&self, rule: RuleId, phase: Phase) -> bool {
        (0..self.rules.len()).any(|other| other != rule && self.outranks(other, rule, phase))
    }

    fn outranks(&self, other: RuleId, rule: RuleId, phase: Phase) -> bool {
        let Some(open) = self.rules[other].open.filter(|_| self.is_active(other)) else { return false };
        let effects = self.config.rules[other].effects(Phase::Firing);
        if !effects.increases {
            return false;
        }
        let emitted = self.ledger.iter().any(|e| e.episode == open && e.phase == Phase::Firing);
        if !effects.decreases {
            return emitted || self.rules[other].deferred[Phase::Firing as usize].is_some();
        }
        // "A set_capacity with allow_decrease outranks other rules only after it was emitted;
        // between two such rules the earlier row wins."
        let both = self.config.rules[rule].effects(phase).increases;
        emitted && (!both || other < rule)
    }

    /// An increase looks at increases, a decrease at both, a notify at those of its own rule.
    fn cooldown(&self, rule: RuleId, phase: Phase, itself: Option<EventNo>) -> Option<Block> {
        let effects = self.config.rules[rule].effects(phase);
        let looks_at = |e: &&Event| {
            let own = e.rule == rule;
            let counts = (effects.decreases && (e.effects.increases || e.effects.decreases))
                || (effects.increases && e.effects.increases)
                || (!effects.increases && !effects.decreases && own);
            counts && Some(e.no) != itself && self.shares_cooldowns(rule, e.rule)
        };
        let blocks = self.ledger.iter().filter(looks_at).filter_map(|e| self.blocks_until(e, rule));
        let latest = blocks.max()?;
        Some(Block { verdict: Verdict::CoolingDown, until: (latest < FOREVER).then_some(latest) })
    }

    /// Until when an earlier event blocks actions of `rule`; `FOREVER` is "without an until".
    fn blocks_until(&self, event: &Event, rule: RuleId) -> Option<Time> {
        let cooldown = self.config.rules[event.rule].cooldown[event.phase as usize];
        let until = match event.fate {
            Fate::Delivered(t) | Fate::CountsAsDelivered(t) => t + cooldown,
            Fate::Pending | Fate::Parked if event.rule == rule => FOREVER,
            Fate::Pending | Fate::Parked => event.emitted_at + cooldown,
            _ => return None,
        };
        (until > self.now).then_some(until)
    }

    /// Emits the first action that nothing blocks; else records what blocks the others.
    pub(crate) fn decide(&mut self) {
        let queue = self.queue();
        let free = |(rule, phase): &&(RuleId, Phase)| {
            let d = self.rules[*rule].deferred[*phase as usize].as_ref();
            d.is_some_and(|d| self.block(*rule, *phase, d, None).is_none())
        };
        if let Some((rule, phase)) = queue.iter().find(free).copied() {
            return self.emit(rule, phase);
        }
        for (rule, phase) in queue {
            self.record_block(rule, phase);
        }
    }

    /// Emits the increases that nothing blocks.
    pub(crate) fn decide_increases(&mut self) {
        for (rule, phase) in self.queue() {
            let d = self.rules[rule].deferred[phase as usize].as_ref();
            let is_free = d.is_some_and(|d| self.block(rule, phase, d, None).is_none());
            if is_free && !self.config.rules[rule].effects(phase).decreases {
                self.emit(rule, phase);
            }
        }
    }

    fn queue(&self) -> Vec<(RuleId, Phase)> {
        let mut queue = vec![];
        for (rule, state) in self.rules.iter().enumerate() {
            for phase in [Phase::Firing, Phase::Resolved] {
                let Some(d) = &state.deferred[phase as usize] else { continue };
                let decreases_last = self.config.rules[rule].effects(phase).decreases;
                queue.push((decreases_last, d.requested_at, rule, phase));
            }
        }
        queue.sort_unstable();
        queue.into_iter().map(|(_, _, rule, phase)| (rule, phase)).collect()
    }

    /// "Each change of verdict or of "until" is recorded, one that grew while it waits at
    /// its old end."
    fn record_block(&mut self, rule: RuleId, phase: Phase) {
        let Some(d) = &self.rules[rule].deferred[phase as usize] else { return };
        let Some(block) = self.block(rule, phase, d, None) else { return };
        let new = (block.verdict, block.until);
        if d.recorded == Some(new) {
            return;
        }
        if let Some((_, Some(old_end))) = d.recorded {
            let shrank = block.until.is_some_and(|t| t < old_end);
            if self.now < old_end && !shrank {
                return;
            }
        }
        if let Some(d) = &mut self.rules[rule].deferred[phase as usize] {
            d.recorded = Some(new);
        }
        self.record(rule, phase, block.verdict, block.until);
    }

    pub(crate) fn guards_due(&self, due: &mut Vec<Time>) {
        due.extend(self.heartbeat_times_out_at());
        let deferred = self.rules.iter().enumerate().flat_map(|(rule, state)| {
            [Phase::Firing, Phase::Resolved]
                .map(|phase| (rule, phase, state.deferred[phase as usize].as_ref()))
        });
        for (rule, phase, d) in deferred {
            let Some(d) = d else { continue };
            due.extend(self.block(rule, phase, d, None).and_then(|b| b.until));
            due.extend(d.recorded.and_then(|r| r.1));
            due.extend(d.rest_until);
        }
        for e in self.ledger.iter().filter(|e| e.fate == Fate::Parked) {
            due.extend(self.block(e.rule, e.phase, &e.evidence, Some(e.no)).and_then(|b| b.until));
        }
    }
}
