//! The kinds of destinations: the table for `config`, and the settings and clients of all kinds.
//!
//! Each kind is a folder beside this module, which owns its settings, their checks and schema, its IAM
//! permission, its client and its failures. The matches below have no wildcard, so that the compiler lists what
//! a new kind must provide.

use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::aws::{self, ArnDefaults, Permission};
use super::{Answer, Destination, Failure, Limits, OutgoingEvent, file, lambda, sqs};
use crate::config::{self, DestinationKind};
use crate::domain::size_limit::SizeLimit;

/// The default and the maximum of `concurrency` for services.
const DEFAULT_CONCURRENCY: usize = 8;
const MAX_CONCURRENCY: usize = 256;

/// The settings of a destination of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DestinationSettings {
    /// An SQS queue.
    Sqs(sqs::Settings),
    /// A Lambda function.
    Lambda(lambda::Settings),
    /// A file or stdout.
    File(file::Settings),
}

impl config::DestinationSettings for DestinationSettings {
    const KINDS: &'static [DestinationKind<Self>] = &[
        DestinationKind {
            key: "sqs",
            example: "sqs: { queue_url: \"https://sqs.eu-west-1.amazonaws.com/123456789012/scaling.fifo\" }",
            acting: true,
            default_concurrency: DEFAULT_CONCURRENCY,
            max_concurrency: MAX_CONCURRENCY,
            schema: optional::<sqs::schema::Sqs>,
            read: |node, diagnostics| sqs::settings::read(node, diagnostics).map(Self::Sqs),
        },
        DestinationKind {
            key: "lambda",
            example: "lambda: { function: nodegroup-scaler }",
            acting: true,
            default_concurrency: DEFAULT_CONCURRENCY,
            max_concurrency: MAX_CONCURRENCY,
            schema: optional::<lambda::schema::Lambda>,
            read: |node, diagnostics| lambda::settings::read(node, diagnostics).map(Self::Lambda),
        },
        DestinationKind {
            key: "file",
            example: "file: { path: \"-\" }",
            acting: false,
            // Concurrent writers would interleave the lines of a file.
            default_concurrency: 1,
            max_concurrency: 1,
            schema: optional::<file::schema::File>,
            read: |node, diagnostics| file::settings::read(node, diagnostics).map(Self::File),
        },
    ];

    fn size_limit(&self) -> SizeLimit {
        match self {
            Self::Sqs(sqs) => sqs.size_limit(),
            Self::Lambda(lambda) => lambda.size_limit(),
            Self::File(file) => file.size_limit(),
        }
    }

    fn exclusive_file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Sqs(_) | Self::Lambda(_) => None,
            Self::File(file) => file.path().map(|path| ("path", path)),
        }
    }
}

/// The settings of a kind, of which a destination has exactly one.
fn optional<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Option<T>>()
}

impl DestinationSettings {
    /// The kind, as the key in the configuration.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Sqs(_) => "sqs",
            Self::Lambda(_) => "lambda",
            Self::File(_) => "file",
        }
    }

    /// The queue's URL, the function's name or the file's path.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Sqs(sqs) => sqs.queue_url.clone(),
            Self::Lambda(lambda) => lambda.address(),
            Self::File(file) => file.address(),
        }
    }

    /// The IAM permission that the destination needs.
    pub(crate) fn permission<'d>(&'d self, defaults: &ArnDefaults<'_>) -> Option<Permission<'d>> {
        match self {
            Self::Sqs(sqs) => sqs.permission(defaults),
            Self::Lambda(lambda) => Some(lambda.permission(defaults)),
            Self::File(_) => None,
        }
    }
}

/// A destination of the configuration with its client.
#[derive(Debug)]
pub(crate) enum ConnectedDestination {
    Sqs(sqs::Sqs),
    Lambda(lambda::Lambda),
    File(file::File),
}

/// Connects destinations, which share clients where they can.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    aws: aws::Configs,
    sqs: sqs::Clients,
    lambda: lambda::Clients,
    own_files: file::ProtectedFiles,
}

impl Clients {
    /// None yet. Their credentials are loaded anew on each `reload`, and none of them writes to `own_files`.
    pub(super) fn new(reload: aws::CredentialsReload, own_files: file::ProtectedFiles) -> Self {
        Self { aws: aws::Configs::new(reload), own_files, ..Self::default() }
    }

    /// Creates the client. The connection is opened by the first call.
    ///
    /// # Errors
    /// The destination needs something that neither its settings nor the environment have. Missing or
    /// unreachable services are not detected here.
    pub(crate) async fn connect(
        &mut self,
        destination: &config::Destination<DestinationSettings>,
    ) -> anyhow::Result<ConnectedDestination> {
        let config::Destination { name, timeout, .. } = destination;
        Ok(match &destination.settings {
            DestinationSettings::Sqs(settings) => {
                let key = aws::Key::new(&settings.access, *timeout);
                let build = |config: &_| sqs::client(config, &key);
                let client = self.aws.client(&mut self.sqs, name, &key, build).await?;
                ConnectedDestination::Sqs(
                    sqs::Sqs::new(client.sdk, settings).with_credentials(client.credentials),
                )
            }
            DestinationSettings::Lambda(settings) => {
                let key = aws::Key::new(&settings.access, *timeout);
                let build = |config: &_| lambda::client(config, &key);
                let client = self.aws.client(&mut self.lambda, name, &key, build).await?;
                let lambda = lambda::Lambda::new(client.sdk, settings);
                ConnectedDestination::Lambda(lambda.with_credentials(client.credentials))
            }
            DestinationSettings::File(settings) => {
                ConnectedDestination::File(file::File::new(settings, self.own_files.clone()))
            }
        })
    }
}

impl Destination for ConnectedDestination {
    fn limits(&self) -> Limits {
        match self {
            Self::Sqs(sqs) => sqs.limits(),
            Self::Lambda(lambda) => lambda.limits(),
            Self::File(file) => file.limits(),
        }
    }

    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        match self {
            Self::Sqs(sqs) => sqs.event_bytes(event),
            Self::Lambda(lambda) => lambda.event_bytes(event),
            Self::File(file) => file.event_bytes(event),
        }
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        match self {
            Self::Sqs(sqs) => sqs.send(batch).await,
            Self::Lambda(lambda) => lambda.send(batch).await,
            Self::File(file) => file.send(batch).await,
        }
    }
}

#[cfg(test)]
mod tests;
