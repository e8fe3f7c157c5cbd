//! Why an operation was not performed.

use crate::store::{self, DeadLetterError};

/// Why an operation was not performed; nothing has changed. The texts are for the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A parameter is invalid.
    #[error("{0}")]
    Invalid(String),
    /// What the request names does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The request is valid, but conflicts with the current state.
    #[error("{0}")]
    Conflict(String),
    /// The store could not read or write.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<DeadLetterError> for Error {
    fn from(error: DeadLetterError) -> Self {
        match error {
            DeadLetterError::Store(error) => Self::Store(error),
            DeadLetterError::NotDead => Self::NotFound(error.to_string()),
            other => Self::Conflict(other.to_string()),
        }
    }
}
