//! How `serve` starts, and what it says when it does not.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::support::bridge::{Bridge, CONFIG, RULES};

/// Exit code and stderr of a bridge that does not start.
fn refused(bridge: &Bridge) -> (Option<i32>, String) {
    let ended = bridge.command().stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("an end");
    assert!(ended.stdout.is_empty(), "data goes to stdout, and there is none");
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[test]
fn every_fault_of_configuration_and_rules_is_told_at_once_with_its_place() {
    let config =
        CONFIG.replace("log: { format: json }", "log: { format: xml }\nretention: { decisions: 7 days }");
    let rules = RULES.replace("alertname = KubePodsPending", "alertname == KubePodsPending");
    let mut bridge = Bridge::new(&config, &rules.replace("send_to: [journal]", "send_to: [jurnal]"));
    bridge.env("SCALEBRIDGE__SERVER__LISTN", "127.0.0.1:1");
    let (code, says) = refused(&bridge);
    assert_eq!(code, Some(2), "{says}");
    for expected in [
        "scalebridge.yaml:10:16",
        "scalebridge.yaml:11:25",
        "rules.yaml:4:16",
        "rules.yaml:13:15",
        "did you mean `journal`",
        "SCALEBRIDGE__SERVER__LISTN",
    ] {
        assert!(says.contains(expected), "`{expected}` is missing:\n{says}");
    }
}

#[test]
fn what_this_version_cannot_do_is_refused_and_not_passed_over() {
    let rules = RULES.replace("    send_to:", "    mode: shadow\n    send_to:");
    let (code, says) = refused(&Bridge::new(CONFIG, &rules));
    assert_eq!(code, Some(2), "{says}");
    assert!(says.contains("rules.yaml:13:5") && says.contains("shadow"), "{says}");
}

#[test]
fn a_listener_beyond_loopback_without_credentials_is_refused() {
    for (place, config) in [
        (
            "scalebridge.yaml:2:19",
            CONFIG.replace("server: { listen: \"127.0.0.1:0\" }", "server: { listen: \"0.0.0.0:0\" }"),
        ),
        (
            "scalebridge.yaml:3:18",
            CONFIG.replace("admin: { listen: \"127.0.0.1:0\" }", "admin: { listen: \"[::]:0\" }"),
        ),
    ] {
        let (code, says) = refused(&Bridge::new(&config, RULES));
        assert_eq!(code, Some(2), "{says}");
        assert!(says.contains("allow_unauthenticated") && says.contains(place), "{says}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_beyond_loopback_can_be_allowed() {
    let open = "server: { listen: \"0.0.0.0:0\", allow_unauthenticated: true }";
    let mut bridge = Bridge::new(&CONFIG.replace("server: { listen: \"127.0.0.1:0\" }", open), RULES);
    bridge.run().await;
    assert!(bridge.address().starts_with("0.0.0.0:"));
}

#[test]
fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut bridge = Bridge::new(CONFIG, RULES);
    bridge.env("SCALEBRIDGE__SERVER__LISTEN", &taken.local_addr().expect("its address").to_string());
    let (code, says) = refused(&bridge);
    assert_eq!(code, Some(1), "{says}");
    assert!(says.contains("server.listen") && says.contains("another process"), "{says}");
}

#[test]
fn usage_is_told_and_ends_with_2() {
    let run = |arguments: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_scalebridge")).args(arguments).output();
        command.expect("an end")
    };
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&["serve", "--help"]).status.code(), Some(0));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["serv"]).status.code(), Some(2));
    let missing = run(&["serve", "--config", "no/such/file.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no/such/file.yaml"));
}
