//! Certificates of the tests: authorities, and what they issue, as PEM files. Unit tests of `credentials::tls` use this
//! file too.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SanType, date_time_ymd,
};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate authority") }
    }

    /// The certificate of the authority.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A server certificate for `localhost`, 127.0.0.1 and ::1.
    pub(crate) fn server(&self) -> Issued {
        self.server_for(&["localhost", "127.0.0.1", "::1"])
    }

    /// A server certificate for these names and addresses.
    pub(crate) fn server_for(&self, sans: &[&str]) -> Issued {
        self.issue("server", sans, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        })
    }

    /// A client certificate. A name is a DNS name, an IP address, a URI or an email address by its form.
    pub(crate) fn client(&self, common_name: &str, sans: &[&str]) -> Issued {
        self.issue(common_name, sans, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    /// A client certificate that expired in 2020.
    pub(crate) fn expired_client(&self, common_name: &str, sans: &[&str]) -> Issued {
        self.issue(common_name, sans, |params| params.not_after = date_time_ymd(2020, 1, 1))
    }

    /// A certificate with changed parameters.
    pub(crate) fn issue(
        &self,
        common_name: &str,
        sans: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let mut params = params(common_name, sans);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// A certificate with its private key, both PEM.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Issued {
    /// A certificate that no authority has issued.
    pub(crate) fn self_signed(common_name: &str, sans: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = params(common_name, sans).self_signed(&key).expect("a certificate");
        Self { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// Writes `NAME.pem` and `NAME.key` into a folder, and returns both paths.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        replace(&certificate, &self.certificate);
        replace(&key, &self.key);
        (certificate, key)
    }
}

/// Replaces a file as a whole, by a rename.
pub(crate) fn replace(path: &Path, text: &str) {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    std::fs::write(&unfinished, text).expect("a file is written");
    std::fs::rename(&unfinished, path).expect("a file is renamed");
}

fn params(common_name: &str, sans: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = sans.iter().map(|text| san(text)).collect();
    params
}

fn san(text: &str) -> SanType {
    if let Ok(address) = text.parse() {
        return SanType::IpAddress(address);
    }
    let name = text.to_owned().try_into().expect("an ASCII name");
    if text.contains("://") {
        SanType::URI(name)
    } else if text.contains('@') {
        SanType::Rfc822Name(name)
    } else {
        SanType::DnsName(name)
    }
}
