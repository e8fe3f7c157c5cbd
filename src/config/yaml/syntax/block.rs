//! Causes of syntax errors in block style: keys without a colon, and lines that begin in a column in which no map or
//! list is open.

use super::{Position, SyntaxFix, is_quoted};

/// A line with content.
struct Line<'t> {
    number: usize,
    /// The columns of the dashes and of the text after them.
    columns: Vec<usize>,
    /// The text after the dashes, without a comment.
    text: &'t str,
}

impl<'t> Line<'t> {
    /// `None` for an empty line or a comment.
    fn new(lines: &[&'t str], number: usize) -> Option<Self> {
        let line = lines.get(number.checked_sub(1)?)?;
        let comment = line.match_indices('#').find(|(at, _)| {
            (*at == 0 || line[..*at].ends_with(char::is_whitespace)) && !is_quoted(line, *at)
        });
        let line = comment.map_or(*line, |(at, _)| &line[..at]).trim_end();
        let mut text = line.trim_start();
        let column = |text: &str| line[..line.len() - text.len()].chars().count() + 1;
        let mut columns = vec![column(text)];
        while let Some(rest) = text.strip_prefix("- ") {
            text = rest.trim_start();
            columns.push(column(text));
        }
        (!text.is_empty()).then_some(Self { number, columns, text })
    }

    fn at(&self) -> Position {
        (self.number, self.columns.last().copied().unwrap_or(1))
    }

    /// The key, or the beginning of a text.
    fn label(&self) -> String {
        let key = self.text.split(':').next().unwrap_or(self.text);
        key.chars().take(40).collect()
    }
}

/// The cause of the error that the parser has found at `at`.
pub(super) fn cause(lines: &[&str], at: Position, message: &str) -> Option<SyntaxFix> {
    let here = Line::new(lines, at.0)?;
    if message.contains("document start") {
        let first = (1..=lines.len()).find_map(|number| Line::new(lines, number))?;
        return is_indented(&first).or_else(|| columns(lines, &here));
    }
    let previous = (1..at.0).rev().find_map(|number| Line::new(lines, number));
    if message.contains("mapping values") {
        let previous = previous?;
        // An item below an item continues its text.
        let are_items = here.columns.len() > 1 && previous.columns.len() > 1;
        let missing_colon = missing_colon(&previous).filter(|_| !are_items);
        return missing_colon.or_else(|| columns(lines, &here));
    }
    if message.contains("misplaced bracket") {
        return missing_colon(&here);
    }
    if message.contains("comment intercepting") {
        let next = (at.0 + 1..=lines.len()).find_map(|number| Line::new(lines, number));
        return missing_colon(&here).or_else(|| columns(lines, &next?));
    }
    if message.contains("expected key") || message.contains("'-' indicator") {
        return columns(lines, &here);
    }
    None
}

/// `key:value`, `key value` or `key`, where a key and a value were meant.
fn missing_colon(line: &Line<'_>) -> Option<SyntaxFix> {
    let text = line.text;
    let is_key = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    // Up to a value in brackets or quotes.
    let head = text.split(['{', '[', '"', '\'']).next()?;
    if head.contains(": ") || text.ends_with(':') {
        return None;
    }
    let (message, (key, value)) = match text.split_once(':').filter(|(key, _)| key.len() < head.len()) {
        Some((key, value)) if is_key(key) => ("no space after the colon", (key, value)),
        _ => ("a key without a colon", text.split_once(' ').unwrap_or((text, ""))),
    };
    let fixed = format!("{key}: {}", value.trim_start());
    is_key(key).then(|| SyntaxFix {
        at: line.at(),
        message: Some(message.to_owned()),
        help: format!("use `{}`", fixed.trim_end()),
    })
}

/// A line that begins in a column in which no line above it begins, back to the map or list that it may be in.
fn columns(lines: &[&str], here: &Line<'_>) -> Option<SyntaxFix> {
    let own = here.columns[0];
    let mut above = Vec::new();
    for line in (1..here.number).rev().filter_map(|number| Line::new(lines, number)) {
        above.extend(line.columns.iter().copied());
        if line.columns[0] < own {
            break;
        }
    }
    above.sort_unstable();
    above.dedup();
    if above.is_empty() || above.contains(&own) {
        return None;
    }
    let listed: Vec<String> = above.iter().map(ToString::to_string).collect();
    Some(SyntaxFix {
        at: (here.number, own),
        message: Some(format!(
            "`{}` begins in column {own}, and what is above it in {} {}",
            here.label(),
            if listed.len() == 1 { "column" } else { "columns" },
            listed.join(", ")
        )),
        help: "let the keys of one map, and the dashes of one list, begin in the same column".to_owned(),
    })
}

/// The first line of a file, if it is indented.
fn is_indented(first: &Line<'_>) -> Option<SyntaxFix> {
    (first.columns[0] > 1).then(|| SyntaxFix {
        at: (first.number, 1),
        message: Some(format!("`{}` at the top of the file is indented", first.label())),
        help: "remove the spaces before it".to_owned(),
    })
}
