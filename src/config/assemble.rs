//! Builds the settings from the merged configuration tree and the rules files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Fields, KeyFixes, entries, wrong_type_with};
use super::delivery::delivery;
use super::diagnostic::{Code, Diagnostics};
use super::file_list::{FileList, ListedTrees};
use super::file_stamp::FileStamp;
use super::kinds::{DestinationSettings, SourceKind};
use super::names::named_entries;
use super::semantics::{self, KnownNames};
use super::settings::{Delivery, Destination, Settings};
use super::yaml::{Kind, Node};
use super::{destinations, layers, lints, rules, server, source_map, sources, store};
use crate::domain::duration::MAX_DURATION;
use crate::domain::engine::Policy;
use crate::domain::name::Name;
use crate::domain::table::RuleTable;
use crate::domain::template::Templates;

/// Reads all sections, also after errors, and then checks them against each other. Returns the settings and
/// the stamps of the other files that it was read from.
pub(super) fn settings<D: DestinationSettings, S: SourceKind>(
    root: &Node,
    directory: &Path,
    diagnostics: &mut Diagnostics,
) -> Option<(Settings<D, S>, Vec<FileStamp>)> {
    let mut templates = Templates::new();
    let expanded = source_map::expand(root, directory, diagnostics);
    let root = &expanded.root;
    let mut fields = Fields::from_node(root, "", diagnostics)?;
    let server = fields.get("server", server::server);
    let admin = fields.get("admin", server::admin);
    let store = fields.get("store", store::store);
    let retention = fields.get("retention", store::retention);
    let log = fields.get("log", store::log);
    let engine = fields.get("engine", store::engine);
    let delivery = fields.get("delivery", delivery);
    let common = delivery.map_or(UNBOUNDED_DELIVERY, |(common, _)| common);
    let (source_names, sources) = section(&mut fields, "sources", sources::source::<S>);
    // They have been read.
    for key in ["source_defaults", "source_files"] {
        fields.lookup(key);
    }
    let source_kinds = sources.iter().map(|(name, (_, kind, ..))| (name.clone(), kind.clone())).collect();
    // Nobody sends requests to the others.
    let receiving = sources.iter().filter(|(_, (_, kind, ..))| !kind.is_polled());
    let source_auth: BTreeMap<_, _> =
        receiving.map(|(name, (_, _, auth, _))| (name.clone(), auth.clone())).collect();
    let alertmanagers =
        sources.iter().filter_map(|(name, (.., api))| Some((name.clone(), api.clone()?))).collect();
    let sources: BTreeMap<_, _> = sources.into_iter().map(|(name, (source, ..))| (name, source)).collect();
    let (destination_names, destinations) =
        section(&mut fields, "destinations", |name, node, diagnostics| {
            destinations::destination::<D>(name, node, common, diagnostics)
        });
    let before = fields.diagnostics.errors();
    let rules_files = fields
        .get("rules", |node, diagnostics| read_rules_files(node, directory, &mut templates, diagnostics));
    let RulesFiles { drafts, stamps, is_complete } = rules_files.unwrap_or_default();
    let rule_names = rule_names(&drafts).filter(|_| is_complete);

    let has_rules = !drafts.is_empty() || fields.diagnostics.errors() > before;
    let rules_location = fields.location_of("rules");
    let fixes = fields.finish_with_fixes();
    if !has_rules && !fixes.suggest("rules") {
        rules::report_no_rules(rules_location, diagnostics);
    }
    check_sections::<D>(root, &fixes, diagnostics);
    let (server, admin, web_configs) =
        server::check_listeners(server, admin, &source_auth, root, diagnostics);
    if let Some(retention) = &retention {
        semantics::check_retention(retention, sources.values(), root, diagnostics);
    }
    semantics::check_files(store.as_ref(), &destinations, root, diagnostics);
    semantics::check_source_rules(root.get("sources"), rule_names.as_deref(), diagnostics);
    // Without a file, any name may be known.
    let source_names = source_names.filter(|_| expanded.is_complete);
    let names = KnownNames { sources: source_names, destinations: destination_names };
    let rules = semantics::check_rules(drafts, &names, &destinations, diagnostics);
    lints::lint_rules(&rules, &sources, diagnostics);
    lints::lint_unused_destinations(&rules, root, diagnostics);
    let rules = rules.into_iter().map(|(rule, ..)| rule).collect::<Vec<_>>();
    semantics::check_heartbeats(&rules, &sources, root, diagnostics);
    let settings = Settings {
        server: server?,
        admin: admin?,
        store: store?,
        sources,
        source_kinds,
        source_auth: source_auth.into_iter().map(|(name, draft)| (name, draft.auth)).collect(),
        alertmanagers,
        destinations,
        max_backlog: delivery?.1,
        rules: Arc::new(RuleTable::new(rules, templates)),
        engine: engine?,
        retention: retention?,
        log: log?,
    };
    Some((settings, [stamps, expanded.stamps, web_configs].concat()))
}

/// Reports sections that are required and missing, unless an unknown key was meant to be one.
fn check_sections<D: DestinationSettings>(root: &Node, fixes: &KeyFixes, diagnostics: &mut Diagnostics) {
    if !fixes.suggest("sources") {
        semantics::check_section(root, "sources", "sources: { local: {} }", diagnostics);
    }
    if !fixes.suggest("destinations") {
        let example = format!("destinations: {{ journal: {{ {} }} }}", destinations::example::<D>());
        semantics::check_section(root, "destinations", &example, diagnostics);
    }
}

/// Reads the rules files in `node` without a configuration: any source or destination name is accepted. The rules that
/// `sources` list must exist.
pub(super) fn standalone_rules<D: DestinationSettings>(
    node: &Node,
    sources: Option<&Node>,
    directory: &Path,
    diagnostics: &mut Diagnostics,
) -> Arc<RuleTable> {
    let mut templates = Templates::new();
    let before = diagnostics.errors();
    let rules_files = read_rules_files(node, directory, &mut templates, diagnostics);
    let RulesFiles { drafts, is_complete, .. } = rules_files.unwrap_or_default();
    if drafts.is_empty() && diagnostics.errors() == before {
        rules::report_no_rules(&node.location, diagnostics);
    }
    let rule_names = rule_names(&drafts).filter(|_| is_complete);
    semantics::check_source_rules(sources, rule_names.as_deref(), diagnostics);
    let names = KnownNames { sources: None, destinations: None };
    let rules = semantics::check_rules(drafts, &names, &BTreeMap::<Name, Destination<D>>::new(), diagnostics);
    Arc::new(RuleTable::new(rules.into_iter().map(|(rule, ..)| rule).collect(), templates))
}

/// Checks a rules file without a configuration: any source or destination name is accepted. Returns the number of rules.
pub(super) fn rules_alone<D: DestinationSettings>(tree: &Node, diagnostics: &mut Diagnostics) -> usize {
    let mut templates = Templates::new();
    let drafts = rules::file(tree, &mut templates, diagnostics);
    if drafts.is_empty() && !diagnostics.has_errors() {
        let help = "add one that begins with its name: `- name: unschedulable-pods`";
        diagnostics.add_with_help(Code::Empty, &tree.location, "no rules in this file", help);
    }
    let names = KnownNames { sources: None, destinations: None };
    let rules = semantics::check_rules(drafts, &names, &BTreeMap::<Name, Destination<D>>::new(), diagnostics);
    lints::lint_rules(&rules, &BTreeMap::new(), diagnostics);
    rules.len()
}

/// The settings of the engine without a configuration.
pub(super) fn default_policy(diagnostics: &mut Diagnostics) -> Option<Policy> {
    let defaults = layers::defaults(diagnostics)?;
    let retention = store::retention(defaults.get("retention")?, diagnostics)?;
    Some(store::engine(defaults.get("engine")?, diagnostics)?.policy(&retention))
}

/// Replaces an invalid `delivery` section: no setting of a destination contradicts it.
const UNBOUNDED_DELIVERY: Delivery = Delivery {
    initial_backoff: Duration::ZERO,
    max_backoff: MAX_DURATION,
    max_age: MAX_DURATION,
    scale_in_max_age: MAX_DURATION,
};

/// Reads a map of named items. Returns all names, if the map is valid, and the valid items.
fn section<T>(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    read: impl Fn(Name, &Node, &mut Diagnostics) -> Option<T>,
) -> (Option<Vec<Name>>, BTreeMap<Name, T>) {
    let named = fields.get(key, |node, diagnostics| {
        // An empty section is reported once, and not again by each rule that refers to it.
        entries(node, diagnostics)
            .filter(|entries| !entries.is_empty())
            .map(|_| named_entries(node, diagnostics))
    });
    let things = named.iter().flatten().filter_map(|(name, node)| {
        let thing = read(name.value.clone(), node, fields.diagnostics)?;
        Some((name.value.clone(), thing))
    });
    let things = things.collect();
    (named.map(|named| named.into_iter().map(|(name, _)| name.value).collect()), things)
}

/// The rules of all readable files.
#[derive(Default)]
struct RulesFiles {
    drafts: Vec<rules::Draft>,
    stamps: Vec<FileStamp>,
    /// Whether all files could be parsed.
    is_complete: bool,
}

fn read_rules_files(
    node: &Node,
    directory: &Path,
    templates: &mut Templates,
    diagnostics: &mut Diagnostics,
) -> Option<RulesFiles> {
    if let Kind::List(items) = &node.kind
        && let Some(rule) = items.iter().find(|item| matches!(item.kind, Kind::Map(_)))
    {
        let help = "put the rules into a file, and name it: `rules: [rules.yaml]`".to_owned();
        return wrong_type_with(rule, "the name of a rules file", Some(help), diagnostics);
    }
    let ListedTrees { trees, stamps, is_complete } =
        FileList::from_node(node, directory, diagnostics)?.read(diagnostics);
    let drafts = trees.iter().flat_map(|tree| rules::file(tree, templates, diagnostics)).collect();
    Some(RulesFiles { drafts, stamps, is_complete })
}

/// The names of all rules; `None` if one is not known.
fn rule_names(drafts: &[rules::Draft]) -> Option<Vec<Name>> {
    drafts.iter().map(|draft| Some(draft.name.as_ref()?.value.clone())).collect()
}
