//! The pages of the codes: each has an example with the diagnostic, and a corrected one.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::config::Diagnostics;
use crate::config::diagnostic::Code;
use crate::kinds::{load, load_with_alertmanager};

/// Sections that are added to an example if it does not have them.
const BASE: [(&str, &str); 3] = [
    ("sources", "sources:\n  prod-eu: { heartbeat: ['alertname = \"Watchdog\"'] }\n"),
    (
        "destinations",
        "destinations:\n  scaling-queue: { sqs: { queue_url: \"https://sqs.eu-west-1.amazonaws.com/123456789012/scaling\" } }\n  \
         nodegroup-scaler: { lambda: { function: nodegroup-scaler } }\n  journal: { file: { path: \"-\" } }\n",
    ),
    ("rules", "rules: [rules.yaml]\n"),
];
const RULES: &str = "rules:\n  - name: pods\n    matchers: [alertname = KubePodUnschedulable]\n    \
    target: { platform: eks, kind: nodegroup, name: workers }\n    on_firing: { scale_out: { by: 1 } }\n    \
    on_resolved: { scale_in: { revert: true } }\n    send_to: [scaling-queue]\n";

/// Files that examples name, with their modes.
const SECRET_FILES: [(&str, &str, u32); 3] = [
    ("prod-eu.token", "sesame\n", 0o600),
    ("world-readable.token", "sesame\n", 0o644),
    ("users.htpasswd", "alice:$2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze\n", 0o600),
];

/// The code blocks of a page: kind and text of each.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let parts = page.split("```yaml ").skip(1);
    parts.map(|part| part.split_once("```").unwrap().0.split_once('\n').unwrap()).collect()
}

/// The codes of the diagnostics of an example.
fn diagnose(directory: &Path, kind: &str, text: &str) -> Vec<Code> {
    let (config_example, alertmanager) = match kind {
        "config" => (text, ""),
        "both" => text.split_once("# alertmanager.yml\n").unwrap(),
        "config-and-rules" => (text.split_once("# rules.yaml\n").unwrap().0, ""),
        _ => ("", text),
    };
    let rules = match kind {
        "rules" => text,
        _ => text.split_once("# rules.yaml\n").map_or(RULES, |(_, rules)| rules),
    };
    let has_key = |key: &str| config_example.lines().any(|line| line.starts_with(&format!("{key}:")));
    let base = BASE.iter().filter(|(key, _)| !has_key(key)).map(|(_, text)| *text);
    let config = base.chain([config_example]).collect::<String>();
    let write = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    for (name, text, mode) in SECRET_FILES {
        write(name, text);
        std::fs::set_permissions(directory.join(name), Permissions::from_mode(mode)).unwrap();
    }
    write("scalebridge.yaml", &config);
    write("rules.yaml", rules);
    write("alertmanager.yml", alertmanager);
    let variables = text.lines().filter(|_| kind == "env").map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    let path = directory.join("scalebridge.yaml");
    let loaded = match kind {
        "alertmanager" | "both" => load_with_alertmanager(&path, [], &directory.join("alertmanager.yml")),
        _ => load(&path, variables),
    };
    let diagnostics: Diagnostics = loaded.map_or_else(|diagnostics| diagnostics, |loaded| loaded.warnings);
    diagnostics.iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn each_page_shows_its_error_and_the_fix() {
    let directory = tempfile::tempdir().unwrap();
    for &code in Code::ALL {
        let page = code.page();
        let title = page.lines().next().unwrap();
        assert!(title.starts_with(&format!("# {}: ", code.as_str())), "{title}");
        assert!(
            page.lines().all(|line| line.chars().count() <= 120),
            "{title}: lines longer than 120 characters"
        );
        let [(wrong_kind, wrong), (right_kind, right)] = blocks(page)[..] else {
            panic!("{title}: expected two examples")
        };
        let found = diagnose(directory.path(), wrong_kind, wrong);
        assert!(found.contains(&code), "{title}: the example has {found:?}");
        let found = diagnose(directory.path(), right_kind, right);
        assert!(!found.contains(&code), "{title}: the corrected example still has it");
        let errors =
            found.iter().filter(|code| code.severity() == crate::config::diagnostic::Severity::Error);
        assert_eq!(errors.count(), 0, "{title}: the corrected example has errors: {found:?}");
    }
}

#[test]
fn a_code_is_found_by_its_text() {
    assert_eq!(Code::parse("e012"), Some(Code::Unauthenticated));
    assert_eq!(Code::parse("E999"), None);
}
