//! The layered tree and the rules files -> settings.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::decode::{Fields, Spot, entries, list, named, spot};
use super::delivery::delivery;
use super::diagnostic::{Code, Diagnostics};
use super::meaning::{self, Names};
use super::scalar::text;
use super::seen::Seen;
use super::settings::{Delivery, Settings};
use super::yaml::Node;
use super::{destinations, doubts, file, rules, server, sources, store};
use crate::domain::duration::MAX_DURATION;
use crate::domain::name::Name;
use crate::domain::table::RuleTable;
use crate::domain::template::Templates;

/// Reads everything, faulty parts or not, and then judges what the parts mean together.
///
/// Gives the settings, and the rules files that they were read from.
pub(super) fn settings(
    root: &Node,
    directory: &Path,
    faults: &mut Diagnostics,
) -> Option<(Settings, Vec<Seen>)> {
    let mut templates = Templates::new();
    let mut fields = Fields::of(root, "", faults)?;
    let server = fields.get("server", server::server);
    let admin = fields.get("admin", server::admin);
    let store = fields.get("store", store::store);
    let retention = fields.get("retention", store::retention);
    let log = fields.get("log", store::log);
    let engine = fields.get("engine", store::engine);
    let delivery = fields.get("delivery", delivery);
    let common = delivery.map_or(UNBOUNDED, |(common, _)| common);
    let (source_names, sources) = section(&mut fields, "sources", sources::source);
    let (destination_names, destinations) = section(&mut fields, "destinations", |name, node, faults| {
        destinations::destination(name, node, common, faults)
    });
    let before = fields.faults.len();
    let drafts = fields.get("rules", |node, faults| rules_files(node, directory, &mut templates, faults));
    let (drafts, files) = drafts.unwrap_or_default();

    if drafts.is_empty() && fields.faults.len() == before {
        rules::none(fields.place_of("rules"), fields.faults);
    }
    meaning::section(root, "sources", "source", "sources: { local: {} }", fields.faults);
    let journal = "destinations: { journal: { file: { path: \"-\" } } }";
    meaning::section(root, "destinations", "destination", journal, fields.faults);
    if let (Some(server), Some(admin)) = (&server, &admin) {
        server::apart(server, admin, root, fields.faults);
    }
    if let Some(retention) = &retention {
        meaning::retention(retention, sources.values(), root, fields.faults);
    }
    meaning::files(store.as_ref(), &destinations, root, fields.faults);
    let names = Names { sources: source_names, destinations: destination_names };
    let rules = meaning::rules(drafts, &names, &destinations, fields.faults);
    doubts::rules(&rules, &sources, fields.faults);
    doubts::unused(&rules, root, fields.faults);
    let rules = rules.into_iter().map(|(rule, ..)| rule).collect::<Vec<_>>();
    meaning::heartbeats(&rules, root, fields.faults);
    fields.finish();
    let settings = Settings {
        server: server?,
        admin: admin?,
        store: store?,
        sources,
        destinations,
        max_backlog: delivery?.1,
        rules: Arc::new(RuleTable::new(rules, templates)),
        engine: engine?,
        retention: retention?,
        log: log?,
    };
    Some((settings, files))
}

/// The rules of the files that `node` lists, by themselves: whatever source or destination they name is there.
pub(super) fn rules_alone(node: &Node, directory: &Path, faults: &mut Diagnostics) -> Arc<RuleTable> {
    let mut templates = Templates::new();
    let before = faults.len();
    let (drafts, _) = rules_files(node, directory, &mut templates, faults).unwrap_or_default();
    if drafts.is_empty() && faults.len() == before {
        rules::none(&node.place, faults);
    }
    let names = Names { sources: None, destinations: None };
    let rules = meaning::rules(drafts, &names, &BTreeMap::new(), faults);
    Arc::new(RuleTable::new(rules.into_iter().map(|(rule, ..)| rule).collect(), templates))
}

/// Stands in for a faulty `delivery`, and contradicts nothing that a destination says.
const UNBOUNDED: Delivery = Delivery {
    initial_backoff: Duration::ZERO,
    max_backoff: MAX_DURATION,
    max_age: MAX_DURATION,
    scale_in_max_age: MAX_DURATION,
};

/// A map of named things: all names, if they could be read, and the things that are whole.
fn section<T>(
    fields: &mut Fields<'_, '_>,
    key: &'static str,
    read: impl Fn(Name, &Node, &mut Diagnostics) -> Option<T>,
) -> (Option<Vec<Name>>, BTreeMap<Name, T>) {
    let named = fields.get(key, |node, faults| {
        // Of an empty section it is said that it is empty, and not of each rule that it names nobody.
        entries(node, faults).filter(|entries| !entries.is_empty()).map(|_| named(node, faults))
    });
    let things = named.iter().flatten().filter_map(|(name, node)| {
        let thing = read(name.value.clone(), node, fields.faults)?;
        Some((name.value.clone(), thing))
    });
    let things = things.collect();
    (named.map(|named| named.into_iter().map(|(name, _)| name.value).collect()), things)
}

/// The rules of all files that can be read.
fn rules_files(
    node: &Node,
    directory: &Path,
    templates: &mut Templates,
    faults: &mut Diagnostics,
) -> Option<(Vec<rules::Draft>, Vec<Seen>)> {
    let (mut drafts, mut files) = (Vec::new(), Vec::new());
    let mut known: Vec<Spot<&str>> = Vec::new();
    for path in list(spot(text))(node, faults)? {
        if known.iter().any(|known| known.value == path.value) {
            faults.add(Code::DuplicateName, &path.place, format!("`{}` is listed twice", path.value));
        } else {
            let file = directory.join(path.value);
            if let Some((tree, seen)) = file::read(&file, Some(&path.place), faults) {
                drafts.extend(rules::file(&tree, templates, faults));
                files.push(seen);
            }
        }
        known.push(path);
    }
    Some((drafts, files))
}
