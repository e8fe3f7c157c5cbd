//! Parses and validates the configuration. Returns checked settings or all diagnostics.
//!
//! Stages: `file` reads each file into a `yaml` tree with locations; `layers` merges built-in defaults, the
//! file and the environment; `source_map` adds the source files and `source_defaults`; `assemble` reads the sections with the readers of `decode`, `scalar` and
//! `names`; `semantics` checks the parts against each other; `lints` warns about rules that are valid but
//! suspicious. No stage stops at an error. `unsupported` lists the keys that this version rejects although
//! the design has them. The environment is an argument and is never read here.
//!
//! The kinds of destinations and sources are type parameters, see `kinds`: their settings, schemas and
//! checks are in the folder of each kind, in `dispatch` and `sources`.

pub mod access;
mod alertmanager;
mod alertmanager_api;
mod assemble;
pub(crate) mod byte_order_mark;
mod check;
mod database_url;
mod decode;
mod delivery;
mod destinations;
pub mod diagnostic;
mod file;
mod file_list;
mod file_pattern;
mod file_stamp;
mod foreign;
mod kinds;
mod layers;
mod lints;
mod matchers;
mod names;
mod own_files;
mod redact;
mod rules;
mod scalar;
pub mod schema;
pub mod secret;
mod semantics;
mod server;
pub mod settings;
pub mod snippet;
mod source_map;
mod sources;
mod store;
mod suggest;
pub mod test_file;
#[cfg(test)]
mod tests;
mod unsupported;
mod yaml;

use std::path::Path;

#[cfg(feature = "server")]
pub(crate) use alertmanager::lint_text as lint_alertmanager;
pub use check::{Checked, check};
pub use database_url::{
    Authorities, ChannelBinding, DatabaseServer, DatabaseUrl, Liveness, ServerAddress, ServerTls, UrlError,
};
pub use diagnostic::Diagnostics;
pub use file_stamp::FileStamp;
pub use kinds::{DestinationKind, DestinationSettings, OwnSettings, SettingsKey, SourceKind, SourceRow};
pub use own_files::OwnFiles;
pub use secret::Secret;
pub use settings::{
    Admin, AlertmanagerApi, Delivery, Destination, Engine, Log, LogFormat, LogLevel, PostgresStore,
    Retention, Server, Settings, Store,
};

/// What a kind needs to read its settings, and `credentials` to read files.
#[cfg(feature = "server")]
pub(crate) mod read {
    pub(crate) use crate::config::access::{http_client, signing_key_files};
    pub(crate) use crate::config::decode::{Fields, distinct};
    pub(crate) use crate::config::diagnostic::{Code, Diagnostics};
    pub(crate) use crate::config::scalar::{flag, keyword, number, owned_text, text};
    pub(crate) use crate::config::yaml::Node;
}

/// A valid configuration.
#[derive(Debug)]
pub struct Loaded<D, S> {
    /// The checked settings.
    pub settings: Settings<D, S>,
    /// Diagnostics that are not errors.
    pub warnings: Diagnostics,
    /// The configuration file, the rules files, the source files, the patterns for them, and the web configuration
    /// files, each with its stamp from before it was read.
    pub files: Vec<FileStamp>,
}

/// Reads the configuration file at `path`, the rules files and source files that it names (relative to its own
/// directory) and the `SCALEBRIDGE__…` variables of `environment`.
///
/// # Errors
/// All errors and warnings, if there is an error.
pub fn load<D: DestinationSettings, S: SourceKind>(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<D, S>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let (file, stamp) = file::read(path, None, &mut diagnostics).unzip();
    load_tree(file, stamp, path.parent().unwrap_or(Path::new("")), environment, diagnostics)
}

/// Loads a configuration that has been parsed; `None` if that has failed. Other files are relative to
/// `directory`.
fn load_tree<D: DestinationSettings, S: SourceKind>(
    file: Option<yaml::Node>,
    stamp: Option<FileStamp>,
    directory: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    mut diagnostics: Diagnostics,
) -> Result<Loaded<D, S>, Diagnostics> {
    let root = layers::merge(file.as_ref(), environment, &mut diagnostics);
    let settings = root.as_ref().and_then(|root| {
        let (settings, rules) = assemble::settings(root, directory, &mut diagnostics)?;
        let files: Vec<FileStamp> = stamp.into_iter().chain(rules).collect();
        own_files::check(&settings, &files, root, &mut diagnostics);
        Some((settings, files))
    });
    match settings {
        Some((settings, files)) if !diagnostics.has_errors() => {
            Ok(Loaded { settings, warnings: diagnostics, files })
        }
        _ => Err(diagnostics),
    }
}

/// Reads the address of `server.listen` and how it is protected. Other errors do not count: while the configuration is
/// invalid, a running bridge keeps the one that it has.
///
/// # Errors
/// The file cannot be parsed, or its section `server` has an error.
#[cfg(feature = "server")]
pub(crate) fn read_webhook_listener(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(std::net::SocketAddr, access::ListenerAccess), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let file = file::read(path, None, &mut diagnostics).map(|(file, _)| file);
    let root = layers::merge(file.as_ref(), environment, &mut diagnostics);
    let listener = root.and_then(|root| server::webhook_listener(&root, &mut diagnostics));
    listener.ok_or(diagnostics)
}

/// Like [`load`], and checks the Alertmanager configuration at `alertmanager` against the settings: routes,
/// receivers and intervals.
///
/// # Errors
/// As for [`load`], and if the Alertmanager configuration has an error.
pub fn load_with_alertmanager<D: DestinationSettings, S: SourceKind>(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    alertmanager: &Path,
) -> Result<Loaded<D, S>, Diagnostics> {
    let Loaded { settings, mut warnings, files } = load(path, environment)?;
    alertmanager::lint(alertmanager, &settings, &mut warnings);
    if warnings.has_errors() { Err(warnings) } else { Ok(Loaded { settings, warnings, files }) }
}
