//! Finds the cause of a syntax error in YAML, which is often in an earlier place than the one at which the parser
//! fails, and its fix.

mod block;

/// A position in a text: line and column, counted from 1, in characters.
pub(super) type Position = (usize, usize);

/// The place of a syntax error and its fix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxFix {
    pub at: Position,
    /// `None` if the parser's message says it.
    pub message: Option<String>,
    pub help: String,
}

/// The cause of the error that the parser has found at `at`.
pub(super) fn cause(text: &str, at: Position, message: &str) -> Option<SyntaxFix> {
    let lines: Vec<&str> = text.lines().collect();
    let line = |number: usize| lines.get(number.checked_sub(1)?).copied();
    let scanned = scan(text, at);
    template(line(at.0)?, at.0)
        .or_else(|| tab(&[line(at.0), line(at.0 + 1)], at.0))
        .or_else(|| quote(&scanned, line(at.0)?, at, message))
        .or_else(|| bracket(&scanned, at))
        .or_else(|| several_keys(line(at.0)?, at, message).filter(|_| scanned.open_brackets.is_empty()))
        .or_else(|| block::cause(&lines, at, message))
        .or_else(|| by_message(line(at.0)?, at, !scanned.open_brackets.is_empty(), message))
}

/// `name: {{ labels.x }}`: the braces are a map of YAML.
fn template(line: &str, number: usize) -> Option<SyntaxFix> {
    let (start, _) = line.match_indices("{{").chain(line.match_indices("{%")).find(|(at, _)| {
        let before = line[..*at].trim_end();
        let is_value = before.ends_with([':', '-', '[', ',']) || before.is_empty();
        is_value && !is_quoted(line, *at)
    })?;
    let rest = &line[start..];
    let mut end = template_len(rest)?;
    // Further text and templates up to the end of the value.
    let is_flow = line[..start].contains(['{', '[']);
    if is_flow {
        while let Some(stop) = rest[end..].find([',', ']', '}', '{']) {
            end += stop;
            let Some(len) = template_len(&rest[end..]) else { break };
            end += len;
        }
    } else {
        end = rest.find(" #").unwrap_or(rest.len());
    }
    let value = rest[..end].trim_end();
    let quoted =
        if value.contains('"') { format!("'{}'", value.replace('\'', "''")) } else { format!("\"{value}\"") };
    Some(SyntaxFix {
        at: (number, line[..start].chars().count() + 1),
        message: Some("a template without quotes: `{` begins a map in YAML".to_owned()),
        help: format!("quote it: `{quoted}`"),
    })
}

/// The length of the template at the start of `text`, up to its closing braces.
fn template_len(text: &str) -> Option<usize> {
    let close = match text.get(..2)? {
        "{{" => "}}",
        "{%" => "%}",
        _ => return None,
    };
    Some(text.find(close)? + 2)
}

/// Whether the byte at `at` is within a quoted scalar of its line.
fn is_quoted(line: &str, at: usize) -> bool {
    let mut open = None;
    for c in line[..at].chars() {
        match open {
            Some(quote) if quote == c => open = None,
            None if matches!(c, '"' | '\'') => open = Some(c),
            _ => {}
        }
    }
    open.is_some()
}

/// A tab before the first character of a line.
fn tab(lines: &[Option<&str>; 2], number: usize) -> Option<SyntaxFix> {
    lines.iter().zip(number..).find_map(|(line, number)| {
        let line = (*line)?;
        let indentation = &line[..line.len() - line.trim_start().len()];
        let column = indentation.find('\t')? + 1;
        Some(SyntaxFix {
            at: (number, column),
            message: Some("a tab in the indentation".to_owned()),
            help: "indent with spaces: YAML allows no tabs there".to_owned(),
        })
    })
}

/// A quoted scalar that is not closed where it should be.
fn quote(scanned: &Scanned, line: &str, at: Position, message: &str) -> Option<SyntaxFix> {
    let is_unclosed = message.contains("unclosed quote");
    let at_error = line.chars().nth(at.1 - 1).filter(|c| matches!(c, '"' | '\''));
    let closed = scanned.last_quote.filter(|_| scanned.closed_at.is_some_and(|closed| closed.0 == at.0));
    let (start, quote) = match (scanned.open_quote, at_error, closed) {
        (Some(open), ..) if is_unclosed || open.0.0 < at.0 => open,
        (_, Some(quote), _) if is_unclosed => (at, quote),
        (.., Some(last)) if message.contains("trailing content") || last.0.0 < at.0 => last,
        _ => return None,
    };
    if start.0 != at.0 || is_unclosed {
        return Some(SyntaxFix {
            at: start,
            message: Some(format!("a text in quotes that is not closed with `{quote}` on its line")),
            help: format!("add `{quote}` at the end of the text"),
        });
    }
    // `"alertname = "X""`: the text up to the end of the item, in the other quotes.
    let from: String = line.chars().skip(start.1 - 1).collect();
    let end = from.rfind(quote)?;
    let inner = from.get(1..end)?;
    let other = if quote == '"' { '\'' } else { '"' };
    if inner.is_empty() || inner.contains(other) || inner.contains(',') {
        let help = format!(
            "enclose each text in quotes of its own, and separate texts by `,`; use `{other}` around a text that contains `{quote}`"
        );
        return Some(SyntaxFix { at: start, message: None, help });
    }
    let inner = inner.trim_end_matches(quote);
    let inner =
        if inner.matches(quote).count() % 2 == 1 { format!("{inner}{quote}") } else { inner.to_owned() };
    Some(SyntaxFix {
        at: start,
        message: Some(format!("a text in `{quote}` that contains `{quote}`")),
        help: format!("use the other quotes around it: `{other}{inner}{other}`"),
    })
}

/// A bracket of an earlier line that is still open.
fn bracket(scanned: &Scanned, at: Position) -> Option<SyntaxFix> {
    let (start, bracket) = *scanned.open_brackets.last()?;
    if start.0 == at.0 {
        return None;
    }
    let close = if bracket == '[' { ']' } else { '}' };
    Some(SyntaxFix {
        at: start,
        message: Some(format!("a `{bracket}` that is not closed")),
        help: format!("add `{close}` at the end of the {}", if bracket == '[' { "list" } else { "map" }),
    })
}

/// `on_firing: scale_out: { by: 1 }`
fn several_keys(line: &str, at: Position, message: &str) -> Option<SyntaxFix> {
    let (key, value) = line.split_once(": ")?;
    if key.chars().count() + 1 >= at.1 {
        return None;
    }
    let value = value.split(" #").next()?.trim();
    if !message.contains("mapping values") || !(value.contains(": ") || value.ends_with(':')) {
        return None;
    }
    let help = match value.ends_with('}') {
        true => format!("put it into braces, or on lines of its own: `{{ {value} }}`"),
        false => format!("quote the text: `'{}'`", value.replace('\'', "''")),
    };
    Some(SyntaxFix { at, message: None, help })
}

fn by_message(line: &str, at: Position, is_flow: bool, message: &str) -> Option<SyntaxFix> {
    let cause = |help: String| Some(SyntaxFix { at, message: None, help });
    let value = line.split_once(": ").map_or(line, |(_, value)| value).trim().trim_start_matches("- ");
    let quoted = |value: &str| format!("quote the text: `'{}'`", value.replace('\'', "''"));
    if message.contains("mapping values") || message.contains("illegal placement of ':'") {
        return cause("check the indentation of this line and the one above".to_owned());
    }
    if message.contains("misplaced bracket") {
        return cause("remove it, or add the bracket that opens it".to_owned());
    }
    let rest: String = line.chars().skip(at.1 - 1).collect();
    let value = rest.split([',', '}', ']']).next().filter(|_| is_flow).map_or(value, str::trim);
    let first = value.chars().next()?;
    if matches!(first, '*' | '&' | '!' | '%' | '@' | '`' | '|' | '>') {
        return cause(quoted(value));
    }
    if message.contains("multiple found")
        || message.contains("multiple documents")
        || message.contains("more than one document")
    {
        return cause("remove `---` and what follows: a file has one document".to_owned());
    }
    if message.contains("block") || message.contains("simple key") || message.contains("indent") {
        return cause("check the indentation of this line and the one above".to_owned());
    }
    None
}

/// What is open at a position.
#[derive(Debug, Default)]
struct Scanned {
    open_brackets: Vec<(Position, char)>,
    open_quote: Option<(Position, char)>,
    /// The last quoted scalar that was closed.
    last_quote: Option<(Position, char)>,
    closed_at: Option<Position>,
}

/// Scans the text up to `until`: brackets and quotes, except in comments and within plain scalars.
fn scan(text: &str, until: Position) -> Scanned {
    let mut scanned = Scanned::default();
    for (line, number) in text.lines().zip(1..) {
        let mut previous = ' ';
        let mut is_start = true;
        let mut escaped = false;
        for (c, column) in line.chars().zip(1..) {
            if (number, column) >= until {
                return scanned;
            }
            if let Some((at, quote)) = scanned.open_quote {
                match c {
                    _ if escaped => escaped = false,
                    '\\' if quote == '"' => escaped = true,
                    c if c == quote => {
                        scanned.open_quote = None;
                        scanned.last_quote = Some((at, quote));
                        scanned.closed_at = Some((number, column));
                    }
                    _ => {}
                }
                previous = c;
                is_start = false;
                continue;
            }
            let is_flow = !scanned.open_brackets.is_empty();
            match c {
                '#' if previous.is_whitespace() => break,
                // `''` within single quotes.
                '\'' if previous == '\'' && scanned.closed_at == Some((number, column - 1)) => {
                    scanned.open_quote = scanned.last_quote.take();
                }
                '"' | '\'' if is_start => scanned.open_quote = Some(((number, column), c)),
                '[' | '{' if is_start => scanned.open_brackets.push(((number, column), c)),
                ']' | '}' if is_flow => {
                    scanned.open_brackets.pop();
                }
                _ => {}
            }
            is_start = match c {
                c if c.is_whitespace() => is_start || matches!(previous, ':' | '-' | ',' | '?'),
                '[' | '{' | ',' => is_start || is_flow,
                _ => false,
            };
            previous = c;
        }
    }
    scanned
}
