//! Checks a file of any kind: a configuration with the rules that it names, or a rules file alone.

use std::path::Path;

use super::diagnostic::{Code, Diagnostics, Location};
use super::kinds::{DestinationSettings, SourceKind};
use super::yaml::{Kind, Node};
use super::{Loaded, alertmanager, assemble, file, load_tree};

/// A valid file.
#[derive(Debug)]
pub enum Checked<D, S> {
    /// A configuration with its rules.
    Config(Box<Loaded<D, S>>),
    /// A rules file by itself.
    Rules {
        /// The number of rules.
        count: usize,
        /// Diagnostics that are not errors.
        warnings: Diagnostics,
    },
}

/// Checks the file at `path`, or instead of it `text`, whose diagnostics name `path`. A configuration is also checked
/// against the Alertmanager configuration at `alertmanager`.
///
/// # Errors
/// All errors and warnings, if there is an error.
pub fn check<D: DestinationSettings, S: SourceKind>(
    path: &Path,
    text: Option<Vec<u8>>,
    environment: impl IntoIterator<Item = (String, String)>,
    alertmanager: Option<&Path>,
) -> Result<Checked<D, S>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let (tree, stamp) = match text {
        Some(text) => (file::parse(path, text, &mut diagnostics), None),
        None => file::read(path, None, &mut diagnostics).unzip(),
    };
    let kind = tree.as_ref().map_or(FileKind::Config, FileKind::of);
    match (kind, tree) {
        (FileKind::Rules, Some(tree)) => {
            let count = assemble::rules_alone::<D>(&tree, &mut diagnostics);
            if diagnostics.has_errors() {
                Err(diagnostics)
            } else {
                Ok(Checked::Rules { count, warnings: diagnostics })
            }
        }
        (FileKind::Other(help), Some(tree)) => {
            report_other(&tree, help, &mut diagnostics);
            Err(diagnostics)
        }
        (_, tree) => {
            let directory = path.parent().unwrap_or(Path::new(""));
            let mut loaded = load_tree(tree, stamp, directory, environment, diagnostics)?;
            if let Some(alertmanager) = alertmanager {
                alertmanager::lint(alertmanager, &loaded.settings, &mut loaded.warnings);
            }
            if loaded.warnings.has_errors() {
                Err(loaded.warnings)
            } else {
                Ok(Checked::Config(Box::new(loaded)))
            }
        }
    }
}

/// What a file is, by its keys.
enum FileKind {
    Config,
    Rules,
    /// A file of another program or command, with the fix.
    Other(&'static str),
}

impl FileKind {
    fn of(tree: &Node) -> Self {
        const SECTIONS: [&str; 10] = [
            "server",
            "admin",
            "store",
            "sources",
            "source_defaults",
            "source_files",
            "destinations",
            "delivery",
            "engine",
            "retention",
        ];
        let has = |key: &str| tree.get(key).is_some();
        let is_list_of_rules = |node: &Node| match &node.kind {
            Kind::List(items) => items.iter().any(|item| matches!(item.kind, Kind::Map(_))),
            _ => false,
        };
        if has("route") && has("receivers") && !has("sources") {
            return Self::Other("pass a configuration of Alertmanager to `--alertmanager`");
        }
        if has("groups") && !has("rules") {
            return Self::Other(
                "a file with `groups` has alerting rules of Prometheus; check it with `promtool check rules`",
            );
        }
        if has("apiVersion") && has("kind") {
            return Self::Other("this is a Kubernetes manifest: pass the configuration that it contains");
        }
        if has("tests") && !SECTIONS.iter().any(|section| has(section)) {
            return Self::Other("run tests of rules with `scalebridge test FILE`");
        }
        // The rules of a configuration are names of files.
        let is_file =
            |node: &Node| matches!(&node.kind, Kind::Text(text) if text.contains('.') || text.contains('/'));
        let are_files = |node: &Node| matches!(&node.kind, Kind::List(items) if items.iter().any(is_file));
        let is_rules = has("defaults") || tree.get("rules").is_some_and(|rules| !are_files(rules));
        // A list alone is a rules file without `rules:`.
        if (is_rules && !SECTIONS.iter().any(|section| has(section))) || is_list_of_rules(tree) {
            Self::Rules
        } else {
            Self::Config
        }
    }
}

fn report_other(tree: &Node, help: &str, diagnostics: &mut Diagnostics) {
    let location = match &tree.kind {
        Kind::Map(entries) => entries.first().map_or(&tree.location, |(key, _)| &key.location),
        _ => &tree.location,
    };
    let location: &Location = location;
    diagnostics.add_with_help(Code::Missing, location, "not a configuration and not a rules file", help);
}
