//! The syntax of matchers.

use super::{Error, Matcher, Operator, is_reserved};

/// The operators; a longer one comes before its beginning.
const OPERATORS: [(&str, Operator); 4] = [
    ("=~", Operator::Matches),
    ("!~", Operator::NotMatches),
    ("!=", Operator::NotEqual),
    ("=", Operator::Equal),
];

/// Parses a text with one or more matchers.
pub(super) fn list(text: &str) -> Result<Vec<Matcher>, Error> {
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
        let operator = OPERATORS.into_iter().find(|(token, _)| self.consume(token));
        let Some((_, operator)) = operator else {
            return Err(self.error("expected one of =, !=, =~ and !~"));
        };
        if operator == Operator::Equal && self.rest().starts_with('=') {
            self.at = operator_at;
            return Err(self.error("unsupported operator `==`; use `=`"));
        }
        let value_at = self.at;
        let value = self.word("a value")?;
        Matcher::new(name, operator, &value).map_err(|error| {
            self.at = value_at;
            self.skip_space();
            self.error(format!("`{value}` is not a regular expression: {error}"))
        })
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
