//! Escapes that are the same inside and outside of a class, and repeat counts.

use super::{Error, quoted, sets};

/// What a backslash begins.
pub(super) enum Escape {
    /// A code point. Go accepts surrogates, although no text contains them.
    Char(u32),
    /// A translated class, usable inside and outside of brackets.
    Class(String),
}

/// Parses the escape at the start of `text`, which begins with a backslash. Returns the text after it.
pub(super) fn parse(text: &str) -> Result<(Escape, &str), Error> {
    let after = &text[1..];
    let Some(c) = after.chars().next() else { return Err(Error::TrailingBackslash) };
    let rest = &after[c.len_utf8()..];
    if let Some(class) = sets::perl(c) {
        return Ok((Escape::Class(class.to_owned()), rest));
    }
    if matches!(c, 'p' | 'P') {
        let (class, rest) = unicode_class(text, c == 'P')?;
        return Ok((Escape::Class(class), rest));
    }
    let (c, rest) = character(text, c, rest)?;
    Ok((Escape::Char(c), rest))
}

/// Parses the escape of one character: `c` comes after the backslash, `rest` after `c`.
fn character<'a>(text: &'a str, c: char, rest: &'a str) -> Result<(u32, &'a str), Error> {
    let is_octal = |text: &str| text.starts_with(|c: char| matches!(c, '0'..='7'));
    let plain = |c| Ok((u32::from(c), rest));
    match c {
        'a' => plain('\u{7}'),
        'f' => plain('\u{c}'),
        'n' => plain('\n'),
        'r' => plain('\r'),
        't' => plain('\t'),
        'v' => plain('\u{b}'),
        'x' => hexadecimal(rest).ok_or_else(|| invalid(text, "")),
        '1'..='9' if !(c <= '7' && is_octal(rest)) => Err(invalid(text, "; RE2 has no back-references")),
        '0'..='7' => {
            let digits = &text[1..];
            let count = digits.bytes().take(3).take_while(|b| matches!(b, b'0'..=b'7')).count();
            let value = digits[..count].bytes().fold(0, |value, digit| value * 8 + u32::from(digit - b'0'));
            Ok((value, &digits[count..]))
        }
        'Z' => Err(invalid(text, "; use `\\z`")),
        'k' => Err(invalid(text, "; RE2 has no back-references")),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => plain(c),
        _ => Err(invalid(text, "")),
    }
}

fn invalid(text: &str, hint: &'static str) -> Error {
    let end = text.char_indices().nth(2).map_or(text.len(), |(end, _)| end);
    Error::Escape(text[..end].to_owned(), hint)
}

/// Parses what comes after `\x`: two digits, or any number of them in braces.
fn hexadecimal(rest: &str) -> Option<(u32, &str)> {
    let (digits, rest) = match rest.strip_prefix('{') {
        Some(braced) => {
            let end = braced.bytes().take_while(u8::is_ascii_hexdigit).count();
            (&braced[..end], braced[end..].strip_prefix('}')?)
        }
        None => (rest.get(..2)?, &rest[2..]),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let significant = digits.trim_start_matches('0');
    let value = if significant.is_empty() { 0 } else { u32::from_str_radix(significant, 16).ok()? };
    (value <= u32::from(char::MAX)).then_some((value, rest))
}

/// Parses `\pN`, `\p{Greek}` and `\p{^Greek}`.
fn unicode_class(text: &str, is_negated: bool) -> Result<(String, &str), Error> {
    let after = &text[2..];
    let invalid = |text: &str| Error::ClassRange(quoted(text));
    let Some(first) = after.chars().next() else { return Err(invalid(text)) };
    let (name, rest) = match after.strip_prefix('{') {
        Some(braced) => {
            let (name, rest) = braced.split_once('}').ok_or_else(|| invalid(text))?;
            (name, rest)
        }
        None => after.split_at(first.len_utf8()),
    };
    let (name, is_negated) = match name.strip_prefix('^') {
        Some(name) => (name, !is_negated),
        None => (name, is_negated),
    };
    let class = sets::unicode(name, is_negated).ok_or_else(|| invalid(&text[..text.len() - rest.len()]))?;
    Ok((class, rest))
}

/// Parses repeat counts: `{2}`, `{2,}` or `{2,3}`. Other braces are text.
pub(super) fn counts(text: &str) -> Option<(u32, Option<u32>, &str)> {
    let (min, rest) = count(text.strip_prefix('{')?)?;
    let (max, rest) = match rest.strip_prefix(',') {
        None => (Some(min), rest),
        Some(rest) if rest.starts_with('}') => (None, rest),
        Some(rest) => {
            let (max, rest) = count(rest)?;
            (Some(max), rest)
        }
    };
    Some((min, max, rest.strip_prefix('}')?))
}

/// A number without leading zeros; a very large one is as good as the largest.
fn count(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits == 0 || (digits > 1 && text.starts_with('0')) {
        return None;
    }
    Some((text[..digits].parse().unwrap_or(u32::MAX), &text[digits..]))
}
