//! `scalebridge store copy`: a bridge moves from a SQLite file to a PostgreSQL database and continues where it was.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::bridge::{Bridge, CONFIG, RULES, notification, pending_pod, program, resolved};
use crate::support::postgres::PostgresServer;
use crate::support::secrets::{assert_no_secret, secret};

/// The server asks for no password, and it is not shown anyway.
const PASSWORD: &str = "battery-staple-horse";
const SQLITE: &str = "sqlite: { path: bridge.db }";
const POSTGRES: &str = "postgres: { url_file: secrets/url }";

/// A bridge with two destinations of which `late` cannot be reached yet, since its file is a directory.
fn bridge() -> Bridge {
    const QUICK: &str = "initial_backoff: 50ms, max_backoff: 200ms";
    let journal = "journal: { file: { path: events.jsonl } }";
    let late = format!("{journal}\n  late: {{ file: {{ path: late.jsonl }}, {QUICK} }}");
    let bridge = Bridge::new(&CONFIG.replace(journal, &late), &RULES.replace("[journal]", "[journal, late]"));
    bridge.without_late_window();
    fs::create_dir(bridge.dir().join("late.jsonl")).expect("a directory");
    fs::create_dir(bridge.dir().join("secrets")).expect("a directory");
    bridge
}

fn write_url(dir: &Path, url: &str) {
    let file = dir.join("secrets/url");
    fs::write(&file, url).expect("a URL");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("permissions");
}

/// The URL of a database, with a password.
fn url(base: &str) -> String {
    secret(PASSWORD);
    base.replace("postgres@", &format!("postgres:{PASSWORD}@"))
}

/// Runs the command. Returns the exit code and what it has printed.
fn copy_from_to(dir: &Path, from: &str, to: &str) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    let done = command.args(["store", "copy", "--from", from, "--to", to]).current_dir(dir).output();
    let done = done.expect("the program");
    let printed = [done.stdout, done.stderr].concat();
    assert_no_secret("what the copy printed", &printed);
    (done.status.code(), String::from_utf8(printed).expect("UTF-8"))
}

fn copy(dir: &Path) -> (Option<i32>, String) {
    copy_from_to(dir, "sqlite:bridge.db", "postgres:secrets/url")
}

/// The ids of the events in a file.
fn ids(dir: &Path, file: &str) -> Vec<String> {
    let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
    let event = |line: &str| serde_json::from_str::<Value>(line).expect("an event");
    text.lines().map(|line| event(line)["id"].as_str().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn an_open_episode_and_an_undelivered_event_continue_on_the_copy() {
    let server = PostgresServer::shared();
    let mut bridge = bridge();
    let dir = bridge.dir().to_owned();
    write_url(&dir, &url(&server.url(&server.create_database(None))));
    bridge.run().await;
    let pod = pending_pod("workers", "a");
    assert_eq!(bridge.post(notification(std::slice::from_ref(&pod))).await.status, 200);
    bridge.wait_delivered("journal").await;

    let (code, printed) = copy(&dir);
    assert!(code == Some(2) && printed.contains("nothing was copied"), "a bridge uses the file: {printed}");
    assert!(bridge.stop().await.success());
    let (code, printed) = copy(&dir);
    assert_eq!(code, Some(0), "{printed}");
    for expected in [
        "destinations:   2\n",
        "targets:        1 (unreadable: 0)\n",
        "events:         1\n",
        "deliveries:     2 (undelivered: 1, dead letters: 0)\n",
    ] {
        assert!(printed.contains(expected), "{expected:?} is missing: {printed}");
    }
    let (code, printed) = copy(&dir);
    assert!(code == Some(2) && printed.contains("has data of a bridge already"), "{printed}");

    // The destination is repaired while no bridge runs.
    fs::remove_dir(dir.join("late.jsonl")).expect("a directory");
    let config = fs::read_to_string(dir.join("scalebridge.yaml")).expect("a configuration");
    assert!(config.contains(SQLITE), "{config}");
    bridge.write("scalebridge.yaml", &config.replace(SQLITE, POSTGRES));
    bridge.run().await;
    bridge.wait_settled(&["journal", "late"]).await;
    let fired = ids(&dir, "events.jsonl");
    assert_eq!((fired.len(), ids(&dir, "late.jsonl")), (1, fired.clone()), "delivered once, under its id");

    let (code, printed) = copy(&dir);
    assert_eq!(code, Some(2), "a bridge uses the database: {printed}");
    let repeated = bridge.post(notification(std::slice::from_ref(&pod))).await;
    assert_eq!(repeated.verdicts()["duplicate"], 1, "the episode is open: {}", repeated.body);
    assert_eq!(bridge.post(notification(&[resolved(&pod)])).await.status, 200);
    bridge.wait_settled(&["journal", "late"]).await;
    let actions: Vec<Value> =
        bridge.events().await.iter().map(|event| event["data"]["action"].clone()).collect();
    assert_eq!(actions, ["scale_out", "scale_in"]);
    assert_eq!(ids(&dir, "late.jsonl"), ids(&dir, "events.jsonl"));
    assert_eq!(bridge.decisions("emitted").await.len(), 2, "with the decision before the copy");
    assert!(bridge.stop().await.success());
}

#[tokio::test]
async fn wrong_arguments_and_stores_that_cannot_be_used_copy_nothing_and_say_what_to_do() {
    let server = PostgresServer::shared();
    let mut bridge = bridge();
    let dir = bridge.dir().to_owned();
    bridge.run().await;
    assert!(bridge.stop().await.success());
    let database = server.url(&server.create_database(None));
    write_url(&dir, &url(&database));
    let (sqlite, postgres) = ("sqlite:bridge.db", "postgres:secrets/url");
    for (from, to, expected) in [
        ("bridge.db", postgres, "write `sqlite:` before the path of the file"),
        (sqlite, sqlite, "write `postgres:` before the path of the file"),
        (sqlite, "postgres:", "write `postgres:` before the path of the file"),
        ("sqlite:absent.db", postgres, "absent.db does not exist"),
        (sqlite, "postgres:secrets/absent", "secrets/absent"),
        (sqlite, "postgres://bridge:s3cret@127.0.0.1/bridge", "write it into a file"),
    ] {
        let (code, printed) = copy_from_to(&dir, from, to);
        assert!(!printed.contains("s3cret"), "{printed}");
        assert!(code == Some(2) && printed.contains(expected), "{from} {to}: {expected}: {code:?} {printed}");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    for (base, code, expected) in [
        ("mysql://postgres@127.0.0.1/bridge".to_owned(), 2, "postgres://"),
        (format!("{database}?sslmode=prefer"), 2, "sslmode"),
        (format!("{database}_absent"), 2, "create the database, or correct its name"),
        (format!("postgres://postgres@127.0.0.1:{port}/bridge"), 1, "nothing was copied"),
    ] {
        write_url(&dir, &url(&base));
        let (found, printed) = copy(&dir);
        assert!(found == Some(code) && printed.contains(expected), "{base}: {expected}: {found:?} {printed}");
    }
    // The database has stayed empty.
    write_url(&dir, &url(&database));
    let (code, printed) = copy(&dir);
    assert!(code == Some(0) && printed.contains("events:         0\n"), "{printed}");
}
