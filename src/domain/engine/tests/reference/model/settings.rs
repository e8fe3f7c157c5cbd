//! The configuration of the model: rules, the source, delivery.

/// Seconds.
pub(crate) type Time = i64;
pub(crate) type RuleId = usize;
pub(crate) type EpisodeId = usize;
pub(crate) type Fingerprint = u32;
/// The number of an emission: an index into the ledger.
pub(crate) type EventNo = usize;

pub(crate) const MINUTE: Time = 60;
pub(crate) const HOUR: Time = 3600;
pub(crate) const DAY: Time = 86_400;
pub(crate) const FOREVER: Time = Time::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, Hash)]
pub(crate) enum Phase {
    Firing,
    Resolved,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    Increase,
    Decrease,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Active,
    Shadow,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum OnFiring {
    IncreaseBy(i64),
    /// `(from, by)`, ascending; the highest metric among the open occurrences chooses.
    Steps(Vec<(i64, i64)>),
    DecreaseBy(i64),
    Notify,
    SetCapacity {
        to: i64,
        allow_decrease: bool,
    },
    /// A control, not an action. It always blocks decreases.
    Hold {
        blocks_increases: bool,
    },
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum OnResolved {
    None,
    DecreaseBy(i64),
    Revert,
    Notify,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Repeat {
    Never,
    OnGrowth,
    WhileFiring { max_emissions: usize },
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) mode: Mode,
    pub(crate) on_firing: OnFiring,
    pub(crate) on_resolved: OnResolved,
    pub(crate) repeat: Repeat,
    /// Indexed by phase.
    pub(crate) cooldown: [Time; 2],
    /// Indexed by phase. `None` is the default: 5m for decreases, 0 for the rest.
    pub(crate) window: [Option<Time>; 2],
    pub(crate) expires_after: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    ScaleOut,
    ScaleIn,
    SetCapacity,
    Notify,
}

/// What an action does to capacity. A `set_capacity` with `allow_decrease` counts as both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Effects {
    pub(in crate::domain::engine::tests) increases: bool,
    pub(in crate::domain::engine::tests) decreases: bool,
}

impl Rule {
    /// A rule with all defaults.
    pub(crate) fn new(name: &'static str, on_firing: OnFiring, on_resolved: OnResolved) -> Rule {
        Rule {
            name,
            mode: Mode::Active,
            on_firing,
            on_resolved,
            repeat: Repeat::OnGrowth,
            cooldown: [5 * MINUTE; 2],
            window: [None; 2],
            expires_after: HOUR,
        }
    }

    pub(crate) fn shadow(mut self) -> Rule {
        self.mode = Mode::Shadow;
        self
    }

    pub(crate) fn action(&self, phase: Phase) -> Option<Action> {
        match (phase, &self.on_firing, &self.on_resolved) {
            (Phase::Firing, OnFiring::IncreaseBy(_) | OnFiring::Steps(_), _) => Some(Action::ScaleOut),
            (Phase::Firing, OnFiring::DecreaseBy(_), _) => Some(Action::ScaleIn),
            (Phase::Firing, OnFiring::SetCapacity { .. }, _) => Some(Action::SetCapacity),
            (Phase::Firing, OnFiring::Notify, _) => Some(Action::Notify),
            (Phase::Firing, OnFiring::Hold { .. }, _) => None,
            (Phase::Resolved, _, OnResolved::None) => None,
            (Phase::Resolved, _, OnResolved::Notify) => Some(Action::Notify),
            (Phase::Resolved, _, OnResolved::DecreaseBy(_) | OnResolved::Revert) => Some(Action::ScaleIn),
        }
    }

    pub(crate) fn effects(&self, phase: Phase) -> Effects {
        let allow_decrease = matches!(self.on_firing, OnFiring::SetCapacity { allow_decrease: true, .. });
        match self.action(phase) {
            Some(Action::ScaleOut) => Effects { increases: true, decreases: false },
            Some(Action::SetCapacity) => Effects { increases: true, decreases: allow_decrease },
            Some(Action::ScaleIn) => Effects { increases: false, decreases: true },
            Some(Action::Notify) | None => Effects { increases: false, decreases: false },
        }
    }

    pub(crate) fn window(&self, phase: Phase) -> Time {
        let default = if self.effects(phase).decreases { 5 * MINUTE } else { 0 };
        self.window[phase as usize].unwrap_or(default)
    }

    pub(crate) fn is_active(&self) -> bool {
        self.mode == Mode::Active
    }
    pub(crate) fn is_hold(&self) -> bool {
        matches!(self.on_firing, OnFiring::Hold { .. })
    }
    /// Only a rule whose `on_resolved` decreases can owe.
    pub(crate) fn can_owe(&self) -> bool {
        self.effects(Phase::Resolved).decreases
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Heartbeat {
    pub(in crate::domain::engine::tests) grace: Time,
    pub(in crate::domain::engine::tests) timeout: Option<Time>,
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) rules: Vec<Rule>,
    pub(crate) late_window: Time,
    pub(crate) occurrence_ttl: Time,
    pub(crate) heartbeat: Option<Heartbeat>,
    pub(crate) retention_closed: Time,
    pub(crate) retention_owed: Time,
    pub(crate) max_age: Time,
    pub(crate) scale_in_max_age: Time,
    /// From a change of the destination to the next call of what is pending.
    pub(crate) backoff: Time,
    /// Occurrences that started earlier are adopted.
    pub(crate) store_created_at: Time,
}

impl Config {
    pub(crate) fn new(rules: Vec<Rule>) -> Config {
        Config {
            rules,
            late_window: 6 * MINUTE,
            occurrence_ttl: DAY,
            heartbeat: None,
            retention_closed: HOUR,
            retention_owed: 7 * DAY,
            max_age: HOUR,
            scale_in_max_age: 5 * MINUTE,
            backoff: 0,
            store_created_at: Time::MIN,
        }
    }
}
