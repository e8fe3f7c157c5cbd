//! Configuration files in `tests/config`, with the expected diagnostics of each.

mod access;
mod broken_lines;
mod database;
mod defaults;
mod pages;
mod schema;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Diagnostics, Engine, Log, LogFormat, LogLevel, Store};
use crate::domain::direction::Direction;
use crate::domain::name::Name;
use crate::domain::rate::PerMinute;
use crate::domain::rule::{Action, Change, Limits, Mode, RuleTarget};
use crate::domain::size_limit::SizeLimit;
use crate::domain::target::Platform;
use crate::kinds::{self, Checked, Loaded, load};

/// Set this variable to overwrite the expected diagnostics.
const BLESS: &str = "BLESS_DIAGNOSTICS";

fn configurations(directory: impl AsRef<Path>) -> Vec<PathBuf> {
    let directory = directory.as_ref();
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(".yaml") && !name.ends_with(".rules.yaml")
    });
    paths.sort();
    assert!(!paths.is_empty(), "no configuration in {}", directory.display());
    paths
}

/// The lines `# env: NAME=VALUE` at the top of a file.
fn environment(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().filter_map(|line| line.strip_prefix("# env: "));
    lines.map(|line| line.split_once('=').unwrap()).map(|(name, value)| (name.into(), value.into())).collect()
}

fn check(path: &Path) -> Result<Loaded, Diagnostics> {
    load(path, environment(path))
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// Compares the diagnostics of each file in a directory with those that are expected.
fn compare(directory: &str, check: impl Fn(&Path) -> Result<Diagnostics, Diagnostics>) {
    let mut mismatches = Vec::new();
    for path in configurations(directory) {
        let rendered = match check(&path) {
            Ok(warnings) => format!("loaded, with these warnings:\n{warnings}\n"),
            Err(diagnostics) => format!("{diagnostics}\n"),
        };
        assert!(rendered.contains("error[E") || rendered.contains("warning[W"), "{} is good", path.display());
        let expected = path.with_extension("diagnostics");
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&expected, &rendered).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != rendered {
            mismatches.push(format!(
                "{}: expected the diagnostics in {}, got:\n{rendered}",
                path.display(),
                expected.display()
            ));
        }
    }
    assert!(mismatches.is_empty(), "{}\n\nset {BLESS}=1 to accept", mismatches.join("\n"));
}

#[test]
fn each_bad_configuration_reports_every_error() {
    compare("tests/config/bad", |path| check(path).map(|loaded| loaded.warnings));
}

#[test]
fn each_bad_configuration_of_access_reports_every_error() {
    compare("tests/config/bad/access", |path| check(path).map(|loaded| loaded.warnings));
    assert!(configurations("tests/config/bad/access").len() >= 50);
}

#[test]
fn each_bad_rules_file_reports_every_error() {
    compare("tests/config/bad/rules", |path| match kinds::check(path, None, [], None)? {
        Checked::Config(loaded) => Ok(loaded.warnings),
        Checked::Rules { warnings, .. } => Ok(warnings),
    });
}

/// A copy of the good configurations whose secrets only their owner can read.
fn private_copy() -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for folder in ["", "secrets", "sources"] {
        std::fs::create_dir_all(copy.path().join(folder)).unwrap();
        for file in std::fs::read_dir(Path::new("tests/config/good").join(folder)).unwrap() {
            let file = file.unwrap();
            let to = copy.path().join(folder).join(file.file_name());
            if file.file_type().unwrap().is_file() {
                std::fs::copy(file.path(), &to).unwrap();
                std::fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
            }
        }
    }
    copy
}

#[test]
fn good_configurations_have_no_diagnostics() {
    let copy = private_copy();
    for path in configurations(copy.path()) {
        match check(&path) {
            Ok(loaded) => assert_eq!(loaded.warnings.to_string(), "", "{}", path.display()),
            Err(diagnostics) => panic!("{diagnostics}"),
        }
    }
}

#[test]
fn the_example_is_the_default() {
    let example =
        load(Path::new("config/scalebridge.yaml"), []).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    assert_eq!(example.warnings.to_string(), "");
    let settings = example.settings;
    assert!(settings.rules.rule(&name("unschedulable-pods")).is_some());
    assert_eq!(settings.destinations[&name("journal")].settings.address(), "-");

    // The values in the example are the defaults.
    let bare = load(Path::new("tests/config/good/least.yaml"), [])
        .unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let bare = bare.settings;
    assert_eq!((&settings.server, &settings.admin), (&bare.server, &bare.admin));
    assert_eq!((&settings.store, &settings.retention), (&bare.store, &bare.retention));
    assert_eq!((settings.engine, settings.log), (bare.engine, bare.log));
    assert_eq!(settings.destinations, bare.destinations);
    let (explicit, implicit) = (&settings.sources[&name("local")], &bare.sources[&name("local")]);
    assert_eq!(explicit.late_window, implicit.late_window);
    assert_eq!(explicit.occurrence_ttl, implicit.occurrence_ttl);
}

#[test]
fn a_missing_file_does_not_hide_environment_errors() {
    let environment = [("SCALEBRIDGE__SERVER__LISEN".to_owned(), "x".to_owned())];
    let diagnostics = load(Path::new("nowhere/c.yaml"), environment).unwrap_err();
    assert_eq!(
        diagnostics.to_string(),
        "nowhere/c.yaml: error[E001]: cannot read nowhere/c.yaml: No such file or directory (os error 2)\n\
         $SCALEBRIDGE__SERVER__LISEN: error[E011]: environment variable does not match any setting\n  \
         help: did you mean `SCALEBRIDGE__SERVER__LISTEN`?"
    );
}

#[test]
fn guards_have_defaults() {
    let text = "rules:\n  - name: a\n    target: { platform: nomad, kind: job, name: j }\n    send_to: [journal]\n    \
                on_firing: { scale_out: { by: 1 } }\n    on_resolved: { scale_in: { by: 1 } }\n";
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("least.yaml"), include_str!("../../tests/config/good/least.yaml"))
        .unwrap();
    std::fs::write(directory.path().join("least.rules.yaml"), text).unwrap();
    let loaded =
        load(&directory.path().join("least.yaml"), []).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
    let rule = loaded.settings.rules.rule(&name("a")).unwrap();
    let guards = |action: &Action| (action.cooldown.as_secs(), action.stabilization_window.as_secs());
    assert_eq!(guards(&rule.on_firing.as_ref().unwrap().action), (300, 0));
    assert_eq!(guards(&rule.on_resolved.as_ref().unwrap().action), (300, 300));
    let window = |allow_decrease| {
        Action::default_stabilization_window(&Change::SetCapacity { to: 1, allow_decrease }).as_secs()
    };
    assert_eq!([window(false), window(true)], [0, 300], "set_capacity decreases only if that is allowed");
}

#[test]
fn settings_have_the_configured_values() {
    let path = Path::new("tests/config/good/full.yaml");
    let settings =
        load(path, environment(path)).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).settings;
    let seconds = Duration::from_secs;

    assert_eq!(settings.server.max_in_flight, 12, "the environment wins over the file");
    assert_eq!(settings.log, Log { format: LogFormat::Json, level: LogLevel::Debug });
    assert_eq!(settings.admin.listen.to_string(), "0.0.0.0:9097");
    assert_eq!(settings.store, Store::Sqlite { path: "/var/lib/scalebridge/state.db".into() });
    assert_eq!(
        settings.sources[&name("prod-eu")].labels.get("Zone.ID"),
        "7",
        "a key keeps its case and dots"
    );
    assert_eq!(settings.sources[&name("elsewhere")].late_window, seconds(360));
    let heartbeats =
        ["prod-eu", "prod-us", "elsewhere"].map(|source| &settings.sources[&name(source)].heartbeat);
    assert_eq!(
        heartbeats.each_ref().map(|heartbeat| heartbeat.as_ref().map_or(0, |it| it.matchers.len())),
        [2, 2, 0]
    );
    let [eu, us] = [0, 1].map(|index| heartbeats[index].as_ref().unwrap());
    assert_eq!(us.matchers[0].to_string(), r#"alertname="Watchdog""#);
    assert_eq!((&eu.equal[..], eu.timeout, eu.grace), (&[][..], Some(seconds(660)), seconds(0)));
    assert_eq!((&us.equal.join(" ")[..], us.timeout, us.grace), ("cluster prometheus", None, seconds(900)));
    assert_eq!(settings.sources[&name("prod-us")].ignore_labels, ["replica", "Prometheus.Replica"]);
    let per_minute = PerMinute { scale_out: 60_000, scale_in: 0 };
    let engine = Engine { per_minute };
    assert_eq!(settings.engine, engine, "the environment wins over the file");

    let retention = settings.retention;
    assert_eq!((retention.notifications, retention.notifications_bytes), (Duration::ZERO, 1 << 20));
    let policy = settings.policy();
    assert_eq!(
        (policy.last_resolve_retention, policy.expired_episode_retention, policy.owed_retention),
        (seconds(600), seconds(24 * 3600), seconds(3 * 24 * 3600))
    );

    let queue = &settings.destinations[&name("queue")];
    assert_eq!((queue.delivery.max_age, queue.delivery.max_backoff), (seconds(7200), seconds(30)));
    assert_eq!(
        (settings.max_backlog, queue.max_backlog),
        (300_000, Some(50_000)),
        "of all destinations, and of one"
    );
    let scaler = &settings.destinations[&name("scaler")];
    assert_eq!(scaler.max_backlog, None, "the limit of all destinations does not apply to each");
    assert_eq!((scaler.concurrency, scaler.acting), (8, true));
    assert_eq!(scaler.delivery.initial_backoff, seconds(10));
    let journal = &settings.destinations[&name("journal")];
    assert_eq!((journal.concurrency, journal.acting), (1, false), "of the kind");
}

#[test]
fn rules_have_the_configured_values() {
    let path = Path::new("tests/config/good/full.yaml");
    let settings =
        load(path, environment(path)).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).settings;
    let seconds = Duration::from_secs;
    let rules: Vec<&str> = settings.rules.rules().iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(rules, ["everything", "by-steps", "resting", "on-trial", "freeze", "freeze-all", "all"]);
    let rule = settings.rules.rule(&name("everything")).unwrap();
    assert_eq!(rule.matchers.len(), 3);
    assert_eq!((rule.limits.min_capacity, rule.limits.max_capacity), (Some(2), Some(40)));
    assert_eq!((rule.expires_after, rule.continues), (seconds(600), true));
    let guards = |action: &Action| (action.cooldown.as_secs(), action.stabilization_window.as_secs());
    assert_eq!(guards(&rule.on_firing.as_ref().unwrap().action), (0, 0), "the rule's; none for a scale-out");
    assert_eq!(guards(&rule.on_resolved.as_ref().unwrap().action), (420, 900), "the file's, and the rule's");
    let steps = settings.rules.rule(&name("by-steps")).unwrap();
    assert_eq!(
        guards(&steps.on_firing.as_ref().unwrap().action),
        (420, 0),
        "a scale-out has no default window"
    );
    let reverting = &steps.on_resolved.as_ref().unwrap().action;
    assert_eq!(guards(reverting), (420, 540), "set by the file's defaults");
    assert!(matches!(reverting.change, Change::Revert), "{reverting:?}");
    assert_eq!((&steps.acting[..], &rule.acting[..]), (&[name("queue")][..], &[name("scaler")][..]));
    let limit = SizeLimit::of_body(1024 * 1024);
    assert_eq!(rule.size_limit, limit, "the smaller limit of the function and the file");
    assert_eq!(rule.send_to, [name("scaler"), name("journal")]);
    let by_steps = settings.rules.rule(&name("by-steps")).unwrap();
    let limit = SizeLimit { bytes: 65_536, metadata_bytes: 512, subject_copies: 1 };
    assert_eq!((by_steps.size_limit, by_steps.expires_after), (limit, seconds(1800)));
    assert!(settings.rules.rule(&name("all")).unwrap().sources.is_none());
    assert_eq!(settings.rules.rule(&name("on-trial")).unwrap().mode, Mode::Shadow);
}

#[test]
fn a_hold_has_no_event_settings() {
    let path = Path::new("tests/config/good/full.yaml");
    let rules =
        load(path, environment(path)).unwrap_or_else(|diagnostics| panic!("{diagnostics}")).settings.rules;
    let hold = |rule: &str| {
        let rule = rules.rule(&name(rule)).unwrap();
        assert!(rule.on_firing.is_none() && rule.on_resolved.is_none());
        assert!(rule.send_to.is_empty() && rule.parameters.is_empty());
        assert_eq!((rule.limits, rule.budget, rule.size_limit), (Limits::default(), None, SizeLimit::NONE));
        let RuleTarget::Hold(hold) = &rule.target else { panic!("{rule:?}") };
        hold.clone()
    };
    let freeze = hold("freeze");
    assert_eq!(freeze.blocks, [Direction::ScaleIn]);
    assert_eq!(freeze.max_duration, Some(Duration::from_hours(4)));
    assert_eq!(freeze.covers.platform, Some(Platform::Eks));
    assert!(freeze.covers.cluster.is_some() && freeze.covers.region.is_none());
    let all = hold("freeze-all");
    assert_eq!(all.blocks, Direction::ALL);
    assert!(all.covers.is_empty());
}

/// Fragments that a typo or a template engine might insert into a configuration.
const FRAGMENTS: [&str; 16] = [
    "",
    "~",
    "0",
    "-1",
    "1e999",
    "x",
    "''",
    "[",
    "{",
    "&a ",
    "*a",
    "<<: ",
    ": ",
    "\n",
    "\n  - ",
    "{{ labels.x }}",
];

fn never_panics(config: &[u8], rules: &[u8]) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("full.yaml"), config).unwrap();
    std::fs::write(directory.path().join("full.rules.yaml"), rules).unwrap();
    std::fs::write(directory.path().join("least.rules.yaml"), "rules: []\n").unwrap();
    match load(&directory.path().join("full.yaml"), []) {
        Ok(loaded) => assert!(!loaded.warnings.has_errors()),
        Err(diagnostics) => assert!(diagnostics.has_errors() && !diagnostics.to_string().is_empty()),
    }
}

fn mutated(text: &[u8], at: proptest::sample::Index, cut: usize, fragment: &str) -> Vec<u8> {
    let at = at.index(text.len());
    let end = (at + cut).min(text.len());
    [&text[..at], fragment.as_bytes(), &text[end..]].concat()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(100))]

    #[test]
    fn arbitrary_bytes_never_panic(config in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        never_panics(&config, &config);
    }

    #[test]
    fn mutated_configurations_never_panic(
        at in proptest::prelude::any::<[proptest::sample::Index; 2]>(),
        cut in [0..30_usize, 0..30],
        fragment in [proptest::sample::select(&FRAGMENTS[..]), proptest::sample::select(&FRAGMENTS[..])],
    ) {
        let config = include_bytes!("../../tests/config/good/full.yaml");
        let rules = include_bytes!("../../tests/config/good/full.rules.yaml");
        never_panics(&mutated(config, at[0], cut[0], fragment[0]), rules);
        never_panics(config, &mutated(rules, at[1], cut[1], fragment[1]));
    }
}
