//! How text is shown: times, colours, and lines that fit the terminal.

use std::io::IsTerminal as _;

use jiff::tz::TimeZone;

use super::escape::escape_control_chars;
use super::output::{ColorChoice, Format, OutputArgs, print};
use crate::app::wall_clock;
use crate::domain::time::Time;

/// Between the parts of a line.
const GAP: &str = "  ";

/// The style of one command's output.
#[derive(Debug, Clone)]
pub(super) struct Style {
    /// The number of columns; `None` if lines may have any length.
    width: Option<usize>,
    has_colors: bool,
    /// The zone of times that people read; `None` for RFC 3339.
    zone: Option<TimeZone>,
    now: Time,
    is_wide: bool,
}

impl OutputArgs {
    /// Prints data as text, or as JSON or YAML. The text is only made if it is shown.
    pub(super) fn print<T: serde::Serialize>(self, data: &T, text: impl FnOnce(&Style) -> String) {
        match self.format {
            Format::Text | Format::Wide => print(text(&Style::new(self))),
            format => format.print_data(data),
        }
    }
}

/// What a text means, by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// It acted, or works.
    Good,
    /// It waits.
    Blocked,
    /// It failed, or needs someone.
    Bad,
    /// The headline of a block.
    Strong,
    /// Everything else.
    Plain,
}

impl Style {
    /// The style of stdout. On a terminal, times are local and relative and lines are wrapped; `COLUMNS` sets the width.
    pub(super) fn new(output: OutputArgs) -> Self {
        let stdout = std::io::stdout();
        let is_terminal = stdout.is_terminal();
        let columns = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
        let of_terminal = || {
            let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
            Some(usize::from(size.ws_col)).filter(|columns| is_terminal && *columns > 0)
        };
        let has_colors = match output.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => {
                is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        };
        let zone = if output.utc { TimeZone::UTC } else { TimeZone::system() };
        Self {
            width: columns.or_else(of_terminal).filter(|columns| *columns >= 20),
            has_colors,
            zone: is_terminal.then_some(zone),
            now: wall_clock(),
            is_wide: output.format == Format::Wide,
        }
    }

    pub(super) fn is_wide(&self) -> bool {
        self.is_wide
    }

    /// A time of the API: as it is, or for people local and relative: `22:11:52 (3m ago)`.
    pub(super) fn time(&self, rfc3339: &str) -> String {
        match (&self.zone, Time::parse(rfc3339)) {
            (Some(zone), Ok(time)) => {
                format!("{} ({})", clock(time, self.now, zone), relative(time, self.now))
            }
            _ => escape_control_chars(rfc3339),
        }
    }

    /// A time in a column, for people without what is relative.
    pub(super) fn clock(&self, rfc3339: &str) -> String {
        match (&self.zone, Time::parse(rfc3339)) {
            (Some(zone), Ok(time)) => clock(time, self.now, zone),
            _ => escape_control_chars(rfc3339),
        }
    }

    /// Whether a time of the API has passed.
    pub(super) fn is_past(&self, rfc3339: &str) -> bool {
        Time::parse(rfc3339).is_ok_and(|time| time <= self.now)
    }

    /// [`Self::time`], or `-`.
    pub(super) fn optional_time(&self, rfc3339: Option<&str>) -> String {
        rfc3339.map_or_else(|| "-".to_owned(), |time| self.time(time))
    }

    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => "32",
            Tone::Blocked => "33",
            Tone::Bad => "31",
            Tone::Strong => "1",
            Tone::Plain => return text.to_owned(),
        };
        if self.has_colors { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// Parts on one line, or on several that are indented: a part is only broken between its words, and only if it alone
    /// is longer than a line.
    pub(super) fn entry(&self, indent: usize, parts: &[String]) -> String {
        self.fill(0, indent, parts)
    }

    /// [`Self::entry`], whose first line begins in column `start`.
    fn fill(&self, start: usize, indent: usize, parts: &[String]) -> String {
        let width = self.width.filter(|_| !self.is_wide).unwrap_or(usize::MAX);
        let mut filled = Filled { lines: vec![String::new()], used: start, is_line_empty: true, indent };
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let gap = if filled.is_line_empty { "" } else { GAP };
            if filled.used + gap.len() + visible_length(part) <= width {
                filled.add(gap, part);
                continue;
            }
            if !filled.is_line_empty {
                filled.end_line();
            }
            for word in part.split(' ') {
                let gap = if filled.is_line_empty { "" } else { " " };
                if !filled.is_line_empty && filled.used + gap.len() + visible_length(word) > width {
                    filled.end_line();
                    filled.add("", word);
                } else {
                    filled.add(gap, word);
                }
            }
        }
        filled.lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
    }

    /// A table; or, if it does not fit, each row as an entry with the headers before the values.
    pub(super) fn table(&self, headers: &[&str], rows: &[Vec<String>]) -> String {
        let table = super::output::table(headers, rows);
        let is_fitting = |width| table.lines().all(|line| visible_length(line) <= width);
        if self.is_wide || self.width.is_none_or(is_fitting) {
            return table;
        }
        let named = |(at, cell): (usize, &String)| match at {
            0 => cell.clone(),
            _ if cell == "-" => String::new(),
            _ => format!("{}: {cell}", headers[at].to_lowercase()),
        };
        let entries = rows.iter().map(|row| {
            let parts: Vec<String> = row.iter().enumerate().map(named).collect();
            format!("{}\n", self.entry(2, &parts))
        });
        entries.collect()
    }

    /// `  name  value`, one line for each field that has a value.
    pub(super) fn fields(&self, fields: &[(&str, String)]) -> String {
        let shown = || fields.iter().filter(|(_, value)| !value.is_empty());
        let width = shown().map(|(name, _)| name.len()).max().unwrap_or_default();
        let lines = shown().map(|(name, value)| {
            let value = self.fill(width + 4, width + 4, std::slice::from_ref(value));
            format!("  {name:<width$}  {value}\n")
        });
        lines.collect()
    }
}

/// Lines that are being filled.
struct Filled {
    lines: Vec<String>,
    /// The columns of the last line that are used.
    used: usize,
    /// Whether the last line has nothing but its indent.
    is_line_empty: bool,
    indent: usize,
}

impl Filled {
    fn add(&mut self, gap: &str, text: &str) {
        if let Some(line) = self.lines.last_mut() {
            line.push_str(gap);
            line.push_str(text);
        }
        self.used += gap.len() + visible_length(text);
        self.is_line_empty = false;
    }

    fn end_line(&mut self) {
        self.lines.push(" ".repeat(self.indent));
        (self.used, self.is_line_empty) = (self.indent, true);
    }
}

/// The number of columns without escape sequences.
fn visible_length(text: &str) -> usize {
    let mut is_escape = false;
    let is_visible = |c: &char| {
        let was_escape = is_escape;
        is_escape = if is_escape { *c != 'm' } else { *c == '\u{1b}' };
        !was_escape && !is_escape
    };
    text.chars().filter(is_visible).count()
}

/// `22:11:52`, with the day if it is another one than today's, and with `Z` in UTC.
fn clock(time: Time, now: Time, zone: &TimeZone) -> String {
    let zoned = |time: Time| {
        let stamp = jiff::Timestamp::from_nanosecond(i128::from(time.as_nanos())).unwrap_or_default();
        stamp.to_zoned(zone.clone())
    };
    let (shown, today) = (zoned(time), zoned(now));
    let format = if shown.date() == today.date() { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
    let utc = if *zone == TimeZone::UTC { "Z" } else { "" };
    format!("{}{utc}", shown.strftime(format))
}

/// `3m ago`, `in 6h 59m`, `now`.
fn relative(time: Time, now: Time) -> String {
    let (past, to_come) = (now.since(time).as_secs(), time.since(now).as_secs());
    match (past, to_come) {
        (0, 0) => "now".to_owned(),
        (past, 0) => format!("{} ago", span(past)),
        (_, to_come) => format!("in {}", span(to_come)),
    }
}

/// A length of time in its two largest units: `6h 59m`.
pub(super) fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let two = |first: u64, unit: &str, second: u64, less: &str| match second {
        0 => format!("{first}{unit}"),
        _ => format!("{first}{unit} {second}{less}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => two(minutes, "m", if minutes < 10 { seconds % 60 } else { 0 }, "s"),
        (0, hours, minutes) => two(hours, "h", minutes, "m"),
        (days, hours, _) => two(days, "d", hours, "h"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a person sees on a terminal of so many columns, two hours east of UTC, at 02:30:00.
    pub(crate) fn terminal(width: usize) -> Style {
        Style {
            width: Some(width),
            has_colors: false,
            zone: Some(TimeZone::fixed(jiff::tz::offset(2))),
            now: Time::parse("2026-11-29T00:30:00Z").unwrap(),
            is_wide: false,
        }
    }

    /// What a program reads.
    pub(crate) fn pipe() -> Style {
        Style { width: None, zone: None, ..terminal(80) }
    }

    #[test]
    fn times_are_local_and_relative_on_a_terminal_and_as_the_api_has_them_elsewhere() {
        let shown = |text: &str| terminal(80).time(text);
        assert_eq!(shown("2026-11-29T00:10:05.123Z"), "02:10:05 (19m ago)");
        assert_eq!(shown("2026-11-28T21:59:00Z"), "2026-11-28 23:59:00 (2h 31m ago)");
        assert_eq!(shown("2026-11-29T04:00:00Z"), "06:00:00 (in 3h 30m)");
        assert_eq!(shown("2026-11-29T00:30:00Z"), "02:30:00 (now)");
        assert_eq!(shown("2026-12-02T01:30:00Z"), "2026-12-02 03:30:00 (in 3d 1h)");
        assert_eq!(shown("soon"), "soon");
        assert_eq!(pipe().time("2026-11-29T00:10:05.123Z"), "2026-11-29T00:10:05.123Z");
        let utc = Style { zone: Some(TimeZone::UTC), ..terminal(80) };
        assert_eq!(utc.clock("2026-11-29T00:10:05.123Z"), "00:10:05Z");
    }

    #[test]
    fn lines_are_broken_between_parts_and_words_only() {
        let parts: Vec<String> = [
            "02:10:05",
            "held",
            "eks/nodegroup/-/eu-west-1/prod-eu/-/workers",
            "held by rule deploy-freeze for a long time",
        ]
        .map(str::to_owned)
        .into();
        let shown = terminal(40).entry(10, &parts);
        assert_eq!(
            shown,
            "02:10:05  held\n          eks/nodegroup/-/eu-west-1/prod-eu/-/workers\n          \
             held by rule deploy-freeze for\n          a long time"
        );
        assert_eq!(pipe().entry(10, &parts).lines().count(), 1);
    }

    #[test]
    fn a_table_that_does_not_fit_is_shown_as_entries() {
        let rows = [vec!["workers".to_owned(), "-".to_owned(), "a cause that is long".to_owned()]];
        let shown = |style: Style| style.table(&["NAME", "SINCE", "CAUSE"], &rows);
        assert_eq!(shown(terminal(80)), "NAME     SINCE  CAUSE\nworkers  -      a cause that is long\n");
        assert_eq!(shown(terminal(20)), "workers\n  cause: a cause\n  that is long\n");
    }

    #[test]
    fn colours_have_no_width() {
        let style = Style { has_colors: true, ..terminal(80) };
        let painted = style.paint(Tone::Good, "emitted");
        assert_eq!((painted.as_str(), visible_length(&painted)), ("\u{1b}[32memitted\u{1b}[0m", 7));
        assert_eq!(terminal(80).paint(Tone::Bad, "x"), "x");
    }
}
