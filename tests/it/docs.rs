//! The documents are correct: every command in them runs, and every file that they name exists.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use scalebridge::domain::verdict::Verdict;

use crate::support::bridge::{Bridge, program};
use crate::support::prometheus::Release;
use crate::support::sources;
use crate::support::tools::eventually;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The contents of the fenced code blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default().to_owned()).collect()
}

/// The block whose first line is `# my/NAME`.
fn yaml_block(text: &str, name: &str) -> String {
    let wanted = format!("# my/{name}\n");
    let found = blocks(text, "yaml").into_iter().find(|block| block.starts_with(&wanted));
    found.unwrap_or_else(|| panic!("README shows no {name}"))
}

/// Overrides the files with free ports, a store in the bridge's directory and a JSON log.
fn isolate(bridge: &mut Bridge) {
    bridge.env("SCALEBRIDGE__SERVER__LISTEN", "127.0.0.1:0");
    bridge.env("SCALEBRIDGE__ADMIN__LISTEN", "127.0.0.1:0");
    bridge.env("SCALEBRIDGE__STORE__SQLITE__PATH", "bridge.db");
    bridge.env("SCALEBRIDGE__LOG__FORMAT", "json");
}

/// Runs a `curl` command of the README against this bridge.
fn curl(command: &str, bridge: &Bridge) -> String {
    let command = command.replace("127.0.0.1:9096", bridge.address());
    let done = Command::new("sh").args(["-c", &command]).current_dir(ROOT).stdin(Stdio::null()).output();
    let done = done.expect("a shell");
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8")
}

async fn stdout_line(bridge: &Bridge) -> serde_json::Value {
    eventually("an event on stdout", async || {
        let text = fs::read_to_string(bridge.dir().join("stdout")).expect("its output");
        serde_json::from_str(text.lines().next()?).ok()
    })
    .await
}

/// Runs a CLI command of the README, against this bridge if there is one.
fn run_command(words: &str, bridge: Option<&Bridge>) {
    let mut command = words.to_owned();
    let mut run = Command::new("sh");
    run.current_dir(ROOT).stdin(Stdio::null());
    if let Some(bridge) = bridge {
        command = command.replace("127.0.0.1:9096", bridge.address());
        run.env("SCALEBRIDGE_URL", bridge.admin_url());
    }
    // The files of `my/` are in the README itself.
    let example = tempfile::tempdir().expect("a directory");
    for name in ["scalebridge.yaml", "rules.yaml", "alertmanager.yml"] {
        fs::write(example.path().join(name), yaml_block(&read("README.md"), name)).expect("a file");
    }
    let command = command.replace("my/", &format!("{}/", example.path().display()));
    let done = run.args(["-c", &format!("{} {command}", program().display())]).output().expect("a shell");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words}: {said}");
    assert!(!done.stdout.is_empty() || said.contains("found"), "{words} prints nothing; {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_readme_runs() {
    let readme = read("README.md");
    let (makefile, ci) = (read("Makefile"), read(".ci/run"));
    let mut bridge: Option<Bridge> = None;
    let mut answers = blocks(&readme, "json").into_iter();
    let mut ran = Vec::new();
    for command in blocks(&readme, "bash").iter().flat_map(|block| block.lines()) {
        let command = command.split("  #").next().unwrap_or_default().trim();
        if command == "make demo" || command == "make test" {
            // CI runs both completely; this test is part of `make test`.
            assert!(ci.contains(command), ".ci/run does not run `{command}`");
        } else if command == "make release" {
            // CI runs the same steps with a small program, and the load of these steps against the bridge.
            assert!(makefile.contains("\n\tdeploy/release.sh\n"), "`make release` runs another script");
            for part in ["deploy/release.sh smoke", "--bench harness -- --only idle"] {
                assert!(ci.contains(part), ".ci/run does not run `{part}`");
            }
        } else if command == "make bench" {
            // The whole benchmark takes minutes; `make release`, its prerequisite, runs a part of it.
            assert!(makefile.contains("\nbench: release ") && makefile.contains("--bench harness"));
            assert!(read("deploy/release.sh").contains("--bench harness -- --only"));
        } else if command == "make run" {
            assert!(
                makefile.contains("$(TARGET)/release/scalebridge serve --config config/scalebridge.yaml")
            );
            let mut default = Bridge::new(&read("config/scalebridge.yaml"), &read("config/rules.yaml"));
            isolate(&mut default);
            default.run().await;
            bridge = Some(default);
        } else if command == "target/release/scalebridge serve --config my/scalebridge.yaml" {
            let mut example =
                Bridge::new(&yaml_block(&readme, "scalebridge.yaml"), &yaml_block(&readme, "rules.yaml"));
            isolate(&mut example);
            example.run().await;
            bridge = Some(example);
        } else if let Some(words) = command.strip_prefix("target/release/scalebridge ") {
            run_command(words, bridge.as_ref());
        } else if command.starts_with("curl ") {
            let bridge = bridge.as_ref().expect("a running bridge");
            let answer = curl(command, bridge);
            let emitted = r#"{"alerts":1,"events":1,"verdicts":{"emitted":1}}"#;
            assert_eq!(answer, emitted, "{command}");
            assert!(answers.next().is_none_or(|shown| shown == answer), "README shows another answer");
            assert_eq!(stdout_line(bridge).await["specversion"], "1.0");
            let again = r#"{"alerts":1,"events":0,"verdicts":{"duplicate":1}}"#;
            assert_eq!(curl(command, bridge), again);
            assert!(readme.contains(again));
        } else {
            panic!("README shows a command that no test runs: {command}");
        }
        ran.push(command.split(' ').next().unwrap_or_default().to_owned());
    }
    let commands = ran.iter().filter(|word| *word == "target/release/scalebridge").count();
    assert_eq!(commands, 25, "all CLI commands");
    ran.dedup();
    let program = "target/release/scalebridge";
    assert_eq!(ran, ["make", "curl", program, "curl", program, "make"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alert_without_its_label_is_invalid_as_the_readme_says() {
    let readme = read("README.md");
    let mut example =
        Bridge::new(&yaml_block(&readme, "scalebridge.yaml"), &yaml_block(&readme, "rules.yaml"));
    isolate(&mut example);
    example.run().await;
    let command = blocks(&readme, "bash").into_iter().find(|block| block.contains("/webhook/staging"));
    let command = command.expect("the second curl");
    let changed = command.replace(",\"namespace\":\"shop\"", "").replace("\"a1\"", "\"a2\"");
    assert_ne!(command, changed);
    assert_eq!(curl(&changed, &example), r#"{"alerts":1,"events":0,"verdicts":{"invalid":1}}"#);
}

#[test]
fn prometheus_and_alertmanager_accept_the_configurations_that_we_show() {
    let dir = tempfile::tempdir().expect("a directory");
    let readme = dir.path().join("alertmanager.yml");
    fs::write(&readme, yaml_block(&read("README.md"), "alertmanager.yml")).expect("a file");
    let demo = Path::new(ROOT).join("deploy/demo");
    for release in Release::ALL {
        for (program, arguments, file) in [
            ("amtool", &["check-config"][..], readme.clone()),
            ("amtool", &["check-config"], demo.join("alertmanager.yml")),
            ("promtool", &["check", "config"], demo.join("prometheus.yml")),
        ] {
            let done = release.tool(program).args(arguments).arg(&file).output().expect(program);
            let output = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{release:?} {program} {}: {output}", file.display());
        }
    }
}

#[test]
fn every_verdict_is_explained() {
    let readme = read("README.md");
    for verdict in Verdict::ALL {
        assert!(readme.contains(&format!("\n| `{verdict}` |")), "README does not explain `{verdict}`");
    }
}

/// All documents for readers.
fn documents() -> Vec<String> {
    let mut found: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    let deploy = fs::read_dir(Path::new(ROOT).join("deploy")).expect("a folder");
    let deploy =
        deploy.map(|entry| entry.expect("an entry").path()).filter(|path| path.join("README.md").exists());
    let deploy = deploy.map(|path| format!("deploy/{}", path.file_name().expect("a name").display()));
    let docs = ["docs", "docs/adr", "docs/runbooks"].map(str::to_owned);
    for folder in docs.into_iter().chain(deploy) {
        let files = fs::read_dir(Path::new(ROOT).join(&folder)).expect("a folder");
        let names = files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8"));
        found.extend(names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}/{name}")));
    }
    found
}

#[test]
fn every_linked_file_exists() {
    for document in documents() {
        let folder = Path::new(ROOT).join(&document).parent().expect("a folder").to_owned();
        for link in read(&document).split("](").skip(1) {
            let target = link.split([')', '#']).next().unwrap_or_default();
            if !target.starts_with("http") {
                assert!(folder.join(target).exists(), "{document} links {target}");
            }
        }
    }
}

/// The maps are ARCHITECTURE, SECURITY, the glossary, the checklists and the decision records.
#[test]
fn every_path_in_a_map_exists() {
    let records = documents().into_iter().filter(|document| document.starts_with("docs/adr/"));
    let checklists = documents().into_iter().filter(|document| document.starts_with("docs/adding-"));
    let maps = ["ARCHITECTURE.md", "SECURITY.md", "docs/GLOSSARY.md"].map(str::to_owned);
    let mut checked = 0;
    for document in maps.into_iter().chain(checklists).chain(records) {
        for word in read(&document).split('`').skip(1).step_by(2) {
            // KIND is the name of a folder that the reader adds.
            let is_path = word.contains('/')
                && !word.contains("KIND")
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if is_path {
                let found = ["", "src/", "deploy/scaler/src/"]
                    .iter()
                    .any(|root| Path::new(ROOT).join(root).join(word).exists());
                assert!(found, "{document} names {word}");
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "only {checked} paths found");
}

/// Operators write alerts on log lines, so the table of log lines has to be that of the program.
#[test]
fn every_log_line_of_the_logging_guide_is_in_the_program() {
    // Long messages are wrapped in the source by a backslash.
    let join_wrapped = |text: &str| text.replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" ");
    let program: String = sources::rust_files("src").iter().map(|(_, text)| join_wrapped(text)).collect();
    let guide = read("docs/LOGGING.md");
    let levels = ["| ERROR |", "| WARN |", "| INFO |", "| DEBUG |"];
    let rows = guide.lines().filter(|line| levels.iter().any(|level| line.starts_with(level)));
    let messages: Vec<_> = rows
        .filter_map(|row| row.split('|').nth(2))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert!(messages.len() > 40, "the table of log lines has moved: {messages:?}");
    for message in messages {
        assert!(program.contains(&format!("\"{message}\"")), "docs/LOGGING.md: no code logs `{message}`");
    }
}

/// CI runs these commands, or they take minutes or change files; each must name what exists.
#[test]
fn every_command_of_the_contributing_guide_names_what_exists() {
    let (makefile, manifest) = (read("Makefile"), read("Cargo.toml"));
    let mut checked = 0;
    for block in blocks(&read("CONTRIBUTING.md"), "bash") {
        let words: Vec<&str> = block.split_whitespace().collect();
        for pair in words.windows(2) {
            let exists = match (pair[0], pair[1]) {
                ("make", target) => makefile.contains(&format!("\n{target}:")),
                ("--bench", name) => manifest.contains(&format!("[[bench]]\nname = \"{name}\"")),
                ("--test", name) => manifest.contains(&format!("[[test]]\nname = \"{name}\"")),
                ("it", file) if file.ends_with("::") => {
                    Path::new(ROOT).join("tests/it").join(file.replace("::", ".rs")).exists()
                }
                (_, script) if script.starts_with("deploy/") => Path::new(ROOT).join(script).exists(),
                _ => continue,
            };
            assert!(exists, "CONTRIBUTING.md: `{} {}` names what does not exist", pair[0], pair[1]);
            checked += 1;
        }
    }
    assert!(checked > 8, "only {checked} commands found");
}
