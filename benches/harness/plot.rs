//! The results as one SVG: each figure as a bar beside its goals, and how cost grows.

use std::fmt::Write as _;

use super::report::number;
use super::results::{Better, Figure, Growth, Point, Results};

/// Sizes in pixels: the page, a bar's row, the head of a part, a panel.
const WIDTH: f64 = 1080.0;
const MARGIN: f64 = 24.0;
const ROW: f64 = 24.0;
const HEAD: f64 = 56.0;
const PANEL: (f64, f64) = (500.0, 300.0);
/// Where bars begin, and where the aim stands; a bar ends at twice the aim.
const BAR: f64 = 500.0;
const AIM: f64 = 220.0;
const MOST: f64 = 2.0;

/// Colours that those who see few can tell apart.
const BLUE: &str = "#0072b2";
const GREEN: &str = "#009e73";
const ORANGE: &str = "#e69f00";
const RED: &str = "#d55e00";
const GREY: &str = "#666";

/// The whole picture.
pub fn svg(results: &Results) -> String {
    let panels = results.growth.len().div_ceil(2) as f64 * (PANEL.1 + MARGIN);
    let bars = HEAD + ROW * results.figures.len() as f64;
    let height = HEAD + bars + MARGIN + panels + MARGIN;
    let mut page = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" fill="#222">
<rect width="{WIDTH}" height="{height}" fill="#fff"/>
"##
    );
    let machine = &results.machine;
    let place = format!(
        "{} · {} · {} × {} · {}",
        machine.date, machine.commit, machine.cores, machine.processor, machine.kernel
    );
    text(
        &mut page,
        (MARGIN, 32.0),
        "scalebridge, measured beside its goals",
        r#"font-size="20" font-weight="600""#,
    );
    text(&mut page, (MARGIN, 52.0), &place, &format!(r#"fill="{GREY}""#));
    goals(&mut page, HEAD);
    for (row, figure) in results.figures.iter().enumerate() {
        bar(&mut page, HEAD + HEAD + ROW * row as f64, figure);
    }
    for (at, growth) in results.growth.iter().enumerate() {
        let x = MARGIN + (at % 2) as f64 * (PANEL.0 + MARGIN + 8.0);
        let y = HEAD + bars + MARGIN + (at / 2) as f64 * (PANEL.1 + MARGIN);
        panel(&mut page, (x, y), growth);
    }
    page + "</svg>\n"
}

/// A String takes everything.
fn put(page: &mut String, element: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(element);
    page.push('\n');
}

fn text(page: &mut String, (x, y): (f64, f64), words: &str, how: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    put(page, format_args!(r#"<text x="{x:.1}" y="{y:.1}" {how}>{words}</text>"#));
}

fn line(page: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), how: &str) {
    put(page, format_args!(r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" {how}/>"#));
}

fn goals(page: &mut String, y: f64) {
    let how = format!(r#"fill="{GREY}" font-size="11" text-anchor="middle""#);
    text(page, (BAR + AIM, y + HEAD - 12.0), "aim", &how);
    let how = format!(r#"fill="{GREY}" font-size="11""#);
    text(page, (BAR, y + HEAD - 12.0), "longer is better; the thin mark is the floor", &how);
}

fn bar(page: &mut String, y: f64, figure: &Figure) {
    let Figure { name, unit, measured, floor, aim, better } = figure;
    let part = |value: f64| match better {
        Better::Higher => value / aim,
        Better::Lower => aim / value,
    };
    let reached = figure.reached();
    let colour = match reached {
        "aim" => GREEN,
        "floor" => ORANGE,
        _ => RED,
    };
    let middle = y + ROW / 2.0 + 4.0;
    text(page, (MARGIN, middle), name, "");
    text(
        page,
        (BAR - 12.0, middle),
        &format!("{} {unit}", number(*measured)),
        r#"text-anchor="end" font-weight="600""#,
    );
    let length = if measured.is_finite() { part(*measured).min(MOST) * AIM } else { 0.0 };
    put(
        page,
        format_args!(
            r#"<rect x="{BAR}" y="{:.1}" width="{length:.1}" height="{}" fill="{colour}" rx="2"/>"#,
            y + 4.0,
            ROW - 8.0
        ),
    );
    for (goal, how) in [(*floor, "stroke-width=\"1\""), (*aim, "stroke-width=\"2\"")] {
        let x = BAR + part(goal) * AIM;
        line(page, (x, y + 2.0), (x, y + ROW - 2.0), &format!(r##"stroke="#222" {how}"##));
    }
    let more = if part(*measured) > MOST { "… " } else { "" };
    text(page, (BAR + AIM * MOST + 8.0, middle), &format!("{more}{reached}"), &format!(r#"fill="{colour}""#));
}

/// Throughput above, cost below, over the same axis.
fn panel(page: &mut String, (x, y): (f64, f64), growth: &Growth) {
    text(page, (x, y + 14.0), &growth.title, r#"font-size="15" font-weight="600""#);
    let rates = |point: &Point| point.acknowledged.max(point.delivered);
    let area = Area { x: x + 56.0, y: y + 28.0, width: PANEL.0 - 150.0, height: 136.0 };
    area.frame(page, growth, "alerts/s", rates);
    area.series(page, growth, ("acknowledged", BLUE, -4.0), rates, |point| point.acknowledged);
    area.series(page, growth, ("delivered", GREEN, 12.0), rates, |point| point.delivered);
    let cost = |point: &Point| point.cpu_us;
    let area = Area { y: y + 188.0, height: 72.0, ..area };
    area.frame(page, growth, "CPU µs/alert", cost);
    area.series(page, growth, ("CPU", RED, 4.0), cost, cost);
    let how = format!(r#"fill="{GREY}" font-size="11" text-anchor="middle""#);
    for point in &growth.points {
        text(page, (area.across(growth, point), area.y + area.height + 14.0), &short(point.at), &how);
    }
    text(page, (area.x + area.width / 2.0, area.y + area.height + 30.0), &growth.axis, &how);
}

/// `20`, `5k`, `1M`.
fn short(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{}M", value / 1e6),
        _ if value >= 1e3 => format!("{}k", number(value / 1e3)),
        _ => number(value),
    }
}

#[derive(Clone, Copy)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Area {
    /// By the logarithm, since what grows is multiplied.
    fn across(&self, growth: &Growth, point: &Point) -> f64 {
        let all = || growth.points.iter().map(|point| point.at.ln());
        let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
        let part = if most > least { (point.at.ln() - least) / (most - least) } else { 0.5 };
        self.x + part * self.width
    }

    fn up(&self, most: f64, value: f64) -> f64 {
        self.y + self.height * (1.0 - value / most)
    }

    /// What stands at the top: a round number that is not less than any.
    fn top(growth: &Growth, value: impl Fn(&Point) -> f64) -> f64 {
        let most = growth.points.iter().map(value).fold(1.0, f64::max);
        let unit = 10f64.powf(most.log10().floor());
        [1.0, 2.0, 5.0, 10.0].map(|times| times * unit).into_iter().find(|top| *top >= most).unwrap_or(most)
    }

    fn frame(&self, page: &mut String, growth: &Growth, unit: &str, value: impl Fn(&Point) -> f64) {
        let top = Self::top(growth, value);
        for part in [0.0, 0.5, 1.0] {
            let y = self.up(1.0, part);
            line(page, (self.x, y), (self.x + self.width, y), r##"stroke="#ddd""##);
            let how = format!(r#"fill="{GREY}" font-size="11" text-anchor="end""#);
            text(page, (self.x - 6.0, y + 4.0), &short(top * part), &how);
        }
        let how = format!(r#"fill="{GREY}" font-size="11""#);
        text(page, (self.x + 4.0, self.y + 12.0), unit, &how);
    }

    fn series(
        &self,
        page: &mut String,
        growth: &Growth,
        (name, colour, beside): (&str, &str, f64),
        scale: impl Fn(&Point) -> f64,
        value: impl Fn(&Point) -> f64,
    ) {
        let top = Self::top(growth, scale);
        let place = |point: &Point| (self.across(growth, point), self.up(top, value(point)));
        let corners: Vec<String> =
            growth.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let corners = corners.join(" ");
        put(
            page,
            format_args!(r#"<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>"#),
        );
        for point in &growth.points {
            let ((x, y), shown) = (place(point), number(value(point)));
            put(
                page,
                format_args!(
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"><title>{name}: {shown}</title></circle>"#
                ),
            );
        }
        if let Some((x, y)) = growth.points.last().map(place) {
            text(page, (x + 8.0, y + beside), name, &format!(r#"fill="{colour}" font-size="12""#));
        }
    }
}
