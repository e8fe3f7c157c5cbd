//! Every command of every runbook runs against a bridge and a scaler, in the state that the runbook is about where that
//! is cheap.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::queries::{blocks, read, runbook, runbooks};
use super::world::{
    self, BROKEN, RULE, Scaler, TARGET, bridge_with_an_unreadable_state, dead_letters, troubled_bridge,
};
use crate::support::bridge::Bridge;
use crate::support::repository;

/// Commands that change the state of the bridge: a runbook with one of them has a bridge of its own.
const CHANGES: [&str; 7] =
    [" drop ", " redrive ", " discard ", " forgive ", " resume ", " pause --", " reload "];
/// Commands that print what exists. They print nothing to stdout if there is nothing.
const SHOWS: [&str; 9] = [
    "scalebridge status",
    "scalebridge sources",
    "scalebridge destinations",
    "scalebridge rules",
    "scalebridge episodes",
    "scalebridge decisions",
    "scalebridge dead-letters list",
    "scalebridge dead-letters show",
    "scalebridge audit",
];

#[test]
fn every_runbook_is_short_and_says_what_to_do() {
    for name in runbooks() {
        let text = runbook(&name);
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["\n**Effect.** ", "\n## First look\n", "\n## Escalate\n"] {
            assert!(text.contains(part), "{name} has no {part:?}");
        }
        assert!(text.contains("\n## Causes") || text.contains("\n## What to do"), "{name}");
        assert!(!blocks(&text, "bash").is_empty() && !blocks(&text, "promql").is_empty(), "{name}");
        let lines = text.lines().count();
        assert!(lines <= 70, "{name} has {lines} lines: too long for three in the morning");
        for link in text.split("](").skip(1) {
            let file = link.split([')', '#']).next().unwrap_or_default();
            let exists = file.starts_with("http") || repository("docs/runbooks").join(file).exists();
            assert!(exists, "{name} links {file}");
        }
    }
}

/// Where the commands of a runbook run.
struct Shell<'a> {
    bridge: &'a Bridge,
    scaler: &'a Scaler,
    programs: &'a Path,
    dead_letter: String,
}

impl Shell<'_> {
    /// Fills in what the runbooks leave to the reader.
    fn fill_in(&self, command: &str) -> String {
        let values = [
            ("http://127.0.0.1:9096", format!("http://{}", self.bridge.address())),
            ("http://127.0.0.1:9097", self.bridge.admin_url()),
            ("http://127.0.0.1:9098", self.scaler.worker.url()),
            ("DEAD_LETTER", self.dead_letter.clone()),
            ("DESTINATION", BROKEN.to_owned()),
            ("RULE", RULE.to_owned()),
            ("SOURCE", "prod-eu".to_owned()),
            ("TARGET", TARGET.to_owned()),
        ];
        let fill = |command: String, (name, value): &(&str, String)| command.replace(name, value);
        let filled = values.iter().fold(command.to_owned(), fill);
        let is_name = |word: &str| word.len() > 3 && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let words = filled.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        assert!(!words.into_iter().any(is_name), "no value for a name in {command}");
        filled
    }

    fn run(&self, place: &str, command: &str) {
        let filled = self.fill_in(command);
        let path = format!("{}:{}", self.programs.display(), std::env::var("PATH").unwrap_or_default());
        let done = Command::new("bash")
            .args(["-ec", &filled])
            .current_dir(self.bridge.dir())
            .stdin(Stdio::null())
            .env("PATH", path)
            .env("USER", "ops")
            .env("SCALEBRIDGE_URL", self.bridge.admin_url())
            .env("SCALEBRIDGE_CONFIG", "scalebridge.yaml")
            .envs(self.scaler.environment())
            .output()
            .expect("bash");
        let (out, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{place}: `{filled}`: {}\n{out}{errors}", done.status);
        let shows = SHOWS.iter().any(|show| filled.starts_with(show)) || filled == "scalebridge pause";
        assert!(!shows || !out.is_empty(), "{place}: `{filled}` shows nothing: {errors}");
    }
}

fn commands(text: &str) -> Vec<String> {
    blocks(text, "bash").iter().flat_map(|block| block.lines()).map(str::to_owned).collect()
}

/// All runbooks of bridge and scaler, and the page about all of them.
fn pages() -> Vec<(String, Vec<String>)> {
    let of_alerts = runbooks().into_iter().map(|name| (name.clone(), commands(&runbook(&name))));
    of_alerts.chain([("README".to_owned(), commands(&read("docs/runbooks/README.md")))]).collect()
}

async fn run_page(page: &str, commands: &[String], bridge: &Bridge, scaler: &Scaler, programs: &PathBuf) {
    let dead_letter = dead_letters(bridge).await.into_iter().next().unwrap_or_default();
    let shell = Shell { bridge, scaler, programs, dead_letter };
    for command in commands {
        shell.run(page, command);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_every_runbook_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let scaler = Scaler::start(dir.path()).await;
    let programs = world::programs(dir.path());
    let common = troubled_bridge().await;
    // What `unfreeze` ends.
    let freeze = "scalebridge-scaler freeze --reason test".to_owned();
    run_page("this test", &[freeze], &common, &scaler, &programs).await;
    for (page, commands) in pages() {
        let changes = commands.iter().any(|command| CHANGES.iter().any(|change| command.contains(change)));
        if page == "ScalebridgeUnreadableRows" {
            let bridge = bridge_with_an_unreadable_state().await;
            run_page(&page, &commands, &bridge, &scaler, &programs).await;
            assert_eq!(bridge.metric("scalebridge_store_unreadable_rows").await, 0.0, "it was given up");
        } else if changes {
            run_page(&page, &commands, &troubled_bridge().await, &scaler, &programs).await;
        } else {
            run_page(&page, &commands, &common, &scaler, &programs).await;
        }
    }
}
