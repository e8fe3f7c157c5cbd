//! What a run has measured, as it is written down.

use serde::Serialize;

/// Everything about one run.
#[derive(Debug, Serialize)]
pub struct Results {
    pub machine: Machine,
    /// Beside their goals.
    pub figures: Vec<Figure>,
    /// What the parts could do alone, in the same run.
    pub ceilings: Vec<Ceiling>,
    /// How cost grows.
    pub growth: Vec<Growth>,
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub date: String,
    pub commit: String,
    pub processor: String,
    pub cores: usize,
    pub memory_gib: f64,
    pub kernel: String,
    pub filesystem: String,
    /// Median time of a 4 KiB write with `fdatasync`, in milliseconds.
    pub sync_ms: f64,
}

/// One figure beside its goals.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: String,
    pub unit: String,
    pub better: Better,
    pub measured: f64,
    pub floor: f64,
    pub aim: f64,
}

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    Higher,
    Lower,
}

/// How near the bridge comes to what one of its parts could do alone.
#[derive(Debug, Serialize)]
pub struct Ceiling {
    pub part: String,
    pub unit: String,
    /// What the part does alone.
    pub alone: f64,
    /// What it did alone on the machine on which the goals were set: how much of that machine this one is.
    pub where_goals_were_set: f64,
    /// What the bridge does, in the same unit.
    pub bridge: f64,
}

/// How a cost grows with one thing.
#[derive(Debug, Serialize)]
pub struct Growth {
    pub title: String,
    /// The thing that grows.
    pub axis: String,
    pub points: Vec<Point>,
}

/// One measurement of a growing thing.
#[derive(Debug, Serialize)]
pub struct Point {
    pub at: f64,
    /// Alerts acknowledged a second.
    pub acknowledged: f64,
    /// Alerts delivered a second.
    pub delivered: f64,
    /// CPU of the bridge for each alert, in microseconds.
    pub cpu_us: f64,
}
