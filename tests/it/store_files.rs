//! The files of the store: one bridge for each, whatever its name; nobody else reads them, and no destination writes them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::bridge::{Bridge, CONFIG, RULES, captured};
use crate::support::tools::eventually;

/// Exit code and stderr of a start that fails.
fn failed_start(bridge: &Bridge, store: &str) -> (Option<i32>, String) {
    let mut command = bridge.command();
    command.env("SCALEBRIDGE__STORE__SQLITE__PATH", store).stdout(Stdio::null()).stderr(Stdio::piped());
    let ended = command.output().expect("an exit");
    (ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_has_one_bridge_whatever_its_name() {
    let bridge = Bridge::start().await;
    let at = |name: &str| bridge.dir().join(name);
    fs::create_dir(at("other")).expect("a directory");
    fs::hard_link(at("bridge.db"), at("other/hard.db")).expect("a hard link");
    symlink("../bridge.db", at("other/soft.db")).expect("a link");
    symlink(".", at("here")).expect("a link");
    for name in ["bridge.db", "other/hard.db", "other/soft.db", "here/bridge.db", "./other/../bridge.db"] {
        let (code, says) = failed_start(&bridge, name);
        assert_eq!(code, Some(2), "{name}: {says}");
        assert!(says.contains(&format!("another scalebridge uses the store {name}")), "{name}: {says}");
    }
    let mounted = Command::new("mount").arg("--bind").args([bridge.dir(), &at("other")]).output();
    if mounted.is_ok_and(|mounted| mounted.status.success()) {
        let (code, says) = failed_start(&bridge, "other/bridge.db");
        let unmounted = Command::new("umount").arg("-l").arg(at("other")).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "umount");
        assert!(code == Some(2) && says.contains("another scalebridge uses the store"), "{code:?}: {says}");
    }
    // The attempts have not released the locks of the running bridge.
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200);
    assert_eq!(failed_start(&bridge, "bridge.db").0, Some(2));
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[tokio::test(flavor = "multi_thread")]
async fn others_cannot_read_the_store_and_the_journal() {
    let config = CONFIG.replace("path: bridge.db", "path: store/deep/bridge.db");
    let config = config.replace("path: events.jsonl", "path: journal/events.jsonl");
    let mut bridge = Bridge::new(&config, RULES);
    bridge.wrap_with(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""]);
    bridge.run().await;
    assert_eq!(bridge.post(captured("three-firing")).await.status, 200);
    let journal = bridge.dir().join("journal/events.jsonl");
    eventually("the journal", async || journal.exists().then_some(())).await;
    for name in ["bridge.db", "bridge.db-wal", "bridge.db-shm", "bridge.db.lock"] {
        assert_eq!(mode(&bridge.dir().join("store/deep").join(name)), 0o640, "{name}");
    }
    assert_eq!(mode(&journal), 0o640);
    for name in ["store", "store/deep", "journal"] {
        assert_eq!(mode(&bridge.dir().join(name)), 0o750, "{name}");
    }
}

/// A link that is made after the configuration was checked.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_file_of_the_bridge_is_not_written() {
    let mut bridge = Bridge::new(CONFIG, RULES);
    symlink("events-1.jsonl", bridge.dir().join("events.jsonl")).expect("a link");
    bridge.run().await;
    let (journal, rules) = (bridge.dir().join("events.jsonl"), bridge.dir().join("rules.yaml"));
    let database = bridge.dir().join("bridge.db");
    let link_to = |target: &Path| {
        fs::remove_file(&journal).expect("no link");
        symlink(target, &journal).expect("a link");
    };
    link_to(&rules);
    assert_eq!(bridge.post(captured("one-firing")).await.status, 200);
    let failing = async |what: &str| {
        eventually(what, async || {
            let (_, ready) = crate::support::tools::get(&bridge.url("/-/ready")).await.expect("an answer");
            ready.contains(what).then_some(())
        })
        .await;
    };
    failing("leads to a file of the configuration").await;
    link_to(&database);
    failing("leads to a file of the store").await;
    assert_eq!(fs::read_to_string(&rules).expect("rules"), RULES);
    fs::remove_file(&journal).expect("no link");
    bridge.wait_settled(&["journal"]).await;
    assert_eq!(fs::read_to_string(&journal).expect("a journal").lines().count(), 1);
    assert!(bridge.stop().await.success());
    let check = rusqlite::Connection::open(&database).expect("the store");
    let found: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!(found, "ok");
}
