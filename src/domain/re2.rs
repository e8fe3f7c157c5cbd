//! Translates regular expressions from the syntax of Alertmanager to that of the `regex` crate.
//!
//! Alertmanager's syntax is RE2 as Go's `regexp/syntax` parses it. Both engines are automata and accept almost the same
//! expressions, but not with the same meaning: in Go `\w`, `\d`, `\s` and `\b` are ASCII, `[a&&b]` and `[[a]b]` are no
//! set operations, `{,3}` is text, flags are `imsU`, and `\Q…\E`, octal escapes, `\z` and `\pN` exist. The translation
//! spells out everything that differs, and refuses what Go refuses, in Go's words.
//!
//! The expression is read once, from left to right, without recursion. Groups and repetitions nest at most
//! `MAX_NESTING` deep (Go: 1,000), so the time is linear in the length of the expression.

mod class;
mod escape;
mod group;
mod sets;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use escape::Escape;

/// The maximum depth of groups and repetitions.
const MAX_NESTING: u32 = 100;
/// Go's maximum of a repeat count, and of the product of nested ones.
const MAX_REPEAT: u32 = 1000;
/// The maximum number of characters that an error quotes.
const MAX_QUOTED_CHARS: usize = 40;

/// Why an expression is invalid. The messages are Go's, with a hint where the cause is a feature that RE2 does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `[a`.
    #[error("missing closing ]: `{0}`")]
    MissingBracket(String),
    /// `(a`.
    #[error("missing closing )")]
    MissingParenthesis,
    /// `a)`.
    #[error("unexpected )")]
    UnexpectedParenthesis,
    /// `*a`.
    #[error("missing argument to repetition operator: `{0}`")]
    MissingRepeatArgument(String),
    /// `a**`, and the possessive `a*+`.
    #[error("invalid nested repetition operator: `{0}`")]
    NestedRepeat(String),
    /// `a{1001}` and `a{2,1}`.
    #[error("invalid repeat count: `{0}`; at most {MAX_REPEAT}, also multiplied with those inside")]
    RepeatCount(String),
    /// `\y`.
    #[error("invalid escape sequence: `{0}`{1}")]
    Escape(String, &'static str),
    /// `[b-a]`, `[[:word]]` and `\p{Nothing}`.
    #[error("invalid character class range: `{0}`")]
    ClassRange(String),
    /// `(?=a)`, `(?x)` and `(?>a)`.
    #[error("invalid or unsupported Perl syntax: `{0}`{1}")]
    PerlSyntax(String, &'static str),
    /// `(?P<a b>c)`.
    #[error("invalid named capture: `{0}`")]
    NamedCapture(String),
    /// `(?P<a>b)(?P<a>c)`.
    #[error("duplicate named capture: `{0}`")]
    DuplicateCapture(String),
    /// `a\`.
    #[error("trailing backslash at end of expression")]
    TrailingBackslash,
    /// `\Qa`, which would hide the end of the anchored expression.
    #[error("missing closing \\E of `\\Q`")]
    UnclosedLiteral,
    /// Nested deeper than `MAX_NESTING`.
    #[error("expression nests too deeply")]
    NestingDepth,
}

/// Translates `expression`, without anchors around it.
pub fn translate(expression: &str) -> Result<String, Error> {
    let mut translator = Translator::new(expression);
    while !translator.rest.is_empty() {
        translator.step()?;
    }
    translator.finish()
}

/// The flags that change the meaning of what follows. `U` swaps greedy and lazy, which does not change what matches.
#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    ignore_case: bool,
    multi_line: bool,
    dot_all: bool,
}

/// A translated part that can be repeated.
struct Item {
    text: String,
    /// How deep groups and repetitions nest.
    depth: u32,
    /// The largest product of nested repeat counts.
    repeats: u32,
}

impl Item {
    const fn leaf(text: String) -> Self {
        Self { text, depth: 0, repeats: 1 }
    }
}

/// An open group, or the expression as a whole.
struct Group {
    /// The flags that apply after the group.
    outer: Flags,
    text: String,
    /// The last item, which a repetition operator would repeat.
    last: Option<Item>,
    depth: u32,
    repeats: u32,
}

impl Group {
    const fn new(outer: Flags) -> Self {
        Self { outer, text: String::new(), last: None, depth: 0, repeats: 1 }
    }

    fn push(&mut self, item: Item) {
        self.flush();
        self.last = Some(item);
    }

    fn flush(&mut self) {
        if let Some(Item { text, depth, repeats }) = self.last.take() {
            self.text.push_str(&text);
            self.depth = self.depth.max(depth);
            self.repeats = self.repeats.max(repeats);
        }
    }

    fn alternative(&mut self) {
        self.flush();
        self.text.push('|');
    }

    fn close(mut self) -> Item {
        self.flush();
        Item { text: format!("(?:{})", self.text), depth: self.depth + 1, repeats: self.repeats }
    }
}

struct Translator<'a> {
    rest: &'a str,
    flags: Flags,
    /// The open groups; the first is the expression as a whole.
    groups: Vec<Group>,
    captures: std::collections::BTreeSet<&'a str>,
    /// The text from the last repetition operator on, if nothing came after it.
    last_repeat: Option<&'a str>,
    /// Whether a search for the end of a class name such as `[:alpha:]` has failed, so that none follows.
    has_no_class_names: bool,
}

impl<'a> Translator<'a> {
    fn new(expression: &'a str) -> Self {
        Self {
            rest: expression,
            flags: Flags::default(),
            groups: vec![Group::new(Flags::default())],
            captures: std::collections::BTreeSet::new(),
            last_repeat: None,
            has_no_class_names: false,
        }
    }

    /// Translates what is at the start of `rest`.
    fn step(&mut self) -> Result<(), Error> {
        let start = self.rest;
        let mut repeat = None;
        let Some(next) = start.chars().next() else { return Ok(()) };
        match next {
            '(' => self.open_group()?,
            ')' => self.close_group()?,
            '|' => {
                self.advance(1);
                self.group().alternative();
            }
            '^' => self.assertion(1, if self.flags.multi_line { "(?m:^)" } else { r"\A" }),
            '$' => self.assertion(1, if self.flags.multi_line { "(?m:$)" } else { r"\z" }),
            '.' => self.assertion(1, if self.flags.dot_all { "(?s:.)" } else { r"[^\n]" }),
            '[' => {
                let class = self.class()?;
                self.push_class(class);
            }
            '*' | '+' | '?' => {
                self.advance(1);
                self.repeat(start, &next.to_string(), None)?;
                repeat = Some(start);
            }
            '{' => match escape::counts(start) {
                Some((min, max, after)) => {
                    self.rest = after;
                    self.repeat(start, &group::counted(min, max), Some((min, max)))?;
                    repeat = Some(start);
                }
                None => self.literal('{', 1),
            },
            '\\' => self.escape()?,
            other => self.literal(other, other.len_utf8()),
        }
        self.last_repeat = repeat;
        Ok(())
    }

    fn finish(mut self) -> Result<String, Error> {
        match (self.groups.pop(), self.groups.is_empty()) {
            (Some(mut whole), true) => {
                whole.flush();
                Ok(whole.text)
            }
            _ => Err(Error::MissingParenthesis),
        }
    }

    fn group(&mut self) -> &mut Group {
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Pushes a character, of which `bytes` were read.
    fn literal(&mut self, c: char, bytes: usize) {
        self.advance(bytes);
        self.push_literal(c);
    }

    fn push_literal(&mut self, c: char) {
        let mut text = String::new();
        push_escaped(&mut text, c);
        if self.flags.ignore_case {
            text = format!("(?i:{text})");
        }
        self.group().push(Item::leaf(text));
    }

    /// Pushes an item whose translation is fixed.
    fn assertion(&mut self, bytes: usize, text: &str) {
        self.advance(bytes);
        self.group().push(Item::leaf(text.to_owned()));
    }

    fn push_class(&mut self, class: String) {
        let text = if self.flags.ignore_case { format!("(?i:{class})") } else { class };
        self.group().push(Item::leaf(text));
    }

    fn escape(&mut self) -> Result<(), Error> {
        let start = self.rest;
        match start[1..].chars().next() {
            Some('A') => self.assertion(2, r"\A"),
            Some('z') => self.assertion(2, r"\z"),
            Some('b') => self.assertion(2, r"(?-u:\b)"),
            Some('B') => self.assertion(2, r"(?-u:\B)"),
            Some('Q') => {
                let (literal, after) = start[2..].split_once(r"\E").ok_or(Error::UnclosedLiteral)?;
                self.rest = after;
                literal.chars().for_each(|c| self.push_literal(c));
            }
            _ => match escape::parse(start)? {
                (Escape::Char(code), after) => {
                    self.rest = after;
                    match char::from_u32(code) {
                        Some(c) => self.push_literal(c),
                        // A surrogate, which no text contains.
                        None => self.group().push(Item::leaf(sets::NOTHING.to_owned())),
                    }
                }
                (Escape::Class(class), after) => {
                    self.rest = after;
                    self.push_class(class);
                }
            },
        }
        Ok(())
    }
}

/// Appends a character so that it has no other meaning.
fn push_escaped(text: &mut String, c: char) {
    if c.is_ascii_alphanumeric() || !c.is_ascii() {
        text.push(c);
    } else {
        // Writing to a string cannot fail.
        let _result = write!(text, "\\x{:02X}", u32::from(c));
    }
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
