use super::*;
use crate::capacity::MaxDecrease;

pub(super) const WHOLE: &str = r#"
queue: { queue_url: "https://sqs.eu-west-1.amazonaws.com/111122223333/scaling.fifo", concurrency: 4 }
refusals: { queue_url: "https://sqs.eu-west-1.amazonaws.com/111122223333/refusals" }
ledger: { dynamodb: { table: scalebridge-scaler, region: eu-west-1 } }
accounts: { "222233334444": { role_arn: "arn:aws:iam::222233334444:role/scaler", external_id: x } }
clusters:
  prod-eu: { eks: { name: prod-eu, region: eu-west-1, account: "222233334444" } }
  lab: { kubeconfig: /etc/kube/config, context: lab }
  here: { in_cluster: true }
nomad: { default: { address: "https://nomad:4646", token_file: /run/secrets/nomad, http: { tls_config: { ca_file: ca.pem } } } }
targets:
  - match: "eks/nodegroup/*/*/prod-*/*/*"
    managed_by: cluster-autoscaler
    buffer: "scaling/spare-{{ name }}"
    min_capacity: 2
    max_capacity: 40
    max_decrease: 20%
  - match: "kubernetes/*"
    max_decrease: 3
    dry_run: true
"#;

fn with(from: &str, to: &str) -> String {
    assert!(WHOLE.contains(from), "{from}");
    WHOLE.replacen(from, to, 1)
}

#[test]
fn a_configuration_is_read() {
    let config = Config::read(WHOLE).unwrap();
    assert_eq!(
        config.clusters["prod-eu"],
        Cluster::Eks(EksCluster {
            name: "prod-eu".to_owned(),
            region: "eu-west-1".to_owned(),
            account: Some("222233334444".to_owned()),
        })
    );
    assert_eq!(config.clusters["here"], Cluster::InCluster);
    assert_eq!(config.queue.unwrap().concurrency, 4);
    let [nodes, pods] = &config.targets[..] else { panic!("two targets") };
    assert_eq!(nodes.managed_by, ManagedBy::ClusterAutoscaler);
    assert_eq!(nodes.policy.max_decrease, Some(MaxDecrease::Percent(20)));
    assert_eq!(pods.managed_by, ManagedBy::Auto);
    assert_eq!((pods.policy.max_decrease, pods.policy.dry_run), (Some(MaxDecrease::Units(3)), true));
    let all_dry = Config::read(&format!("dry_run: true{WHOLE}")).unwrap();
    assert!(all_dry.targets.iter().all(|target| target.policy.dry_run));
}

#[test]
fn comments_have_any_length() {
    let commented = WHOLE.replace("targets:\n", &format!("targets:\n{}", "  # why\n".repeat(1_000)));
    assert_eq!(Config::read(&commented).unwrap(), Config::read(WHOLE).unwrap());
}

#[test]
fn the_first_pattern_that_matches_counts() {
    let config = Config::read(WHOLE).unwrap();
    let settings = |subject: &str| {
        let key = scalebridge::domain::target::TargetKey::from_stored(subject);
        config.settings_for(&key).map(|settings| settings.pattern.as_str().to_owned())
    };
    assert_eq!(settings("eks/nodegroup/-/eu-west-1/prod-eu/-/x").unwrap(), "eks/nodegroup/*/*/prod-*/*/*");
    assert_eq!(settings("kubernetes/deployment/-/-/lab/a/x").unwrap(), "kubernetes/*");
    assert_eq!(settings("eks/nodegroup/-/eu-west-1/test/-/x"), None);
}

#[test]
fn errors_have_a_place_and_a_fix() {
    let cases = [
        ("queue: {", "quue: {", "2:1: unknown field `quue`"),
        ("concurrency: 4", "concurrency: 0", "`concurrency` is 0; 1 to 256 is allowed"),
        ("concurrency: 4", "concurrency: many", "2:"),
        (
            "\"https://sqs.eu-west-1.amazonaws.com/111122223333/refusals\"",
            "refusals",
            "is not the URL of a queue",
        ),
        (
            "dynamodb: { table: scalebridge-scaler, region: eu-west-1 }",
            "",
            "exactly one of `dynamodb` and `sqlite`",
        ),
        (
            "region: eu-west-1 } }",
            "region: eu-west-1 }, sqlite: { path: x } }",
            "4:9: `ledger` has exactly one",
        ),
        ("accounts: { \"222233334444\"", "accounts: { \"22223333\"", "is not the id of an account"),
        ("arn:aws:iam::222233334444:role/scaler", "scaler", "is not the ARN of a role"),
        (
            "arn:aws:iam::222233334444:role/scaler",
            "arn:aws:iam::222233334445:role/scaler",
            "is of account 222233334445",
        ),
        (
            "account: \"222233334444\"",
            "account: \"999999999999\"",
            "account 999999999999 is not in `accounts`",
        ),
        (
            "here: { in_cluster: true }",
            "here: {}",
            "exactly one of `eks`, `kubeconfig` and `in_cluster: true`",
        ),
        (
            "here: { in_cluster: true }",
            "here: { in_cluster: true, context: x }",
            "`context` is only for `kubeconfig`",
        ),
        ("https://nomad:4646", "http://nomad:4646", "the token would be sent over plain HTTP"),
        ("https://nomad:4646", "nomad:4646", "is not the URL of a server"),
        ("ca_file: ca.pem", "cert_file: x.pem", "`cert_file` and `key_file` are set together"),
        ("http: { tls_config: { ca_file: ca.pem }", "http: { no_proxy: x", "`no_proxy` requires `proxy_url`"),
        (
            "http: { tls_config: { ca_file: ca.pem }",
            "http: { proxy_url: \"user:secret@p\"",
            "not the URL of a proxy",
        ),
        (
            "http: { tls_config: { ca_file: ca.pem }",
            "http: { follow_redirects: true",
            "redirects are not followed",
        ),
        (
            "http: { tls_config: { ca_file: ca.pem }",
            "http: { authorization: { credentials_file: x }, basic_auth: { username: x, password_file: x }",
            "mutually exclusive",
        ),
        ("match: \"kubernetes/*\"", "match: \"*\"", "`managed_by` is required"),
        ("match: \"kubernetes/*\"", "match: \"\"", "`match` is empty"),
        ("match: \"kubernetes/*\"", "match: \"ec2/*\"\n    managed_by: auto", "`managed_by: auto` is for"),
        ("match: \"kubernetes/*\"", "match: \"eks/*\"\n    managed_by: karpenter", "name a CapacityBuffer"),
        (
            "managed_by: cluster-autoscaler",
            "managed_by: nobody",
            "`buffer` is for targets that an autoscaler",
        ),
        ("managed_by: cluster-autoscaler", "managed_by: somebody", "13:17: unknown variant `somebody`"),
        ("scaling/spare-{{ name }}", "spare", "namespace/name"),
        ("max_capacity: 40", "max_capacity: 1", "`max_capacity` 1 is below `min_capacity`"),
        ("max_decrease: 20%", "max_decrease: 200%", "`max_decrease` is `200%`"),
        ("max_decrease: 20%", "max_decrease: 0%", "a number of units or 1% to 100%"),
        ("max_capacity: 40", "max_capacity: -1", "16:19: a whole number from 0 to 4294967295 is expected"),
        ("max_decrease: 3", "max_decrease: 0", "`max_decrease` is `0`; a number of units or 1% to 100%"),
        ("max_decrease: 3", "max_decrease: -3", "`max_decrease` is `-3`"),
        ("max_decrease: 3", "max_decrease: 0.2", "`max_decrease` is `0.2`"),
        ("max_decrease: 3", "max_decrease: [3]", "a number of units, or percent such as 20%, is expected"),
        ("concurrency: 4", "concurrency: many", "a whole number that is not negative is expected"),
        ("managed_by: cluster-autoscaler", "managed_by: [nobody]", "13:17: one word is expected"),
        ("managed_by: cluster-autoscaler", "managed_by: { nobody: 1 }", "one word is expected"),
        ("dry_run: true", "dry_run: perhaps", "true or false is expected"),
        (
            "dry_run: true",
            "dry_run: true\n    dry_run: true",
            "the key `dry_run` is there twice: keep one of them",
        ),
        ("table: scalebridge-scaler", "table: null", "a text, which can be in quotes, is expected"),
        ("table: scalebridge-scaler, ", "", "`table` is missing"),
        ("match: \"kubernetes/*\"", "match: *", "a text that begins with `*` or `&` is written in quotes"),
        ("\"scaling/spare-{{ name }}\"", "{{ name }}/x", "in quotes if it begins with `{`"),
        ("queue: {", "queue: x\nq: {", "a map with keys is expected"),
        ("region: eu-west-1 } }", "region: evil.example/x } }", "`region` is not the name of a region"),
        (
            "name: prod-eu, region: eu-west-1",
            "name: prod-eu, region: ''",
            "`region` is not the name of a region",
        ),
        ("name: prod-eu, region", "name: '', region", "`name` is empty"),
        ("table: scalebridge-scaler", "table: ' '", "`table` is empty"),
        (
            "dynamodb: { table: scalebridge-scaler, region: eu-west-1 }",
            "sqlite: { path: '' }",
            "`path` is empty",
        ),
        ("kubeconfig: /etc/kube/config", "kubeconfig: ''", "`kubeconfig` is empty"),
        ("context: lab", "context: ''", "`context` is empty"),
        ("external_id: x", "external_id: ''", "`external_id` is empty"),
        ("token_file: /run/secrets/nomad", "token_file: ''", "`token_file` is empty"),
        ("https://nomad:4646", "https://", "`address` has no valid host"),
        ("https://nomad:4646", "https://nomad:x", "`address` has no valid host"),
        ("https://nomad:4646", "http://127.0.0.1.evil.example", "the token would be sent over plain HTTP"),
        (
            "https://sqs.eu-west-1.amazonaws.com/111122223333/refusals",
            "https://sqs.eu-west-1.amazonaws.com/111122223333/scaling.fifo/",
            "`refusals` is the queue that the worker receives from",
        ),
        ("scaling/spare-{{ name }}", "scaling/{{ name", "14:13: `buffer` is not a template"),
        (
            "scaling/spare-{{ name }}",
            "scaling/{{ nmae }}",
            "14:13: `buffer` names `nmae`; the fields of a target are",
        ),
        (
            "match: \"kubernetes/*\"",
            "match: \"nomad/jobs/*\"",
            "matches no target: they begin with eks/nodegroup/",
        ),
        ("match: \"kubernetes/*\"", "match: \"custom/*\"", "matches no target"),
        (
            "match: \"kubernetes/*\"",
            "match: \"nomad/job/web\"",
            "matches no target: they have the seven parts",
        ),
        ("match: \"kubernetes/*\"", "match: \"nomad/job/-/-/-/-/web/*\"", "%2F for a `/` in a name"),
    ];
    let mut unexpected = Vec::new();
    for (from, to, expected) in cases {
        let errors = Config::read(&with(from, to)).expect_err(to);
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        if !text.contains(expected) || errors.iter().any(|error| error.line == 0) {
            unexpected.push(format!("{to}: {text}; expected: {expected}"));
        }
    }
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
}

#[test]
fn all_errors_are_reported_at_once_in_their_order() {
    let text = with("concurrency: 4", "concurrency: 0").replace("max_decrease: 20%", "max_decrease: 0%");
    let errors = Config::read(&text).unwrap_err();
    assert_eq!(errors.iter().map(|error| error.line).collect::<Vec<_>>(), [2, 17]);
    assert!(
        Config::read("ledger: { sqlite: { path: x } }\ntargets: []").unwrap_err()[0]
            .message
            .contains("is empty")
    );
}

#[test]
fn an_error_of_form_says_its_place_once_and_nothing_of_the_program() {
    for (from, to) in [
        ("max_capacity: 40", "max_capacity: x"),
        ("max_decrease: 3", "max_decrease: { a: 1 }"),
        ("managed_by: cluster-autoscaler", "managed_by: [x]"),
        ("table: scalebridge-scaler", "table: null"),
        ("dry_run: true", "dry_run: true\n    dry_run: true"),
        ("match: \"kubernetes/*\"", "match: *"),
        ("targets:", "targets: {"),
        ("queue: {", "queue: ["),
        ("ledger: {", "ledger: 7\nx: {"),
    ] {
        let error = &Config::read(&with(from, to)).expect_err(to)[0];
        assert!(error.line > 0, "{error}");
        for words in ["line ", "column ", "u32", "u64", "Raw", "enum", "Option", "struct", "\n"] {
            assert!(!error.message.contains(words), "{to}: {error}");
        }
    }
    assert!(!Config::read("").unwrap_err()[0].message.is_empty());
}

#[test]
fn a_url_with_a_password_is_an_error_that_does_not_repeat_it() {
    for (from, key) in [
        ("https://sqs.eu-west-1.amazonaws.com/111122223333/scaling.fifo", "queue_url"),
        ("https://sqs.eu-west-1.amazonaws.com/111122223333/refusals", "refusals.queue_url"),
        ("https://nomad:4646", "address"),
    ] {
        for to in [
            "https://me:s3cr3t@host/1/q",
            "http://s3cr3t@host",
            "me:s3cr3t@host",
            "https://host/q?token=s3cr3t",
        ] {
            let errors = Config::read(&with(from, to)).expect_err(to);
            let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
            assert!(text.contains(&format!("`{key}` ")) && !text.contains("s3cr3t"), "{to}: {text}");
        }
    }
}

#[test]
fn notes_name_what_is_possibly_not_meant() {
    let notes = |targets: &str| {
        let text = format!("ledger: {{ dynamodb: {{ table: t }} }}\ntargets: [{targets}]");
        Config::read(&text).expect(targets).notes()
    };
    assert_eq!(notes("{ match: 'kubernetes/*' }, { match: 'nomad/job/*' }"), Vec::<String>::new());
    assert_eq!(notes("{ match: 'nomad/job/*/*/*/*/web-*' }"), Vec::<String>::new());
    for pattern in ["nomad/job/web-*", "kubernetes/deployment/*/shop/*"] {
        let found = notes(&format!("{{ match: '{pattern}' }}"));
        let expected = format!("`match: {pattern}` has less than seven parts, and `*` also matches `/`");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
    }
    for (earlier, later) in [
        ("nomad/*", "nomad/job/*"),
        ("*", "nomad/*"),
        ("nomad/job/*", "nomad/job/*"),
        ("nomad/job/*/*/*/*/web-*", "nomad/job/-/*/*/*/web-a"),
    ] {
        let found = notes(&format!("{{ match: '{earlier}', managed_by: nobody }}, {{ match: '{later}' }}"));
        let expected =
            format!("`match: {later}` never counts: `match: {earlier}` before it matches the same");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
        if earlier != later {
            let found =
                notes(&format!("{{ match: '{later}' }}, {{ match: '{earlier}', managed_by: nobody }}"));
            assert_eq!(found, Vec::<String>::new());
        }
    }
    let sqlite =
        Config::read("ledger: { sqlite: { path: x } }\ntargets: [{ match: 'kubernetes/*' }]").unwrap();
    assert!(sqlite.notes()[0].contains("workers on one machine only"));
}
