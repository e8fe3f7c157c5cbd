//! Table tests of what Go's `regexp` decides. `tests/it/re2.rs` compares with Alertmanager itself.

use super::{MAX_NESTING, translate};

fn is_match(expression: &str, text: &str) -> bool {
    let translated = translate(expression).unwrap_or_else(|error| panic!("{expression}: {error}"));
    let regex = regex::RegexBuilder::new(&format!(r"\A(?:{translated})\z")).nest_limit(1000).build();
    regex.unwrap_or_else(|error| panic!("{expression} as {translated}: {error}")).is_match(text)
}

#[track_caller]
fn check(table: &[(&str, &[&str], &[&str])]) {
    for (expression, matching, others) in table {
        for text in *matching {
            assert!(is_match(expression, text), "{expression} should match {text:?}");
        }
        for text in *others {
            assert!(!is_match(expression, text), "{expression} should not match {text:?}");
        }
    }
}

#[test]
fn perl_classes_are_ascii() {
    check(&[
        (r"\w+", &["a_1"], &["é", "ä1", "٣"]),
        (r"\W", &["é", "-"], &["a"]),
        (r"\d+", &["42"], &["٣"]),
        (r"\D", &["٣"], &["3"]),
        (r"\s", &[" ", "\t", "\n", "\u{c}", "\r"], &["\u{b}", "\u{a0}"]),
        (r"\S", &["\u{b}", "\u{a0}"], &[" "]),
        (r".\b.", &["a-", "aé", "éa"], &["é-", "ab"]),
        (r".\B.", &["ab", "é-"], &["a-"]),
        (r"[\w-]+", &["a-b"], &["é"]),
        (r"[^\d\s]", &["a", "٣", "\u{b}"], &["1", " "]),
        (r"(?i)\w", &["a", "ſ", "\u{212a}"], &["é"]),
        (r"(?i)\W", &["é"], &["a", "ſ"]),
    ]);
}

#[test]
fn dots_do_not_match_line_feeds_unless_told() {
    check(&[
        ("a.b", &["a-b", "a\rb"], &["a\nb"]),
        ("(?s)a.b", &["a\nb"], &[]),
        ("(?s:a.)b.", &["a\nbc"], &["a\nb\n"]),
        ("a[^x]b", &["a\nb"], &[]),
    ]);
}

#[test]
fn classes_have_no_set_operations() {
    check(&[
        ("[a&&b]", &["a", "b", "&"], &["c"]),
        ("[a~~b]", &["~", "a"], &["c"]),
        ("[ab&&[^b]]", &["b]", "[]", "&]", "^]"], &["a", "c]"]),
        ("[[a]b]", &["ab]", "[b]"], &["a", "b", "]"]),
        ("[]a]", &["]", "a"], &["b"]),
        ("[^]a]", &["b", "^"], &["]", "a"]),
        ("[a-]", &["a", "-"], &["b"]),
        ("[-a]", &["a", "-"], &["b"]),
        ("[--/]", &["-", ".", "/"], &[","]),
        (r"[\]\-\^\\]", &["]", "-", "^", "\\"], &["a"]),
        ("[ #]", &[" ", "#"], &["a"]),
        ("[[:alpha:]0]+", &["ab0"], &["é", ":"]),
        ("[[:^alpha:]]", &["é", "1"], &["a"]),
        ("[[:word:][:space:]]+", &["a_ \u{b}"], &["-"]),
        ("[:alpha:]", &["a", ":", "l"], &["b"]),
        ("[[:x]", &["[", ":", "x"], &["a"]),
        (r"\pN[\p{Greek}\PL]", &["٣α", "3-"], &["3a", "a1"]),
        (r"\p{^Lu}\P{^Lu}", &["aA"], &["AA", "aa"]),
        (r"\p{Any}\p{Old_Italic}", &["a𐌀"], &["aa"]),
    ]);
}

#[test]
fn braces_are_text_unless_they_are_counts() {
    let thousand = "a".repeat(1000);
    check(&[
        ("a{2}", &["aa"], &["a"]),
        ("a{2,}", &["aaa"], &["a"]),
        ("a{1,2}", &["a", "aa"], &["aaa"]),
        ("a{,2}", &["a{,2}"], &["a", "aa"]),
        ("{", &["{"], &[]),
        ("a{", &["a{"], &["a"]),
        ("a{x}", &["a{x}"], &["a"]),
        ("a{2", &["a{2"], &["aa"]),
        ("a{02}", &["a{02}"], &["aa"]),
        ("}", &["}"], &[]),
        ("x{0}", &[""], &["x"]),
        ("a{1000}", &[&thousand], &["a"]),
        ("(a{10}){100}", &[&thousand], &["a"]),
        ("(a{10}b?){0,100}", &[&thousand, ""], &["a"]),
    ]);
}

#[test]
fn flags_apply_as_in_go() {
    check(&[
        ("(?i)kube", &["KUBE", "\u{212a}ube"], &["cube"]),
        ("(?i:a)b", &["Ab"], &["AB"]),
        ("a(?i)b|c", &["aB", "C"], &["AB"]),
        ("(a(?i)b)c", &["aBc"], &["aBC"]),
        ("(?i-i:a)", &["a"], &["A"]),
        ("(?i)(?-i)a", &["a"], &["A"]),
        ("(?i)[a-c]", &["B"], &["d"]),
        ("(?i)[^a]", &["b"], &["a", "A"]),
        ("(?U)a+b??", &["aab", "a"], &["b"]),
        ("(?m)a$\n^b", &["a\nb"], &[]),
        ("a$\n^b", &[], &["a\nb"]),
        ("(?)a", &["a"], &["b"]),
        ("x(?i)*", &["", "xx"], &["X"]),
        ("(?ims:A.)", &["a\n"], &["b\n"]),
        ("(?P<n>a)(?:b)", &["ab"], &["a"]),
        ("(?<n>a)(?<n_2>b)", &["ab"], &["a"]),
    ]);
}

#[test]
fn escapes_are_those_of_go() {
    check(&[
        (r"\Qa.b|*\E+", &["a.b|*", "a.b|**"], &["axb|*"]),
        (r"a\Q\E*", &["", "aa"], &["b"]),
        (r"a+\Q\E?", &["", "aa"], &["b"]),
        (r"\Q[\E\x41\x{1F600}\101\0", &["[A😀A\0"], &["[A"]),
        (r"\07\018", &["\u{7}\u{1}8"], &[]),
        (r"\a\f\n\r\t\v", &["\u{7}\u{c}\n\r\t\u{b}"], &[]),
        (r"\.\-\_\/\ \#\~\&\<\>", &[".-_/ #~&<>"], &[]),
        (r"a\z", &["a"], &["a\n"]),
        (r"\Aa$", &["a"], &["a\n"]),
        (r"[\x{D800}-\x{E000}]", &["\u{E000}"], &["a"]),
        (r"\x{D800}|a", &["a"], &["b"]),
        (r"[^\x{D800}]", &["a", "\n"], &[]),
        ("<é|x y#z", &["<é", "x y#z"], &["xy"]),
        ("^*a|()|$b", &["a", ""], &["b"]),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_go_refuses_is_refused_in_its_words() {
    let refused = [
        "[a",
        "(a",
        "a)",
        "a)|(b",
        "*a",
        "a|*",
        "(?i)*",
        "a**",
        "a*+",
        "a+?+",
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
        r"\p",
        "(?=a)",
        "(?<=a)",
        "(?<!a)",
        "(?!a)",
        "(?>a)",
        "(?x)a",
        "(?i-)a",
        "(?--i)",
        "(?i",
        "(?P<a b>c)",
        "(?P<>c)",
        "(?P<a",
        "(?P<a>b)(?P<a>c)",
        "a\\",
        r"\Qa",
        "(?P=a)",
        "(?#a)",
    ];
    let errors = refused.map(|expression| match translate(expression) {
        Ok(translated) => format!("{expression} is accepted as {translated}"),
        Err(error) => format!("{expression:14} {error}"),
    });
    insta::assert_snapshot!(errors.join("\n"), @r"
    [a             missing closing ]: `[a`
    (a             missing closing )
    a)             unexpected )
    a)|(b          unexpected )
    *a             missing argument to repetition operator: `*`
    a|*            missing argument to repetition operator: `*`
    (?i)*          missing argument to repetition operator: `*`
    a**            invalid nested repetition operator: `**`
    a*+            invalid nested repetition operator: `*+`
    a+?+           invalid nested repetition operator: `+?+`
    a{2}{3}        invalid nested repetition operator: `{2}{3}`
    a{1001}        invalid repeat count: `{1001}`; at most 1000, also multiplied with those inside
    a{2,1}         invalid repeat count: `{2,1}`; at most 1000, also multiplied with those inside
    (a{100}){11}   invalid repeat count: `{11}`; at most 1000, also multiplied with those inside
    a{9999999999}  invalid repeat count: `{9999999999}`; at most 1000, also multiplied with those inside
    \1             invalid escape sequence: `\1`; RE2 has no back-references
    (a)\1          invalid escape sequence: `\1`; RE2 has no back-references
    \8             invalid escape sequence: `\8`; RE2 has no back-references
    \k<n>          invalid escape sequence: `\k`; RE2 has no back-references
    \Z             invalid escape sequence: `\Z`; use `\z`
    \C             invalid escape sequence: `\C`
    \E             invalid escape sequence: `\E`
    \é             invalid escape sequence: `\é`
    \x4            invalid escape sequence: `\x`
    \x{}           invalid escape sequence: `\x`
    \x{110000}     invalid escape sequence: `\x`
    [b-a]          invalid character class range: `b-a`
    [a--b]         invalid character class range: `a--`
    [a-\d]         invalid escape sequence: `\d`
    [\b]           invalid escape sequence: `\b`
    [[:words:]]    invalid character class range: `[:words:]`
    \p{Klingon}    invalid character class range: `\p{Klingon}`
    \pX            invalid character class range: `\pX`
    \p{Greek       invalid character class range: `\p{Greek`
    \p             invalid character class range: `\p`
    (?=a)          invalid or unsupported Perl syntax: `(?=`; RE2 has no look-around
    (?<=a)         invalid or unsupported Perl syntax: `(?<=`; RE2 has no look-around
    (?<!a)         invalid or unsupported Perl syntax: `(?<!`; RE2 has no look-around
    (?!a)          invalid or unsupported Perl syntax: `(?!`; RE2 has no look-around
    (?>a)          invalid or unsupported Perl syntax: `(?>`; RE2 has no atomic groups
    (?x)a          invalid or unsupported Perl syntax: `(?x`; the flags are i, m, s and U
    (?i-)a         invalid or unsupported Perl syntax: `(?i-)`
    (?--i)         invalid or unsupported Perl syntax: `(?--`
    (?i            invalid or unsupported Perl syntax: `(?i`
    (?P<a b>c)     invalid named capture: `(?P<a b>`
    (?P<>c)        invalid named capture: `(?P<>`
    (?P<a          invalid named capture: `(?P<a`
    (?P<a>b)(?P<a>c) duplicate named capture: `a`
    a\             trailing backslash at end of expression
    \Qa            missing closing \E of `\Q`
    (?P=a)         invalid or unsupported Perl syntax: `(?P`
    (?#a)          invalid or unsupported Perl syntax: `(?#`
    ");
}

#[test]
fn hostile_expressions_are_bounded() {
    let deep = |open: &str, close: &str, count: usize| open.repeat(count) + "a" + &close.repeat(count);
    let max = MAX_NESTING as usize;
    for (open, close) in [("(", ")"), ("(?:", ")*"), ("(?i:", "){1}")] {
        assert!(translate(&deep(open, close, max * 1000)).is_err(), "{open}");
        assert!(is_match(&deep(open, close, max / 2 - 1), "a"), "{open}");
    }
    assert!(translate(&("a".to_owned() + &r"*\Q\E".repeat(max + 1))).is_err());
    // Many of one kind are one pass each.
    for part in ["[[:", "a|", "[a]", "{1,", r"\Q\E", "(?i)", "()", r"\pL", "(?P<a>"] {
        let _result = translate(&part.repeat(20_000));
    }
}
