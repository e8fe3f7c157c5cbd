//! Text -> checked configuration, or every diagnostic at once.
//!
//! The way of a configuration: `file` reads each file into a `yaml` tree that knows its places;
//! `layers` lays built-in defaults, the file and the environment over each other; `document` reads
//! the sections with the small readers of `decode` and `scalar`; `meaning` judges what the parts say about each
//! other. None of them stops at a fault. `unsupported` lists what the design promises and this version
//! refuses. The environment is an argument, never read here.

mod alertmanager;
mod assemble;
pub mod aws_names;
mod decode;
mod delivery;
mod destinations;
pub mod diagnostic;
mod file;
mod file_stamp;
mod layers;
mod lints;
mod matchers;
mod names;
mod rules;
mod scalar;
pub mod schema;
mod semantics;
mod server;
pub mod settings;
pub mod snippet;
mod sources;
mod store;
mod suggest;
pub mod test_file;
#[cfg(test)]
mod tests;
mod unsupported;
mod yaml;

use std::path::Path;

pub use diagnostic::Diagnostics;
pub use file_stamp::FileStamp;
pub use settings::{
    Admin, Delivery, Destination, DestinationKind, Engine, File, InvocationType, Lambda, Log, LogFormat,
    LogLevel, Retention, Role, Server, Settings, Sqs, Store,
};

/// A configuration that can be used.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub settings: Settings,
    /// What is odd about it.
    pub warnings: Diagnostics,
    /// The files that it was read from, each as it was right before.
    pub files: Vec<FileStamp>,
}

/// Reads the configuration file at `path`, the rules files that it names (relative to its own directory)
/// and the `SCALEBRIDGE__…` variables of `environment`.
///
/// # Errors
/// Every fault of all of them at once, with the warnings between them.
pub fn load(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let (file, stamp) = file::read(path, None, &mut diagnostics).unzip();
    let root = layers::merge(file.as_ref(), environment, &mut diagnostics);
    let directory = path.parent().unwrap_or(Path::new(""));
    let settings = root.and_then(|root| assemble::settings(&root, directory, &mut diagnostics));
    match settings {
        Some((settings, rules)) if !diagnostics.has_errors() => {
            let files = stamp.into_iter().chain(rules).collect();
            Ok(Loaded { settings, warnings: diagnostics, files })
        }
        _ => Err(diagnostics),
    }
}

/// [`load`], and what in the Alertmanager configuration at `alertmanager` would make a bridge with these
/// settings blind: all of it in one run.
///
/// # Errors
/// As for [`load`], and where the Alertmanager's configuration has a fault.
pub fn load_with_alertmanager(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    alertmanager: &Path,
) -> Result<Loaded, Diagnostics> {
    let Loaded { settings, mut warnings, files } = load(path, environment)?;
    alertmanager::lint(alertmanager, &settings, &mut warnings);
    if warnings.has_errors() { Err(warnings) } else { Ok(Loaded { settings, warnings, files }) }
}
