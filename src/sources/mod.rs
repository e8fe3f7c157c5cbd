//! The kinds of sources: a body becomes a notification.
//!
//! Each kind is a folder of this module. Past it, nobody knows in which format an alert was received.

mod alertmanager;

use crate::config;
use crate::domain::notification::{MAX_ALERTS, Notification};

/// The kind of a source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// The webhook of Alertmanager and of what sends as it does: Mimir, Cortex, vmalert through Alertmanager.
    #[default]
    Alertmanager,
}

impl config::SourceKind for SourceKind {
    const KINDS: &'static [(&'static str, Self)] = &[("alertmanager", Self::Alertmanager)];
}

impl SourceKind {
    /// Parses a body.
    ///
    /// # Errors
    /// The body as a whole is rejected. An error in one alert makes only this alert invalid.
    pub(crate) fn parse(self, body: &[u8]) -> Result<Notification, ParseError> {
        match self {
            Self::Alertmanager => alertmanager::parse(body),
        }
    }
}

/// Why a body is rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseError {
    /// Not in the format of the source's kind. The text says what is wrong, and where.
    #[error("{0}")]
    Format(String),
    /// More than [`MAX_ALERTS`] alerts.
    #[error("the body has {0} alerts; the maximum is {MAX_ALERTS}; group by more labels")]
    TooManyAlerts(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceKind as _;

    #[test]
    fn the_default_is_the_first_kind_of_the_table() {
        assert_eq!(SourceKind::KINDS[0].1, SourceKind::default());
    }
}
