//! The regular expression of a matcher, which has to match the whole value.

use std::fmt;

use regex::Regex;

use super::examples::examples;
use crate::domain::re2;

/// The maximum size of a compiled regular expression.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// The maximum depth of a translated expression, whose own depth is limited by the translation.
const NEST_LIMIT: u32 = 1000;

/// A regular expression that has to match the whole value.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) source: String,
    form: Form,
}

/// Fast paths for common expressions. Most are a list of words, and most others begin with a literal, so that
/// even a table of a thousand rules rarely runs an automaton.
#[derive(Debug, Clone)]
enum Form {
    /// `warning|critical`.
    Words(Vec<String>),
    /// All other expressions, with the literal prefix of every match.
    Expression { prefix: String, regex: Regex },
}

impl Pattern {
    /// Compiles an expression in Alertmanager's syntax. The error is a message.
    pub(super) fn new(source: &str) -> Result<Self, String> {
        let plain = |word: &str| word.chars().all(is_literal);
        let form = if source.split('|').all(plain) {
            Form::Words(source.split('|').map(str::to_owned).collect())
        } else {
            let translated = re2::translate(source).map_err(|error| error.to_string())?;
            let regex = regex::RegexBuilder::new(&format!(r"\A(?:{translated})\z"))
                .size_limit(MAX_REGEX_BYTES)
                .nest_limit(NEST_LIMIT)
                .build()
                .map_err(|error| match error {
                    regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
                    other => last_line(&other),
                })?;
            Form::Expression { prefix: literal_prefix(source).to_owned(), regex }
        };
        Ok(Self { source: source.to_owned(), form })
    }

    pub(super) fn matches(&self, value: &str) -> bool {
        match &self.form {
            Form::Words(words) => words.iter().any(|word| word == value),
            Form::Expression { prefix, regex } => value.starts_with(prefix) && regex.is_match(value),
        }
    }

    /// Some of the values that match.
    pub(super) fn examples(&self) -> Vec<String> {
        match &self.form {
            Form::Words(words) => words.clone(),
            Form::Expression { regex, .. } => {
                let mut found = examples(regex.as_str(), NEST_LIMIT);
                found.retain(|value| self.matches(value));
                found
            }
        }
    }

    /// The accepted values, if the expression is a list of words.
    pub(super) fn words(&self) -> Option<&[String]> {
        match &self.form {
            Form::Words(words) => Some(words),
            Form::Expression { .. } => None,
        }
    }
}

/// Whether a character matches itself in a regular expression.
fn is_literal(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/' | ':' | ' ')
}

/// The literal prefix of every match of a regular expression, as far as it is easy to see.
fn literal_prefix(source: &str) -> &str {
    if source.contains('|') {
        return "";
    }
    let end = source.find(|c| !is_literal(c)).unwrap_or(source.len());
    // What is repeated may be optional, also after `\Q\E` or `(?i)`, which are nothing themselves.
    let optional = source[end..].starts_with(['?', '*', '+', '{', '\\', '(']);
    &source[..end.saturating_sub(usize::from(optional))]
}

/// The message of an error of `regex`, whose lines before show the position.
fn last_line(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let last = text.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// The fast paths give the same result as the automaton.
        #[test]
        fn every_expression_matches_as_the_automaton_does(
            pieces in proptest::collection::vec(
                "a|b|-|ab|[|]|[?]|[*]|[+]|[.]|[(]a[)]|a\\{0,1\\}|\\[ab\\]|\\\\-|\\\\Q\\\\E|[(][?]i[)]", 0..6),
            values in proptest::collection::vec("[abAB.-]{0,4}", 1..12),
        ) {
            let source = pieces.concat();
            let automaton =
                re2::translate(&source).map(|translated| Regex::new(&format!(r"\A(?:{translated})\z")).unwrap());
            match (Pattern::new(&source), automaton) {
                (Ok(pattern), Ok(regex)) => for value in &values {
                    proptest::prop_assert_eq!(pattern.matches(value), regex.is_match(value), "{} on {}", source, value);
                },
                (pattern, regex) => proptest::prop_assert_eq!(pattern.is_err(), regex.is_err(), "{}", source),
            }
        }
    }
}
