//! Pods restart for the changes that the bridge cannot reload, and for no others.

use super::configuration::{at_free_ports, files_with, start, write_secrets};
use super::rendering::{Objects, chart, charts};
use crate::support::bridge::Bridge;

/// Values that change the configuration, and whether the pods must restart.
const CHANGES: &[(&str, bool)] = &[
    ("config.sources.another.auth.bearer_token_files={/run/secrets/sources/another}", false),
    ("config.sources.alertmanager.heartbeat_timeout=20m", false),
    ("config.source_defaults.late_window=7m", false),
    ("config.destinations.second.file.path=/var/lib/scalebridge/events.jsonl", false),
    ("config.delivery.max_age=2h", false),
    ("config.engine.scale_in_per_minute=10", false),
    ("config.retention.decisions=14d", false),
    (
        "config.admin.tokens[0].name=sre,config.admin.tokens[0].scope=operate,config.admin.tokens[0].token_file=/run/secrets/admin/on-call",
        false,
    ),
    ("config.admin.metrics_unauthenticated=true", false),
    ("config.admin.external_url=https://ops.example", false),
    ("config.server.max_in_flight=100", true),
    ("config.server.drain_timeout=30s", true),
    ("config.log.level=debug", true),
    ("config.log.format=text", true),
    ("tls.secretName=scalebridge-tls", true),
];

fn restart_of(objects: &Objects) -> String {
    let (_, pod) = objects.pods().next().expect("a bridge");
    pod["metadata"]["annotations"]["scalebridge.io/restart"].as_str().expect("an annotation").to_owned()
}

/// Replaces the configuration of a running bridge. Whether it says that it needs a restart for it.
fn needs_restart(bridge: &Bridge, objects: &Objects) -> bool {
    let text = files_with(objects, "scalebridge.yaml")["scalebridge.yaml"].as_str().expect("a text");
    write_secrets(text, bridge.dir());
    bridge.write("scalebridge.yaml", &at_free_ports(text, bridge.dir()));
    let reload = ["reload", "--output", "json", "--token-file", "secrets/admin/on-call"];
    let (code, out, errors) = bridge.cli(&reload);
    assert_eq!(code, Some(0), "{out}{errors}");
    let report: serde_json::Value = serde_json::from_str(&out).expect("a report");
    report["needs_restart"] != serde_json::json!([])
}

#[tokio::test]
async fn a_change_restarts_the_pods_if_the_bridge_does_not_reload_it() {
    let before = chart(&[], &[]);
    let bridge = start(&before).await;
    let variants: Vec<[&str; 2]> = CHANGES.iter().map(|(change, _)| ["--set", *change]).collect();
    let variants: Vec<&[&str]> = variants.iter().map(<[&str; 2]>::as_slice).collect();
    for ((change, restarts), after) in CHANGES.iter().zip(charts(&[], &variants)) {
        let files = |objects| files_with(objects, "scalebridge.yaml").clone();
        assert_ne!(files(&before), files(&after), "{change}");
        assert_eq!(needs_restart(&bridge, &after), *restarts, "{change}: as the bridge sees it");
        assert_eq!(restart_of(&after) != restart_of(&before), *restarts, "{change}: as the chart sees it");
    }
}

#[test]
fn other_rules_and_sources_restart_nothing() {
    let before = chart(&[], &[]);
    for change in ["rules.a\\.yaml=rules: []", "sourceFiles.source-a\\.yaml=sources: {}"] {
        let after = chart(&[], &["--set-string", change]);
        assert_eq!(restart_of(&after), restart_of(&before), "{change}");
    }
}

#[test]
fn the_scaler_restarts_when_its_configuration_changes() {
    let values = ["scaler.yaml"];
    let hash = |objects: &Objects| {
        let (_, pod) = objects.pods().find(|(name, _)| name.ends_with("scaler")).expect("a scaler");
        pod["metadata"]["annotations"]["scalebridge.io/restart"].clone()
    };
    let change = ["--set", "scaler.config.dry_run=true"];
    assert_ne!(hash(&chart(&values, &[])), hash(&chart(&values, &change)));
}
