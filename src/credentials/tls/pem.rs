//! PEM files: certificates and private keys, with errors that say what else the file has.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::error::{Found, Problem, TlsError};
use crate::config::byte_order_mark;

/// Maximum size of a file. The CAs of all public roots take 250 kB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The labels of sections that are named in errors. Another label is not repeated, since the file may be a secret.
const LABELS: [(&str, &str); 12] = [
    ("CERTIFICATE", "a certificate"),
    ("TRUSTED CERTIFICATE", "an OpenSSL trusted certificate, which `openssl x509` converts"),
    ("CERTIFICATE REQUEST", "a certificate request, which a CA has to sign"),
    ("NEW CERTIFICATE REQUEST", "a certificate request, which a CA has to sign"),
    ("X509 CRL", "a revocation list"),
    ("PUBLIC KEY", "a public key"),
    ("PRIVATE KEY", "a private key"),
    ("RSA PRIVATE KEY", "a private key"),
    ("EC PRIVATE KEY", "a private key"),
    ("ENCRYPTED PRIVATE KEY", "an encrypted private key"),
    ("OPENSSH PRIVATE KEY", "an OpenSSH private key, which TLS does not use"),
    ("EC PARAMETERS", "parameters of a curve"),
];

/// A PEM file that was read.
pub(crate) struct PemFile<'a> {
    setting: &'a str,
    path: &'a Path,
    bytes: Vec<u8>,
}

impl<'a> PemFile<'a> {
    /// Reads the file that `setting` names.
    pub(crate) fn read(setting: &'a str, path: &'a Path) -> Result<Self, TlsError> {
        let error = |problem| TlsError::new(setting, path, problem);
        let unreadable =
            |io: std::io::Error| error(Problem::Unreadable { kind: io.kind(), text: io.to_string() });
        // Before it is opened: to open a pipe without a writer would block.
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(error(Problem::NotRegular));
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(error(Problem::TooLarge));
        }
        byte_order_mark::strip(&mut bytes);
        Ok(Self { setting, path, bytes })
    }

    /// All certificates, at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        let certificates = certificates.map_err(|_| self.error(Problem::Damaged))?;
        if certificates.is_empty() {
            return Err(self.error(match self.unusable() {
                Some(Unusable::Empty) => Problem::Empty("expected a certificate in PEM format"),
                Some(Unusable::Der) => Problem::Der("openssl x509 -inform der -in FILE -out FILE.pem"),
                None => Problem::NoCertificate(self.found()),
            }));
        }
        Ok(certificates)
    }

    /// The first private key, as in Go.
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let first = PrivateKeyDer::pem_slice_iter(&self.bytes).next();
        match first {
            Some(Ok(key)) => Ok(key),
            _ if self.is_encrypted() => Err(self.error(Problem::EncryptedKey)),
            Some(Err(_)) => Err(self.error(Problem::Damaged)),
            None => Err(self.error(match self.unusable() {
                Some(Unusable::Empty) => Problem::Empty("expected a private key in PEM format"),
                Some(Unusable::Der) => Problem::Der("openssl pkey -inform der -in FILE -out FILE.pem"),
                None => Problem::NoPrivateKey(self.found()),
            })),
        }
    }

    /// The text, for a library that reads PEM itself.
    pub(crate) fn pem(&self) -> &[u8] {
        &self.bytes
    }

    /// The error of a file that such a library cannot read.
    pub(crate) fn damaged(&self) -> TlsError {
        self.error(Problem::Damaged)
    }

    pub(super) fn path(&self) -> &Path {
        self.path
    }

    pub(super) fn error(&self, problem: Problem) -> TlsError {
        TlsError::new(self.setting, self.path, problem)
    }

    fn unusable(&self) -> Option<Unusable> {
        match self.bytes.trim_ascii() {
            [] => Some(Unusable::Empty),
            // An ASN.1 sequence with a length of two bytes: a certificate or a key.
            [0x30, 0x81..=0x83, ..] => Some(Unusable::Der),
            _ => None,
        }
    }

    /// PKCS #8, or the older form of OpenSSL.
    fn is_encrypted(&self) -> bool {
        let text = String::from_utf8_lossy(&self.bytes);
        text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED")
    }

    fn found(&self) -> Found {
        let text = String::from_utf8_lossy(&self.bytes);
        let labels =
            text.lines().filter_map(|line| line.trim().strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
        let mut found = Vec::new();
        for label in labels {
            let name = LABELS.iter().find(|(known, _)| *known == label);
            let name = name.map_or("sections of another kind", |(_, name)| *name);
            if !found.contains(&name) {
                found.push(name);
            }
        }
        Found(found)
    }
}

enum Unusable {
    Empty,
    Der,
}
