//! The kinds of destinations and sources, as tables that belong to the caller.
//!
//! This module does not know any kind: `dispatch` and `sources` implement these traits, and the type
//! parameters of [`load`](super::load) and of the settings select the implementation. A kind's own folder
//! reads and checks its settings with the readers of [`read`](super::read).

use std::fmt::Debug;
use std::path::Path;

use schemars::{Schema, SchemaGenerator};

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

/// The kind of a source: an enum with one variant for each kind.
pub trait SourceKind: Debug + Copy + PartialEq + 'static {
    /// The kinds with the values of `kind`. The first one is the default.
    const KINDS: &'static [(&'static str, Self)];
}
