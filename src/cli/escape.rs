//! Escapes text from outside, so that it shows what it is.

use crate::ops::is_hidden;

/// Escapes characters that control the terminal or hide what follows, so that external text shows what it is.
pub(super) fn escape_control_chars(text: &str) -> String {
    let escape = |c: char| if is_hidden(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// Like [`escape_control_chars`], but keeps line breaks.
pub(super) fn escape_lines(text: &str) -> String {
    text.split('\n').map(escape_control_chars).collect::<Vec<_>>().join("\n")
}

/// Escapes in JSON what [`escape_control_chars`] escapes in text. serde_json escapes the control characters of ASCII
/// only, and YAML does not have the others unescaped.
pub(super) fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' || !is_hidden(c) {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped += &format!("\\u{unit:04x}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_controls_or_hides_is_escaped_in_text_and_json() {
        let hostile = "a\u{1b}[2J\u{9b}1m\u{7f}\u{202e}b\u{200b}\u{2028}\u{feff}\u{e0041}é\n";
        let text = escape_control_chars(hostile);
        assert_eq!(text, r"a\u{1b}[2J\u{9b}1m\u{7f}\u{202e}b\u{200b}\u{2028}\u{feff}\u{e0041}é\n");
        assert_eq!(escape_lines("a\n\u{202e}"), "a\n\\u{202e}");
        let json = escape_json(&serde_json::to_string_pretty(&[hostile]).unwrap());
        assert!(json.chars().all(|c| c == '\n' || !is_hidden(c)), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [hostile]);
    }
}
