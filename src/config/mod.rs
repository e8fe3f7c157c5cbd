//! Text -> checked configuration, or every diagnostic at once.
//!
//! The way of a configuration: `file` reads each file into a `yaml` tree that knows its places;
//! `layers` lays built-in defaults, the file and the environment over each other; `document` reads
//! the sections with the small readers of `decode` and `scalar`; `meaning` judges what the parts say about each
//! other. None of them stops at a fault. `unsupported` lists what the design promises and this version
//! refuses. The environment is an argument, never read here.

mod alertmanager;
pub mod called;
pub mod cases;
mod decode;
mod delivery;
mod destinations;
pub mod diagnostic;
mod document;
mod doubts;
mod file;
mod layers;
mod matchers;
mod meaning;
mod rules;
mod scalar;
pub mod schema;
mod seen;
mod server;
pub mod settings;
mod slip;
pub mod snippet;
mod sources;
mod store;
#[cfg(test)]
mod tests;
mod unsupported;
mod yaml;

use std::path::Path;

pub use diagnostic::Diagnostics;
pub use seen::Seen;
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
    pub files: Vec<Seen>,
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
    let mut faults = Diagnostics::default();
    let (file, seen) = file::read(path, None, &mut faults).unzip();
    let root = layers::lay(file.as_ref(), environment, &mut faults);
    let directory = path.parent().unwrap_or(Path::new(""));
    let settings = root.and_then(|root| document::settings(&root, directory, &mut faults));
    match settings {
        Some((settings, rules)) if !faults.has_errors() => {
            let files = seen.into_iter().chain(rules).collect();
            Ok(Loaded { settings, warnings: faults, files })
        }
        _ => Err(faults),
    }
}

/// [`load`], and what in the Alertmanager configuration at `alertmanager` would make a bridge with these
/// settings blind: all of it in one run.
///
/// # Errors
/// As for [`load`], and where the Alertmanager's configuration has a fault.
pub fn load_with_sender(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    alertmanager: &Path,
) -> Result<Loaded, Diagnostics> {
    let Loaded { settings, mut warnings, files } = load(path, environment)?;
    alertmanager::lint(alertmanager, &settings, &mut warnings);
    if warnings.has_errors() { Err(warnings) } else { Ok(Loaded { settings, warnings, files }) }
}
