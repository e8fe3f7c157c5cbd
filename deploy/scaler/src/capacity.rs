//! What is changed, and what it becomes: arithmetic in whole units, with the reason of every bound that cuts a change.

use scalebridge::domain::event::{Adjustment, AdjustmentType};
use serde::{Deserialize, Serialize};

use crate::event::Limits;

/// What a change sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lever {
    /// The capacity itself: the desired size of a group, `spec.replicas`.
    Size(u32),
    /// The lowest capacity that another autoscaler keeps to. `current` is the capacity that it has chosen.
    Floor { floor: u32, current: u32 },
}

impl Lever {
    /// The value that a change replaces.
    pub fn value(self) -> u32 {
        match self {
            Self::Size(value) | Self::Floor { floor: value, .. } => value,
        }
    }

    /// Whether another autoscaler chooses the size.
    pub fn is_floor(self) -> bool {
        matches!(self, Self::Floor { .. })
    }

    /// The capacity that a relative change is relative to.
    pub fn current(self) -> u32 {
        match self {
            Self::Size(current) | Self::Floor { current, .. } => current,
        }
    }
}

/// A part of the present capacity, or units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaxDecrease {
    /// At least one unit.
    Percent(u8),
    Units(u32),
}

impl MaxDecrease {
    fn units(self, current: u32) -> u32 {
        match self {
            Self::Percent(percent) => {
                let part = u64::from(current) * u64::from(percent) / 100;
                u32::try_from(part).unwrap_or(u32::MAX).max(1)
            }
            Self::Units(units) => units,
        }
    }
}

/// A bound of the capacity and who sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    pub limits: Limits,
    /// For the reason of an answer: `the event`, `the configuration`, `the group`.
    pub owner: &'static str,
}

/// What an event asks for, as far as it determines a capacity. Kept with a pending change, so that another event can
/// finish it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    pub adjustment: Adjustment,
    pub limits: Limits,
    /// What was applied for the increases that the decrease answers; `None` if it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub take_back: Option<u32>,
}

/// A capacity and why it is not the one that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub from: u32,
    pub to: u32,
    /// Empty if nothing has made the change smaller.
    pub cut_by: String,
}

/// Why no capacity agrees with all bounds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Contradiction(String);

impl Request {
    /// The new value of the lever. `baseline` is the value of a floor before it was first raised.
    ///
    /// # Errors
    /// The bounds contradict each other.
    pub fn change(
        &self,
        lever: Lever,
        bounds: &[Bound],
        max_decrease: Option<MaxDecrease>,
        baseline: Option<u32>,
    ) -> Result<Change, Contradiction> {
        let (lowest, highest) = (lowest(bounds), highest(bounds));
        if let (Some((min, of)), Some((max, by))) = (lowest, highest)
            && min > max
        {
            return Err(Contradiction(format!(
                "the minimum of {of}, {min}, is above the maximum of {by}, {max}"
            )));
        }
        let (from, wanted) = (i64::from(lever.value()), self.wanted(lever));
        let mut to = wanted;
        let mut cut_by = Vec::new();
        let mut cut = |to: &mut i64, limit: i64, reason: String| {
            *to = limit;
            cut_by.push(reason);
        };
        if wanted > from {
            if let Some((max, by)) = highest.filter(|(max, _)| to > i64::from(*max)) {
                // A capacity above its maximum stays: an increase never decreases.
                cut(&mut to, i64::from(max).max(from), format!("the maximum of {by} is {max}"));
            }
            if let Some((min, of)) = lowest.filter(|(min, _)| to < i64::from(*min)) {
                cut(&mut to, i64::from(min), format!("the minimum of {of} is {min}"));
            }
            if to > i64::from(u32::MAX) {
                cut(&mut to, i64::from(u32::MAX), "the value is too large".to_owned());
            }
            return Ok(change(from, to, cut_by));
        }
        if wanted == from {
            let reason = self.why_nothing(lever);
            return Ok(change(from, from, reason.into_iter().collect()));
        }
        if let (Lever::Floor { .. }, Some(added @ 1..)) = (lever, self.take_back) {
            // It was raised to the size and more: what was raised is taken back, and the size is for the autoscaler.
            to = from - i64::from(added);
        }
        if let Some(most) = self.take_back.filter(|most| to < from - i64::from(*most)) {
            let asked = wanted - from;
            cut(
                &mut to,
                from - i64::from(most),
                format!("asked {asked}, applied {} for the increases that it takes back", -i64::from(most)),
            );
        }
        if let Some(most) = max_decrease
            .filter(|_| !lever.is_floor())
            .map(|max| max.units(lever.current()))
            .filter(|most| to < from - i64::from(*most))
        {
            cut(&mut to, from - i64::from(most), format!("the configuration allows {most} less at once"));
        }
        if let Some((min, of)) = lowest.filter(|(min, _)| to < i64::from(*min)) {
            // A capacity below its minimum stays: a decrease never increases.
            cut(&mut to, i64::from(min).min(from), format!("the minimum of {of} is {min}"));
        }
        if let Lever::Floor { floor, .. } = lever {
            let lowest = baseline.unwrap_or(floor).min(floor);
            if to < i64::from(lowest) {
                cut(&mut to, i64::from(lowest), format!("the floor was {lowest} before it was raised"));
            }
        }
        if to < 0 {
            cut(&mut to, 0, "nothing is left".to_owned());
        }
        Ok(change(from, to, cut_by))
    }

    /// The value that the event asks for, without bounds.
    fn wanted(&self, lever: Lever) -> i64 {
        let (value, current) = (i64::from(lever.value()), i64::from(lever.current()));
        let Adjustment { kind, value: by, min_magnitude, allow_decrease } = &self.adjustment;
        let by = match kind {
            AdjustmentType::ChangeInCapacity => *by,
            AdjustmentType::PercentChangeInCapacity => percent_of(current, *by, min_magnitude.unwrap_or(0)),
            AdjustmentType::ExactCapacity => {
                return if *allow_decrease == Some(true) { *by } else { value.max(*by) };
            }
        };
        match lever {
            // It keeps what is there and adds to it; a floor that is high enough already stays.
            Lever::Floor { .. } if by > 0 => value.max(current + by),
            Lever::Floor { .. } | Lever::Size(_) => value + by,
        }
    }

    fn why_nothing(&self, lever: Lever) -> Option<String> {
        let Adjustment { kind, value, allow_decrease, .. } = &self.adjustment;
        match (kind, lever) {
            (AdjustmentType::ExactCapacity, _)
                if *value < i64::from(lever.value()) && *allow_decrease != Some(true) =>
            {
                Some(format!("the capacity is above {value}, and the event only raises it"))
            }
            (AdjustmentType::ExactCapacity, _) => None,
            (_, Lever::Floor { floor, .. }) if *value > 0 => Some(format!("the floor is {floor} already")),
            _ => Some(format!("{} of {} is nothing", self.adjustment.to_short(), lever.current())),
        }
    }
}

fn change(from: i64, to: i64, cut_by: Vec<String>) -> Change {
    // Both are within the range: `from` was read, `to` was bounded.
    let units = |value: i64| u32::try_from(value).unwrap_or(if value < 0 { 0 } else { u32::MAX });
    Change { from: units(from), to: units(to), cut_by: cut_by.join("; ") }
}

/// The highest minimum and its owner.
fn lowest(bounds: &[Bound]) -> Option<(u32, &'static str)> {
    bounds
        .iter()
        .filter_map(|bound| Some((bound.limits.min_capacity?, bound.owner)))
        .max_by_key(|(min, _)| *min)
}

/// The lowest maximum and its owner.
fn highest(bounds: &[Bound]) -> Option<(u32, &'static str)> {
    bounds
        .iter()
        .filter_map(|bound| Some((bound.limits.max_capacity?, bound.owner)))
        .min_by_key(|(max, _)| *max)
}

/// As Auto Scaling rounds: toward zero, but a part of one unit is one unit; at least `min_magnitude` units.
fn percent_of(current: i64, percent: i64, min_magnitude: u32) -> i64 {
    let exact = i128::from(current) * i128::from(percent);
    let rounded = match exact / 100 {
        0 if exact != 0 => exact.signum(),
        units => units,
    };
    let magnitude = rounded.abs().max(i128::from(min_magnitude));
    i64::try_from(magnitude * i128::from(percent.signum())).unwrap_or(i64::MAX)
}
