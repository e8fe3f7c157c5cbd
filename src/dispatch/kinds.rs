//! The kinds of destinations: the table for `config`, and the settings and clients of all kinds.
//!
//! Each kind is a folder beside this module, which owns its settings, their checks and schema, its IAM
//! permission, its client and its failures. The matches below have no wildcard, so that the compiler lists what
//! a new kind must provide.

use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::aws::{self, ArnDefaults, Permission};
use super::{
    Answer, Destination, Failure, Limits, OutgoingEvent, eventbridge, file, http, lambda, sns, sqs,
    step_functions,
};
use crate::config::access::HttpClient;
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
    /// An event bus of EventBridge.
    Eventbridge(eventbridge::Settings),
    /// An SNS topic.
    Sns(sns::Settings),
    /// A state machine of Step Functions.
    StepFunctions(step_functions::Settings),
    /// An HTTP service.
    Http(http::Settings),
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
            key: "eventbridge",
            example: "eventbridge: { bus: scaling }",
            acting: true,
            default_concurrency: DEFAULT_CONCURRENCY,
            max_concurrency: MAX_CONCURRENCY,
            schema: optional::<eventbridge::schema::Eventbridge>,
            read: |node, diagnostics| eventbridge::settings::read(node, diagnostics).map(Self::Eventbridge),
        },
        DestinationKind {
            key: "sns",
            example: "sns: { topic_arn: \"arn:aws:sns:eu-west-1:123456789012:scaling.fifo\" }",
            acting: true,
            default_concurrency: DEFAULT_CONCURRENCY,
            max_concurrency: MAX_CONCURRENCY,
            schema: optional::<sns::schema::Sns>,
            read: |node, diagnostics| sns::settings::read(node, diagnostics).map(Self::Sns),
        },
        DestinationKind {
            key: "step_functions",
            example: "step_functions: { state_machine_arn: \"arn:aws:states:eu-west-1:123456789012:stateMachine:scaling\" }",
            acting: true,
            default_concurrency: DEFAULT_CONCURRENCY,
            max_concurrency: MAX_CONCURRENCY,
            schema: optional::<step_functions::schema::StepFunctions>,
            read: |node, diagnostics| {
                step_functions::settings::read(node, diagnostics).map(Self::StepFunctions)
            },
        },
        DestinationKind {
            key: "http",
            example: "http: { url: https://scaler.example/events, signing_key_files: [/run/secrets/scaler] }",
            acting: true,
            default_concurrency: DEFAULT_CONCURRENCY,
            max_concurrency: MAX_CONCURRENCY,
            schema: optional::<http::schema::Http>,
            read: |node, diagnostics| http::settings::read(node, diagnostics).map(Self::Http),
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
            Self::Eventbridge(bus) => bus.size_limit(),
            Self::Sns(topic) => topic.size_limit(),
            Self::StepFunctions(_) => step_functions::Settings::size_limit(),
            Self::Http(http) => http.size_limit(),
            Self::File(file) => file.size_limit(),
        }
    }

    fn exclusive_file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Sqs(_)
            | Self::Lambda(_)
            | Self::Eventbridge(_)
            | Self::Sns(_)
            | Self::StepFunctions(_)
            | Self::Http(_) => None,
            Self::File(file) => file.path().map(|path| ("path", path)),
        }
    }

    fn http_client(&self) -> Option<&HttpClient> {
        match self {
            Self::Http(http) => Some(&http.client),
            _ => None,
        }
    }

    fn key_files(&self) -> &[PathBuf] {
        match self {
            Self::Http(http) => &http.signing_key_files,
            _ => &[],
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
            Self::Eventbridge(_) => "eventbridge",
            Self::Sns(_) => "sns",
            Self::StepFunctions(_) => "step_functions",
            Self::Http(_) => "http",
            Self::File(_) => "file",
        }
    }

    /// The queue's URL, the name or ARN of the function or event bus, the ARN of the topic or state machine, the service's
    /// URL, or the file's path.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Sqs(sqs) => sqs.queue_url.clone(),
            Self::Lambda(lambda) => lambda.address(),
            Self::Eventbridge(bus) => bus.bus.clone(),
            Self::Sns(topic) => topic.topic_arn.clone(),
            Self::StepFunctions(state_machine) => state_machine.state_machine_arn.clone(),
            Self::Http(http) => http.address(),
            Self::File(file) => file.address(),
        }
    }

    /// The IAM permission that the destination needs.
    pub(crate) fn permission<'d>(&'d self, defaults: &ArnDefaults<'_>) -> Option<Permission<'d>> {
        match self {
            Self::Sqs(sqs) => sqs.permission(defaults),
            Self::Lambda(lambda) => Some(lambda.permission(defaults)),
            Self::Eventbridge(bus) => Some(bus.permission(defaults)),
            Self::Sns(topic) => Some(topic.permission()),
            Self::StepFunctions(state_machine) => Some(state_machine.permission()),
            Self::Http(_) | Self::File(_) => None,
        }
    }
}

/// A destination of the configuration with its client.
#[derive(Debug)]
pub(crate) enum ConnectedDestination {
    Sqs(sqs::Sqs),
    Lambda(lambda::Lambda),
    Eventbridge(eventbridge::Eventbridge),
    Sns(sns::Sns),
    StepFunctions(step_functions::StepFunctions),
    Http(Box<http::Http>),
    File(file::File),
}

/// Connects destinations, which share clients where they can.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    aws: aws::Configs,
    sqs: sqs::Clients,
    lambda: lambda::Clients,
    eventbridge: eventbridge::Clients,
    sns: sns::Clients,
    step_functions: step_functions::Clients,
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
            DestinationSettings::Eventbridge(settings) => {
                let key = aws::Key::new(&settings.access, *timeout);
                let build = |config: &_| eventbridge::client(config, &key);
                let client = self.aws.client(&mut self.eventbridge, name, &key, build).await?;
                let bus = eventbridge::Eventbridge::new(client.sdk, settings);
                ConnectedDestination::Eventbridge(bus.with_credentials(client.credentials))
            }
            DestinationSettings::Sns(settings) => {
                let key = aws::Key::new(&settings.access, *timeout);
                let build = |config: &_| sns::client(config, &key);
                let client = self.aws.client(&mut self.sns, name, &key, build).await?;
                let topic = sns::Sns::new(client.sdk, settings);
                ConnectedDestination::Sns(topic.with_credentials(client.credentials))
            }
            DestinationSettings::StepFunctions(settings) => {
                let key = aws::Key::new(&settings.access, *timeout);
                let build = |config: &_| step_functions::client(config, &key);
                let client = self.aws.client(&mut self.step_functions, name, &key, build).await?;
                let state_machine = step_functions::StepFunctions::new(client.sdk, settings);
                ConnectedDestination::StepFunctions(state_machine.with_credentials(client.credentials))
            }
            DestinationSettings::Http(settings) => {
                ConnectedDestination::Http(Box::new(http::Http::new(settings, *timeout)))
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
            Self::Eventbridge(bus) => bus.limits(),
            Self::Sns(topic) => topic.limits(),
            Self::StepFunctions(state_machine) => state_machine.limits(),
            Self::Http(http) => http.limits(),
            Self::File(file) => file.limits(),
        }
    }

    fn event_bytes(&self, event: &OutgoingEvent) -> usize {
        match self {
            Self::Sqs(sqs) => sqs.event_bytes(event),
            Self::Lambda(lambda) => lambda.event_bytes(event),
            Self::Eventbridge(bus) => bus.event_bytes(event),
            Self::Sns(topic) => topic.event_bytes(event),
            Self::StepFunctions(state_machine) => state_machine.event_bytes(event),
            Self::Http(http) => http.event_bytes(event),
            Self::File(file) => file.event_bytes(event),
        }
    }

    fn stores_calls(&self) -> bool {
        match self {
            Self::Lambda(lambda) => lambda.stores_calls(),
            Self::StepFunctions(state_machine) => state_machine.stores_calls(),
            Self::Sqs(_) | Self::Eventbridge(_) | Self::Sns(_) | Self::Http(_) | Self::File(_) => false,
        }
    }

    async fn send(&self, batch: &[OutgoingEvent]) -> Result<Vec<Answer>, Failure> {
        match self {
            Self::Sqs(sqs) => sqs.send(batch).await,
            Self::Lambda(lambda) => lambda.send(batch).await,
            Self::Eventbridge(bus) => bus.send(batch).await,
            Self::Sns(topic) => topic.send(batch).await,
            Self::StepFunctions(state_machine) => state_machine.send(batch).await,
            Self::Http(http) => http.send(batch).await,
            Self::File(file) => file.send(batch).await,
        }
    }
}

#[cfg(test)]
mod tests;
