//! Writes a rule test of what was replayed.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::scenario::{Action, ReceivedNotification, Scenario, Step};
use super::{Decisions, Side};
use crate::bridge::decision_view::ExplainedDecision;
use crate::cli::check::render_diagnostics;
use crate::cli::escape::escape_json;
use crate::cli::output::{EXIT_USAGE, current_thread_runtime, pluralize, usage_error};
use crate::cli::test::run::run;
use crate::domain::control::Pause;
use crate::domain::duration::format;
use crate::domain::name::Name;
use crate::domain::notification::{Alert, Status};
use crate::domain::time::Time;
use crate::domain::verdict::Verdict;
use crate::kinds;
use crate::telemetry;

/// A rule test that is written.
pub(super) struct TestFile<'a> {
    pub path: &'a Path,
    pub scenario: &'a Scenario,
    /// The configuration under test.
    pub side: &'a Side<'a>,
    /// Its decisions.
    pub expected: &'a Decisions,
}

impl TestFile<'_> {
    /// Writes the file and runs it. Returns whether it passes. An existing file is not overwritten.
    pub(super) fn write(&self) -> Result<bool, ExitCode> {
        let shown = self.path.display();
        let text = self.text().map_err(usage_error)?;
        let created =
            std::fs::File::create_new(self.path).and_then(|mut file| file.write_all(text.as_bytes()));
        created.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                usage_error(format_args!("{shown} exists; remove it, or write to another file"))
            }
            _ => usage_error(format_args!("cannot write {shown}: {error}")),
        })?;
        self.check()
    }

    /// Runs the test that was written.
    fn check(&self) -> Result<bool, ExitCode> {
        let shown = self.path.display();
        let written = kinds::read_tests(self.path).map_err(|diagnostics| {
            telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
            ExitCode::from(EXIT_USAGE)
        })?;
        let runtime = current_thread_runtime().ok_or(ExitCode::FAILURE)?;
        for test in &written.tests {
            let failures = runtime.block_on(run(&written, test)).map_err(usage_error)?;
            if let Some(first) = failures.first() {
                telemetry::print_to_stderr(format_args!(
                    "scalebridge: {shown} was written, but does not pass: {} {}",
                    first.location, first.message
                ));
                return Ok(false);
            }
        }
        telemetry::print_to_stderr(format_args!("wrote {shown}, which passes `scalebridge test`"));
        Ok(true)
    }

    fn text(&self) -> std::io::Result<String> {
        let Self { scenario, side, .. } = self;
        let config = relative_path(side.config, self.path)?;
        let (start, end) = (scenario.start, scenario.end);
        let name = format!("replay of {} to {}", start.to_millis_string(), end.to_millis_string());
        let mut text = format!(
            "# Written by `scalebridge replay --write-test`: what happened, and the decisions of this configuration.\n\
             config: {}\ntests:\n  - name: {}\n    start: {}\n    steps:\n",
            scalar(&config.to_string_lossy()),
            quoted(&name),
            quoted(&start.to_millis_string()),
        );
        // Nothing happens before the end of a gap.
        let mut earliest = Duration::ZERO;
        let mut is_empty = true;
        let mut carried: Vec<&ExplainedDecision> = Vec::new();
        for (step, decided) in scenario.steps.iter().zip(self.expected) {
            carried.extend(decided);
            let at = step.at.since(start).max(earliest);
            let Some(action) = self.action(step) else { continue };
            if let Action::Gap(_, length) | Action::Restart(length) = &step.action {
                earliest = at.saturating_add(*length);
            }
            let expected = self.expectations(&std::mem::take(&mut carried));
            text += &format!("      - at: {}\n{action}{expected}", format(at));
            is_empty = false;
        }
        carried.extend(self.expected.iter().skip(scenario.steps.len()).flatten());
        let at = end.since(start).max(earliest);
        if is_empty || !carried.is_empty() {
            text += &format!("      - at: {}\n{}", format(at), self.expectations(&carried));
        }
        Ok(text)
    }

    /// What happens in a step; `None` if it concerns nothing that is configured.
    fn action(&self, step: &Step) -> Option<String> {
        let settings = &self.side.settings;
        Some(match &step.action {
            Action::Notify(received) => {
                let source = received.source.as_ref().or(self.side.source.as_ref())?;
                settings.sources.contains_key(source).then(|| notify(source, received, step.at))?
            }
            Action::Pause(pause) => {
                let is_known = |rule: &Name| settings.rules.rule(rule).is_some();
                pause.rule.as_ref().is_none_or(is_known).then(|| pause_fields(pause))?
            }
            Action::Destination(name, state) => {
                let line =
                    format!("        destination: {{ {}: {} }}\n", scalar(name.as_str()), state.as_str());
                settings.destinations.contains_key(name).then_some(line)?
            }
            Action::Gap(source, length) => {
                let line = format!(
                    "        gap: {}\n        source: {}\n",
                    format(*length),
                    scalar(source.as_str())
                );
                settings.sources.contains_key(source).then_some(line)?
            }
            Action::Restart(length) => format!("        restart: {}\n", format(*length)),
        })
    }

    /// The decisions that a test compares. An alert that cannot be read, so that no rule has seen it, is left out.
    fn expectations(&self, decided: &[&ExplainedDecision]) -> String {
        let acting = decided.iter().filter(|explained| {
            let decision = &explained.decision;
            match Verdict::parse(&decision.verdict) {
                Some(Verdict::Invalid) => decision.rule.is_some(),
                verdict => verdict.is_none_or(|verdict| !verdict.is_quiet()),
            }
        });
        let lines: String =
            acting.map(|decision| format!("          - {}\n", expectation(decision))).collect();
        match lines.is_empty() {
            true => "        expect: []\n".to_owned(),
            false => format!("        expect:\n{lines}"),
        }
    }
}

/// `at` is when it was received.
fn notify(source: &Name, received: &ReceivedNotification, at: Time) -> String {
    let mut text = format!("        notify:\n          source: {}\n", scalar(source.as_str()));
    let notification = &received.notification;
    if notification.truncated_alerts > 0 {
        let _ = writeln!(text, "          truncatedAlerts: {}", notification.truncated_alerts);
    }
    if let Some(sent_at) = notification.sent_at {
        let _ = writeln!(text, "          sent_at: {}", scalar(&sent_at.to_string()));
    }
    let invalid = notification.alerts.iter().filter(|alert| alert.is_err()).count();
    if invalid > 0 {
        let _ = writeln!(text, "          # without {} that cannot be read", pluralize(invalid, "alert"));
    }
    let alerts: String = notification
        .alerts
        .iter()
        .flatten()
        .map(|one| format!("            - {}\n", flow(&alert(one, at))))
        .collect();
    match alerts.is_empty() {
        true => text + "          alerts: []\n",
        false => text + "          alerts:\n" + &alerts,
    }
}

fn alert(alert: &Alert, received_at: Time) -> Value {
    let texts = |labels: &crate::domain::labels::Labels| -> Value {
        labels.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect::<Map<_, _>>().into()
    };
    let mut fields = json!({
        "status": alert.status.as_str(),
        "labels": texts(&alert.labels),
        "annotations": texts(&alert.annotations),
        "startsAt": alert.starts_at.to_string(),
        "fingerprint": *alert.fingerprint,
    });
    if let Some(ends_at) = alert.ends_at.filter(|_| alert.status == Status::Resolved) {
        fields["endsAt"] = ends_at.to_string().into();
    }
    if let Some(reason) = &alert.absence {
        fields["absence"] = (**reason).into();
    }
    if let Some(until) = alert.valid_until {
        fields["valid_for"] = format(until.since(received_at)).into();
    }
    if !alert.generator_url.trim().is_empty() {
        fields["generatorURL"] = (*alert.generator_url).into();
    }
    fields
}

fn pause_fields(pause: &Pause) -> String {
    let fields = [
        ("rule", pause.rule.as_ref().map(ToString::to_string)),
        ("target", pause.target.as_ref().map(ToString::to_string)),
        ("direction", pause.direction.map(|direction| direction.as_str().to_owned())),
        ("until", pause.until.map(Time::to_millis_string)),
    ];
    let fields = fields.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::from(text?))));
    format!("        pause: {}\n", flow(&Value::Object(fields.collect())))
}

/// The fields of a decision that a test compares.
fn expectation(explained: &ExplainedDecision) -> String {
    let decision = &explained.decision;
    let texts = [
        ("rule", decision.rule.clone()),
        ("verdict", Some(decision.verdict.to_string())),
        ("action", decision.action.clone()),
        ("phase", decision.phase.map(|phase| phase.as_str().to_owned())),
        ("subject", decision.subject.clone()),
        ("until", decision.until.clone()),
    ];
    let texts = texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::from(text?))));
    let mut fields: Map<String, Value> = texts.collect();
    let amount = explained.event.as_ref().and_then(|event| event.pointer("/data/adjustment/value"));
    if let Some(amount) = amount {
        fields.insert("event".to_owned(), json!({ "data": { "adjustment": { "value": amount } } }));
    }
    flow(&Value::Object(fields))
}

/// YAML in flow style.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value)));
            format!("{{ {} }}", fields.collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A text as a YAML scalar: quoted unless it is a plain word that no version of YAML reads as something else.
fn scalar(text: &str) -> String {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/');
    let is_plain = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && text.bytes().all(is_word);
    let reserved = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_reserved = reserved.contains(&text.to_ascii_lowercase().as_str());
    if is_plain && !is_reserved { text.to_owned() } else { quoted(text) }
}

/// A text in double quotes. YAML reads every escape of JSON.
fn quoted(text: &str) -> String {
    escape_json(&Value::from(text).to_string())
}

/// The path of a file as seen from the directory of another one.
fn relative_path(file: &Path, from: &Path) -> std::io::Result<PathBuf> {
    let file = std::path::absolute(file)?;
    let from = std::path::absolute(from)?;
    let directory = from.parent().unwrap_or(&from);
    let (of_file, of_directory): (Vec<_>, Vec<_>) =
        (file.components().collect(), directory.components().collect());
    // A path with `..` may lead through links.
    if of_file.iter().chain(&of_directory).any(|part| matches!(part, Component::ParentDir)) {
        return Ok(file);
    }
    let shared = of_file.iter().zip(&of_directory).take_while(|(one, other)| one == other).count();
    let up = of_directory[shared..].iter().map(|_| Component::ParentDir);
    Ok(up.chain(of_file[shared..].iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain_and_everything_else_is_quoted() {
        for plain in ["workers", "eks/nodegroup/-/eu-west-1", "KubePodUnschedulable", "a.b_c"] {
            assert_eq!(scalar(plain), plain);
        }
        for text in ["", "yes", "Off", "1.5", "a: b", "#x", "x\u{2028}y\u{7f}\"\\\n\t", "ü", "-", "{{ x }}"]
        {
            let read = format!("config: {}", scalar(text));
            assert!(read.starts_with("config: \""), "{read}");
            assert!(!read.contains('\u{2028}') && !read.contains('\n'), "{read}");
        }
    }

    #[test]
    fn the_configuration_is_named_as_seen_from_the_test() {
        let path = |file: &str, from: &str| relative_path(Path::new(file), Path::new(from)).unwrap();
        assert_eq!(path("/etc/a/config.yaml", "/etc/a/x.test.yaml"), Path::new("config.yaml"));
        assert_eq!(path("/etc/a/config.yaml", "/etc/tests/x.test.yaml"), Path::new("../a/config.yaml"));
        assert_eq!(path("config.yaml", "x.test.yaml"), Path::new("config.yaml"));
        let absolute = path("/etc/a/config.yaml", "../x.test.yaml");
        assert_eq!(absolute, Path::new("/etc/a/config.yaml"), "`..` may lead through links");
    }
}
