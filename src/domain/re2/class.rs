//! Classes in brackets: `[a-z]` and `[[:alpha:]]`.

use std::fmt::Write as _;

use super::escape::{self, Escape};
use super::sets::{EVERYTHING, NOTHING};
use super::{Error, Translator, quoted};

/// The names of POSIX classes, which are ASCII in both syntaxes.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "word", "xdigit",
];
impl<'a> Translator<'a> {
    /// Translates the class at the start of `rest`.
    pub(super) fn class(&mut self) -> Result<String, Error> {
        let start = self.rest;
        let missing = || Error::MissingBracket(quoted(start));
        let mut rest = &start[1..];
        let is_negated = rest.starts_with('^');
        if is_negated {
            rest = &rest[1..];
        }
        let mut items = String::new();
        let mut is_first = true;
        // A `]` in the first place is a character.
        while is_first || !rest.starts_with(']') {
            is_first = false;
            if let Some((class, after)) = self.posix(rest)? {
                items.push_str(&class);
                rest = after;
                continue;
            }
            let text = rest;
            let (low, after) = class_item(text).ok_or_else(missing)??;
            rest = after;
            match low {
                Escape::Class(class) => items.push_str(&class),
                Escape::Char(low) => {
                    let (high, after) = range_end(text, low, rest).ok_or_else(missing)??;
                    push_range(&mut items, low, high);
                    rest = after;
                }
            }
        }
        self.rest = &rest[1..];
        Ok(match (items.is_empty(), is_negated) {
            (false, false) => format!("[{items}]"),
            (false, true) => format!("[^{items}]"),
            (true, false) => NOTHING.to_owned(),
            (true, true) => EVERYTHING.to_owned(),
        })
    }

    /// Translates a POSIX class such as `[:alpha:]` or `[:^alpha:]`, if there is one.
    fn posix(&mut self, text: &'a str) -> Result<Option<(String, &'a str)>, Error> {
        let Some(inner) = text.strip_prefix("[:").filter(|_| !self.has_no_class_names) else {
            return Ok(None);
        };
        let Some((name, after)) = inner.split_once(":]") else {
            self.has_no_class_names = true;
            return Ok(None);
        };
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(Error::ClassRange(quoted(&text[..name.len() + 4])));
        }
        Ok(Some((format!("[:{name}:]"), after)))
    }
}

/// The character or class at the start of `text`; `None` at the end of the expression.
fn class_item(text: &str) -> Option<Result<(Escape, &str), Error>> {
    let c = text.chars().next()?;
    Some(if c == '\\' {
        escape::parse(text)
    } else {
        Ok((Escape::Char(u32::from(c)), &text[c.len_utf8()..]))
    })
}

/// The end of the range that begins with `low`, and the text after it: a character after a hyphen, else `low` itself.
/// `text` begins with `low`, `rest` after it.
fn range_end<'t>(text: &str, low: u32, rest: &'t str) -> Option<Result<(u32, &'t str), Error>> {
    let Some(after) = rest.strip_prefix('-').filter(|after| !after.is_empty() && !after.starts_with(']'))
    else {
        return Some(Ok((low, rest)));
    };
    Some(class_item(after)?.and_then(|(high, end)| match high {
        Escape::Char(high) if high >= low => Ok((high, end)),
        Escape::Char(_) => Err(Error::ClassRange(quoted(&text[..text.len() - end.len()]))),
        // `[a-\d]`: a class is not the end of a range.
        Escape::Class(_) => Err(Error::Escape(quoted(&after[..after.len() - end.len()]), "")),
    }))
}

/// Appends the characters from `low` to `high` without surrogates, which are not characters of a text.
fn push_range(items: &mut String, low: u32, high: u32) {
    let is_surrogate = |code: u32| char::from_u32(code).is_none();
    let low = if is_surrogate(low) { 0xE000 } else { low };
    let high = if is_surrogate(high) { 0xD7FF } else { high };
    if low <= high {
        // Writing to a string cannot fail.
        let _result = if low == high {
            write!(items, "\\x{{{low:X}}}")
        } else {
            write!(items, "\\x{{{low:X}}}-\\x{{{high:X}}}")
        };
    }
}
