//! Tests of the syntax and the meaning of matchers.

use super::*;

fn holds(matcher: &str, labels: &[(&str, &str)]) -> bool {
    let labels: Labels = labels.iter().copied().collect();
    Matcher::parse_list(matcher).unwrap().iter().all(|one| one.matches(&labels))
}

#[test]
fn the_four_operators() {
    let labels = &[("alertname", "Disk"), ("severity", "warning")];
    assert!(holds("alertname = Disk", labels));
    assert!(holds("alertname=\"Disk\"", labels));
    assert!(!holds("alertname != Disk", labels));
    assert!(holds("severity =~ \"warning|critical\"", labels));
    assert!(holds("severity=~warning|critical", labels));
    assert!(!holds("severity !~ w.*", labels));
    assert!(holds("{alertname=Disk, severity!=info,}", labels));
    assert!(!holds("alertname=Disk,severity=info", labels));
}

#[test]
fn regular_expressions_match_the_whole_value() {
    assert!(!holds("severity =~ warn", &[("severity", "warning")]));
    assert!(!holds("severity =~ \"a|b\"", &[("severity", "ab")]));
    assert!(!holds("text =~ \"a.b\"", &[("text", "a\nb")]), "as in Alertmanager, unlike in Prometheus");
    assert!(holds(r#"host =~ "web-\d+\.shop""#, &[("host", "web-12.shop")]));
}

#[test]
fn an_absent_label_is_the_empty_string() {
    assert!(holds("team = \"\"", &[]));
    assert!(holds("team != platform", &[]));
    assert!(holds("team =~ \".*\"", &[]));
    assert!(!holds("team =~ \".+\"", &[]));
}

#[test]
fn names_may_be_any_text() {
    assert!(holds("\"k8s.node group\" = \"ä, b\"", &[("k8s.node group", "ä, b")]));
    assert!(holds("größe = 1", &[("größe", "1")]));
}

#[test]
fn printed_matchers_are_parsed_back() {
    for text in ["a=\"b\"", "a!=\"\"", "a=~\"x|y\"", "\"a b\"!~\"q\\\"\\\\n\""] {
        let read = Matcher::parse_list(text).unwrap();
        assert_eq!(read[0].to_string(), text);
    }
}

#[test]
fn errors_say_where_and_how_to_fix() {
    let error = |text: &str| Matcher::parse_list(text).unwrap_err().to_string();
    let errors = [
        "",
        "alertname",
        "alertname == X",
        "= X",
        "a = ",
        "a = b c",
        "a = 'b'",
        "a =~ \"(\"",
        "a =~ \"x)|(y\"",
        "a = \"b",
    ]
    .map(error)
    .join("\n");
    insta::assert_snapshot!(errors, @r#"
    expected a matcher such as alertname = "Disk", at character 1 of ``
    expected one of =, !=, =~ and !~, at character 10 of `alertname`
    unsupported operator `==`; use `=`, at character 11 of `alertname == X`
    expected a label name, not `=`; use double quotes if it is part of it, at character 1 of `= X`
    expected a value; write "" for the empty string, at character 5 of `a = `
    expected `,` or the end; put a value with special characters in double quotes, at character 7 of `a = b c`
    expected a value; use double quotes, at character 5 of `a = 'b'`
    `(` is not a regular expression: missing closing ), at character 6 of `a =~ "("`
    `x)|(y` is not a regular expression: unexpected ), at character 6 of `a =~ "x)|(y"`
    unclosed double quote, at character 5 of `a = "b`
    "#);
}

/// Every combination of a few values of two labels.
fn label_sets() -> Vec<Labels> {
    let values = ["", "x", "y", "xy", "z"];
    let both = values.iter().flat_map(|a| values.iter().map(move |b| (*a, *b)));
    both.map(|(a, b)| [("a", a), ("b", b)].into_iter().filter(|(_, value)| !value.is_empty()).collect())
        .collect()
}

fn matcher_lists() -> impl proptest::strategy::Strategy<Value = Vec<Matcher>> {
    const TEXTS: [&str; 14] = [
        "a = x",
        "a != x",
        "a =~ \"x|y\"",
        "a !~ \"x|y\"",
        "a =~ \"x.*\"",
        "a !~ \".+\"",
        "a = \"\"",
        "a =~ \".*\"",
        "b = x",
        "b != \"\"",
        "b =~ \"x|z\"",
        "b =~ \"(x|y)+\"",
        "b !~ z",
        "c = x",
    ];
    let one = proptest::sample::select(&TEXTS[..]);
    let one =
        proptest::strategy::Strategy::prop_map(one, |text| Matcher::parse_list(text).unwrap().remove(0));
    proptest::collection::vec(one, 0..4)
}

fn all_match(matchers: &[Matcher], labels: &Labels) -> bool {
    matchers.iter().all(|matcher| matcher.matches(labels))
}

proptest::proptest! {
    #[test]
    fn implications_and_contradictions_are_correct(stronger in matcher_lists(), weaker in matcher_lists()) {
        for labels in label_sets() {
            if implies(&stronger, &weaker) && all_match(&stronger, &labels) {
                proptest::prop_assert!(all_match(&weaker, &labels), "{stronger:?} {weaker:?} {labels:?}");
            }
            for label in ["a", "b"] {
                if let Some(values) = possible_values(label, &stronger, None).filter(|_| all_match(&stronger, &labels)) {
                    proptest::prop_assert!(values.contains(&labels.get(label)), "{stronger:?} {values:?}");
                }
            }
        }
    }
}

#[test]
fn simple_implications_and_contradictions_are_found() {
    let list = |text: &str| Matcher::parse_list(text).unwrap();
    for (stronger, weaker) in [
        ("a = x, b = y", "a = x"),
        ("a = x", "a =~ \"x|y\""),
        ("a =~ \"x|y\"", "a != z"),
        ("a = x", "a =~ \"x.*\", a != \"\""),
        ("a =~ \"x.*\"", "b =~ \".*\""),
    ] {
        assert!(implies(&list(stronger), &list(weaker)), "{stronger} {weaker}");
        assert!(!implies(&list(weaker), &list(stronger)), "{weaker} {stronger}");
    }
    assert_eq!(possible_values("a", &list("a = x, a != x"), None), Some(vec![]));
    assert_eq!(possible_values("a", &list("a !~ \".+\""), None), Some(vec![""]));
    assert_eq!(possible_values("a", &list("a =~ \"x.*\""), Some("y")), Some(vec![]));
}
