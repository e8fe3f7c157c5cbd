//! Values that must not be rendered are refused, with the fix.

use serde_json::json;

use super::configuration::files_with;
use super::rendering::{chart, charts, try_chart};

const SCALER: &str = "scaler.config.queue.queue_url=https://sqs.eu-west-1.amazonaws.com/123456789012/a";

/// Arguments of helm, and what the refusal must say.
#[rustfmt::skip] // a table
const REFUSED_VALUES: &[(&[&str], &[&str])] = &[
    // The schema.
    (&["--set", "replcas=3"], &["additional properties 'replcas' not allowed"]),
    (&["--set", "image.repo=x"], &["/image", "additional properties 'repo' not allowed"]),
    (&["--set", "config.destinatons.queue=x"], &["/config", "additional properties 'destinatons' not allowed"]),
    (&["--set", "config.sources.alertmanager.heartbeet=x"], &["/config/sources/alertmanager"]),
    (&["--set", "config.log.level=verbose"], &["/config/log/level"]),
    (&["--set", "config.sources.alertmanager.auth.bearer_token=s3cr3t"], &["additional properties 'bearer_token' not allowed"]),
    (&["--set", "scaler.config.tarets=x"], &["/scaler/config", "additional properties 'tarets' not allowed"]),
    (&["--set", "store.engine=mysql"], &["/store/engine", "value must be one of 'sqlite', 'postgres'"]),
    (&["--set", "store.sqlite.accessModes={ReadWriteMany}"], &["'ReadWriteOncePod', 'ReadWriteOnce'"]),
    (&["--set", "serviceAccount.roleArn=scalebridge"], &["/serviceAccount/roleArn", "does not match pattern"]),
    (&["--set", "networkPolicy.operators[0].podSelektor.matchLabels.a=b"], &["additional properties 'podSelektor' not allowed"]),
    (&["--set-json", "networkPolicy.alertmanager=[{}]"], &["/networkPolicy/alertmanager/0", "minProperties"]),
    (&["--set", "listenAddress=10.0.0.1"], &["/listenAddress", "'0.0.0.0'"]),
    (&["--set", "secrets.tls=x"], &["/secrets/tls"]),
    (&["--set", "rules.sources\\.txt=x"], &["/rules", "additional properties 'sources.txt' not allowed"]),
    (&["--set", "scaler.rbac.rules[0].verbs={*},scaler.rbac.rules[0].apiGroups={apps},scaler.rbac.rules[0].resources={x}"], &["/verbs/0"]),
    (&["--set", "prometheusRule.capacity={capacity-eks-pdos}"], &["/prometheusRule/capacity/0", "'capacity-eks-pods'"]),
    (&["--set", "prometheusRule.capacity=true"], &["/prometheusRule/capacity"]),
    // What no schema can say, with the fix.
    (&["--set", "replicas=3"], &["store.engine is sqlite", "Set store.engine: postgres", "or replicas: 1"]),
    (&["--set", "terminationGracePeriodSeconds=25"], &["above config.server.drain_timeout (25s)", "set it to 26 or more"]),
    (&["--set", "terminationGracePeriodSeconds=60,config.server.drain_timeout=1m"], &["set it to 61 or more"]),
    (&["--set", "terminationGracePeriodSeconds=30,store.engine=postgres"], &["preStopSeconds together, 30 s", "31 or more"]),
    (&["--set", "config.server.listen=0.0.0.0:80"], &["config.server.listen is set by the chart", "`listenAddress`"]),
    (&["--set", "config.admin.listen=0.0.0.0:80"], &["config.admin.listen is set by the chart"]),
    (&["--set", "config.store.sqlite.path=/x"], &["config.store is set by the chart", "store.engine"]),
    (&["--set", "config.rules={a.yaml}"], &["config.rules is set by the chart"]),
    (&["--set", "config.sources.alertmanager.auth=null"], &["config.sources.alertmanager has no `auth`", "bearer_token_files"]),
    (&["--set", "config.admin.tokens=null"], &["config.admin has no credentials", "tokens:"]),
    (&["--set", "config.sources.alertmanager=null"], &["no source is configured"]),
    (&["--set", "tls.secretName=a,config.server.tls.client_auth_type=RequireAndVerifyClientCert"], &["probes", "VerifyClientCertIfGiven"]),
    (&["--set", "tls.secretName=a,config.server.tls.cert_file=/x"], &["certificate of its own"]),
    (&["--set", "env.AWS_SECRET_ACCESS_KEY=s3cr3t"], &["looks like a secret", "roleArn"]),
    (&["--set", "env.HTTPS_PROXY=http://scalebridge:s3cr3t@proxy.example:3128"], &["env.HTTPS_PROXY has a URL with a password"]),
    (&["--set", "config.destinations.journal=null,config.destinations.queue.file.path=-"], &["sends to the destination journal", "sed 's/\\[journal\\]/[NAME]/' config/rules.yaml", "--set-file 'rules.rules\\.yaml=rules.yaml'"]),
    (&["--set", "podLabels.app\\.kubernetes\\.io/name=x"], &["/podLabels/app.kubernetes.io~1name"]),
    (&["--set", "env.SCALEBRIDGE_URL=http://example"], &["env.SCALEBRIDGE_URL is set by the chart"]),
    (&["--set", "env.SCALEBRIDGE__SERVER__DRAIN_TIMEOUT=5m"], &["would change what the chart derives"]),
    (&["--set", "store.engine=postgres,networkPolicy.egress.enabled=true"], &["database.peers is empty"]),
    (&["--set", "alertmanagerConfig.enabled=true,alertmanagerConfig.source=other"], &["no source other"]),
    (&["--set", "scaler.enabled=true"], &["scaler.config.queue is missing"]),
    (&["--set", SCALER, "--set", "scaler.enabled=true,scaler.config.targets[0].match=*,scaler.config.ledger.sqlite.path=/x"], &["must be in DynamoDB"]),
];

#[test]
fn wrong_values_are_refused_and_the_message_says_what_to_do() {
    for (arguments, expected) in REFUSED_VALUES {
        let done = try_chart(arguments);
        let message = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success(), "{arguments:?} is accepted");
        for text in *expected {
            assert!(message.contains(text), "{arguments:?}: no {text:?} in {message}");
        }
    }
}

#[test]
fn texts_stay_as_they_are() {
    let rules = "  # Indented.\nrules: []\n# }, {\"\n";
    let rules_argument = format!("rules={}", json!({ "a.yaml": rules }));
    let token = "cli.tokenFile=/x }, {a: b";
    let objects = chart(&[], &["--set-json", &rules_argument, "--set-literal", token]);
    assert_eq!(files_with(&objects, "scalebridge.yaml")["a.yaml"], rules);
    let (_, pod) = objects.pods().next().expect("a bridge");
    let env = pod["spec"]["containers"][0]["env"].as_array().expect("variables");
    let token = env.iter().find(|one| one["name"] == "SCALEBRIDGE_TOKEN_FILE").expect("the token");
    assert_eq!(token["value"], "/x }, {a: b");
}

#[test]
fn the_time_to_stop_is_above_the_drain_timeout() {
    let cases = [
        ("config.server.drain_timeout=25s", 35),
        ("config.server.drain_timeout=0s", 10),
        ("config.server.drain_timeout=500ms", 11),
        ("config.server.drain_timeout=1m30s", 100),
        ("config.server.drain_timeout=1m30s,store.engine=postgres", 105),
        ("config.server.drain_timeout=1h", 3610),
    ];
    let variants: Vec<[&str; 2]> = cases.iter().map(|(settings, _)| ["--set", *settings]).collect();
    let variants: Vec<&[&str]> = variants.iter().map(<[&str; 2]>::as_slice).collect();
    for ((settings, expected), objects) in cases.iter().zip(charts(&[], &variants)) {
        let (_, pod) = objects.pods().next().expect("a bridge");
        assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], *expected, "{settings}");
    }
}
