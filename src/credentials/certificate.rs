//! Client certificates, by name. TLS has verified them.

use std::net::IpAddr;

use super::{ClientCertificate, Presented};
use crate::config::access::ClientCertAuth;

/// A subject alternative name. A CA limits the names of its certificates by kind, so a name of one kind never stands for
/// one of another kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum San {
    /// In lower case.
    Dns(String),
    Uri(String),
    Email(String),
    /// An IPv4 address that is mapped to IPv6 is the IPv4 address.
    Ip(IpAddr),
}

impl San {
    /// The name that settings mean, whose kind is known by its form.
    pub(super) fn from_settings(text: &str) -> Self {
        if let Ok(address) = text.parse::<IpAddr>() {
            Self::Ip(address.to_canonical())
        } else if text.contains("://") {
            Self::Uri(text.to_owned())
        } else if text.contains('@') {
            Self::Email(text.to_owned())
        } else {
            Self::Dns(text.to_ascii_lowercase())
        }
    }
}

impl ClientCertificate {
    /// Whether it has one of these subject alternative names, or this common name.
    pub(super) fn is_one_of(&self, accepted: &ClientCertAuth) -> bool {
        self.has_san(&accepted.sans)
            || self.common_name.as_ref().is_some_and(|name| accepted.subjects.contains(name))
    }

    pub(super) fn has_san(&self, accepted: &[String]) -> bool {
        accepted.iter().any(|name| self.sans.contains(&San::from_settings(name)))
    }
}

impl Presented<'_> {
    /// What of it counts at `now`: TLS checks a certificate only when the connection begins, and it can expire before the
    /// connection ends.
    pub(super) fn at(self, now: i64) -> Self {
        let client_certificate = self.client_certificate.filter(|certificate| now <= certificate.not_after);
        Self { client_certificate, ..self }
    }
}
