//! Text -> checked configuration, or every diagnostic at once.

pub mod settings;

pub use settings::{
    Admin, Delivery, Destination, DestinationKind, File, InvocationType, Lambda, Log, LogFormat, LogLevel,
    Retention, Server, Settings, Sqs, Store,
};
