//! Writes JSON values as YAML: block style, with strings as JSON writes them wherever a plain one could be read otherwise.

use serde_json::Value;

use super::escape::escape_json;

/// A YAML document.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0, false);
    text
}

/// Writes a value. `is_inline` says whether the cursor is behind a key or a dash.
fn write(text: &mut String, value: &Value, indent: usize, is_inline: bool) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (at, (key, value)) in fields.iter().enumerate() {
                if at > 0 || !is_inline {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str(&scalar(key));
                text.push(':');
                write_nested(text, value, indent);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 || !is_inline {
                    text.push_str(&" ".repeat(indent));
                }
                text.push_str("- ");
                write(text, item, indent + 2, true);
            }
        }
        Value::String(string) => *text += &format!("{}\n", scalar(string)),
        other => *text += &format!("{other}\n"),
    }
}

/// Writes the value of a key.
fn write_nested(text: &mut String, value: &Value, indent: usize) {
    let is_block = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        write(text, value, indent + 2, false);
    } else {
        text.push(' ');
        write(text, value, indent, true);
    }
}

/// A string: plain if it can only be read as this string, else quoted as in JSON, which is YAML too.
fn scalar(string: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ' | '(' | ')');
    let is_plain = string.starts_with(|c: char| c.is_ascii_alphabetic())
        && !string.ends_with(' ')
        && string.chars().all(is_word)
        && !READ_OTHERWISE.contains(&string.to_ascii_lowercase().as_str());
    if is_plain { string.to_owned() } else { escape_json(&serde_json::to_string(string).unwrap_or_default()) }
}

/// Words that YAML 1.1 or 1.2 reads as something else than a string.
const READ_OTHERWISE: [&str; 9] = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_document_is_read_as_the_value_that_it_was_written_from() {
        let value = json!({
            "decisions": [
                { "at": "2026-11-29T00:00:00Z", "rule": "pods", "on": "no", "n": 3, "empty": [], "none": null,
                  "alerts": [{ "labels": { "a b": "x: y", "q": "\"\n" } }, {}], "nested": [[1, 2], ["a"]] },
                "- dash", "", "1e3", "trailing ",
            ],
            "is": true,
        });
        let text = document(&value);
        let read: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, value, "{text}");
        assert!(text.starts_with("decisions:\n  - at: \"2026-11-29T00:00:00Z\"\n    rule: pods\n"), "{text}");
    }
}
