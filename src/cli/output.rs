//! Output, exit codes and arguments that all commands share.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::escape::{escape_json, escape_lines};
use super::yaml;
use crate::telemetry;

/// Exit code for a failure, or findings of a check or test.
pub(super) const EXIT_FAILED: u8 = 1;
/// Exit code for unusable input; clap uses the same for invalid arguments.
pub(super) const EXIT_USAGE: u8 = 2;

#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "config/scalebridge.yaml", env = "SCALEBRIDGE_CONFIG")]
    pub config: PathBuf,
}

/// Output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// Human-readable text
    #[default]
    Text,
    /// Text with more columns, and lines of any length
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// When output has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct OutputArgs {
    /// Output format
    #[arg(short = 'o', long = "output", alias = "format", value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    pub format: Format,
    /// Colours in text
    #[arg(long, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub color: ColorChoice,
    /// Show times in UTC, and read them as UTC
    #[arg(long)]
    pub utc: bool,
}

impl Format {
    /// Whether people read it.
    pub(super) fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Wide)
    }

    /// Prints data as YAML if that is the format, and else as JSON.
    pub(super) fn print_data(self, data: &impl serde::Serialize) {
        match self {
            Self::Yaml => match serde_json::to_value(data) {
                Ok(value) => print(yaml::document(&value)),
                Err(error) => telemetry::print_to_stderr(format_args!("scalebridge: {error}")),
            },
            Self::Text | Self::Wide | Self::Json => print_json(data),
        }
    }
}

/// Prints what is no data, such as that nothing was found, to stderr.
pub(super) fn print_note(note: impl std::fmt::Display) {
    telemetry::print_to_stderr(escape_lines(&note.to_string()));
}

/// The environment variables as text. Invalid UTF-8 is replaced: other programs' variables are ignored anyway, and in
/// a variable of scalebridge the replacement makes the name or value invalid, which is reported.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Prints data to stdout. A closed pipe is not an error.
pub(super) fn print(text: impl AsRef<str>) {
    let mut out = std::io::stdout().lock();
    let text = text.as_ref();
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    drop(
        out.write_all(text.as_bytes())
            .and_then(|()| out.write_all(end.as_bytes()))
            .and_then(|()| out.flush()),
    );
}

pub(super) fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(escape_json(&text)),
        Err(error) => telemetry::print_to_stderr(format_args!("scalebridge: {error}")),
    }
}

/// Prints the error and returns [`EXIT_USAGE`].
pub(super) fn usage_error(why: impl std::fmt::Display) -> ExitCode {
    telemetry::print_to_stderr(format_args!("scalebridge: {}", escape_lines(&why.to_string())));
    ExitCode::from(EXIT_USAGE)
}

/// A runtime for the simulator, which performs no IO.
pub(super) fn current_thread_runtime() -> Option<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().build();
    built.map_err(|error| telemetry::print_to_stderr(format_args!("scalebridge: cannot start: {error}"))).ok()
}

/// `1 error`, `2 errors`.
pub(super) fn pluralize(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Formats rows under their headers, with each column as wide as its longest cell. The last column is not padded.
pub(super) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headers[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    let mut text = [line(headers.to_vec())].into_iter().chain(rows).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::escape::escape_control_chars;

    #[test]
    fn columns_fit_their_longest_cell_and_control_characters_are_escaped() {
        let rows = [
            vec!["a".to_owned(), escape_control_chars("\u{1b}[2J\nx")],
            vec!["longer".to_owned(), "y".to_owned()],
        ];
        assert_eq!(table(&["ID", "REASON"], &rows), "ID      REASON\na       \\u{1b}[2J\\nx\nlonger  y\n");
    }
}
