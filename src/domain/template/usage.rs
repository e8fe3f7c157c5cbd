//! Finds what a template uses and no alert can provide: unknown filters and tests, methods, and comparisons of text
//! with numbers. The template engine reports these only when it renders the part of the template that has them.

use minijinja::value::Value;

use super::{Error, Unknown};

/// Reports the first misuse in a template that compiles.
pub(super) fn check(source: &str, environment: &minijinja::Environment<'_>) -> Result<(), Error> {
    // `is filter` and `is test` are the only way to ask for a name.
    let is_known = |what: &str, name: &str| {
        environment.empty_state().perform_test(what, &[Value::from(name)]).unwrap_or(true)
    };
    for block in blocks(source) {
        let tokens = tokens(block.text);
        for at in 0..tokens.len() {
            match Usage::at(&tokens, at, block.is_statement) {
                Some(Usage::Filter(name)) if !is_known("filter", name) => {
                    return Err(Error::unknown(Unknown::Filter, name, format!("unknown filter `{name}`")));
                }
                Some(Usage::Test(name)) if !is_known("test", name) => {
                    return Err(Error::unknown(Unknown::Test, name, format!("unknown test `is {name}`")));
                }
                Some(Usage::Method(name)) => {
                    let message = format!("unknown method `{name}()`: values have no methods, only filters");
                    return Err(Error::unknown(Unknown::Method, name, message));
                }
                Some(Usage::TextComparison(text)) => {
                    let message = format!(
                        "`{text}` is text, and a comparison of text with a number is the same for all alerts"
                    );
                    return Err(Error::unknown(Unknown::Number, &text, message));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A use of a name that has to exist.
enum Usage<'s> {
    Filter(&'s str),
    Test(&'s str),
    Method(&'s str),
    TextComparison(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'s> {
    Word(&'s str),
    Text(&'s str),
    Number,
    Sign(char),
}

impl<'s> Usage<'s> {
    fn at(tokens: &[Token<'s>], at: usize, is_statement: bool) -> Option<Self> {
        let word = |at: usize| match tokens.get(at) {
            Some(Token::Word(word)) => Some(*word),
            _ => None,
        };
        let is_field = at > 0 && tokens[at - 1] == Token::Sign('.');
        match tokens[at] {
            Token::Sign('|') => word(at + 1).map(Self::Filter),
            Token::Word("filter") if is_statement && at == 0 => word(1).map(Self::Filter),
            Token::Word("is") if !is_field => match word(at + 1) {
                Some("not") => word(at + 2),
                name => name,
            }
            .map(Self::Test),
            // Only the variable `loop` has methods.
            Token::Word(name)
                if is_field
                    && tokens.get(at + 1) == Some(&Token::Sign('('))
                    && (at < 2 || tokens[at - 2] != Token::Word("loop")) =>
            {
                Some(Self::Method(name))
            }
            Token::Word(root @ ("labels" | "annotations")) => {
                let (name, end) = match tokens.get(at + 1..)? {
                    [Token::Sign('.'), Token::Word(name), ..] => (format!("{root}.{name}"), at + 3),
                    [Token::Sign('['), Token::Text(name), Token::Sign(']'), ..] => {
                        (format!("{root}[\"{name}\"]"), at + 4)
                    }
                    _ => return None,
                };
                let start = if is_field { at.checked_sub(2)? } else { at };
                let is_compared = number_follows(&tokens[end.min(tokens.len())..])
                    || (number_precedes(&tokens[..start]) && !is_filtered(tokens.get(end)));
                is_compared.then_some(Self::TextComparison(name))
            }
            _ => None,
        }
    }
}

fn is_filtered(next: Option<&Token<'_>>) -> bool {
    matches!(next, Some(Token::Sign('|' | '.' | '[' | '(')))
}

/// Whether `tokens` begin with a comparison with a number: `>= 5`, `== -1`.
fn number_follows(tokens: &[Token<'_>]) -> bool {
    let operator = match tokens {
        [Token::Sign('<' | '>' | '=' | '!'), Token::Sign('='), ..] => 2,
        [Token::Sign('<' | '>'), ..] => 1,
        _ => return false,
    };
    matches!(tokens[operator..], [Token::Number, ..] | [Token::Sign('-' | '+'), Token::Number, ..])
}

/// Whether `tokens` end with a number that is compared with what follows: `5 <=`.
fn number_precedes(tokens: &[Token<'_>]) -> bool {
    matches!(
        tokens,
        [.., Token::Number, Token::Sign('<' | '>')]
            | [.., Token::Number, Token::Sign('<' | '>' | '=' | '!'), Token::Sign('=')]
    )
}

/// The inside of `{{ … }}` or `{% … %}`.
struct Block<'s> {
    text: &'s str,
    is_statement: bool,
}

/// The blocks of a template, without comments and what is between `{% raw %}` and `{% endraw %}`.
fn blocks(source: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(open) = rest.find("{{").into_iter().chain(rest.find("{%")).chain(rest.find("{#")).min() {
        let (inside, kind) = (&rest[open + 2..], rest.as_bytes()[open + 1]);
        let close = match kind {
            b'{' => "}}",
            b'%' => "%}",
            _ => "#}",
        };
        let end = if kind == b'#' { inside.find(close) } else { end_of_block(inside, close) };
        let Some(end) = end else { break };
        rest = &inside[end + 2..];
        if kind == b'#' {
            continue;
        }
        let text = inside[..end].trim_matches(['-', '+']);
        let is_statement = kind == b'%';
        if is_statement && text.trim() == "raw" {
            rest = rest.find("endraw").map_or("", |at| &rest[at..]);
        } else {
            found.push(Block { text, is_statement });
        }
    }
    found
}

/// The position of `close` outside of quotes.
fn end_of_block(text: &str, close: &str) -> Option<usize> {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(close) {
            return Some(at);
        }
        at += match rest.chars().next()? {
            quote @ ('"' | '\'') => quoted_len(rest, quote),
            c => c.len_utf8(),
        };
    }
    None
}

/// The length of the quoted text at the start of `text`, with its quotes.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let word_len =
            |rest: &str| rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = match c {
            '"' | '\'' => {
                let len = quoted_len(rest, c);
                tokens.push(Token::Text(rest[1..len].trim_end_matches(c)));
                len
            }
            c if c.is_ascii_digit() => {
                let len = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
                tokens.push(Token::Number);
                len.unwrap_or(rest.len())
            }
            c if c.is_alphabetic() || c == '_' => {
                let len = word_len(rest);
                tokens.push(Token::Word(&rest[..len]));
                len
            }
            c if c.is_whitespace() => c.len_utf8(),
            c => {
                tokens.push(Token::Sign(c));
                c.len_utf8()
            }
        };
        at += len;
    }
    tokens
}
