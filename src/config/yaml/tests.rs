//! Tests of the YAML reader.

use super::*;

fn read(text: &str) -> (Option<Node>, String) {
    let mut diagnostics = Diagnostics::default();
    let node = parse(text, &Origin::File(Path::new("c.yaml").into()), &mut diagnostics);
    (node, diagnostics.to_string())
}

fn kind_of(scalar: &str) -> Kind {
    let (node, diagnostics) = read(&format!("a: {scalar}\n"));
    assert_eq!(diagnostics, "");
    node.unwrap().get("a").unwrap().kind.clone()
}

#[test]
fn plain_scalars_are_what_the_core_schema_says() {
    assert_eq!(kind_of("true"), Kind::Bool(true));
    assert_eq!(kind_of("0x10"), Kind::Int(16));
    assert_eq!(kind_of("-3"), Kind::Int(-3));
    assert_eq!(kind_of("1e3"), Kind::Float(1000.0));
    assert_eq!(kind_of("18446744073709551615"), Kind::Float(18_446_744_073_709_551_615.0));
    for null in ["", "~", "null"] {
        assert_eq!(kind_of(null), Kind::Null, "{null}");
    }
    for text in ["3m", "yes", "on", "0755", "1_000", "1:30", ".inf", "2026-11-22", "alertname = Disk"] {
        assert_eq!(kind_of(text), Kind::Text(text.into()));
    }
}

#[test]
fn quoted_scalars_are_text() {
    for text in ["5", "true", "null", "", "~"] {
        assert_eq!(kind_of(&format!("\"{text}\"")), Kind::Text(text.into()));
        assert_eq!(kind_of(&format!("'{text}'")), Kind::Text(text.into()));
    }
}

#[test]
fn the_first_document_can_be_read_as_it_is_written() {
    let read = |text: &str| {
        let mut diagnostics = Diagnostics::default();
        let node = parse_untyped(text, &Origin::File(Path::new("c.yaml").into()), &mut diagnostics);
        assert_eq!(diagnostics.to_string(), "", "{text}");
        node.unwrap().get("a").unwrap().kind.clone()
    };
    for written in ["no", "true", "0x1", "007", "1_0", "1.50", "1e3", "-3", "&x 12", "3m"] {
        let scalar = written.trim_start_matches("&x ");
        assert_eq!(read(&format!("a: {written} # c\n")), Kind::Text(scalar.into()));
        assert_eq!(read(&format!("b: [{written}]\na: {written}")), Kind::Text(scalar.into()));
    }
    let Kind::List(items) = read("b: &b [é, 17]\na: *b\n") else { panic!("a list") };
    assert_eq!(items[1].kind, Kind::Text("17".into()), "also behind an alias");
    assert_eq!(read("a: ~\n"), Kind::Null);
    for text in ["a: x\n---\n", "---\na: x\n---\na: [\n", "# c\n\n---\na: x\n...\nb", "%YAML 1.1\n---\na: x"]
    {
        assert_eq!(read(text), Kind::Text("x".into()), "{text}");
    }
}

#[test]
fn everything_has_its_location() {
    let (node, _) = read("server:\n  listen: x\nrules:\n  - a\n  - k.D: [1,\n      2]\n");
    let node = node.unwrap();
    let Kind::List(rules) = &node.get("rules").unwrap().kind else { panic!("{node:?}") };
    assert_eq!(node.get("server").unwrap().get("listen").unwrap().location.to_string(), "c.yaml:2:11");
    assert_eq!(rules[0].location.to_string(), "c.yaml:4:5");
    let Kind::Map(entries) = &rules[1].kind else { panic!("{node:?}") };
    assert_eq!((&*entries[0].0.name, entries[0].0.location.to_string()), ("k.D", "c.yaml:5:5".into()));
    let Kind::List(numbers) = &entries[0].1.kind else { panic!("{node:?}") };
    assert_eq!(numbers[1].location.to_string(), "c.yaml:6:7");
}

#[test]
fn every_repeated_key_is_an_error() {
    let (node, diagnostics) = read("a: 1\nb: {c: 1, c: 2}\na: 3\n");
    assert_eq!(node.unwrap().get("a").unwrap().kind, Kind::Int(1));
    assert_eq!(
        diagnostics,
        "c.yaml:2:11: error[E003]: duplicate key `c`\n  help: first defined at c.yaml:2:5; keep only one of \
         them\n\
         c.yaml:3:1: error[E003]: duplicate key `a`\n  help: first defined at c.yaml:1:1; keep only one of them"
    );
}

#[test]
fn empty_documents_are_null() {
    for text in ["", "# nothing\n", "---\n"] {
        assert_eq!(read(text).0.unwrap().kind, Kind::Null, "{text}");
    }
}

#[test]
fn byte_order_marks_and_crlf_are_accepted() {
    let (node, diagnostics) = read("\u{feff}a: 1\r\nb:\r\n  - ä: 2\r\n");
    assert_eq!(diagnostics, "");
    assert_eq!(node.unwrap().get("a").unwrap().kind, Kind::Int(1));
}

#[test]
fn aliases_and_merges_are_expanded() {
    let (node, diagnostics) = read("base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\n");
    assert_eq!(diagnostics, "");
    let node = node.unwrap();
    let more = node.get("more").unwrap();
    assert_eq!(more.get("x").unwrap().kind, Kind::Int(1));
    assert_eq!(more.get("y").unwrap().kind, Kind::Int(3));
}

#[test]
fn bad_syntax_has_a_location() {
    let tagged = "a: !x 1\n";
    for text in
        ["a: [1, 2\n", "a: b: c\n", "a: *no\n", "a:\n\tb: 1\n", "a: 1\n---\nb: 2\n", "? [x]\n: 1\n", tagged]
    {
        let (node, diagnostics) = read(text);
        assert!(node.is_none(), "{text}: {node:?}");
        assert!(diagnostics.starts_with("c.yaml:"), "{text}: {diagnostics}");
        assert!(diagnostics.contains("error[E002]"), "{text}: {diagnostics}");
    }
}

#[test]
fn syntax_errors_are_reported_at_their_cause() {
    let cases = [
        ("a: {{ labels.x }}\n", "1:4", "quote it: `\"{{ labels.x }}\"`"),
        ("a: {{ labels.x }}-{{ labels.y }} # c\n", "1:4", "quote it: `\"{{ labels.x }}-{{ labels.y }}\"`"),
        ("a: { b: c, d: {{ labels.x }}, e: f }\n", "1:15", "quote it: `\"{{ labels.x }}\"`"),
        ("a: { d: {{ labels.x }}-{{ labels.y }} }\n", "1:9", "quote it: `\"{{ labels.x }}-{{ labels.y }}\"`"),
        ("a: {% if labels.x %}b{% endif %}\n", "1:4", "quote it: `\"{% if labels.x %}b{% endif %}\"`"),
        ("a: { b: {% if labels.x %}b{% endif %} }\n", "1:9", "quote it: `\"{% if labels.x %}b{% endif %}\"`"),
        ("a: {{ labels[\"x\"] }}\n", "1:4", "quote it: `'{{ labels[\"x\"] }}'`"),
        ("a:\n  - b\n\t- c\n", "3:1", "indent with spaces: YAML allows no tabs there"),
        ("a:\n\tb: c\n", "2:1", "indent with spaces: YAML allows no tabs there"),
        ("a: \"b\nc: d\n", "1:4", "add `\"` at the end of the text"),
        ("a: ['b = c]\nd: 'e'\n", "1:5", "add `'` at the end of the text"),
        ("a: [\"b = \"c\"\"]\n", "1:5", "use the other quotes around it: `'b = \"c\"'`"),
        ("a: [b\nc: d\n", "1:4", "add `]` at the end of the list"),
        ("a: # '[\n  b: { c: d\n  e: f\n", "2:6", "add `}` at the end of the map"),
        (
            "a:\n  b: c\n d: e\n",
            "3:2",
            "let the keys of one map, and the dashes of one list, begin in the same column",
        ),
        (
            "a:\n - b\n  - { c: d }\n",
            "3:3",
            "let the keys of one map, and the dashes of one list, begin in the same column",
        ),
        (" a: b\nc: d\n", "1:1", "remove the spaces before it"),
        ("a:\n  - b c # d\n    e: f\n", "2:5", "use `b: c`"),
        ("a:\n  b:c\n  d: e\n", "2:3", "use `b: c`"),
        ("a\n  b: c\n", "1:1", "use `a:`"),
        ("a: b: c\n", "1:5", "quote the text: `'b: c'`"),
        ("a: *.x\n", "1:4", "quote the text: `'*.x'`"),
    ];
    for (text, at, help) in cases {
        let (node, diagnostics) = read(text);
        assert!(node.is_none() && diagnostics.starts_with(&format!("c.yaml:{at}: ")), "{text}{diagnostics}");
        assert!(diagnostics.ends_with(&format!("\n  help: {help}")), "{text}{diagnostics}");
    }
}

#[test]
fn alias_bombs_are_rejected() {
    let mut text = "a0: &a0 [x]\n".to_owned();
    for n in 1..40 {
        text += &format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 10].join(","));
    }
    assert!(read(&text).1.contains("error[E002]"));
    assert!(read(&"[".repeat(100_000)).1.contains("error[E002]"));
}
