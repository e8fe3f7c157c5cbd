//! Results as one SVG: each figure as a bar with its targets, and the cost curves.

use std::fmt::{Arguments, Write as _};

use super::report::{clip, machine, number};
use super::results::{Better, Figure, Growth, Point, Results};

/// Sizes in pixels: the page, its head, the head of a part, a bar's row, a panel.
const WIDTH: f64 = 1100.0;
const MARGIN: f64 = 24.0;
const TOP: f64 = 90.0;
const HEAD: f64 = 64.0;
const ROW: f64 = 24.0;
const PANEL: (f64, f64) = (510.0, 324.0);
/// Margins inside a panel, for the scale and the line labels.
const SCALE_WIDTH: f64 = 46.0;
const NAMES_WIDTH: f64 = 100.0;
/// Start of the bars and distance to the aim; a bar ends at `MAX_AIM_RATIO` times the aim.
const BARS_X: f64 = 590.0;
const AIM_WIDTH: f64 = 200.0;
const MAX_AIM_RATIO: f64 = 2.0;
/// Characters of a figure's name that fit next to its value.
const MAX_NAME_CHARS: usize = 64;

/// Colour-blind safe palette by Okabe and Ito.
const BLUE: &str = "#0072b2";
const SKY: &str = "#56b4e9";
const GREEN: &str = "#009e73";
const RED: &str = "#d55e00";
const INK: &str = "#222";
const GREY: &str = "#666";

const SMALL: &str = r##"fill="#666" font-size="11""##;
const SMALL_MIDDLE: &str = r##"fill="#666" font-size="11" text-anchor="middle""##;
const SMALL_END: &str = r##"fill="#666" font-size="11" text-anchor="end""##;
const FLOOR: &str = r##"stroke="#222" stroke-width="1.2""##;
const TITLE: &str = r#"font-size="16" font-weight="600""#;

pub(crate) fn svg(results: &Results) -> String {
    let growth = TOP + HEAD + ROW * results.figures.len() as f64 + 2.0 * MARGIN;
    let panels = growth + MARGIN;
    let height = panels + results.growth.len().div_ceil(2) as f64 * PANEL.1 + MARGIN / 2.0;
    let mut page = String::new();
    put(
        &mut page,
        format_args!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"
 font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif" font-size="13" fill="{INK}">
<title>scalebridge, measured beside its goals</title>
<rect width="{WIDTH}" height="{height}" fill="#fff"/>"##
        ),
    );
    text(
        &mut page,
        (MARGIN, 36.0),
        "scalebridge, measured beside its goals",
        r#"font-size="21" font-weight="600""#,
    );
    for (row, words) in machine(results).iter().enumerate() {
        text(&mut page, (MARGIN, 56.0 + 17.0 * row as f64), words, &format!(r#"fill="{GREY}""#));
    }
    goals(&mut page, TOP);
    for (row, figure) in results.figures.iter().enumerate() {
        bar(&mut page, TOP + HEAD + ROW * row as f64, figure);
    }
    if !results.growth.is_empty() {
        text(&mut page, (MARGIN, growth), "How cost grows", TITLE);
    }
    for (at, growth) in results.growth.iter().enumerate() {
        let x = MARGIN + (at % 2) as f64 * (WIDTH - 2.0 * MARGIN - PANEL.0);
        panel(&mut page, (x, panels + (at / 2) as f64 * PANEL.1), growth);
    }
    page + "</svg>\n"
}

/// Writing to a String cannot fail.
fn put(page: &mut String, element: Arguments<'_>) {
    let _ = page.write_fmt(element);
    page.push('\n');
}

fn escape(words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    words.replace('"', "&quot;").replace('\'', "&apos;")
}

fn text(page: &mut String, (x, y): (f64, f64), words: &str, how: &str) {
    let words = escape(words);
    put(page, format_args!(r#"<text x="{x:.1}" y="{y:.1}" {how}>{words}</text>"#));
}

fn line(page: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), how: &str) {
    put(page, format_args!(r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" {how}/>"#));
}

fn rect(page: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), how: &str) {
    put(page, format_args!(r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" {how}/>"#));
}

/// Title and legend above the bars.
fn goals(page: &mut String, y: f64) {
    text(page, (MARGIN, y + 26.0), "Figures", TITLE);
    let explained = "The longer the better: measured ÷ aim, or aim ÷ measured where less is better.";
    text(page, (MARGIN, y + HEAD - 16.0), explained, SMALL);
    let mut x = BARS_X;
    for (colour, words) in [(BLUE, "aim reached"), (SKY, "only the floor"), (RED, "missed")] {
        rect(page, (x, y + 16.0), (11.0, 11.0), &format!(r#"fill="{colour}" rx="2""#));
        text(page, (x + 16.0, y + 26.0), words, SMALL);
        x += 108.0;
    }
    line(page, (x, y + 15.0), (x, y + 28.0), FLOOR);
    text(page, (x + 7.0, y + 26.0), "floor", SMALL);
    for (at, words) in [(0.0, "0"), (AIM_WIDTH, "aim"), (AIM_WIDTH * MAX_AIM_RATIO, "2 × aim")] {
        text(page, (BARS_X + at, y + HEAD - 5.0), words, SMALL_MIDDLE);
    }
}

/// Ratio of a value to the aim, inverted where lower is better, so that longer bars are better.
fn aim_ratio(figure: &Figure, value: f64) -> f64 {
    match figure.better {
        Better::Higher => value / figure.aim,
        Better::Lower => figure.aim / value,
    }
}

fn bar(page: &mut String, y: f64, figure: &Figure) {
    let Figure { name, unit, measured, floor, aim, .. } = figure;
    let reached = figure.reached();
    let colour = match reached {
        "aim" => BLUE,
        "floor" => SKY,
        _ => RED,
    };
    let middle = y + ROW / 2.0 + 4.5;
    text(page, (MARGIN, middle), &clip(name, MAX_NAME_CHARS), "");
    let value =
        if measured.is_finite() { format!("{} {unit}", number(*measured)) } else { number(*measured) };
    text(page, (BARS_X - 12.0, middle), &value, r#"text-anchor="end" font-weight="600""#);

    let (above, thick) = (y + 4.0, ROW - 8.0);
    rect(page, (BARS_X, above), (AIM_WIDTH * MAX_AIM_RATIO, thick), r##"fill="#f2f2f2""##);
    let length = if measured.is_finite() { aim_ratio(figure, *measured) } else { 0.0 };
    let shown = AIM_WIDTH * length.clamp(0.0, MAX_AIM_RATIO);
    let goals = format!("{name}: {value} (floor {}, aim {})", number(*floor), number(*aim));
    put(
        page,
        format_args!(
            r#"<rect x="{BARS_X}" y="{above:.1}" width="{shown:.1}" height="{thick}" fill="{colour}">
<title>{}</title></rect>"#,
            escape(&goals)
        ),
    );
    let at = aim_ratio(figure, *floor);
    if at.is_finite() {
        let x = BARS_X + AIM_WIDTH * at.clamp(0.0, MAX_AIM_RATIO);
        // The light edge keeps the mark visible on a dark bar.
        for how in [r##"stroke="#fff" stroke-width="3.5""##, FLOOR] {
            line(page, (x, y + 2.0), (x, y + ROW - 2.0), how);
        }
    }
    line(
        page,
        (BARS_X + AIM_WIDTH, y),
        (BARS_X + AIM_WIDTH, y + ROW),
        &format!(r#"stroke="{INK}" stroke-width="2""#),
    );
    let end = BARS_X + AIM_WIDTH * MAX_AIM_RATIO;
    if length > MAX_AIM_RATIO {
        // The bar is clipped.
        text(page, (end - 8.0, middle), "»", r##"fill="#fff" font-weight="700" text-anchor="middle""##);
    }
    let weight = if reached == "MISSED" { 700 } else { 400 };
    text(page, (end + 12.0, middle), reached, &format!(r#"font-weight="{weight}""#));
}

/// Throughput above, cost below, over the same axis.
fn panel(page: &mut String, (x, y): (f64, f64), growth: &Growth) {
    text(page, (x, y + 14.0), &growth.title, r#"font-size="14" font-weight="600""#);
    let acknowledged = Line {
        name: "acknowledged",
        unit: "alerts/s",
        colour: BLUE,
        inside: BLUE,
        value: |point| point.acknowledged,
    };
    // Hollow points keep the other line visible where both have the same value.
    let delivered = Line {
        name: "delivered",
        unit: "alerts/s",
        colour: GREEN,
        inside: "#fff",
        value: |point| point.delivered,
    };
    let cost =
        Line { name: "CPU", unit: "µs an alert", colour: RED, inside: RED, value: |point| point.cpu_us };

    let (left, width) = (x + SCALE_WIDTH, PANEL.0 - SCALE_WIDTH - NAMES_WIDTH);
    let rates = [acknowledged, delivered];
    let area = Area { growth, x: left, y: y + 46.0, width, height: 130.0, top: 1.0, step: 1.0 };
    let area = area.scaled(&rates, 5.0);
    area.frame(page, "alerts/s");
    for line in &rates {
        area.draw(page, line);
    }
    area.names(page, &rates);

    let area = Area { y: y + 208.0, height: 66.0, ..area }.scaled(&[cost], 3.0);
    area.frame(page, "CPU, µs an alert");
    area.draw(page, &cost);
    if let Some((point, (x, y))) = area.last(&cost) {
        let words = format!("{} ({})", number(point.cpu_us), growth.cpu_ratio(point));
        text(page, (x + 9.0, y + 4.0), &words, &format!(r#"fill="{RED}" font-size="11""#));
    }
    for point in &growth.points {
        text(page, (area.x_of(point), area.y + area.height + 16.0), &short(point.at), SMALL_MIDDLE);
    }
    let middle = (left + width / 2.0, area.y + area.height + 32.0);
    text(page, middle, &format!("{} (log scale)", growth.axis), SMALL_MIDDLE);
}

/// `20`, `2.5k`, `1M`.
fn short(value: f64) -> String {
    let (value, suffix) = match value {
        _ if value >= 1e6 => (value / 1e6, "M"),
        _ if value >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = number(value);
    let digits =
        if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { &digits };
    format!("{digits}{suffix}")
}

/// One quantity that is measured at every point.
#[derive(Clone, Copy)]
struct Line {
    name: &'static str,
    unit: &'static str,
    colour: &'static str,
    /// Fill colour of the points.
    inside: &'static str,
    value: fn(&Point) -> f64,
}

/// Drawing area and scales of a panel.
#[derive(Clone, Copy)]
struct Area<'a> {
    growth: &'a Growth,
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    /// The value at the upper edge and the distance of the grid lines.
    top: f64,
    step: f64,
}

impl Area<'_> {
    /// From 0 to a round number not below the maximum, in at most `most` steps.
    fn scaled(self, lines: &[Line], most: f64) -> Self {
        let values = lines.iter().flat_map(|line| self.growth.points.iter().map(line.value));
        let highest = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        if highest <= 0.0 {
            return Self { top: 1.0, step: 1.0, ..self };
        }
        let least = highest / most;
        let unit = 10f64.powf(least.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0].map(|times| times * unit).into_iter().find(|step| *step >= least);
        let step = step.unwrap_or(10.0 * unit);
        Self { top: (highest / step).ceil() * step, step, ..self }
    }

    /// Logarithmic, since the parameter grows by factors. 0 is drawn at the position of 1.
    fn x_of(&self, point: &Point) -> f64 {
        let all = || self.growth.points.iter().map(|point| point.at.max(1.0).ln());
        let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let part = if most > least { (point.at.max(1.0).ln() - least) / (most - least) } else { 0.5 };
        self.x + part * self.width
    }

    fn y_of(&self, value: f64) -> f64 {
        self.y + self.height * (1.0 - value / self.top)
    }

    /// Position of a point; `None` if it was not measured.
    fn position(&self, line: &Line, point: &Point) -> Option<(f64, f64)> {
        let value = (line.value)(point);
        value.is_finite().then(|| (self.x_of(point), self.y_of(value)))
    }

    fn last(&self, line: &Line) -> Option<(&Point, (f64, f64))> {
        self.growth.points.iter().rev().find_map(|point| Some((point, self.position(line, point)?)))
    }

    fn frame(&self, page: &mut String, unit: &str) {
        text(page, (self.x - SCALE_WIDTH, self.y - 12.0), unit, SMALL);
        for at in 0..=(self.top / self.step).round() as u32 {
            let value = f64::from(at) * self.step;
            let colour = if at == 0 { "#888" } else { "#e2e2e2" };
            let y = self.y_of(value);
            line(page, (self.x, y), (self.x + self.width, y), &format!(r#"stroke="{colour}""#));
            text(page, (self.x - 8.0, y + 4.0), &short(value), SMALL_END);
        }
        for point in &self.growth.points {
            let (x, y) = (self.x_of(point), self.y + self.height);
            line(page, (x, y), (x, y + 4.0), r##"stroke="#888""##);
        }
    }

    fn draw(&self, page: &mut String, line: &Line) {
        let Line { name, unit, colour, inside, value } = line;
        let mut path = String::new();
        // A gap starts a new line segment.
        let mut pen = 'M';
        for point in &self.growth.points {
            pen = match self.position(line, point) {
                Some((x, y)) => {
                    let _ = write!(path, "{pen}{x:.1} {y:.1}");
                    'L'
                }
                None => 'M',
            };
        }
        put(page, format_args!(r#"<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>"#));
        for point in &self.growth.points {
            let Some((x, y)) = self.position(line, point) else { continue };
            let (at, axis, shown) = (number(point.at), escape(&self.growth.axis), number(value(point)));
            put(
                page,
                format_args!(
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{inside}"
 stroke="{colour}" stroke-width="2">
<title>{axis} {at}: {name} {shown} {unit}</title></circle>"#
                ),
            );
        }
    }

    /// Labels at the ends of two lines, moved apart if they would overlap.
    fn names(&self, page: &mut String, lines: &[Line; 2]) {
        const APART: f64 = 14.0;
        let [first, second] = lines.each_ref().map(|line| self.last(line).map(|(_, place)| place));
        let near = match (first, second) {
            (Some((x1, y1)), Some((x2, y2))) if x1 == x2 => (APART - (y1 - y2).abs()).max(0.0) / 2.0,
            _ => 0.0,
        };
        // The line that ends higher has the upper label.
        let is_above = first.map(|(_, y)| y) <= second.map(|(_, y)| y);
        let moves = if is_above { [-near, near] } else { [near, -near] };
        for ((line, place), by) in lines.iter().zip([first, second]).zip(moves) {
            let Some((x, y)) = place else { continue };
            let how = format!(r#"fill="{}" font-size="12""#, line.colour);
            text(page, (x + 9.0, y + 4.0 + by), line.name, &how);
        }
    }
}
