//! Matchers of routes and inhibitions.

use crate::config::decode::{entries, wrong_type};
use crate::config::diagnostic::{Code, Diagnostics};
use crate::config::yaml::{Kind, Node};
use crate::domain::matcher::{Matcher, Operator};

/// Operators; a longer one comes before its beginning.
const OPERATORS: [(&str, Operator); 4] = [
    ("=~", Operator::Matches),
    ("=", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("!~", Operator::NotMatches),
];

/// The keys of a list of matchers, and of the deprecated maps of equal and of matching values.
pub(super) struct Keys {
    pub matchers: &'static str,
    pub equal: &'static str,
    pub matching: &'static str,
}

/// Reads all matchers of a route or of one side of an inhibition. Invalid ones are reported and omitted.
pub(super) fn read(node: &Node, keys: &Keys, diagnostics: &mut Diagnostics) -> Vec<Matcher> {
    let mut found = Vec::new();
    match node.get(keys.matchers).map(|list| (list, &list.kind)) {
        None | Some((_, Kind::Null)) => {}
        Some((_, Kind::List(items))) => {
            for item in items {
                match &item.kind {
                    Kind::Text(text) => match parse(text) {
                        Ok(matchers) => {
                            matchers.iter().for_each(|one| check_quotes(one, item, diagnostics));
                            found.extend(matchers);
                        }
                        Err(message) => diagnostics.add(Code::Matcher, &item.location, message),
                    },
                    _ => {
                        let _nothing: Option<()> = wrong_type(item, "a matcher", diagnostics);
                    }
                }
            }
        }
        Some((list, _)) => {
            let _nothing: Option<()> = wrong_type(list, "a list of matchers", diagnostics);
        }
    }
    for (key, operator) in [(keys.equal, Operator::Equal), (keys.matching, Operator::Matches)] {
        let Some(map) = node.get(key) else { continue };
        for (label, value) in entries(map, diagnostics).unwrap_or_default() {
            let text = match &value.kind {
                Kind::Text(text) => text,
                Kind::Null => "",
                _ => {
                    let _nothing: Option<()> = wrong_type(value, "text", diagnostics);
                    continue;
                }
            };
            match Matcher::new(&label.name, operator, text) {
                Ok(matcher) => found.push(matcher),
                Err(error) => {
                    let message = format!("`{text}` is not a regular expression: {error}");
                    diagnostics.add(Code::Matcher, &value.location, message);
                }
            }
        }
    }
    found
}

/// Reports single quotes around a value, which are a part of it.
fn check_quotes(matcher: &Matcher, item: &Node, diagnostics: &mut Diagnostics) {
    let is_quoted = |value: &&str| value.len() > 1 && value.starts_with('\'') && value.ends_with('\'');
    let values = matcher.one_of().unwrap_or_default();
    if let Some(value) = values.into_iter().find(is_quoted) {
        let message = format!("the single quotes in `{matcher}` are part of the value, which no alert has");
        let help = format!("use double quotes: `{}=\"{}\"`", matcher.label(), value.trim_matches('\''));
        diagnostics.add_with_help(Code::SingleQuotes, &item.location, message, help);
    }
}

/// Parses a text with matchers. Where Alertmanager's two syntaxes differ, it uses the older one.
fn parse(text: &str) -> Result<Vec<Matcher>, String> {
    parse_classic(text).map_or_else(|| Matcher::parse_list(text).map_err(|error| error.to_string()), Ok)
}

/// Parses the syntax from before UTF-8 names: values need no quotes, and single quotes are part of a value.
fn parse_classic(text: &str) -> Option<Vec<Matcher>> {
    let text = text.strip_prefix('{').unwrap_or(text);
    let text = text.strip_suffix('}').unwrap_or(text);
    let mut tokens = vec![String::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in text.chars() {
        match c {
            ',' if !is_quoted => {
                // As in Alertmanager, a comma does not end an escape.
                tokens.push(String::new());
                continue;
            }
            '"' if !is_escaped => is_quoted = !is_quoted,
            _ => {}
        }
        is_escaped = c == '\\' && !is_escaped;
        if let Some(token) = tokens.last_mut() {
            token.push(c);
        }
    }
    if tokens.last().is_some_and(|token| token.trim().is_empty()) {
        tokens.pop();
    }
    tokens.iter().map(|token| parse_classic_matcher(token)).collect()
}

fn parse_classic_matcher(text: &str) -> Option<Matcher> {
    let is_space = |c: char| matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ');
    let text = text.trim_matches(is_space);
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start_matches(is_space);
    let (token, operator) = OPERATORS.into_iter().find(|(token, _)| rest.starts_with(token))?;
    let value = unescape(rest[token.len()..].trim_start_matches(is_space))?;
    Matcher::new(name, operator, &value).ok()
}

/// The value without its quotes and escapes. An unknown escape is text.
fn unescape(raw: &str) -> Option<String> {
    let (raw, mut opened) = raw.strip_prefix('"').map_or((raw, false), |rest| (rest, true));
    let mut value = String::new();
    let mut chars = raw.char_indices();
    while let Some((at, c)) = chars.next() {
        let is_last = at + c.len_utf8() == raw.len();
        match c {
            '\\' if !is_last => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => {}
            },
            '"' if opened && is_last => opened = false,
            '"' => return None,
            plain => value.push(plain),
        }
    }
    (!opened).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        match parse(text) {
            Ok(matchers) => matchers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error,
        }
    }

    #[test]
    fn matchers_have_the_meaning_that_alertmanager_gives_them() {
        let cases = [
            ("a=b", r#"a="b""#),
            ("a = 'b'", r#"a="'b'""#),
            ("{a=\"b\", c!=d,}", r#"a="b" c!="d""#),
            ("a=~b|c d", r#"a=~"b|c d""#),
            ("a=", r#"a="""#),
            ("", ""),
            ("a!~ \"b, \\\"c\\\"\"", r#"a!~"b, \"c\"""#),
            (r"a=\d", r#"a="\\d""#),
            ("größe=1", r#"größe="1""#),
            ("\"a b\"=c", r#""a b"="c""#),
        ];
        for (text, expected) in cases {
            assert_eq!(parsed(text), expected, "{text}");
        }
        for invalid in ["a", "1a=b\"", "a=\"b", "a=~(", "\"a=b"] {
            assert!(parse(invalid).is_err(), "{invalid}: {}", parsed(invalid));
        }
        assert_eq!(parsed("a==b"), r#"a="=b""#, "the classic syntax takes it as a value");
    }
}
