//! What all verbs share: where text goes, and how they end.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::telemetry;

/// A check or a test found something.
pub(super) const EXIT_FAILED: u8 = 1;
/// What could not be used; the same for bad flags.
pub(super) const EXIT_USAGE: u8 = 2;

/// Which configuration.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "config/scalebridge.yaml")]
    pub config: PathBuf,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// `--format`.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct OutputArgs {
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Format::Text, hide_possible_values = false)]
    pub format: Format,
}

/// The environment as text. What is none of ours may hold any bytes; of ours they become a value, or a
/// name, that the configuration refuses.
pub(super) fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Prints data. Who reads it may have heard enough, which is no failure.
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

/// Prints a JSON document for programs.
pub(super) fn print_json(value: &impl serde::Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(text),
        Err(error) => telemetry::print_to_stderr(format_args!("scalebridge: {error}")),
    }
}

/// Ends with what could not be used, and says why.
pub(super) fn usage_error(why: impl std::fmt::Display) -> ExitCode {
    telemetry::print_to_stderr(format_args!("scalebridge: {why}"));
    ExitCode::from(EXIT_USAGE)
}

/// A runtime for what a rehearsal does, which never waits for anything outside.
pub(super) fn current_thread_runtime() -> Option<tokio::runtime::Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().build();
    built.map_err(|error| telemetry::print_to_stderr(format_args!("scalebridge: cannot start: {error}"))).ok()
}

/// Text from elsewhere as a terminal may show it: what would move its cursor or colour it is written out.
pub(super) fn escape_control_chars(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// `1 error`, `2 errors`.
pub(super) fn pluralize(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Rows under their heads, in columns as wide as they have to be. The last column is not filled up.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    let mut text = [line(heads.to_vec())].into_iter().chain(rows).collect::<Vec<_>>().join("\n");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be_and_no_text_moves_the_cursor() {
        let rows = [
            vec!["a".to_owned(), escape_control_chars("\u{1b}[2J\nx")],
            vec!["longer".to_owned(), "y".to_owned()],
        ];
        assert_eq!(table(&["ID", "REASON"], &rows), "ID      REASON\na       \\u{1b}[2J\\nx\nlonger  y\n");
    }
}
