//! The configuration with the kinds of destinations and sources that this bridge has.
//!
//! `config` takes the kinds as type parameters, since it knows none of them. This is the one place that
//! supplies them; the layers above use these types and functions.

use std::path::Path;

use schemars::Schema;

use crate::config::{self, Diagnostics, test_file};
use crate::dispatch::DestinationSettings;
use crate::sources::SourceKind;

/// The checked settings.
pub(crate) type Settings = config::Settings<DestinationSettings, SourceKind>;
/// A valid configuration.
pub(crate) type Loaded = config::Loaded<DestinationSettings, SourceKind>;

/// A valid file.
pub(crate) type Checked = config::Checked<DestinationSettings, SourceKind>;

/// See [`config::load`].
///
/// # Errors
/// All errors and warnings, if there is an error.
pub(crate) fn load(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, Diagnostics> {
    config::load(path, environment)
}

/// See [`config::load_with_alertmanager`].
#[cfg(test)]
pub(crate) fn load_with_alertmanager(
    path: &Path,
    environment: impl IntoIterator<Item = (String, String)>,
    alertmanager: &Path,
) -> Result<Loaded, Diagnostics> {
    config::load_with_alertmanager(path, environment, alertmanager)
}

/// See [`config::check`].
pub(crate) fn check(
    path: &Path,
    text: Option<Vec<u8>>,
    environment: impl IntoIterator<Item = (String, String)>,
    alertmanager: Option<&Path>,
) -> Result<Checked, Diagnostics> {
    config::check(path, text, environment, alertmanager)
}

/// See [`test_file::read`].
pub(crate) fn read_tests(path: &Path) -> Result<test_file::TestFile, Diagnostics> {
    test_file::read::<DestinationSettings, SourceKind>(path)
}

/// See [`config::schema::config`].
pub(crate) fn config_schema() -> Schema {
    config::schema::config::<DestinationSettings, SourceKind>()
}

/// See [`config::schema::sources`].
pub(crate) fn sources_schema() -> Schema {
    config::schema::sources::<SourceKind>()
}

/// See [`config::schema::tests`].
pub(crate) fn tests_schema() -> Schema {
    config::schema::tests::<SourceKind>()
}
