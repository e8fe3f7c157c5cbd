//! The kinds of destinations and sources, as tables that belong to the caller.
//!
//! This module does not know any kind: `dispatch` and `sources` implement these traits, and the type
//! parameters of [`load`](super::load) and of the settings select the implementation. A kind's own folder
//! reads and checks its settings with the readers of [`read`](super::read).

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{Schema, SchemaGenerator};

use super::access::HttpClient;
use super::diagnostic::Diagnostics;
use super::yaml::Node;
use crate::domain::size_limit::SizeLimit;

/// The settings of a destination of any kind: an enum with one variant for each kind.
pub trait DestinationSettings: Debug + Clone + PartialEq + 'static {
    /// The kinds, in the order in which documents and diagnostics list them.
    const KINDS: &'static [DestinationKind<Self>];

    /// The maximum size of one event.
    fn size_limit(&self) -> SizeLimit;

    /// The file that only this destination may write, with the key of its path in the settings of the kind.
    fn exclusive_file(&self) -> Option<(&'static str, &Path)>;

    /// The settings of its HTTP client.
    fn http_client(&self) -> Option<&HttpClient> {
        None
    }

    /// The files with keys that it signs with.
    fn key_files(&self) -> &[PathBuf] {
        &[]
    }
}

/// A kind of destination.
pub struct DestinationKind<D> {
    /// The key of the settings in a destination, such as `sqs`.
    pub key: &'static str,
    /// A complete setting, shown to users who configured none: `file: { path: "-" }`.
    pub example: &'static str,
    /// Whether a consumer changes capacity when an event arrives. If not, the events are only recorded.
    pub acting: bool,
    /// The default of `concurrency`.
    pub default_concurrency: usize,
    /// The maximum of `concurrency`.
    pub max_concurrency: usize,
    /// The JSON Schema of the settings.
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    /// Reads and checks the settings.
    pub(crate) read: fn(&Node, &mut Diagnostics) -> Option<D>,
}

/// The kind of a source: an enum with one variant for each kind, which has the settings that only this kind has.
pub trait SourceKind: Debug + Clone + PartialEq + 'static {
    /// The kinds, in the order in which documents and diagnostics list them. The first one is the default.
    const KINDS: &'static [SourceRow<Self>];

    /// Why sources of the kind `key` have no Alertmanager that could be asked what fires. It completes the sentence that
    /// begins with `alertmanager`.
    fn no_alertmanager(_key: &str) -> Option<&'static str> {
        None
    }

    /// Whether the bridge fetches the notifications. Then the source accepts no requests, and has no credentials.
    fn is_polled(&self) -> bool {
        false
    }

    /// Whether Alertmanager can send to sources of this kind.
    fn takes_alertmanagers_webhook(&self) -> bool;
}

/// A kind of source.
pub struct SourceRow<S> {
    /// The value of `kind`, and the key of the settings that only this kind has.
    pub key: &'static str,
    /// The default of `occurrence_ttl`.
    pub default_occurrence_ttl: Duration,
    /// The settings that only this kind has.
    pub settings: OwnSettings<S>,
}

/// The settings that only one kind of source has.
pub enum OwnSettings<S> {
    /// None. This is the kind.
    None(S),
    /// A key of the source, required by this kind and rejected in sources of other kinds.
    Required(SettingsKey<S>),
}

/// The key of a source with the settings that only one kind has.
pub struct SettingsKey<S> {
    /// The key with a complete setting, for messages.
    pub example: &'static str,
    /// Its JSON Schema.
    pub(crate) schema: fn(&mut SchemaGenerator) -> Schema,
    /// Reads and checks it.
    pub(crate) read: fn(&Node, &mut Diagnostics) -> Option<S>,
}
