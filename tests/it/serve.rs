//! `serve`: start, listeners, and errors at start.

use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::bridge::{Bridge, CONFIG, RULES, captured, program};
use crate::support::tools::{Port, get};

/// Exit code and stderr of a bridge that does not start.
fn failed_start(bridge: &Bridge) -> (Option<i32>, String) {
    let ended = bridge.command().stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("an exit");
    assert!(ended.stdout.is_empty(), "stdout is for data, and there is none");
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[test]
fn every_error_in_configuration_and_rules_is_reported_in_one_run_with_its_location() {
    let config =
        CONFIG.replace("log: { format: json }", "log: { format: xml }\nretention: { decisions: 7 days }");
    let rules = RULES.replace("alertname = KubePodsPending", "alertname == KubePodsPending");
    let mut bridge = Bridge::new(&config, &rules.replace("send_to: [journal]", "send_to: [jurnal]"));
    bridge.env("SCALEBRIDGE__SERVER__LISTN", "127.0.0.1:1");
    let (code, says) = failed_start(&bridge);
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
fn an_unsupported_setting_is_rejected() {
    let config = format!("{CONFIG}engine: {{ max_deferral: 1h }}\n");
    let (code, says) = failed_start(&Bridge::new(&config, RULES));
    assert_eq!(code, Some(2), "{says}");
    assert!(says.contains("`max_deferral` was removed"), "{says}");
}

#[test]
fn an_unauthenticated_non_loopback_listener_is_rejected() {
    for (location, config) in [
        (
            "scalebridge.yaml:2:19",
            CONFIG.replace("server: { listen: \"127.0.0.1:0\" }", "server: { listen: \"0.0.0.0:0\" }"),
        ),
        (
            "scalebridge.yaml:3:18",
            CONFIG.replace("admin: { listen: \"127.0.0.1:0\" }", "admin: { listen: \"[::]:0\" }"),
        ),
    ] {
        let (code, says) = failed_start(&Bridge::new(&config, RULES));
        assert_eq!(code, Some(2), "{says}");
        assert!(says.contains("allow_unauthenticated") && says.contains(location), "{says}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_non_loopback_listener_can_be_allowed() {
    let open = "server: { listen: \"0.0.0.0:0\", allow_unauthenticated: true }";
    let mut bridge = Bridge::new(&CONFIG.replace("server: { listen: \"127.0.0.1:0\" }", open), RULES);
    bridge.run().await;
    assert!(bridge.address().starts_with("0.0.0.0:"));
}

#[test]
fn a_port_in_use_is_reported() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut bridge = Bridge::new(CONFIG, RULES);
    bridge.env("SCALEBRIDGE__SERVER__LISTEN", &taken.local_addr().expect("its address").to_string());
    let (code, says) = failed_start(&bridge);
    assert_eq!(code, Some(1), "{says}");
    assert!(says.contains("server.listen") && says.contains("another process"), "{says}");
}

/// Events appended to the database file would destroy it.
#[test]
fn a_file_destination_that_shares_its_file_is_rejected() {
    let journal = "  journal: { file: { path: events.jsonl } }";
    let twice = format!("{journal}\n  second: {{ file: {{ path: ./events.jsonl }} }}");
    for (location, lines) in [
        ("scalebridge.yaml:8:28", journal.replace("events.jsonl", "./bridge.db")),
        ("scalebridge.yaml:8:28", journal.replace("events.jsonl", "bridge.db-wal")),
        ("scalebridge.yaml:9:27", twice),
    ] {
        let (code, says) = failed_start(&Bridge::new(&CONFIG.replace(journal, &lines), RULES));
        assert_eq!(code, Some(2), "{says}");
        assert!(
            says.contains(location)
                && says.contains("already written by")
                && says.contains("use a different file"),
            "{says}"
        );
    }
}

#[test]
fn a_usage_error_is_reported_and_exits_with_2() {
    let run = |arguments: &[&str]| {
        let command = Command::new(program()).args(arguments).output();
        command.expect("an exit")
    };
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    assert_eq!(run(&["serve", "--help"]).status.code(), Some(0));
    assert_eq!(run(&[]).status.code(), Some(2));
    assert_eq!(run(&["serv"]).status.code(), Some(2));
    let missing = run(&["serve", "--config", "no/such/file.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("no/such/file.yaml"));
}

/// Variables of other programs may contain any bytes. One of the bridge must be UTF-8.
#[test]
fn a_variable_that_is_not_utf_8_is_reported_and_a_foreign_one_ignored() {
    let odd = std::ffi::OsStr::from_bytes(b"\xff");
    let bridge = Bridge::new(CONFIG, RULES);
    let mut command = bridge.command();
    let ended = command.env("FOREIGN", odd).env("SCALEBRIDGE__LOG__LEVEL", odd).output().expect("an exit");
    let says = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{says}");
    assert!(says.contains("$SCALEBRIDGE__LOG__LEVEL") && !says.contains("FOREIGN"), "{says}");
}

/// A log that cannot be written (full disk, dead collector) does not affect notifications.
#[tokio::test(flavor = "multi_thread")]
async fn an_unwritable_log_does_not_stop_the_bridge() {
    let full = || fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let faulty = Bridge::new("sources: 1", RULES).command().stderr(full()).status();
    assert_eq!(faulty.expect("an exit").code(), Some(2), "the exit code does not depend on the log");

    let port = Port::reserve();
    let address = format!("127.0.0.1:{}", port.number);
    let mut bridge = Bridge::new(CONFIG, RULES);
    bridge.env("SCALEBRIDGE__SERVER__LISTEN", &address);
    let mut child = bridge.command().stdout(Stdio::null()).stderr(full()).spawn().expect("the bridge");
    let answers = async {
        let ready = format!("http://{address}/-/ready");
        while !get(&ready).await.is_ok_and(|(status, _)| status == 200) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let client = async |body: String| {
            let mut stream = TcpStream::connect(&address).await?;
            let length = body.len();
            let request = format!("POST /webhook/prod-eu HTTP/1.0\r\ncontent-length: {length}\r\n\r\n{body}");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer.split(' ').nth(1).map(str::to_owned))
        };
        [client(captured("three-firing")).await, client("{".into()).await]
    };
    let answers = tokio::time::timeout(Duration::from_secs(20), answers).await;
    child.kill().expect("a kill");
    child.wait().expect("an exit status");
    let answers = answers.expect("answers in time").map(|answer| answer.expect("an answer"));
    assert_eq!(answers, [Some("200".to_owned()), Some("400".to_owned())]);
}
