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
fn renamed_flags_keep_their_old_names_as_hidden_aliases() {
    let check = ["check", "--config", "tests/config/bad/warnings.yaml"];
    let test = ["test", "config/rules.test.yaml"];
    let replay =
        ["replay", "--config", "tests/cmd/new.yaml", "tests/fixtures/alertmanager/three-firing.json"];
    // No bridge listens on port 1, so the command fails after its arguments were accepted.
    let discard = ["dead-letters", "discard", "--url", "http://127.0.0.1:1"];
    let assert_alias = |command: &[&str], new: &str, old: &str, value: &[&str], expected: i32| {
        let run = |flag: &str| scalebridge(&[command, &[flag], value].concat());
        assert_eq!(run(new).0, Some(expected), "{new}");
        assert_eq!(run(old), run(new), "{old}");
        let verb = if command[0] == "dead-letters" { &command[..2] } else { &command[..1] };
        let (_, help) = scalebridge(&[verb, &["--help"]].concat());
        assert!(help.contains(new) && !help.contains(old), "{old}: {help}");
    };
    assert_alias(&check, "--deny-warnings", "--fatal-warnings", &[], 1);
    assert_alias(&test, "--filter", "--only", &["heartbeat"], 0);
    assert_alias(&replay, "--advance", "--then", &["2h"], 0);
    assert_alias(&discard, "--dead-before", "--given-up-before", &["1h"], 1);
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

const RULES: &str = "rules:
  - name: pods
    matchers: [alertname = KubePodUnschedulable]
    target: { platform: eks, kind: nodegroup, name: \"{{ labels.nodegroup }}\" }
    on_firing: { scale_out: { by: 1 } }
    send_to: [a-queue-of-another-file]
";

/// Runs `check` with `text` on standard input.
fn check_stdin(words: &[&str], text: &str) -> (Option<i32>, String) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut command = Command::new(program());
    command.arg("check").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("the program");
    running.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("standard input");
    let done = running.wait_with_output().expect("the output");
    (done.status.code(), String::from_utf8(done.stdout).expect("UTF-8"))
}

#[test]
fn a_rules_file_alone_is_checked_from_a_file_or_standard_input() {
    let expected = "1 rule; sources and destinations are not checked without the configuration";
    assert_eq!(check_stdin(&["-"], RULES), (Some(0), format!("<stdin> is valid: {expected}\n")));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("rules.yaml");
    std::fs::write(&file, RULES).expect("a file");
    let file = file.to_str().expect("UTF-8");
    assert_eq!(scalebridge(&["check", file]), (Some(0), format!("{file} is valid: {expected}\n")));

    let (code, shown) = check_stdin(&["-"], &RULES.replace("by: 1", "by: 25%"));
    assert_eq!(code, Some(1), "{shown}");
    assert!(
        shown.contains("<stdin>:5:35") && shown.contains("by: 25%") && shown.contains("by_percent: 25"),
        "{shown}"
    );

    // Each file is reported, and an unreadable one is unusable input.
    let (code, shown) = scalebridge(&["check", file, "config/scalebridge.yaml"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains(expected) && shown.contains("config/scalebridge.yaml is valid"), "{shown}");
    assert_eq!(scalebridge(&["check", file, "nowhere.yaml"]).0, Some(2));
}

#[test]
fn what_check_prints_contains_no_secret_of_the_configuration() {
    let config = "server: { listen: \"0.0.0.0:9096\", tls: { cert_file: a.crt, key: open-sesame } }\nadmin:\n  tokens: \
                  [open-sesame]\n  external_url: https://user:open-sesame@ops.example\nsources:\n  a: { auth: { \
                  bearer_token: open-sesame } }\n  b:\n    auth:\n      password: |\n        open-sesame\n      hmac: \
                  {}\n";
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("scalebridge.yaml");
    std::fs::write(&file, config).expect("a file");
    let file = file.to_str().expect("UTF-8");
    for (code, shown) in [
        scalebridge(&["check", file]),
        scalebridge(&["check", file, "-o", "json"]),
        check_stdin(&["-"], config),
    ] {
        assert_eq!(code, Some(1), "{shown}");
        assert!(shown.contains("E040") && shown.contains("bearer_token"), "{shown}");
        assert!(!shown.contains("sesame"), "{shown}");
    }
}
