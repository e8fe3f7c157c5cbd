//! Results of a run, as stored in `results.json`.

use serde::Serialize;

#[derive(Debug, Serialize)]
pub(crate) struct Results {
    pub machine: Machine,
    pub figures: Vec<Figure>,
    /// Throughput of single components, measured in the same run.
    pub ceilings: Vec<Ceiling>,
    pub growth: Vec<Growth>,
    /// `None` if no ceilings were measured.
    #[serde(rename = "processor_time")]
    pub cpu_time: Option<CpuTime>,
    /// The text of `postgres.txt`, if the store on PostgreSQL was measured.
    #[serde(skip)]
    pub postgres: Option<String>,
}

/// CPU time per alert, converted to the reference machine, for which the targets were set.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct CpuTime {
    /// Measured on this machine, in microseconds.
    #[serde(rename = "here_us")]
    pub measured_us: f64,
    /// Speed of this machine relative to the reference machine; 1 is equal.
    #[serde(rename = "share")]
    pub relative_speed: f64,
    /// `measured_us` × `relative_speed`, in microseconds.
    #[serde(rename = "there_us")]
    pub reference_us: f64,
}

impl CpuTime {
    /// Uses the component in which this machine is relatively fastest, which gives the most pessimistic result.
    pub(crate) fn from_ceilings(here_us: f64, ceilings: &[Ceiling]) -> Option<Self> {
        let shares = ceilings.iter().filter(|ceiling| ceiling.is_cpu_bound).map(Ceiling::relative_speed);
        let share = shares.reduce(f64::max)?;
        Some(Self { measured_us: here_us, relative_speed: share, reference_us: here_us * share })
    }
}

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

/// A figure and its targets.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub name: String,
    pub unit: String,
    pub better: Better,
    pub measured: f64,
    pub floor: f64,
    pub aim: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A component alone, compared with the bridge.
#[derive(Debug, Serialize)]
pub(crate) struct Ceiling {
    pub part: String,
    pub unit: String,
    /// Whether it does not wait for the disk and therefore measures the speed of the processor.
    #[serde(rename = "only_computes")]
    pub is_cpu_bound: bool,
    /// Throughput of the component alone.
    pub alone: f64,
    /// Throughput of the component alone on the reference machine.
    #[serde(rename = "where_goals_were_set")]
    pub reference: f64,
    /// Throughput of the bridge in the same unit.
    pub bridge: f64,
}

impl Ceiling {
    /// Speed of this machine relative to the reference machine; 1 is equal.
    pub(crate) fn relative_speed(&self) -> f64 {
        self.alone / self.reference
    }
}

/// Cost as a function of one parameter.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    pub title: String,
    /// Name of the parameter.
    pub axis: String,
    pub points: Vec<Point>,
}

/// One measurement of [`Growth`].
#[derive(Debug, Serialize)]
pub(crate) struct Point {
    pub at: f64,
    /// Alerts acknowledged per second.
    pub acknowledged: f64,
    /// Alerts delivered per second.
    pub delivered: f64,
    /// CPU time of the bridge per alert, in microseconds.
    pub cpu_us: f64,
}
