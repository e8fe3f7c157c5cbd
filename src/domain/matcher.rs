//! Matchers in Alertmanager's syntax: `severity =~ "warning|critical"`, including UTF-8 names.
//!
//! The grammar is that of Alertmanager's UTF-8 matchers: names and values are bare, or in double quotes if
//! they contain white space or one of `{ } ! = ~ , \ " ' ` and the backtick. Matchers of a list are separated
//! by commas, and the list may be enclosed in braces. As in Prometheus, an absent label is the empty string,
//! and a regular expression (see [`re2`](super::re2)) has to match the whole value.

mod examples;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;

use pattern::Pattern;

use super::labels::Labels;

/// How a label's value is compared.
#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Pattern),
    NotMatches(Pattern),
}

/// The operator of a matcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `=`.
    Equal,
    /// `!=`.
    NotEqual,
    /// `=~`.
    Matches,
    /// `!~`.
    NotMatches,
}

/// One condition on one label.
#[derive(Debug, Clone)]
pub struct Matcher {
    name: String,
    test: Test,
}

/// A syntax error in a matcher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at character {column} of `{text}`")]
pub struct Error {
    /// The complete text of the matchers.
    pub text: String,
    /// The position of the error in characters, from 1.
    pub column: usize,
    /// What is wrong and how to fix it.
    pub message: String,
}

impl Matcher {
    /// Parses a text with one or more matchers: `alertname = Disk, severity != info`.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Error> {
        parse::list(text)
    }

    /// A matcher from its parts. The error says why a regular expression is invalid.
    pub fn new(name: impl Into<String>, operator: Operator, value: &str) -> Result<Self, String> {
        let test = match operator {
            Operator::Equal => Test::Equal(value.to_owned()),
            Operator::NotEqual => Test::NotEqual(value.to_owned()),
            Operator::Matches => Test::Matches(Pattern::new(value)?),
            Operator::NotMatches => Test::NotMatches(Pattern::new(value)?),
        };
        Ok(Self { name: name.into(), test })
    }

    /// The name of the label.
    pub fn label(&self) -> &str {
        &self.name
    }

    /// The value that the matcher compares with, if it is `=` or `!=`.
    pub fn compared_value(&self) -> Option<&str> {
        match &self.test {
            Test::Equal(value) | Test::NotEqual(value) => Some(value),
            Test::Matches(_) | Test::NotMatches(_) => None,
        }
    }

    /// The accepted values, if the matcher accepts only a fixed list of values.
    pub fn one_of(&self) -> Option<Vec<&str>> {
        match &self.test {
            Test::Equal(value) => Some(vec![value]),
            Test::Matches(pattern) => Some(pattern.words()?.iter().map(String::as_str).collect()),
            _ => None,
        }
    }

    /// Some of the values that the matcher is about: those that it accepts, or rejects if it is negated.
    pub fn examples(&self) -> Vec<String> {
        match &self.test {
            Test::Equal(value) | Test::NotEqual(value) => vec![value.clone()],
            Test::Matches(pattern) | Test::NotMatches(pattern) => pattern.examples(),
        }
    }

    /// Whether these labels satisfy the matcher.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name))
    }

    /// Whether a value satisfies the matcher; the empty string is an absent label.
    pub fn matches_value(&self, value: &str) -> bool {
        match &self.test {
            Test::Equal(wanted) => value == wanted,
            Test::NotEqual(unwanted) => value != unwanted,
            Test::Matches(pattern) => pattern.matches(value),
            Test::NotMatches(pattern) => !pattern.matches(value),
        }
    }
}

/// The values that `label` can have if all `matchers` match; `fixed` is its value if a source sets it.
/// Returns `None` if they are not a finite list, and an empty list if the matchers contradict each other.
/// Values are taken to have no line feeds, which `.` does not match.
pub fn possible_values<'m>(
    label: &str,
    matchers: &'m [Matcher],
    fixed: Option<&'m str>,
) -> Option<Vec<&'m str>> {
    let mut own = matchers.iter().filter(|matcher| matcher.name == label);
    let listed = fixed.map(|value| vec![value]).or_else(|| own.clone().find_map(Matcher::one_of));
    let listed = match listed {
        Some(listed) => listed,
        // A matcher that rejects every non-empty value requires the label to be absent.
        None if own.any(Matcher::requires_absence) => vec![""],
        None => return None,
    };
    let allowed =
        |value: &&str| matchers.iter().all(|matcher| matcher.name != label || matcher.matches_value(value));
    Some(listed.into_iter().filter(allowed).collect())
}

/// Whether all of `weaker` match whenever all of `stronger` do. Conservative: recognizes equal matchers, and
/// matchers that accept every possible value (without line feeds).
pub fn implies(stronger: &[Matcher], weaker: &[Matcher]) -> bool {
    weaker.iter().all(|wanted| {
        let same = |known: &Matcher| known.to_string() == wanted.to_string();
        let possible = || possible_values(&wanted.name, stronger, None);
        wanted.matches_all()
            || stronger.iter().any(same)
            || possible().is_some_and(|values| values.iter().all(|value| wanted.matches_value(value)))
    })
}

impl Matcher {
    fn matches_all(&self) -> bool {
        matches!(&self.test, Test::Matches(pattern) if pattern.source == ".*")
    }

    fn requires_absence(&self) -> bool {
        matches!(&self.test, Test::NotMatches(pattern) if matches!(pattern.source.as_str(), ".+" | "..*"))
    }
}

impl fmt::Display for Matcher {
    /// Formats the matcher as Alertmanager does: `severity=~"warning|critical"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = !self.name.is_empty() && !self.name.chars().any(is_reserved);
        if bare {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        let (operator, value) = match &self.test {
            Test::Equal(value) => ("=", value),
            Test::NotEqual(value) => ("!=", value),
            Test::Matches(pattern) => ("=~", &pattern.source),
            Test::NotMatches(pattern) => ("!~", &pattern.source),
        };
        f.write_str(operator)?;
        write_quoted(f, value)
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn is_reserved(c: char) -> bool {
    c.is_whitespace() || matches!(c, '{' | '}' | '!' | '=' | '~' | ',' | '\\' | '"' | '\'' | '`')
}
