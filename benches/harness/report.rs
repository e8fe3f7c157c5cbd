//! Results as a text page and as JSON, and the format of numbers.

use std::fmt::Write as _;

use super::results::{Better, Ceiling, CpuTime, Figure, Growth, Point, Results};

/// Width of the page in columns.
const WIDTH: usize = 110;
/// Separates the columns of a table.
const GAP: &str = "  ";

pub(crate) fn json(results: &Results) -> serde_json::Result<String> {
    serde_json::to_string_pretty(results)
}

/// Figures below their floor.
pub(crate) fn missed(results: &Results) -> Vec<&Figure> {
    results.figures.iter().filter(|figure| figure.reached() == "MISSED").collect()
}

impl Figure {
    /// `aim`, `floor` or `MISSED`; `-` if nothing was measured.
    pub(crate) fn reached(&self) -> &'static str {
        let is_at = |goal: f64| match self.better {
            Better::Higher => self.measured >= goal,
            Better::Lower => self.measured <= goal,
        };
        match (self.measured.is_finite(), is_at(self.aim), is_at(self.floor)) {
            (false, ..) => "-",
            (true, true, _) => "aim",
            (true, false, true) => "floor",
            (true, false, false) => "MISSED",
        }
    }
}

pub(crate) fn text(results: &Results) -> String {
    let mut page = String::new();
    for line in machine(results) {
        page += &clip(&line, WIDTH);
        page.push('\n');
    }
    if !results.figures.is_empty() {
        let heads = ["figure", "unit", "floor", "aim", "measured", "reached"];
        page += &table("Figures", "<<>>><", &heads, results.figures.iter().map(figure).collect());
    }
    if !results.ceilings.is_empty() {
        let heads = ["component", "unit", "alone", "of reference", "bridge", "bridge/alone"];
        let rows = results.ceilings.iter().map(ceiling).collect();
        page += &table("Components alone, and the bridge", "<<>>>>", &heads, rows);
    }
    if let Some(CpuTime { measured_us: here_us, relative_speed: share, reference_us: there_us }) =
        results.cpu_time
    {
        let (here, there) = (number(here_us), number(there_us));
        page += &format!(
            "\nCPU per alert on the reference machine: {here} µs here × {:.0} % = {there} µs. The factor is that of the\n\
             CPU-bound component in which this machine is relatively fastest.\n",
            share * 100.0
        );
    }
    for growth in &results.growth {
        let heads = [&growth.axis, "acknowledged/s", "delivered/s", "CPU µs/alert", "CPU to first"];
        page += &table(&format!("Growth: {}", growth.title), ">>>>>", &heads, growth_rows(growth));
    }
    page
}

/// The machine and the commit, in two lines.
pub(crate) fn machine(results: &Results) -> [String; 2] {
    let machine = &results.machine;
    let (memory, sync) = (number(machine.memory_gib), number(machine.sync_ms));
    [
        format!(
            "{}, commit {}, {} × {}, {memory} GiB",
            machine.date, machine.commit, machine.cores, machine.processor
        ),
        format!("{}, {}, {sync} ms for 4 KiB with fdatasync", machine.kernel, machine.filesystem),
    ]
}

fn figure(figure: &Figure) -> Vec<String> {
    let Figure { name, unit, floor, aim, measured, .. } = figure;
    let reached = figure.reached().to_owned();
    vec![name.clone(), unit.clone(), number(*floor), number(*aim), number(*measured), reached]
}

fn ceiling(ceiling: &Ceiling) -> Vec<String> {
    let Ceiling { part, unit, alone, bridge, .. } = ceiling;
    let share = bridge / alone * 100.0;
    let share = if share.is_finite() { format!("{} %", number(share)) } else { number(share) };
    let machine = format!("{:.0} %", ceiling.relative_speed() * 100.0);
    vec![part.clone(), unit.clone(), number(*alone), machine, number(*bridge), share]
}

fn growth_rows(growth: &Growth) -> Vec<Vec<String>> {
    let row = |point: &Point| {
        let figures = [point.at, point.acknowledged, point.delivered, point.cpu_us];
        figures.into_iter().map(number).chain([growth.cpu_ratio(point)]).collect()
    };
    growth.points.iter().map(row).collect()
}

impl Growth {
    /// CPU time of a point relative to the first point.
    pub(crate) fn cpu_ratio(&self, point: &Point) -> String {
        let times = point.cpu_us / self.points.first().map_or(f64::NAN, |first| first.cpu_us);
        if times.is_finite() { format!("× {times:.2}") } else { number(times) }
    }
}

/// Three significant digits without rounding integers; thousands separators from 10,000.
pub(crate) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    // Integers such as a target of 40 have no decimals.
    let is_whole = value.fract() == 0.0;
    let decimals = if is_whole { 0 } else { (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0) as usize };
    let text = format!("{value:.decimals$}");
    // Counted in the formatted text, since 9,999.9 is formatted as 10,000.
    let whole = text.find('.').unwrap_or(text.len());
    let digits = text[..whole].trim_start_matches('-').len();
    if digits < 5 {
        return text;
    }
    let mut apart = text;
    for at in (1..digits).filter(|at| at.is_multiple_of(3)) {
        apart.insert(whole - at, ',');
    }
    apart
}

/// Truncates to `width` characters; an ellipsis marks the cut.
pub(crate) fn clip(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `sides` has `<` or `>` for each column, its alignment. The first column is truncated if the page is too narrow.
pub(crate) fn table(title: &str, sides: &str, heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let all = || std::iter::once(&heads).chain(&rows);
    let longest = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let mut widths: Vec<usize> = (0..heads.len()).map(longest).collect();
    let others: usize = widths[1..].iter().map(|width| width + GAP.len()).sum();
    widths[0] = widths[0].min(WIDTH.saturating_sub(others));
    let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
    let lines = [&heads, &rule].into_iter().chain(&rows).map(|row| line(row, sides, &widths));
    format!("\n{}\n{}", clip(title, WIDTH), lines.collect::<String>())
}

fn line(row: &[String], sides: &str, widths: &[usize]) -> String {
    let mut line = String::new();
    for ((cell, side), &width) in row.iter().zip(sides.chars()).zip(widths) {
        let cell = clip(cell, width);
        // Writing to a String cannot fail.
        let _ = match side {
            '<' => write!(line, "{cell:<width$}{GAP}"),
            _ => write!(line, "{cell:>width$}{GAP}"),
        };
    }
    format!("{}\n", line.trim_end())
}
