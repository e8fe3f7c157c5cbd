//! Matchers in Alertmanager's syntax: `severity =~ "warning|critical"`, including UTF-8 names.
//!
//! The grammar is that of Alertmanager's UTF-8 matchers: names and values are bare, or in double quotes if
//! they contain white space or one of `{ } ! = ~ , \ " ' ` and the backtick. Matchers of a list are separated
//! by commas, and the list may be enclosed in braces. As in Prometheus, an absent label is the empty string,
//! and a regular expression has to match the whole value.

use std::fmt;

use regex::Regex;

use super::labels::Labels;

/// How a label's value is compared.
#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    NotEqual(String),
    Matches(Pattern),
    NotMatches(Pattern),
}

/// A regular expression that has to match the whole value.
#[derive(Debug, Clone)]
struct Pattern {
    source: String,
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

/// The maximum size of a compiled regular expression.
const MAX_REGEX_BYTES: usize = 1 << 20;

impl Matcher {
    /// Parses a text with one or more matchers: `alertname = Disk, severity != info`.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, Error> {
        let mut reader = Reader { text, at: 0 };
        let braced = reader.consume("{");
        let mut matchers = Vec::new();
        loop {
            reader.skip_space();
            if reader.is_at_end() || (braced && reader.rest().starts_with('}')) {
                break;
            }
            matchers.push(reader.matcher()?);
            reader.skip_space();
            if !reader.consume(",") {
                break;
            }
        }
        if braced && !reader.consume("}") {
            return Err(reader.error("expected `,` or `}`"));
        }
        reader.skip_space();
        if !reader.is_at_end() {
            return Err(
                reader.error("expected `,` or the end; put a value with special characters in double quotes")
            );
        }
        if matchers.is_empty() {
            return Err(reader.error("expected a matcher such as alertname = \"Disk\""));
        }
        Ok(matchers)
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
            Test::Matches(Pattern { form: Form::Words(words), .. }) => {
                Some(words.iter().map(String::as_str).collect())
            }
            _ => None,
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
/// matchers that accept every possible value.
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

impl Pattern {
    fn new(source: &str) -> Result<Self, regex::Error> {
        let plain = |word: &str| word.chars().all(is_literal);
        let form = if source.split('|').all(plain) {
            Form::Words(source.split('|').map(str::to_owned).collect())
        } else {
            let compiled = |text: &str| regex::RegexBuilder::new(text).size_limit(MAX_REGEX_BYTES).build();
            // Compiled without the anchors first: `a)|(b` is valid only between the parentheses, and only
            // half of it would be anchored.
            compiled(source)?;
            let regex = compiled(&format!("^(?s:{source})$"))?;
            Form::Expression { prefix: literal_prefix(source).to_owned(), regex }
        };
        Ok(Self { source: source.to_owned(), form })
    }

    fn matches(&self, value: &str) -> bool {
        match &self.form {
            Form::Words(words) => words.iter().any(|word| word == value),
            Form::Expression { prefix, regex } => value.starts_with(prefix) && regex.is_match(value),
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
    // A quantified character may be optional, even after `+`: in `a+*`.
    let optional = source[end..].starts_with(['?', '*', '+', '{']);
    &source[..end.saturating_sub(usize::from(optional))]
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

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Skips white space, then `token` if it is next. Returns whether it was.
    fn consume(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn error(&self, message: impl Into<String>) -> Error {
        Error {
            text: self.text.to_owned(),
            column: self.text[..self.at].chars().count() + 1,
            message: message.into(),
        }
    }

    fn matcher(&mut self) -> Result<Matcher, Error> {
        let name = self.word("a label name")?;
        if name.is_empty() {
            return Err(self.error("a label name cannot be empty"));
        }
        self.skip_space();
        let operator_at = self.at;
        let operator = ["=~", "!~", "!=", "="].into_iter().find(|operator| self.consume(operator));
        let Some(operator) = operator else {
            return Err(self.error("expected one of =, !=, =~ and !~"));
        };
        if operator == "=" && self.rest().starts_with('=') {
            self.at = operator_at;
            return Err(self.error("unsupported operator `==`; use `=`"));
        }
        let value_at = self.at;
        let value = self.word("a value")?;
        let test = match operator {
            "=" => Test::Equal(value),
            "!=" => Test::NotEqual(value),
            _ => {
                let pattern = Pattern::new(&value).map_err(|error| {
                    self.at = value_at;
                    self.skip_space();
                    self.error(format!(
                        "`{value}` is not a regular expression: {}",
                        regex_error_message(&error)
                    ))
                })?;
                if operator == "=~" { Test::Matches(pattern) } else { Test::NotMatches(pattern) }
            }
        };
        Ok(Matcher { name, test })
    }

    /// Parses a bare or quoted word.
    fn word(&mut self, what: &str) -> Result<String, Error> {
        self.skip_space();
        if self.rest().starts_with('"') {
            return self.quoted_word();
        }
        let rest = self.rest();
        let end = rest.find(is_reserved).unwrap_or(rest.len());
        if end == 0 {
            let hint = match rest.chars().next() {
                None => format!("expected {what}; write \"\" for the empty string"),
                Some('\'' | '`') => format!("expected {what}; use double quotes"),
                Some(c) => format!("expected {what}, not `{c}`; use double quotes if it is part of it"),
            };
            return Err(self.error(hint));
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn quoted_word(&mut self) -> Result<String, Error> {
        let opened = self.at;
        let mut word = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = opened + offset + 1;
                    return Ok(word);
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => word.push('\n'),
                    Some((_, 't')) => word.push('\t'),
                    Some((_, escaped @ ('"' | '\\'))) => word.push(escaped),
                    // The backslash of `\.` and `\d` is preserved, so that it need not be doubled;
                    // Alertmanager's parser does the same.
                    Some((_, other)) => word.extend(['\\', other]),
                    None => break,
                },
                plain => word.push(plain),
            }
        }
        Err(self.error("unclosed double quote"))
    }
}

/// The last line of a regex error is the message; the lines before show the position.
fn regex_error_message(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(_) => "it is too large when compiled".to_owned(),
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(matcher: &str, labels: &[(&str, &str)]) -> bool {
        let labels: Labels = labels.iter().copied().collect();
        Matcher::parse_list(matcher).unwrap().iter().all(|one| one.matches(&labels))
    }

    #[test]
    fn the_four_operators() {
        let labels = &[("alertname", "Disk"), ("severity", "warning")];
        assert!(holds("alertname = Disk", labels));
        assert!(holds("alertname=\"Disk\"", labels));
        assert!(!holds("alertname != Disk", labels));
        assert!(holds("severity =~ \"warning|critical\"", labels));
        assert!(holds("severity=~warning|critical", labels));
        assert!(!holds("severity !~ w.*", labels));
        assert!(holds("{alertname=Disk, severity!=info,}", labels));
        assert!(!holds("alertname=Disk,severity=info", labels));
    }

    #[test]
    fn regular_expressions_match_the_whole_value() {
        assert!(!holds("severity =~ warn", &[("severity", "warning")]));
        assert!(!holds("severity =~ \"a|b\"", &[("severity", "ab")]));
        assert!(holds("text =~ \"a.b\"", &[("text", "a\nb")]));
        assert!(holds("text =~ \"a+*b\"", &[("text", "b")]), "what is repeated may be optional as a whole");
        assert!(holds(r#"host =~ "web-\d+\.shop""#, &[("host", "web-12.shop")]));
    }

    proptest::proptest! {
        /// The fast paths give the same result as the automaton.
        #[test]
        fn every_expression_matches_as_the_automaton_does(
            pieces in proptest::collection::vec("a|b|-|ab|[|]|[?]|[*]|[+]|[.]|[(]a[)]|a\\{0,1\\}|\\[ab\\]|\\\\-", 0..6),
            values in proptest::collection::vec("[ab.-]{0,4}", 1..12),
        ) {
            let source = pieces.concat();
            let anchored = Regex::new(&format!("^(?s:{source})$"));
            match (Pattern::new(&source), anchored) {
                (Ok(pattern), Ok(regex)) => for value in &values {
                    proptest::prop_assert_eq!(pattern.matches(value), regex.is_match(value), "{} on {}", source, value);
                },
                (pattern, regex) => proptest::prop_assert_eq!(pattern.is_err(), regex.is_err(), "{}", source),
            }
        }
    }

    #[test]
    fn an_absent_label_is_the_empty_string() {
        assert!(holds("team = \"\"", &[]));
        assert!(holds("team != platform", &[]));
        assert!(holds("team =~ \".*\"", &[]));
        assert!(!holds("team =~ \".+\"", &[]));
    }

    #[test]
    fn names_may_be_any_text() {
        assert!(holds("\"k8s.node group\" = \"ä, b\"", &[("k8s.node group", "ä, b")]));
        assert!(holds("größe = 1", &[("größe", "1")]));
    }

    #[test]
    fn printed_matchers_are_parsed_back() {
        for text in ["a=\"b\"", "a!=\"\"", "a=~\"x|y\"", "\"a b\"!~\"q\\\"\\\\n\""] {
            let read = Matcher::parse_list(text).unwrap();
            assert_eq!(read[0].to_string(), text);
        }
    }

    #[test]
    fn errors_say_where_and_how_to_fix() {
        let error = |text: &str| Matcher::parse_list(text).unwrap_err().to_string();
        let errors = [
            "",
            "alertname",
            "alertname == X",
            "= X",
            "a = ",
            "a = b c",
            "a = 'b'",
            "a =~ \"(\"",
            "a =~ \"x)|(y\"",
            "a = \"b",
        ]
        .map(error)
        .join("\n");
        insta::assert_snapshot!(errors, @r#"
        expected a matcher such as alertname = "Disk", at character 1 of ``
        expected one of =, !=, =~ and !~, at character 10 of `alertname`
        unsupported operator `==`; use `=`, at character 11 of `alertname == X`
        expected a label name, not `=`; use double quotes if it is part of it, at character 1 of `= X`
        expected a value; write "" for the empty string, at character 5 of `a = `
        expected `,` or the end; put a value with special characters in double quotes, at character 7 of `a = b c`
        expected a value; use double quotes, at character 5 of `a = 'b'`
        `(` is not a regular expression: unclosed group, at character 6 of `a =~ "("`
        `x)|(y` is not a regular expression: unopened group, at character 6 of `a =~ "x)|(y"`
        unclosed double quote, at character 5 of `a = "b`
        "#);
    }

    /// Every combination of a few values of two labels.
    fn label_sets() -> Vec<Labels> {
        let values = ["", "x", "y", "xy", "z"];
        let both = values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b)));
        both.map(|(a, b)| [("a", a), ("b", b)].into_iter().filter(|(_, value)| !value.is_empty()).collect())
            .collect()
    }

    fn matcher_lists() -> impl proptest::strategy::Strategy<Value = Vec<Matcher>> {
        const TEXTS: [&str; 14] = [
            "a = x",
            "a != x",
            "a =~ \"x|y\"",
            "a !~ \"x|y\"",
            "a =~ \"x.*\"",
            "a !~ \".+\"",
            "a = \"\"",
            "a =~ \".*\"",
            "b = x",
            "b != \"\"",
            "b =~ \"x|z\"",
            "b =~ \"(x|y)+\"",
            "b !~ z",
            "c = x",
        ];
        let one = proptest::sample::select(&TEXTS[..]);
        let one =
            proptest::strategy::Strategy::prop_map(one, |text| Matcher::parse_list(text).unwrap().remove(0));
        proptest::collection::vec(one, 0..4)
    }

    fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
        matchers.iter().all(|matcher| matcher.matches(labels))
    }

    proptest::proptest! {
        #[test]
        fn implications_and_contradictions_are_correct(stronger in matcher_lists(), weaker in matcher_lists()) {
            for labels in label_sets() {
                if implies(&stronger, &weaker) && all_match(&stronger, &labels) {
                    proptest::prop_assert!(all_match(&weaker, &labels), "{stronger:?} {weaker:?} {labels:?}");
                }
                for label in ["a", "b"] {
                    if let Some(values) = possible_values(label, &stronger, None).filter(|_| all_match(&stronger, &labels)) {
                        proptest::prop_assert!(values.contains(&labels.get(label)), "{stronger:?} {values:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn simple_implications_and_contradictions_are_found() {
        let list = |text: &str| Matcher::parse_list(text).unwrap();
        for (stronger, weaker) in [
            ("a = x, b = y", "a = x"),
            ("a = x", "a =~ \"x|y\""),
            ("a =~ \"x|y\"", "a != z"),
            ("a = x", "a =~ \"x.*\", a != \"\""),
            ("a =~ \"x.*\"", "b =~ \".*\""),
        ] {
            assert!(implies(&list(stronger), &list(weaker)), "{stronger} {weaker}");
            assert!(!implies(&list(weaker), &list(stronger)), "{weaker} {stronger}");
        }
        assert_eq!(possible_values("a", &list("a = x, a != x"), None), Some(vec![]));
        assert_eq!(possible_values("a", &list("a !~ \".+\""), None), Some(vec![""]));
        assert_eq!(possible_values("a", &list("a =~ \"x.*\""), Some("y")), Some(vec![]));
    }
}
