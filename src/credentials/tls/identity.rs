//! Names in client certificates.

use std::net::IpAddr;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::credentials::{ClientCertificate, San};

/// The names of a verified certificate; `None` if it cannot be parsed, or has a name of a kind that it should have but
/// that cannot be read: such a certificate is no identity.
pub(super) fn client_certificate(der: &[u8]) -> Option<ClientCertificate> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let mut common_names = certificate.subject().iter_common_name();
    // With two common names, it would depend on the reader which one counts.
    let common_name = match (common_names.next(), common_names.next()) {
        (Some(only), None) => only.as_str().ok().map(str::to_owned),
        _ => None,
    };
    let sans = match certificate.subject_alternative_name().ok()? {
        Some(names) => names.value.general_names.iter().filter_map(san).collect::<Option<Vec<_>>>()?,
        None => Vec::new(),
    };
    let not_after = certificate.validity().not_after.timestamp();
    Some(ClientCertificate { common_name, sans, not_after })
}

/// A subject alternative name; `None` for kinds that settings cannot name, `Some(None)` if it is invalid.
fn san(name: &GeneralName<'_>) -> Option<Option<San>> {
    match name {
        GeneralName::DNSName(name) => Some(Some(San::Dns(name.to_ascii_lowercase()))),
        GeneralName::URI(uri) => Some(Some(San::Uri((*uri).to_owned()))),
        GeneralName::RFC822Name(address) => Some(Some(San::Email((*address).to_owned()))),
        GeneralName::IPAddress(bytes) => Some(ip_address(bytes).map(San::Ip)),
        GeneralName::Invalid(..) => Some(None),
        _ => None,
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_canonical())
}
