//! Output of the CLI commands, recorded in `tests/cmd`. `TRYCMD=overwrite` records the current output.

use std::process::Command;

use crate::support::bridge::program;

#[test]
fn command_output_matches_the_recorded_cases() {
    let cases = trycmd::TestCases::new();
    cases.register_bin("scalebridge", program()).env("AWS_REGION", "").case("tests/cmd/*.trycmd");
}

fn scalebridge(words: &[&str]) -> (Option<i32>, String) {
    let done = Command::new(program()).args(words).output().expect("the program");
    (done.status.code(), String::from_utf8(done.stdout).expect("UTF-8"))
}

#[test]
fn explain_prints_the_page_of_a_diagnostic_code() {
    let (code, page) = scalebridge(&["explain", "e012"]);
    assert_eq!((code, page.as_str()), (Some(0), include_str!("../../src/config/pages/E012.md")));
}

#[test]
fn completions_and_man_pages_are_generated_for_every_command() {
    let (_, help) = scalebridge(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 15 && commands.contains(&"dead-letters"), "{commands:?}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, script) = scalebridge(&["completions", shell]);
        assert_eq!(code, Some(0));
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (code, _) = scalebridge(&["man", "--directory", directory.path().to_str().expect("UTF-8")]);
    assert_eq!(code, Some(0));
    for command in commands.iter().filter(|command| **command != "help") {
        assert!(directory.path().join(format!("scalebridge-{command}.1")).exists(), "{command}");
    }
}
