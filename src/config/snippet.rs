//! Renders a diagnostic with its source line, for the text output of `check`.

use std::fmt::Write as _;

use super::diagnostic::{Diagnostic, Location};

/// Maximum number of characters of a source line in the output.
const MAX_LINE_CHARS: usize = 120;
/// Number of characters before the caret if the line is truncated.
const LEADING_CHARS: usize = 60;

/// Renders the message, the source line from `text` with the token underlined, and the help. `text` is the
/// content of the file of the location.
pub fn render(diagnostic: &Diagnostic, text: Option<&str>) -> String {
    let Diagnostic { code, location, message, help } = diagnostic;
    let mut output = format!("{location}: {}[{}]: {message}", code.severity(), code.as_str());
    if let (Location::File { line, column, .. }, Some(text)) = (location, text)
        && let Some(source_line) = text.lines().nth(*line as usize - 1)
    {
        push_excerpt(&mut output, *line, *column as usize, source_line);
    }
    if let Some(help) = help {
        // Writing to a string cannot fail.
        let _result = write!(output, "\n  help: {help}");
    }
    output
}

fn push_excerpt(output: &mut String, line: u32, column: usize, source_line: &str) {
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let characters: Vec<char> = source_line.trim_end().chars().map(visible).collect();
    let at = (column - 1).min(characters.len());
    let start = if characters.len() <= MAX_LINE_CHARS { 0 } else { at.saturating_sub(LEADING_CHARS) };
    let end = characters.len().min(start + MAX_LINE_CHARS);
    let excerpt: String = characters[start..end].iter().collect();
    let line_number = line.to_string();
    let margin = " ".repeat(line_number.len());
    let indent = " ".repeat(at - start);
    let carets = "^".repeat(token_chars(&characters[at..end]));
    let _result = write!(output, "\n {margin} |\n {line_number} | {excerpt}\n {margin} | {indent}{carets}");
}

/// The length of the token at the start of `rest`: a quoted text, or a plain scalar up to its delimiter.
fn token_chars(rest: &[char]) -> usize {
    let quoted = rest.first().filter(|c| matches!(c, '"' | '\''));
    let end = match quoted {
        Some(quote) => rest[1..].iter().position(|c| c == quote).map_or(rest.len(), |at| at + 2),
        None => rest
            .iter()
            .enumerate()
            .position(|(at, c)| {
                matches!(c, ',' | '}' | ']')
                    || (*c == ':' && rest.get(at + 1).is_none_or(|next| *next == ' '))
                    || (*c == '#' && at > 0)
            })
            .unwrap_or(rest.len()),
    };
    let word = rest[..end].iter().rposition(|c| !c.is_whitespace()).map_or(1, |last| last + 1);
    word.max(1)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::diagnostic::Code;

    fn shown(line: u32, column: u32, text: &str) -> String {
        let location = Location::File { file: Path::new("a.yaml").into(), line, column };
        let diagnostic = Diagnostic {
            code: Code::UnknownKey,
            location,
            message: "it is odd".into(),
            help: Some("fix it".into()),
        };
        render(&diagnostic, Some(text))
    }

    #[test]
    fn the_invalid_token_is_underlined() {
        assert_eq!(
            shown(2, 3, "server:\n  lisen: \"x\"\n"),
            "a.yaml:2:3: error[E004]: it is odd\n   |\n 2 |   lisen: \"x\"\n   |   ^^^^^\n  help: fix it"
        );
        assert!(shown(1, 4, "a: \"b, c\" # d").contains("\n   |    ^^^^^^\n"));
        assert!(shown(1, 4, "a: [b, c]").contains("\n   |    ^^"), "a list is underlined at its start");
    }

    #[test]
    fn any_location_in_any_text_can_be_shown() {
        let long = "é".repeat(5000);
        for text in ["", "\n\n", "\t\u{1b}[31mx", long.as_str()] {
            for (line, column) in [(1, 1), (2, 1), (1, 400), (7, u32::MAX), (1, 4999)] {
                let shown = shown(line, column, text);
                assert!(!shown.contains(['\u{1b}', '\t']) && shown.len() < 1000, "{shown}");
            }
        }
    }
}
