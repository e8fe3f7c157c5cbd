//! What a run has measured, as it is written down.

use serde::Serialize;

/// Everything about one run.
#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub machine: Machine,
    /// Beside their goals.
    pub figures: Vec<Figure>,
    /// What the parts could do alone, in the same run.
    pub ceilings: Vec<Ceiling>,
    /// How cost grows.
    pub growth: Vec<Growth>,
    /// `None` where no ceilings were measured.
    #[serde(rename = "processor_time")]
    pub cpu_time: Option<CpuTime>,
}

/// What an alert would cost on the machine on which the goals were set.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CpuTime {
    /// Measured here, in microseconds.
    #[serde(rename = "here_us")]
    pub measured_us: f64,
    /// How much of that machine's processor this one is, as a share of 1.
    #[serde(rename = "share")]
    pub relative_speed: f64,
    /// The product, in microseconds.
    #[serde(rename = "there_us")]
    pub reference_us: f64,
}

impl CpuTime {
    /// By the part in which this machine comes nearest to that one, so that nothing is made to look better.
    pub(crate) fn from_ceilings(here_us: f64, ceilings: &[Ceiling]) -> Option<Self> {
        let shares = ceilings.iter().filter(|ceiling| ceiling.is_cpu_bound).map(Ceiling::relative_speed);
        let share = shares.reduce(f64::max)?;
        Some(Self { measured_us: here_us, relative_speed: share, reference_us: here_us * share })
    }
}

/// Where it ran.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
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
pub(crate) struct Figure {
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
pub(crate) enum Better {
    Higher,
    Lower,
}

/// How near the bridge comes to what one of its parts could do alone.
#[derive(Debug, Serialize)]
pub(crate) struct Ceiling {
    pub part: String,
    pub unit: String,
    /// Whether it waits for no disk, so that it tells how fast the processor is.
    #[serde(rename = "only_computes")]
    pub is_cpu_bound: bool,
    /// What the part does alone.
    pub alone: f64,
    /// What it did alone on the machine on which the goals were set: how much of that machine this one is.
    #[serde(rename = "where_goals_were_set")]
    pub reference: f64,
    /// What the bridge does, in the same unit.
    pub bridge: f64,
}

impl Ceiling {
    /// How much of the machine on which the goals were set this one is, as a share of 1.
    pub(crate) fn relative_speed(&self) -> f64 {
        self.alone / self.reference
    }
}

/// How a cost grows with one thing.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    pub title: String,
    /// The thing that grows.
    pub axis: String,
    pub points: Vec<Point>,
}

/// One measurement of a growing thing.
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub at: f64,
    /// Alerts acknowledged a second.
    pub acknowledged: f64,
    /// Alerts delivered a second.
    pub delivered: f64,
    /// CPU of the bridge for each alert, in microseconds.
    pub cpu_us: f64,
}
