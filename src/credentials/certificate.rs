//! Client certificates, by name. TLS has verified them.

use super::ClientCertificate;
use crate::config::access::ClientCertAuth;

impl ClientCertificate {
    /// Whether it has one of these subject alternative names, or this common name.
    pub(super) fn is_one_of(&self, accepted: &ClientCertAuth) -> bool {
        self.has_san(&accepted.sans)
            || self.common_name.as_ref().is_some_and(|name| accepted.subjects.contains(name))
    }

    pub(super) fn has_san(&self, accepted: &[String]) -> bool {
        self.sans.iter().any(|san| accepted.contains(san))
    }
}
