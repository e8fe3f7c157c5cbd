//! Why certificates and keys cannot be used: the setting, the file, the cause and the fix, never the contents.

use std::path::{Path, PathBuf};

/// A file of TLS that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {}: {problem}", path.display())]
pub(crate) struct TlsError {
    /// The setting or option that names the file, such as `server.tls.cert_file`.
    setting: String,
    path: PathBuf,
    problem: Problem,
}

impl TlsError {
    pub(super) fn new(setting: &str, path: &Path, problem: Problem) -> Self {
        Self { setting: setting.to_owned(), path: path.to_owned(), problem }
    }
}

/// What is wrong with a file, and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("cannot read the file: {text}{fix}", fix = fix_of_io(*.kind))]
    Unreadable { kind: std::io::ErrorKind, text: String },
    #[error("not a regular file: name a PEM file")]
    NotRegular,
    #[error("larger than 1 MiB: expected a PEM file with certificates or one private key")]
    TooLarge,
    #[error("the file is DER, not PEM: convert it with `{0}`")]
    Der(&'static str),
    #[error("the file is empty: {0}")]
    Empty(&'static str),
    #[error("no certificate in the file, only {0}: expected `-----BEGIN CERTIFICATE-----`")]
    NoCertificate(Found),
    #[error(
        "no private key in the file, only {0}: expected `-----BEGIN PRIVATE KEY-----`, \
         `-----BEGIN RSA PRIVATE KEY-----` or `-----BEGIN EC PRIVATE KEY-----`"
    )]
    NoPrivateKey(Found),
    #[error(
        "the private key is encrypted, which is not supported: decrypt it with `openssl pkey -in ENCRYPTED -out FILE`, \
         and make the file readable by the bridge's user only"
    )]
    EncryptedKey,
    #[error("not valid PEM: a section has no end or is not base64; the file is damaged, or is being written")]
    Damaged,
    #[error("certificate {0} of the file is not a valid X.509 certificate: replace it")]
    InvalidCertificate(usize),
    #[error(
        "the private key is not supported: use RSA with 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519"
    )]
    UnsupportedKey,
    #[error(
        "the private key does not belong to the first certificate of {}: its certificate comes first, the \
         issuers follow, and both files are replaced together", .0.display()
    )]
    KeyMismatch(PathBuf),
    #[error("cannot be used: {0}")]
    Other(String),
}

const fn fix_of_io(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::NotFound => ": check the path, and that its volume is mounted",
        std::io::ErrorKind::PermissionDenied => ": make it readable for the user of the process",
        _ => "",
    }
}

/// The kinds of sections that a PEM file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found(pub(super) Vec<&'static str>);

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            f.write_str("text that is not PEM")
        } else {
            f.write_str(&self.0.join(" and "))
        }
    }
}
