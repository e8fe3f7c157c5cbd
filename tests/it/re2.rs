//! Regular expressions in matchers mean what they mean in Alertmanager: compared with its own `amtool`.

use std::fmt::Write as _;
use std::path::Path;
use std::str;

use scalebridge::domain::matcher::{Matcher, Operator};

use crate::support::seed;
use crate::support::tools::tool;

/// Expressions in which the engines of Go and Rust could differ.
const EXPRESSIONS: [&str; 108] = [
    // Anchors and lines.
    "a|b",
    "|a",
    "a||b",
    "()",
    "^a$",
    "a$|b",
    "^*a",
    "a.b",
    "(?s)a.b",
    "(?m)^a$",
    "(?m)a$\n^b",
    r"\Aa\z",
    r"a\z",
    // Classes.
    r"\w+",
    r"\W",
    r"\d+",
    r"\D",
    r"\s",
    r"\S+",
    r"[\w-]+",
    r"[^\w]",
    r"[\d\s]",
    r"[^\D]",
    "[a&&b]+",
    "[ab&&[^b]]",
    "[a~~b]",
    "[[a]b]",
    "[]a]",
    "[^]a]",
    "[a-]",
    "[-a]",
    "[--/]",
    r"[\]\-\^]",
    "[ #]",
    "[[:alpha:]]+",
    "[[:^alpha:]]",
    "[[:word:][:space:]]",
    "[:alpha:]",
    "[[:x]",
    "[é-ü]",
    "[^é]",
    r"[\x41-\x43]",
    r"[\101]",
    r"[\n\t]",
    // Unicode.
    r"\pL+",
    r"\PL",
    r"\pN",
    r"\p{Greek}",
    r"\p{^Greek}+",
    r"\P{^Lu}",
    r"[\p{Lu}\d]+",
    r"[^\pL]",
    r"\p{Any}",
    "é",
    ".",
    "..",
    r"\p{Nd}",
    r"(?i)\p{Lu}",
    // Word boundaries.
    r"a\b.*",
    r"a\B.*",
    r".*\b",
    r"\bé",
    r"\Bé",
    r".\b.",
    // Flags.
    "(?i)abc",
    "(?i:A)b",
    "a(?i)b|c",
    "(a(?i)b)c",
    "(?i-i:a)",
    "(?i)(?-i)a",
    "(?i)[a-c]+",
    "(?i)[^a]",
    r"(?i)\w",
    r"(?i)\W",
    "(?i)k",
    "(?i)é",
    "(?i)[[:upper:]]",
    "(?U)a+",
    "(?)a",
    "(?is-m:A.)",
    "a(?i)*",
    // Repetitions.
    "a{2}",
    "a{1,}",
    "a{,2}",
    "a{",
    "{",
    "a{x}",
    "a{02}",
    "a{2",
    "}",
    "a??",
    "a+?b",
    "(a*)*",
    "(?:a{2}){2}",
    "a{0}",
    // Escapes.
    r"\Qa.b\E",
    r"\Q|\E",
    r"a\Q\E*",
    r"a+\Q\E?",
    r"\x61",
    r"\x{61}b",
    r"\141",
    r"\0",
    r"\.",
    r"\_\/\ ",
    r"\a|\f|\v",
    "[ü]x?",
    // Captures.
    "(?P<n>a)b",
];

/// Expressions that Go refuses.
const INVALID: [&str; 50] = [
    "[a",
    "(a",
    "*a",
    "a|*",
    "(?i)*",
    "a**",
    "a*+",
    "a++",
    "a?+",
    "a{2}{3}",
    "a{1001}",
    "a{2,1}",
    "(a{100}){11}",
    "a{9999999999}",
    r"\1",
    r"(a)\1",
    r"\8",
    r"\k<n>",
    r"\Z",
    r"\C",
    r"\E",
    r"\G",
    r"\R",
    r"\X",
    r"\h",
    r"\u0061",
    r"\é",
    r"\x4",
    r"\x{}",
    r"\x{110000}",
    "[b-a]",
    "[a--b]",
    r"[a-\d]",
    r"[\b]",
    "[[:words:]]",
    r"\p{Klingon}",
    r"\pX",
    r"\p{Greek",
    "(?=a)",
    "(?!a)",
    "(?<=a)",
    "(?>a)",
    "(?x)a",
    "(?i-)a",
    "(?P<a b>c)",
    "(?P<>c)",
    "(?#a)",
    "(?R)",
    r"\Qa",
    r"a\",
];

const VALUES: [&str; 52] = [
    "", "a", "b", "c", "A", "B", "ab", "aB", "Ab", "AB", "abc", "ABC", "aBc", "aa", "aaa", "aaaa", "aab",
    "a.b", "axb", "a\nb", "a\n", "\n", "\t", "\u{b}", "\u{c}", "\u{7}", " ", "\u{a0}", "-", "a-", "a b", "&",
    "&]", "b]", "ab]", "~", "é", "É", "aé", "éa", "ü", "٣", "1", "12", "α", "ſ", "\u{212a}", "k", "a{,2}",
    "a{x}", "|", "_/ ",
];

/// Pieces of generated expressions.
const PIECES: [&str; 40] = [
    "a",
    "b",
    "é",
    ".",
    "^",
    "$",
    "|",
    "(",
    ")",
    "(?:",
    "(?i)",
    "(?s:",
    "[ab]",
    "[^a]",
    "[a-",
    "]",
    "*",
    "+",
    "?",
    "{2}",
    "{0,2}",
    "{,1}",
    "{",
    "}",
    "\\",
    r"\b",
    r"\B",
    r"\w",
    r"[\W]",
    r"\pL",
    "-",
    "&&",
    "[[:alpha:]]",
    r"\Q",
    r"\E",
    r"\n",
    "1",
    r"\x61",
    "\n",
    "??",
];

#[test]
fn expressions_match_as_in_alertmanager() {
    compare(&EXPRESSIONS.map(str::to_owned), &VALUES.map(str::to_owned));
}

#[test]
fn what_alertmanager_refuses_is_refused() {
    let expressions = INVALID.map(str::to_owned);
    let directory = tempfile::tempdir().expect("a directory");
    assert_eq!(accepted_by_amtool(directory.path(), &expressions), [false; INVALID.len()]);
    for expression in expressions {
        assert!(Matcher::new("v", Operator::Matches, &expression).is_err(), "{expression} is accepted");
    }
}

#[test]
fn generated_expressions_match_as_in_alertmanager() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut generate = || -> String {
        let count = random.usize(1..7);
        (0..count).map(|_| random.choice(PIECES).expect("a piece")).collect()
    };
    let expressions: Vec<String> = (0..400).map(|_| generate()).collect();
    let values: Vec<String> = VALUES.iter().step_by(3).map(|&value| value.to_owned()).collect();
    compare(&expressions, &values);
}

/// Compares which expressions are accepted, and what the accepted ones match.
fn compare(expressions: &[String], values: &[String]) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut accepted = Vec::new();
    for (expression, is_accepted) in expressions.iter().zip(accepted_by_amtool(directory.path(), expressions))
    {
        match Matcher::new("v", Operator::Matches, expression) {
            Ok(matcher) if is_accepted => accepted.push((expression, matcher)),
            Err(_) if !is_accepted => {}
            // Alertmanager anchors only half of `a)|(b`.
            Err(error) if error.ends_with("unexpected )") => {}
            Ok(_) => panic!("Alertmanager refuses {expression:?}"),
            Err(error) => panic!("Alertmanager accepts {expression:?}: {error}"),
        }
    }
    let config = directory.path().join("all.yml");
    std::fs::write(&config, configuration(accepted.iter().map(|(expression, _)| expression.as_str())))
        .expect("a file");
    for value in values {
        let matched = matched_by_amtool(&config, value);
        for (index, (expression, matcher)) in accepted.iter().enumerate() {
            let expected = matched.contains(&index);
            assert_eq!(matcher.matches_value(value), expected, "{expression:?} on {value:?}");
        }
    }
}

/// An Alertmanager configuration with one route for each expression.
fn configuration<'a>(expressions: impl Iterator<Item = &'a str>) -> String {
    let (mut routes, mut receivers) = (String::new(), String::new());
    for (index, expression) in expressions.enumerate() {
        let quoted = serde_json::to_string(expression).expect("JSON");
        // Writing to a string cannot fail.
        let _result =
            writeln!(routes, "  - {{ receiver: r{index}, continue: true, match_re: {{ v: {quoted} }} }}");
        let _result = writeln!(receivers, "  - name: r{index}");
    }
    format!("route:\n  receiver: none\n  routes:\n{routes}receivers:\n  - name: none\n{receivers}")
}

/// Which expressions `amtool check-config` accepts. It checks all files in one run.
fn accepted_by_amtool(directory: &Path, expressions: &[String]) -> Vec<bool> {
    let mut amtool = tool("bin/amtool");
    amtool.arg("check-config").current_dir(directory);
    for (index, expression) in expressions.iter().enumerate() {
        let name = format!("{index}.yml");
        std::fs::write(directory.join(&name), configuration([expression.as_str()].into_iter()))
            .expect("a file");
        amtool.arg(name);
    }
    let output = amtool.output().expect("amtool");
    let text = str::from_utf8(&output.stdout).expect("UTF-8");
    let results: Vec<bool> = text
        .split("Checking '")
        .skip(1)
        .map(|result| result.split_once("'  ").expect("a result").1.starts_with("SUCCESS"))
        .collect();
    assert_eq!(results.len(), expressions.len(), "{text}");
    results
}

/// The indexes of the routes that a value takes.
fn matched_by_amtool(config: &Path, value: &str) -> Vec<usize> {
    let escaped = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let mut amtool = tool("bin/amtool");
    amtool.args(["config", "routes", "test"]).arg(format!("--config.file={}", config.display()));
    let output = amtool.arg(format!("v=\"{escaped}\"")).output().expect("amtool");
    assert!(output.status.success(), "{value:?}: {}", String::from_utf8_lossy(&output.stderr));
    let receivers = String::from_utf8(output.stdout).expect("UTF-8");
    receivers.trim().split(',').filter_map(|name| name.strip_prefix('r')?.parse().ok()).collect()
}
