//! The results as a page of text, and as JSON.

use std::fmt::Write as _;

use super::results::{Better, Ceiling, Figure, Growth, Results};

/// As JSON, for programs.
pub fn json(results: &Results) -> serde_json::Result<String> {
    serde_json::to_string_pretty(results)
}

/// Figures that do not reach their floor.
pub fn missed(results: &Results) -> Vec<&Figure> {
    results.figures.iter().filter(|figure| figure.reached() == "MISSED").collect()
}

impl Figure {
    /// `aim`, `floor` or `MISSED`; `-` where nothing was measured.
    pub fn reached(&self) -> &'static str {
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

/// As a page of text.
pub fn text(results: &Results) -> String {
    let mut page = machine(results);
    if !results.figures.is_empty() {
        let heads = ["figure", "unit", "floor", "aim", "measured", ""];
        page += &table(&heads, results.figures.iter().map(figure).collect());
    }
    if !results.ceilings.is_empty() {
        let heads = ["what a part does alone", "unit", "alone", "bridge", "share"];
        page += &table(&heads, results.ceilings.iter().map(ceiling).collect());
    }
    for growth in &results.growth {
        let heads =
            [growth.axis.as_str(), "acknowledged/s", "delivered/s", "CPU µs/alert", "against the first"];
        page += &table(&heads, growth_rows(growth));
    }
    page
}

fn machine(results: &Results) -> String {
    let machine = &results.machine;
    format!(
        "{} at {}\n{} × {}, {:.0} GiB, {}, {}, {} ms for 4 KiB with fdatasync\n",
        machine.date,
        machine.commit,
        machine.cores,
        machine.processor,
        machine.memory_gib,
        machine.kernel,
        machine.filesystem,
        number(machine.sync_ms),
    )
}

fn figure(figure: &Figure) -> Vec<String> {
    let Figure { name, unit, floor, aim, measured, .. } = figure;
    let reached = figure.reached().to_owned();
    vec![name.clone(), unit.clone(), number(*floor), number(*aim), number(*measured), reached]
}

fn ceiling(ceiling: &Ceiling) -> Vec<String> {
    let Ceiling { part, unit, alone, bridge } = ceiling;
    let share = format!("{:.0} %", bridge / alone * 100.0);
    vec![part.clone(), unit.clone(), number(*alone), number(*bridge), share]
}

fn growth_rows(growth: &Growth) -> Vec<Vec<String>> {
    let first = growth.points.first().map_or(f64::NAN, |point| point.cpu_us);
    let row = |point: &super::results::Point| {
        let share = format!("{:.2} ×", point.cpu_us / first);
        let figures = [point.at, point.acknowledged, point.delivered, point.cpu_us];
        figures.into_iter().map(number).chain([share]).collect()
    };
    growth.points.iter().map(row).collect()
}

/// Three digits that count; whole thousands apart.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let size = value.abs();
    let decimals = match size {
        _ if size >= 100.0 || value == value.trunc() => 0,
        _ if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    if size < 10_000.0 {
        return text;
    }
    let digits = text.len();
    let apart = text.char_indices().flat_map(|(at, digit)| {
        let comma = (at > 0 && (digits - at).is_multiple_of(3)).then_some(',');
        comma.into_iter().chain([digit])
    });
    apart.collect()
}

/// The first column stands left, the others right.
fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads: Vec<String> = heads.iter().map(|&head| head.to_owned()).collect();
    let all = || std::iter::once(&heads).chain(&rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut text = String::from("\n");
    for row in all() {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // A String takes everything.
            let _ = match column {
                0 => write!(line, "{cell:width$}"),
                _ => write!(line, "  {cell:>width$}"),
            };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}
