//! The text of an answer that is not what the service documents: the page of a proxy, or an error in XML.

/// The first `max_chars` characters of the text without markup, in one line, with control characters escaped.
pub(super) fn first_words(body: &[u8], max_chars: usize) -> String {
    // A tag can be long, but not all of a page is read.
    let body = String::from_utf8_lossy(&body[..body.len().min(64 * 1024)]);
    let text = without_markup(&body);
    let mut words = String::new();
    let mut count = 0;
    for word in text.split_whitespace() {
        let escaped = escape_controls(word);
        count += escaped.chars().count() + 1;
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(&escaped);
        if count > max_chars {
            break;
        }
    }
    if let Some((end, _)) = words.char_indices().nth(max_chars) {
        words.truncate(end);
    }
    words
}

/// The content of the first element of this name.
pub(super) fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = body.split_once(&format!("<{name}>"))?;
    let (content, _) = after.split_once(&format!("</{name}>"))?;
    Some(content.trim())
}

/// Text with its control characters escaped.
pub(super) fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}

/// The text between the tags, without comments, scripts and styles. A tag separates words.
fn without_markup(body: &str) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((before, tag)) = rest.split_once('<') {
        push_text(&mut text, before);
        text.push(' ');
        let hidden = [("!--", "-->"), ("script", "</script"), ("style", "</style")];
        let start = tag.get(..tag.floor_char_boundary(6)).unwrap_or_default().to_ascii_lowercase();
        let end = hidden.iter().find(|(begin, _)| start.starts_with(begin)).map(|(_, end)| *end);
        let after = match end {
            Some(end) => find_ignoring_case(tag, end).map(|at| &tag[at..]),
            None => Some(tag),
        };
        // What an unfinished tag hides is unknown.
        rest = after.and_then(|tag| tag.split_once('>')).map_or("", |(_, after)| after);
    }
    push_text(&mut text, rest);
    text
}

fn find_ignoring_case(text: &str, lowercase: &str) -> Option<usize> {
    text.to_ascii_lowercase().find(lowercase)
}

fn push_text(text: &mut String, encoded: &str) {
    const ENTITIES: [(&str, &str); 6] =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&nbsp;", " "), ("&amp;", "&")];
    let mut decoded = encoded.to_owned();
    if decoded.contains('&') {
        for (entity, character) in ENTITIES {
            decoded = decoded.replace(entity, character);
        }
    }
    text.push_str(&decoded);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_page_becomes_its_text() {
        let pages = [
            ("plain text", "plain text"),
            (
                "<html>\n<head><title>502 Bad Gateway</title><STYLE>a{b:c}</Style></head>\r\n<body><center><h1>502 Bad \
                 Gateway</h1></center><hr><!-- a > b --><script>if (a < b) {}</script>nginx/1.25</body></html>",
                "502 Bad Gateway 502 Bad Gateway nginx/1.25",
            ),
            (
                "<?xml version=\"1.0\"?><ErrorResponse><Error><Code>X</Code><Message>a &amp; b</Message></Error>",
                "X a & b",
            ),
            ("one\u{1b}[31m\u{0}two", "one\\u{1b}[31m\\u{0}two"),
            ("cut <b", "cut"),
            ("", ""),
        ];
        for (page, text) in pages {
            assert_eq!(first_words(page.as_bytes(), 300), text);
        }
        assert_eq!(first_words("é é é é".as_bytes(), 5), "é é é");
    }

    #[test]
    fn an_element_is_found() {
        assert_eq!(element("<a><Code> X </Code></a>", "Code"), Some("X"));
        assert_eq!(element("<a><Code>X", "Code"), None);
    }

    proptest! {
        #[test]
        fn any_body_becomes_a_short_line_without_control_characters(
            body in prop::collection::vec(any::<u8>(), 0..2000), page in "[<>a-z!/ é\\-\\PC\\n]{0,500}", max in 0usize..400,
        ) {
            for body in [&body[..], page.as_bytes()] {
                let words = first_words(body, max);
                prop_assert!(words.chars().count() <= max && !words.chars().any(char::is_control));
            }
        }
    }
}
