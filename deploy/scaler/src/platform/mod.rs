//! The platforms: each reads and sets the capacity of one target. They know names and clients, and no configuration.

mod aws;
mod call;
pub mod ec2;
pub mod ecs;
pub mod eks;
pub mod kubernetes;
pub mod nomad;
#[cfg(test)]
mod tests;

use crate::capacity::Lever;
use crate::event::Limits;

/// Which value of a group is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeverKind {
    /// Its size: nobody else changes it.
    Size,
    /// Its minimum: another autoscaler chooses its size.
    Floor,
}

/// What a group of AWS has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    min: u32,
    desired: u32,
    max: u32,
}

impl LeverKind {
    fn lever(self, group: Group) -> Lever {
        match self {
            Self::Size => Lever::Size(group.desired),
            Self::Floor => Lever::Floor { floor: group.min, current: group.desired },
        }
    }

    /// The minimum does not bound itself.
    fn limits(self, group: Group) -> Limits {
        let min_capacity = (self == Self::Size).then_some(group.min);
        Limits { min_capacity, max_capacity: Some(group.max) }
    }
}
