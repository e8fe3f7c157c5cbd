use parking_lot::Mutex;

use super::*;
use crate::cli::run_to;
use crate::event::ScalingEvent;
use crate::ledger::sqlite::SqliteLedger;
use crate::ledger::{AppliedItem, Entries, TargetItem};
use crate::plan::test_support::{NOW, event};

/// A ledger in a directory of its own.
struct World {
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { directory: tempfile::tempdir().unwrap() };
        world.block_on(async { world.ledger().await });
        world
    }

    fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    async fn ledger(&self) -> SqliteLedger {
        SqliteLedger::open(self.directory.path().join("scaler.db"), || NOW).await.unwrap()
    }

    /// What every plan reads.
    fn freeze(&self) -> Freeze {
        self.block_on(async { self.ledger().await.read(&event(1, 1, "+3")).await.unwrap().freeze })
    }

    /// Runs a command as `user`. Returns the exit code, stdout and stderr.
    fn run_as(&self, user: Option<&str>, arguments: &[&str]) -> (u8, String, String) {
        let path = self.directory.path().join("scaler.db");
        let config = format!(
            "ledger: {{ sqlite: {{ path: {} }} }}\ntargets: [{{ match: 'kubernetes/*' }}]\n",
            path.display()
        );
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut io = Io {
            out: &mut out,
            err: &mut err,
            config_text: Some(config),
            user: user.map(str::to_owned),
            now_millis: 1_795_366_520_062,
            is_function: false,
        };
        let arguments = ["scalebridge-scaler"].iter().chain(arguments).map(Into::into);
        let code = run_to(arguments, &mut io);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// The output of a command of `ana` that succeeds.
    fn run(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.run_as(Some("ana"), arguments);
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
        out
    }
}

const SINCE: &str = "2026-11-22T16:55:20.062Z";

#[test]
fn both_directions_are_frozen_and_let_go_for_every_plan() {
    let world = World::new();
    let out = world.run(&["freeze", "--reason", "an incident"]);
    assert_eq!(
        out,
        format!(
            "before:\n  increases: not frozen\n  decreases: not frozen\nafter:\n\
             \u{20} increases: frozen by ana since {SINCE}: an incident\n\
             \u{20} decreases: frozen by ana since {SINCE}: an incident\n\
             Events that it stops wait in their queue until they expire; a change that was already called is not taken \
             back.\n`scalebridge-scaler unfreeze` lets them go on.\n"
        )
    );
    let frozen = Frozen {
        by: "ana".to_owned(),
        reason: "an incident".to_owned(),
        since: Time::from_millis(1_795_366_520_062),
    };
    let both = Freeze { version: 1, increases: Some(frozen.clone()), decreases: Some(frozen) };
    assert_eq!(world.freeze(), both);

    let out = world.run(&["unfreeze", "--direction", "increases"]);
    assert_eq!(
        out,
        format!(
            "before:\n  increases: frozen by ana since {SINCE}: an incident\n\
             \u{20} decreases: frozen by ana since {SINCE}: an incident\n\
             after:\n  increases: not frozen\n  decreases: frozen by ana since {SINCE}: an incident\n"
        )
    );
    assert_eq!(world.freeze(), Freeze { version: 2, increases: None, ..both });
    world.run(&["unfreeze"]);
    assert_eq!(world.freeze(), Freeze { version: 3, ..Freeze::default() });
}

#[test]
fn one_direction_leaves_the_other_as_it_is() {
    let world = World::new();
    world.run(&["freeze", "--direction", "decreases", "--reason", "a", "--by", "bo"]);
    world.run(&["freeze", "--direction", "increases", "--reason", "b"]);
    let Freeze { increases, decreases, .. } = world.freeze();
    let who = |frozen: Option<Frozen>| frozen.map(|frozen| (frozen.by, frozen.reason));
    assert_eq!(who(increases), Some(("ana".to_owned(), "b".to_owned())));
    assert_eq!(who(decreases), Some(("bo".to_owned(), "a".to_owned())));
    let out = world.run(&["unfreeze", "--direction", "decreases", "-o", "json"]);
    let frozen = |by: &str, reason: &str| json!({ "by": by, "reason": reason, "since": SINCE });
    let expected = json!({
        "before": { "increases": frozen("ana", "b"), "decreases": frozen("bo", "a") },
        "after": { "increases": frozen("ana", "b"), "decreases": null },
    });
    assert_eq!(out, format!("{expected}\n"));
}

#[test]
fn what_is_not_frozen_is_said_and_nothing_is_written() {
    let world = World::new();
    let rest = "before:\n  increases: not frozen\n  decreases: not frozen\n\
                after:\n  increases: not frozen\n  decreases: not frozen\n";
    assert_eq!(world.run(&["unfreeze"]), format!("nothing was frozen; nothing is changed\n{rest}"));
    let out = world.run(&["unfreeze", "--direction", "decreases"]);
    assert_eq!(out, format!("decreases were not frozen; nothing is changed\n{rest}"));
    assert_eq!(world.freeze(), Freeze::default());
}

#[test]
fn unusable_input_freezes_nothing() {
    let world = World::new();
    let (code, _, err) = world.run_as(None, &["freeze", "--reason", "x"]);
    assert_eq!(code, 2);
    assert!(err.contains("--by NAME"), "{err}");
    let (code, _, err) = world.run_as(Some("ana"), &["freeze", "--reason", " "]);
    assert_eq!(code, 2);
    assert!(err.contains("--reason is empty"), "{err}");
    assert_eq!(world.run_as(Some("ana"), &["freeze"]).0, 2);
    assert_eq!(world.run_as(Some("ana"), &["freeze", "--direction", "up", "--reason", "x"]).0, 2);
    let (code, _, err) = world.run_as(Some("ana"), &["freeze", "--reason", "x", "--config", "/missing.yaml"]);
    assert_eq!(code, 2);
    assert!(err.contains("/missing.yaml cannot be read"), "{err}");
    assert_eq!(world.freeze(), Freeze::default());

    std::fs::remove_file(world.directory.path().join("scaler.db")).unwrap();
    let (code, _, err) = world.run_as(Some("ana"), &["freeze", "--reason", "x"]);
    assert_eq!(code, 2);
    assert!(
        err.contains("scaler.db does not exist here: run the command in the worker's directory"),
        "{err}"
    );
    std::fs::write(world.directory.path().join("scaler.db"), "no database, but a text that is long enough")
        .unwrap();
    let (code, _, err) = world.run_as(Some("ana"), &["unfreeze"]);
    assert_eq!(code, 2);
    assert!(err.contains("scaler.db: "), "{err}");
}

/// A ledger that another operator changes between a read and the write after it.
struct Contested {
    ledger: SqliteLedger,
    /// How often.
    left: Mutex<u32>,
}

impl Ledger for Contested {
    async fn read(&self, event: &ScalingEvent) -> Result<Entries, LedgerError> {
        self.ledger.read(event).await
    }

    async fn write_target(&self, _: &str, _: u64, _: &TargetItem) -> Result<Written, LedgerError> {
        unreachable!("no target is changed")
    }

    async fn replace_applied(
        &self,
        _: &str,
        _: &AppliedItem,
        _: &AppliedItem,
    ) -> Result<Written, LedgerError> {
        unreachable!("nothing is taken back")
    }

    async fn write_applied(&self, _: &str, _: &AppliedItem) -> Result<(), LedgerError> {
        unreachable!("nothing is applied")
    }

    async fn read_freeze(&self) -> Result<Freeze, LedgerError> {
        let freeze = self.ledger.read_freeze().await?;
        let is_changed = {
            let mut left = self.left.lock();
            let is_changed = *left > 0;
            *left = left.saturating_sub(1);
            is_changed
        };
        if is_changed {
            let after =
                with(&freeze, Some(Direction::Decreases), Some(&frozen_by(&freeze.version.to_string())));
            self.ledger.write_freeze(freeze.version, &after).await?;
        }
        Ok(freeze)
    }

    async fn write_freeze(&self, version: u64, freeze: &Freeze) -> Result<Written, LedgerError> {
        self.ledger.write_freeze(version, freeze).await
    }
}

fn frozen_by(by: &str) -> Frozen {
    Frozen { by: by.to_owned(), reason: "a reason".to_owned(), since: NOW }
}

#[test]
fn of_two_operators_at_the_same_moment_none_undoes_what_the_other_did() {
    let world = World::new();
    let apply_with = |left: u32| {
        world.block_on(async {
            let ledger = Contested { ledger: world.ledger().await, left: Mutex::new(left) };
            let change = |before: &Freeze| with(before, Some(Direction::Increases), Some(&frozen_by("ana")));
            apply(&ledger, change).await.map(|Change { before, .. }| before.decreases.map(|frozen| frozen.by))
        })
    };
    assert_eq!(apply_with(1), Ok(Some("0".to_owned())), "what was there before includes the other's");
    let Freeze { increases, decreases, .. } = world.freeze();
    assert_eq!((increases.unwrap().by, decreases.unwrap().by), ("ana".to_owned(), "0".to_owned()));

    world.run(&["unfreeze", "--direction", "increases"]);
    let error = apply_with(ATTEMPTS).unwrap_err();
    assert!(error.contains("nothing was written: run the command again"), "{error}");
    assert_eq!(world.freeze().increases, None);
}

#[test]
fn reason_and_name_are_short_and_of_one_line() {
    let world = World::new();
    let (reason, name) = ("x".repeat(501), "x".repeat(101));
    for (arguments, expected) in [
        (["--reason", "a\nb", "--by", "ana"], "--reason has control characters"),
        (["--reason", "a\u{1b}[31m", "--by", "ana"], "--reason has control characters"),
        (["--reason", "a", "--by", "an\na"], "--by has control characters"),
        (["--reason", &reason, "--by", "ana"], "--reason is longer than 500 characters"),
        (["--reason", "a", "--by", &name], "--by is longer than 100 characters"),
    ] {
        let (code, _, err) = world.run_as(None, &[&["freeze"], &arguments as &[&str]].concat());
        assert!(code == 2 && err.contains(expected), "{err}");
    }
    assert_eq!(world.freeze(), Freeze::default(), "nothing is frozen");
}

#[test]
fn a_freeze_whose_output_is_lost_holds_and_ends_with_2() {
    let world = World::new();
    let (mut out, mut err) = (std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap(), Vec::new());
    let path = world.directory.path().join("scaler.db");
    let config = format!(
        "ledger: {{ sqlite: {{ path: {} }} }}\ntargets: [{{ match: 'kubernetes/*' }}]\n",
        path.display()
    );
    let mut io = Io {
        out: &mut out,
        err: &mut err,
        config_text: Some(config),
        user: Some("ana".to_owned()),
        now_millis: 1_795_366_520_062,
        is_function: false,
    };
    let arguments = ["scalebridge-scaler", "freeze", "--reason", "an incident"];
    assert_eq!(run_to(arguments.map(Into::into), &mut io), 2);
    let err = String::from_utf8(err).unwrap();
    assert!(err.contains("the output cannot be written") && err.contains("the ledger is changed"), "{err}");
    assert!(world.freeze().increases.is_some());
}
