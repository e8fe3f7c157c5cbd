//! The files that are shipped, with shorter times.

use std::path::Path;

/// How much faster time passes in the test than in production.
const SPEED: u64 = 100;

/// A file of the repository in which each duration is divided by [`SPEED`]: `for: 15m` becomes `for: 9000ms`, and a range
/// `[5m]` becomes `[3000ms]`. Nothing else is changed.
pub(crate) fn shipped(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{path}: {error}"));
    faster(&text)
}

/// Divides each duration of a text by [`SPEED`].
pub(crate) fn faster(text: &str) -> String {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let (mut done, mut rest) = (String::new(), text);
    while !rest.is_empty() {
        let gap = rest.find(is_of_word).unwrap_or(rest.len());
        let (between, from_word) = rest.split_at(gap);
        let (word, after) = from_word.split_at(from_word.find(|c| !is_of_word(c)).unwrap_or(from_word.len()));
        done.push_str(between);
        match millis(word) {
            Some(millis) => done.push_str(&format!("{}ms", (millis / SPEED).max(1))),
            None => done.push_str(word),
        }
        rest = after;
    }
    done
}

/// Reads a duration of Prometheus that is not zero.
fn millis(word: &str) -> Option<u64> {
    let (mut rest, mut sum) = (word, 0);
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        sum += number.parse::<u64>().ok()? * factor;
        rest = after;
    }
    (sum > 0).then_some(sum)
}

/// Replaces the value of each `key: value`, of which there must be at least one.
pub(crate) fn with_value(text: &str, key: &str, value: &str) -> String {
    let (mut done, mut found) = (String::new(), false);
    for line in text.lines() {
        let entry = line.trim_start_matches([' ', '-']);
        let indent = &line[..line.len() - entry.len()];
        if entry.strip_prefix(key).is_some_and(|rest| rest.starts_with(": ")) {
            found = true;
            done.push_str(&format!("{indent}{key}: {value}\n"));
        } else {
            done.push_str(&format!("{line}\n"));
        }
    }
    assert!(found, "{key} in {text}");
    done
}

#[test]
fn durations_and_the_values_of_a_key_are_replaced_and_nothing_else_is() {
    let text =
        "for: 15m # 1h30m\nexpr: max(load5m{job=\"a\"}[5m]) > 300 * 1.5 offset 2m\nwait: 0s, 30s, 4h\n";
    let shorter = "for: 9000ms # 54000ms\nexpr: max(load5m{job=\"a\"}[3000ms]) > 300 * 1.5 offset 1200ms\nwait: 0s, 300ms, 144000ms\n";
    assert_eq!(faster(text), shorter);
    assert_eq!(with_value("  - url: a # b\nurls: c\n", "url", "d"), "  - url: d\nurls: c\n");
}
