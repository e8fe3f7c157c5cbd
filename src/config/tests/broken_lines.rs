//! Diagnostics of files in which one character is wrong.

use std::path::Path;

use crate::config::diagnostic::Location;
use crate::kinds;

/// Each bracket, quote and colon of the example is left out once, and each indentation is a tab once.
#[test]
fn one_wrong_character_is_reported_in_its_line_with_the_fix() {
    let example = std::fs::read_to_string("config/rules.yaml").unwrap();
    let lines: Vec<&str> = example.lines().collect();
    let content = |line: &str| line.split(" #").next().unwrap().trim_end().to_owned();
    let mut faults: Vec<(usize, String)> = Vec::new();
    for (number, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        let code = content(line);
        let left_out = code.match_indices(['"', '\'', '[', ']', '{', '}']);
        faults.extend(left_out.map(|(at, _)| (number, format!("{}{}", &line[..at], &line[at + 1..]))));
        if line.starts_with(' ') {
            faults.push((number, format!("\t{}", line.trim_start())));
        }
        if let Some((key, value)) = code.split_once(": ").filter(|(_, value)| !value.contains('"')) {
            faults.push((number, format!("{key}:{value}")));
            faults.push((number, format!("{key} {value}")));
        }
    }
    assert!(faults.len() > 150, "{}", faults.len());
    for (number, fault) in faults {
        let mut text = lines.clone();
        text[number] = &fault;
        let text = text.join("\n").into_bytes();
        let Err(found) = kinds::check(Path::new("rules.yaml"), Some(text), [], None) else { continue };
        let first = found.iter().next().unwrap();
        let line = match first.location {
            Location::File { line, .. } => line as usize,
            _ => 0,
        };
        assert!(line == number + 1 && first.help.is_some(), "line {}: {fault}\n{found}", number + 1);
    }
}
