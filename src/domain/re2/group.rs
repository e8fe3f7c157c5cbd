//! Groups, flags and repetitions.

use super::{Error, Group, Item, MAX_NESTING, MAX_REPEAT, Translator, quoted};

impl<'a> Translator<'a> {
    /// Repeats the last item. `start` is the text from the operator on, `rest` that after it.
    pub(super) fn repeat(
        &mut self,
        start: &'a str,
        operator: &str,
        counts: Option<(u32, Option<u32>)>,
    ) -> Result<(), Error> {
        // Lazy or not, the same texts match.
        if self.rest.starts_with('?') {
            self.advance(1);
        }
        let until_here = |from: &str| quoted(&from[..from.len() - self.rest.len()]);
        if let Some(before) = self.last_repeat {
            return Err(Error::NestedRepeat(until_here(before)));
        }
        let text = until_here(start);
        let is_invalid = counts.is_some_and(|(min, max)| {
            min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT || max < min)
        });
        if is_invalid {
            return Err(Error::RepeatCount(text));
        }
        let Some(item) = self.group().last.take() else { return Err(Error::MissingRepeatArgument(text)) };
        let repeats = match counts {
            Some((_, Some(0))) => 1,
            Some((min, max)) => item.repeats.saturating_mul(max.unwrap_or(min).max(1)),
            None => item.repeats,
        };
        if repeats > MAX_REPEAT {
            return Err(Error::RepeatCount(text));
        }
        let depth = item.depth + 1;
        if depth > MAX_NESTING {
            return Err(Error::NestingDepth);
        }
        // The group keeps operators apart that `\Q\E` separates: `a+\Q\E?`.
        let text = format!("(?:{}{operator})", item.text);
        self.group().push(Item { text, depth, repeats });
        Ok(())
    }

    pub(super) fn close_group(&mut self) -> Result<(), Error> {
        if self.groups.len() == 1 {
            return Err(Error::UnexpectedParenthesis);
        }
        self.advance(1);
        if let Some(group) = self.groups.pop() {
            self.flags = group.outer;
            let item = group.close();
            if item.depth > MAX_NESTING {
                return Err(Error::NestingDepth);
            }
            self.group().push(item);
        }
        Ok(())
    }

    /// Translates `(`, `(?P<name>`, `(?<name>`, `(?flags:` and `(?flags)`.
    pub(super) fn open_group(&mut self) -> Result<(), Error> {
        let start = self.rest;
        let outer = self.flags;
        if let Some(named) = start.strip_prefix("(?P<").or_else(|| start.strip_prefix("(?<")) {
            let opening = start.len() - named.len();
            if named.starts_with(['=', '!']) && opening == 3 {
                return Err(Error::PerlSyntax(quoted(&start[..4]), "; RE2 has no look-around"));
            }
            let end = named.find('>').ok_or_else(|| Error::NamedCapture(quoted(start)))?;
            let name = &named[..end];
            let capture = &start[..opening + end + 1];
            if name.is_empty() || !name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric()) {
                return Err(Error::NamedCapture(quoted(capture)));
            }
            if !self.captures.insert(name) {
                return Err(Error::DuplicateCapture(quoted(name)));
            }
            self.advance(capture.len());
        } else if let Some(inner) = start.strip_prefix("(?") {
            let (after, opens) = self.flags(start, inner)?;
            self.rest = after;
            if !opens {
                return Ok(());
            }
        } else {
            self.advance(1);
        }
        self.groups.push(Group::new(outer));
        if self.groups.len() > MAX_NESTING as usize {
            return Err(Error::NestingDepth);
        }
        Ok(())
    }

    /// Sets the flags in `inner`, which is `start` after `(?`. Returns the rest, and whether a group opens.
    fn flags(&mut self, start: &str, inner: &'a str) -> Result<(&'a str, bool), Error> {
        let mut flags = self.flags;
        let (mut set, mut is_complete) = (true, true);
        for (at, c) in inner.char_indices() {
            match c {
                'i' => flags.ignore_case = set,
                'm' => flags.multi_line = set,
                's' => flags.dot_all = set,
                'U' => {}
                '-' if set => {
                    set = false;
                    is_complete = false;
                    continue;
                }
                ':' | ')' if is_complete => {
                    self.flags = flags;
                    return Ok((&inner[at + 1..], c == ':'));
                }
                _ => {
                    let hint = match c {
                        '=' | '!' => "; RE2 has no look-around",
                        'x' => "; the flags are i, m, s and U",
                        '>' => "; RE2 has no atomic groups",
                        _ => "",
                    };
                    return Err(Error::PerlSyntax(quoted(&start[..2 + at + c.len_utf8()]), hint));
                }
            }
            is_complete = true;
        }
        Err(Error::PerlSyntax(quoted(start), ""))
    }
}

pub(super) fn counted(min: u32, max: Option<u32>) -> String {
    match max {
        Some(max) => format!("{{{min},{max}}}"),
        None => format!("{{{min},}}"),
    }
}
