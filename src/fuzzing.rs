//! Entry points for the fuzzer (`fuzz/`): each gives bytes of an attacker, or of a damaged file, to one reader, and
//! asserts what must hold whatever the bytes are. Not a public interface: it changes without notice.
//!
//! Nothing panics, nothing takes long, and memory is bounded, which the fuzzer checks for every target.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Checked, Diagnostics, lint_alertmanager};
use crate::credentials;
use crate::domain::event::EventDocument;
use crate::domain::header::EncodedEvent;
use crate::domain::labels::Labels;
use crate::domain::matcher::{Matcher, Operator};
use crate::domain::notification::{Alert, Status};
use crate::domain::re2;
use crate::domain::template::{MAX_RENDERED_BYTES, Scope, Templates};
use crate::domain::time::Time;
use crate::kinds::{self, Settings};
use crate::sources::SourceKind;
use crate::store;

/// A target: its name, which is also that of its corpus, and what it does with an input.
pub type Target = (&'static str, fn(&Fuzzing, &[u8]));

/// All targets.
pub const TARGETS: [Target; 12] = [
    ("notification", Fuzzing::notification),
    ("prometheus", Fuzzing::prometheus),
    ("alertmanager_api", |_, answer| alertmanager_answer(answer)),
    ("matcher", Fuzzing::matcher),
    ("template", Fuzzing::template),
    ("rules", Fuzzing::rules),
    ("configuration", Fuzzing::configuration),
    ("alertmanager", Fuzzing::alertmanager),
    ("re2", Fuzzing::regular_expression),
    ("event", Fuzzing::event),
    ("store", Fuzzing::stored),
    ("credentials", |_, bytes| credentials::fuzzing::read_headers(bytes)),
];

/// What the targets need besides the input.
pub struct Fuzzing {
    directory: PathBuf,
    settings: Settings,
}

/// An answer of Alertmanager's API, as any of the three that are asked for.
fn alertmanager_answer(answer: &[u8]) {
    use crate::domain::notification::{MAX_ALERTS, MAX_FINGERPRINT_BYTES};
    use crate::sources::alertmanager::api;
    if let Ok((alerts, unreadable)) = api::alerts(answer) {
        assert!(alerts.len() + unreadable <= MAX_ALERTS);
        assert!(alerts.iter().all(|it| (1..=MAX_FINGERPRINT_BYTES).contains(&it.alert.fingerprint.len())));
    }
    drop(api::silences(answer, |_| true));
    drop(api::started_at(answer));
}

impl Fuzzing {
    /// Targets that use the configuration at `path`, and read other files relative to its directory.
    ///
    /// # Errors
    /// The configuration is invalid.
    pub fn new(path: &Path) -> Result<Self, Diagnostics> {
        let directory = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self { directory, settings: kinds::load(path, [])?.settings })
    }

    /// The body of a webhook request, up to the evaluation of its alerts.
    fn notification(&self, body: &[u8]) {
        let Some(source) = self.settings.sources.values().next() else { return };
        for kind in [SourceKind::Alertmanager, SourceKind::Grafana] {
            let Ok(notification) = kind.parse(body, Time::from_nanos(0)) else { continue };
            for alert in notification.alerts.into_iter().flatten() {
                drop(self.settings.rules.evaluate_alert(source, &alert));
            }
        }
    }

    /// The body of a request of Prometheus, received at two times. The end of an alert is the only thing that depends on
    /// when it was received: each alert is the same one at both, and has resolved only when its end is over.
    fn prometheus(&self, body: &[u8]) {
        let Some(source) = self.settings.sources.values().next() else { return };
        let parse = |at| SourceKind::Prometheus.parse(body, at);
        let (early, late) = (Time::from_nanos(0), Time::from_nanos(i64::MAX));
        let (Ok(before), Ok(after)) = (parse(early), parse(late)) else { return };
        for (before, after) in before.alerts.into_iter().zip(after.alerts) {
            let (Ok(before), Ok(after)) = (before, after) else { continue };
            assert_eq!(before.fingerprint, after.fingerprint);
            for (alert, at) in [(&before, early), (&after, late)] {
                assert_eq!(alert.ends_at.is_some(), alert.status == Status::Resolved);
                assert_eq!(alert.valid_until.is_some(), alert.status == Status::Firing);
                assert!(alert.ends_at.is_none_or(|end| end <= at));
                drop(self.settings.rules.evaluate_alert(source, alert));
            }
        }
    }

    /// A list of matchers. What is shown of one is that matcher.
    fn matcher(&self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let Ok(matchers) = Matcher::parse_list(text) else { return };
        let labels = labels(&[("alertname", "Disk"), ("severity", text)]);
        for matcher in matchers {
            let shown = matcher.to_string();
            let again =
                Matcher::parse_list(&shown).map(|again| again.iter().map(ToString::to_string).collect());
            assert_eq!(again, Ok(vec![shown]));
            let matches = matcher.matches(&labels);
            assert_eq!(matches, matcher.matches_value(labels.get(matcher.label())));
            drop(matcher.examples());
        }
    }

    /// A template, and after the first line break an annotation.
    fn template(&self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let (source, annotation) = text.split_once('\n').unwrap_or((text, "1"));
        let alert = Alert {
            status: Status::Firing,
            labels: labels(&[("alertname", "Disk"), ("nodegroup", "workers"), ("n", "3")]).into(),
            annotations: labels(&[("summary", annotation)]).into(),
            starts_at: Time::from_nanos(0),
            ends_at: None,
            valid_until: None,
            absence: None,
            generator_url: Arc::default(),
            fingerprint: Arc::default(),
        };
        let Some((name, source_labels)) =
            self.settings.sources.values().next().map(|it| (&it.name, &it.labels))
        else {
            return;
        };
        let scope = Scope { source: name, source_labels, alert: &alert };
        let mut templates = Templates::new();
        if let Ok(template) = templates.template(source) {
            let rendered = templates.render(&template, &scope).unwrap_or_default();
            assert!(template.constant().is_some() || rendered.len() <= MAX_RENDERED_BYTES);
        }
        if let Ok(condition) = templates.condition(source) {
            drop(templates.is_true(&condition, &scope));
        }
    }

    /// A file of rules.
    fn rules(&self, text: &[u8]) {
        // With this first line, it is not taken for another kind of file.
        self.check([b"defaults: {}\n".as_slice(), text].concat());
    }

    /// A configuration file, or any other file that `check` is given.
    fn configuration(&self, text: &[u8]) {
        self.check(text.to_vec());
    }

    fn check(&self, text: Vec<u8>) {
        let path = self.directory.join("fuzzed.yaml");
        let diagnostics = match kinds::check(&path, Some(text), [], None) {
            Ok(Checked::Config(loaded)) => loaded.warnings,
            Ok(Checked::Rules { warnings, .. }) => warnings,
            Err(diagnostics) => {
                assert!(diagnostics.has_errors(), "refused without a reason");
                diagnostics
            }
        };
        for diagnostic in &diagnostics {
            assert!(!diagnostic.message.contains(char::is_control), "{diagnostic}");
        }
    }

    /// A configuration of Alertmanager.
    fn alertmanager(&self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let mut diagnostics = Diagnostics::default();
        let path = Path::new("alertmanager.yml");
        lint_alertmanager(path, text, &self.settings, &mut diagnostics);
        assert!(diagnostics.redacted(path).is_some(), "the text could be shown with its secrets");
    }

    /// A regular expression. One that is translated is one of `regex`.
    fn regular_expression(&self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let translated = re2::translate(text);
        match (&translated, Matcher::new("a", Operator::Matches, text)) {
            (_, Ok(matcher)) => drop((matcher.matches_value("aab"), matcher.examples())),
            (Ok(translated), Err(error)) => {
                assert_eq!(error, "it is too large when compiled", "translated to {translated:?}");
            }
            (Err(_), Err(_)) => {}
        }
    }

    /// An event as it is read again from the store, or by a consumer.
    fn event(&self, text: &[u8]) {
        let Ok(text) = std::str::from_utf8(text) else { return };
        let header = EncodedEvent::from(text).header();
        let Ok(event) = EventDocument::read(text) else {
            assert!(header.is_err());
            return;
        };
        drop(event.legacy(Time::from_nanos(1)));
        let _read =
            (event.id(), event.subject(), event.time(), event.episode(), event.fingerprints().count());
        let expirytime = Time::from_nanos(1_764_321_215_000_000_000);
        if let Ok(rewritten) = event.with_expirytime(expirytime) {
            let again = EventDocument::read(&rewritten).and_then(|event| event.with_expirytime(expirytime));
            assert_eq!(again.ok(), Some(rewritten), "only `expirytime` changes");
        }
    }

    /// A column of the store, by the first byte.
    fn stored(&self, bytes: &[u8]) {
        store::read_stored_form(bytes);
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let mut labels = Labels::default();
    pairs.iter().for_each(|(name, value)| labels.set(name, value));
    labels
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

    /// The names of the files in a directory of the repository.
    fn names(directory: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(Path::new(REPOSITORY).join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn each_target_accepts_its_corpus() {
        let targets = TARGETS.map(|(name, _)| name.to_owned());
        assert_eq!(names("fuzz/corpus"), BTreeSet::from(targets), "a directory for each target");
        let configuration = Path::new(REPOSITORY).join("tests/config/alertmanager/bridge.yaml");
        let fuzzing = Fuzzing::new(&configuration).unwrap();
        for (target, run) in TARGETS {
            let corpus = format!("fuzz/corpus/{target}");
            for name in names(&corpus) {
                println!("{corpus}/{name}");
                run(&fuzzing, &fs::read(Path::new(REPOSITORY).join(&corpus).join(name)).unwrap());
            }
        }
    }
}
