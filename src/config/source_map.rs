//! Merges the sources of all files, with the keys of `source_defaults` that they do not set.
//!
//! The result is the tree of a configuration with all of its sources in `sources`, in which each key and value has the
//! location where it stands. So an error in a default is reported once, at its place, and all later stages read the same
//! tree.

use std::collections::HashMap;
use std::path::Path;

use super::decode::Fields;
use super::diagnostic::{Code, Diagnostics, Location};
use super::file_list::FileList;
use super::file_stamp::FileStamp;
use super::yaml::{Key, Kind, Node};

/// A configuration with all of its sources in `sources`.
pub(super) struct Expanded {
    pub root: Node,
    /// The stamps of the source files.
    pub stamps: Vec<FileStamp>,
    /// Whether all source files could be read.
    pub is_complete: bool,
}

/// Reads the source files of a configuration, which are relative to `directory`.
pub(super) fn expand(root: &Node, directory: &Path, diagnostics: &mut Diagnostics) -> Expanded {
    let mut expanded = Expanded { root: root.clone(), stamps: Vec::new(), is_complete: true };
    let (files, defaults) = (root.get("source_files"), root.get("source_defaults"));
    if files.is_none() && defaults.is_none() {
        return expanded;
    }
    let own = root.get("sources");
    let mut sources = match own.map(|own| &own.kind) {
        Some(Kind::Map(own)) => own.clone(),
        None | Some(Kind::Null) => Vec::new(),
        // Reported by the reader of `sources`.
        Some(_) => return expanded,
    };
    if let Some(files) = files {
        let list = FileList::from_node(files, directory, diagnostics);
        let read = list.map(|list| list.read(diagnostics));
        expanded.is_complete = read.as_ref().is_some_and(|read| read.is_complete);
        let read = read.unwrap_or_default();
        for tree in read.trees {
            match entries_of_file(tree, diagnostics) {
                Some(entries) => sources.extend(entries),
                None => expanded.is_complete = false,
            }
        }
        expanded.stamps = read.stamps;
    }
    let mut sources = without_duplicates(sources, diagnostics);
    if let Some(defaults) = defaults {
        expanded.is_complete &= Fields::from_node(defaults, "sources.*", diagnostics).is_some();
        for (_, source) in &mut sources {
            inherit(source, defaults, diagnostics);
        }
    }
    let Kind::Map(sections) = &mut expanded.root.kind else { return expanded };
    let location = own.or(files).map_or(&root.location, |node| &node.location).clone();
    let sources = Node { location: location.clone(), kind: Kind::Map(sources) };
    match sections.iter_mut().find(|(key, _)| key.name == "sources") {
        Some((_, node)) => *node = sources,
        None => sections.push((Key { name: "sources".to_owned(), location }, sources)),
    }
    expanded
}

/// The sources in a source file.
fn entries_of_file(tree: Node, diagnostics: &mut Diagnostics) -> Option<Vec<(Key, Node)>> {
    let mut fields = Fields::from_node(&tree, "source_files.*", diagnostics)?;
    let sources = fields.get_required("sources", "sources: { prod-eu: {} }", |node, diagnostics| {
        // Only a list or a scalar is reported here; what is in a source, later.
        match &node.kind {
            Kind::List(_) => {
                super::names::named_entries(node, diagnostics);
                None
            }
            _ => super::decode::entries(node, diagnostics).map(<[_]>::to_vec),
        }
    });
    fields.finish();
    sources
}

fn without_duplicates(sources: Vec<(Key, Node)>, diagnostics: &mut Diagnostics) -> Vec<(Key, Node)> {
    let mut first: HashMap<String, Location> = HashMap::new();
    let mut kept = Vec::with_capacity(sources.len());
    for (key, source) in sources {
        if let Some(first) = first.get(&key.name) {
            let message = format!("duplicate source name `{}`", key.name);
            let help = format!("first defined at {first}; keep only one of them, or use a different name");
            diagnostics.add_with_help(Code::DuplicateName, &key.location, message, help);
        } else {
            first.insert(key.name.clone(), key.location.clone());
            kept.push((key, source));
        }
    }
    kept
}

/// What a source without a value for it would be allowed more by than `source_defaults` intends.
const RESTRICTIONS: [&str; 3] = ["auth", "rules", "targets"];

/// Adds the keys of `defaults` that a source does not have, and the labels.
fn inherit(source: &mut Node, defaults: &Node, diagnostics: &mut Diagnostics) {
    let Kind::Map(defaults) = &defaults.kind else { return };
    let null = |name: &str| match &source.kind {
        Kind::Map(own) => own.iter().find(|(key, node)| key.name == name && node.kind == Kind::Null),
        _ => None,
    };
    for (key, _) in defaults.iter().filter(|(key, _)| RESTRICTIONS.contains(&&*key.name)) {
        let Some((own, _)) = null(&key.name) else { continue };
        let message = format!("`{}` has no value here, and one in `source_defaults`", key.name);
        let help = "give it a value; without the key, the one of `source_defaults` holds";
        diagnostics.add_with_help(Code::Contradiction, &own.location, message, help);
    }
    let of_heartbeat = ["heartbeat_timeout", "heartbeat_grace"];
    let has_no_heartbeat = null("heartbeat").is_some();
    let labels = defaults.iter().find(|(key, _)| key.name == "labels").map(|(_, labels)| labels);
    if let (Kind::Map(own), Some(Node { kind: Kind::Map(labels), .. })) = (&mut source.kind, labels)
        && let Some((_, own)) =
            own.iter_mut().find(|(key, node)| key.name == "labels" && node.kind != Kind::Null)
    {
        merge(own, labels.iter());
    }
    let inherited =
        defaults.iter().filter(|(key, _)| !(has_no_heartbeat && of_heartbeat.contains(&&*key.name)));
    merge(source, inherited);
}

/// Adds the entries of `defaults` whose keys a map does not have. A key without a value removes the one of `defaults`.
fn merge<'d>(map: &mut Node, defaults: impl Iterator<Item = &'d (Key, Node)>) {
    if map.kind == Kind::Null {
        map.kind = Kind::Map(Vec::new());
    }
    // Another type is reported by the reader of the map.
    let Kind::Map(own) = &mut map.kind else { return };
    for (key, default) in defaults {
        match own.iter().position(|(known, _)| known.name == key.name) {
            Some(at) if own[at].1.kind == Kind::Null => drop(own.remove(at)),
            Some(_) => {}
            None => own.push((key.clone(), default.clone())),
        }
    }
}
