use super::*;

#[test]
fn messages_do_not_show_user_info() {
    for (text, expected) in [
        ("`https://u:p@host/a@b` is not a URL", "`https://…@host/a@b` is not a URL"),
        ("http://u:p@a, http://b and http://c@d", "http://…@a, http://b and http://…@d"),
        ("http://u:p/x@host", "http://u:p/x@host"),
        ("a@b://", "a@b://"),
        ("://@`@", "://…@`@"),
    ] {
        assert_eq!(message(text.to_owned()), expected);
    }
}

#[test]
fn secrets_are_not_shown_and_columns_remain() {
    let cases = [
        ("url: http://u:p@bridge/webhook/prod-eu", "url: http://***@bridge/webhook/prod-eu"),
        ("url: http://bridge/webhook/prod-eu/?t=x", "url: http://bridge/webhook/prod-eu/****"),
        (
            "- {url: 'http://n8n/webhook/0815', max_alerts: 1}",
            "- {url: 'http://n8n/webhook/****', max_alerts: 1}",
        ),
        (
            "[{url: https://hooks.slack.com/services/T/B/XY}]",
            "[{url: https://hooks.slack.com/services/T/B/**}]",
        ),
        ("url: http://x/", "url: http://x/"),
        ("password: a, b} # c", "password: *********"),
        ("- { x: y, password: \"a\\\"b, \" , c: d }", "- { x: y, password: ******** , c: d }"),
        ("[{ secret: 'a''b' }, { secret: c }]", "[{ secret: ****** }, { secret: * }]"),
        ("b: {password: ab , x: y}", "b: {password: ** , x: y}"),
        ("bearer_token: äöü", "bearer_token: ***"),
        ("\"password\": x", "\"password\": *"),
        ("password_file: /run/x", "password_file: /run/x"),
        ("values: [\"Bearer abc\"]", "values: [\"Bearer ***\"]"),
        ("secrets: [a, b]", "secrets: ******"),
        ("passwrd: hunter2", "passwrd: *******"),
        ("receiver: x # a: b", "receiver: x # a: b"),
    ];
    for (text, expected) in cases {
        assert_eq!(foreign(text, &BTreeSet::from(["prod-eu"])), expected);
        assert_eq!(text.chars().count(), expected.chars().count());
    }
    assert_eq!(foreign("a: b\r\n\npassword: x\n", &BTreeSet::new()), "a: b\r\n\npassword: *\n");
}

#[test]
fn secrets_in_files_of_our_own_are_not_shown() {
    let hash = "$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze";
    let stars = "*".repeat(hash.len());
    let cases = [
        ("auth: { bearer_token: sesame }".to_owned(), "auth: { bearer_token: ****** }".to_owned()),
        (
            "tokens: [{ name: a, token: sesame }, { token_file: b }]".to_owned(),
            "tokens: [{ name: a, token: ****** }, { token_file: b }]".to_owned(),
        ),
        ("tokens: { a: sesame, name: b }".to_owned(), "tokens: { a: ******, name: b }".to_owned()),
        ("users: { alice: sesame } # x: y".to_owned(), "users: { alice: ****** } # x: y".to_owned()),
        ("a: { auth: sesame, b: c }".to_owned(), "a: { auth: ******, b: c }".to_owned()),
        ("auth: open sesame".to_owned(), "auth: ***********".to_owned()),
        (
            "a: { auth: { toekn: sesame, jwt: { issuer: i } }, b: c }".to_owned(),
            "a: { auth: { toekn: ******, jwt: { issuer: i } }, b: c }".to_owned(),
        ),
        (
            "jwks_url: \"https://idp/keys?t=sesame\"".to_owned(),
            "jwks_url: \"https://idp/keys*********\"".to_owned(),
        ),
        ("tls: { key: sesame }".to_owned(), "tls: { key: ****** }".to_owned()),
        ("basic_auth_users: { a: sesame }".to_owned(), "basic_auth_users: *************".to_owned()),
        ("tokens: [sesame, b]".to_owned(), "tokens: ***********".to_owned()),
        (
            "  password: |\n    open\n    sesame\n  b: c".to_owned(),
            "  password: *\n    ****\n    ******\n  b: c".to_owned(),
        ),
        ("password:\n  sesame".to_owned(), "password:\n  ******".to_owned()),
        (format!("  alice: {hash}"), format!("  alice: {stars}")),
        (format!("{{ alice: '{hash}' }}"), format!("{{ alice: '{stars}' }}")),
        ("proxy_url: http://u:p@proxy/a".to_owned(), "proxy_url: http://***@proxy/a".to_owned()),
        ("- \"-----BEGIN PRIVATE KEY-----abc\"".to_owned(), "- \"-----BEGIN ********************".to_owned()),
    ];
    for (text, expected) in cases {
        assert_eq!(own(&text), Some(expected));
    }
    for text in [
        "queue_url: https://sqs/1/scaling",
        "auth: { bearer_token_files: [/run/x] }",
        "bearer_token_files:\n  - /run/x",
        "a: b\n\n  c: d",
    ] {
        assert_eq!(own(text), None);
    }
    let text = format!("alice:{hash}\n\n  bob: {hash}\n{hash}\n");
    assert_eq!(users(&text), format!("alice:{stars}\n\n  bob: {stars}\n{stars}\n"));
    assert_eq!(users(&format!("{hash}:alice")), format!("{stars}******"));
}

#[test]
fn secrets_on_the_lines_below_their_keys_are_not_shown() {
    for (text, expected) in [
        ("auth:\n  sesame\nb: c", "auth:\n  ******\nb: c"),
        ("auth:\n  open sesame # x\n  again", "auth:\n  ***************\n  *****"),
        ("auth:\n\n# why\n  - sesame", "auth:\n\n# why\n  - ******"),
        ("auth:\n- - sesame\n- b", "auth:\n- - ******\n- *"),
        ("auth: # why\n  user:sesame", "auth: # why\n  ***********"),
        ("auth: open\n  sesame\nb: c", "auth: ****\n  ******\nb: c"),
        ("auth: [sesame]", "auth: ********"),
        ("auth: {\n  sesame\n}", "auth: {\n  ******\n}"),
        (
            "auth: {\n  toekn: sesame,\n  jwt: { issuer: i }\n}",
            "auth: {\n  toekn: *******\n  jwt: { issuer: i }\n}",
        ),
        ("auth: [\n  sesame, { name: b }\n]", "auth: [\n  **********name: b }\n]"),
        ("auth:\n  toekn: sesame\n  jwt:\n    issuer: i", "auth:\n  toekn: ******\n  jwt:\n    issuer: i"),
        ("auth:\n  toekn:\n    sesame\n  jwt: eyJ.a.b", "auth:\n  toekn:\n    ******\n  jwt: *******"),
        ("auth:\n  jwt:\n    eyJ.a.b\nb: c", "auth:\n  jwt:\n    *******\nb: c"),
        ("auth:\n  client_cert:\n  - sesame", "auth:\n  client_cert:\n  - ******"),
        ("tokens:\n  sesame", "tokens:\n  ******"),
        (
            "  tokens:\n  - sesame\n  - name: a\n    toekn: b",
            "  tokens:\n  - ******\n  - name: a\n    toekn: *",
        ),
        ("tokens: [\n  sesame\n]", "tokens: *\n  ******\n]"),
        ("users:\n  alice: sesame\nb: c", "users:\n  alice: ******\nb: c"),
        ("bearer_token_files:\n  sesame", "bearer_token_files:\n  ******"),
        ("bearer_token_files: sesame", "bearer_token_files: ******"),
        ("- password:\n  - sesame\n  name: b", "- password:\n  * ******\n  name: b"),
        ("password: \"open\n  sesame\"\nb: c", "password: *****\n  *******\nb: c"),
    ] {
        assert_eq!(own(text).as_deref(), Some(expected), "{text}");
    }
    for text in [
        "auth:\n  bearer_token_files:\n    - token\n    - /run/y\n  client_cert:\n    sans:\n      - a.example\n  # why\n",
        "auth:\n  bearer_token_files:\n  - /run/x\n  jwt:\n    audience: [a]\n    jwks_url:\n      https://a/b\n",
        "auth: {\n  jwt: {\n    issuer: i\n  }\n}\nsources:\n  - a\n  - b: c\n",
        "tokens:\n  - name: a\n    token_file:\n      b\n  - { name: c, scope: read,\n      token_file: d }\n",
        "users:\n- name: alice\n  scope: read\nrules:\n- rules.yaml\n",
        "bearer_token_files:\n  /run/x",
    ] {
        assert_eq!(own(text), None, "{text}");
    }
}
