//! Which emitted events a pause or hold withholds.
//!
//! Increases that are emitted and not delivered yet are not called while a pause or hold covers them. Decreases are not
//! asked about here: decisions take them back.

use super::Bridge;
use crate::domain::control::{Controls, Hold, Pause};
use crate::domain::direction::Direction;
use crate::domain::header::EventHeader;
use crate::domain::name::Name;
use crate::domain::rule::{Mode, RuleTarget};
use crate::domain::table::RuleTable;
use crate::domain::target::TargetKey;
use crate::domain::time::Time;

impl Bridge {
    /// Whether an active pause or hold withholds an emitted event at `now`, in the store's time. Reads what is committed;
    /// costs next to nothing while there is neither.
    pub fn is_withheld(&self, event: &EventHeader, now: Time) -> bool {
        let controls = self.0.store.controls();
        if !controls.has_pauses_or_holds() || !is_increase(event) {
            return false;
        }
        let key = TargetKey::from_stored(&event.subject);
        controls.pauses(now).any(|pause| withholds(pause, &event.rule, &key, now))
            || is_held(&controls, &self.0.snapshot.load().rules, &key)
    }
}

/// Whether the event increases capacity. `set_capacity` does for every guard.
pub(crate) fn is_increase(event: &EventHeader) -> bool {
    matches!(&*event.action, "scale_out" | "set_capacity")
}

/// Whether a pause covers an emitted event: it withholds an increase, and takes back a decrease.
pub(crate) fn covers(pause: &Pause, event: &EventHeader, now: Time) -> bool {
    let has_direction = |direction| match (direction, &*event.action) {
        (_, "set_capacity") => true,
        (Direction::ScaleOut, action) => action == "scale_out",
        (Direction::ScaleIn, action) => action == "scale_in",
    };
    pause.is_active(now)
        && pause.rule.as_ref().is_none_or(|own| *own.as_str() == *event.rule)
        && pause.direction.is_none_or(has_direction)
        && pause.target.as_ref().is_none_or(|pattern| pattern.covers(&TargetKey::from_stored(&event.subject)))
}

/// Whether a pause withholds an increase of this rule.
pub(crate) fn withholds(pause: &Pause, rule: &str, key: &TargetKey, now: Time) -> bool {
    pause.is_active(now)
        && pause.rule.as_ref().is_none_or(|own| own.as_str() == rule)
        && pause.direction != Some(Direction::ScaleIn)
        && pause.target.as_ref().is_none_or(|pattern| pattern.covers(key))
}

/// Whether the current version of a rule holds increases of the target.
fn is_held(controls: &Controls, rules: &RuleTable, key: &TargetKey) -> bool {
    let Some(target) = key.target() else { return false };
    // An unreadable alert of a hold blocks decreases only.
    let blocks_increases = |(rule, hold): (&Name, &Hold)| {
        let rule = rules.rule(rule).filter(|rule| rule.mode == Mode::Active && !hold.is_unreadable);
        rule.is_some_and(|rule| match &rule.target {
            RuleTarget::Hold(hold) => hold.blocks.contains(&Direction::ScaleOut),
            RuleTarget::Target(_) => false,
        })
    };
    controls.holds_on(&target).any(blocks_increases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::target_pattern::TargetPattern;

    fn event(action: &'static str) -> EventHeader {
        EventHeader {
            id: "1".into(),
            kind: "io.scalebridge.scale_out.v1".into(),
            source: "/scalebridge/prod".into(),
            subject: "eks/nodegroup/-/-/prod/-/workers".into(),
            sequence: 1,
            expirytime: Time::from_millis(1),
            traceparent: "".into(),
            rule: "pods".into(),
            action: action.into(),
            oldest_starts_at: None,
        }
    }

    fn pause() -> Pause {
        let (author, reason) = (String::new(), String::new());
        Pause {
            id: 1,
            rule: None,
            target: None,
            direction: None,
            since: Time::from_millis(0),
            until: None,
            author,
            reason,
        }
    }

    /// Whether the pause withholds and covers an event of this action at second 5.
    fn answers(pause: &Pause, action: &'static str) -> (bool, bool) {
        let (event, now) = (event(action), Time::from_millis(5000));
        let key = TargetKey::from_stored(&event.subject);
        (is_increase(&event) && withholds(pause, &event.rule, &key, now), covers(pause, &event, now))
    }

    #[test]
    fn a_pause_withholds_the_increases_that_it_covers() {
        let direction = |direction| Pause { direction: Some(direction), ..pause() };
        let rule = |rule| Pause { rule: Some(Name::new(rule).unwrap()), ..pause() };
        let target = |pattern| Pause { target: TargetPattern::new(pattern), ..pause() };
        let until = |second: i64| Pause { until: Some(Time::from_millis(second * 1000)), ..pause() };
        for pause in [pause(), direction(Direction::ScaleOut), rule("pods"), target("eks/*"), until(6)] {
            assert_eq!(answers(&pause, "scale_out"), (true, true), "{pause:?}");
            assert_eq!(answers(&pause, "set_capacity"), (true, true), "{pause:?}");
            assert!(!answers(&pause, "scale_in").0 && !answers(&pause, "notify").0, "{pause:?}");
        }
        for pause in [direction(Direction::ScaleIn), rule("nodes"), target("ecs/*"), until(5)] {
            assert_eq!(answers(&pause, "scale_out"), (false, false), "{pause:?}");
        }
        assert_eq!(answers(&direction(Direction::ScaleIn), "scale_in"), (false, true));
        assert_eq!(answers(&direction(Direction::ScaleOut), "notify"), (false, false));
        assert_eq!(answers(&pause(), "notify"), (false, true));
    }
}
