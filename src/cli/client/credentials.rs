//! The credentials of a command, and the CAs that it trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig, TlsProvider};

use super::ClientError;
use super::url::CheckedUrl;
use crate::config::byte_order_mark;
use crate::config::secret::Secret;
use crate::credentials::tls::{PemFile, TlsError, authorities, certified_key, crypto_provider};

/// What a command presents, and whom it trusts.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Credentials {
    /// File containing the bearer token
    #[arg(long, value_name = "FILE", env = "SCALEBRIDGE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// PEM file with the CAs to trust for https:// URLs. Default: the CAs of the system
    #[arg(long, value_name = "FILE", env = "SCALEBRIDGE_CA_FILE")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client certificate for https:// URLs, and its chain
    #[arg(long, value_name = "FILE", env = "SCALEBRIDGE_CERT_FILE")]
    pub cert_file: Option<PathBuf>,
    /// PEM file with the private key of the client certificate. Default: the file of --cert-file
    #[arg(long, value_name = "FILE", env = "SCALEBRIDGE_KEY_FILE", requires = "cert_file")]
    pub key_file: Option<PathBuf>,
}

impl Credentials {
    /// Whether requests present a credential.
    pub(super) fn are_presented(&self) -> bool {
        self.token_file.is_some() || self.cert_file.is_some()
    }

    /// The value of the header `Authorization`, unless it would travel in clear text.
    pub(super) fn authorization(&self, url: &CheckedUrl<'_>) -> Result<Option<Secret>, ClientError> {
        let Some(path) = &self.token_file else { return Ok(None) };
        if !url.is_https && !url.is_loopback() {
            return Err(ClientError::InvalidArguments(format!(
                "--token-file (or SCALEBRIDGE_TOKEN_FILE) would send the token in clear text to {}: use an https:// \
                 URL, or a tunnel to a loopback address",
                url.host
            )));
        }
        read_token(path).map(Some).map_err(|error| {
            ClientError::InvalidArguments(format!("--token-file: {}: {error}", path.display()))
        })
    }

    /// The settings of TLS. The files are read for https:// only.
    pub(super) fn tls(&self, url: &CheckedUrl<'_>) -> Result<TlsConfig, ClientError> {
        let provider = crypto_provider();
        let config = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(provider)
            .root_certs(RootCerts::PlatformVerifier);
        if !url.is_https {
            return Ok(config.build());
        }
        let invalid = |error: TlsError| ClientError::InvalidArguments(error.to_string());
        let config = match self.ca_file.as_deref().map(trusted).transpose().map_err(invalid)? {
            Some(roots) => config.root_certs(roots),
            None => config,
        };
        let certificate = self.client_certificate().transpose().map_err(invalid)?;
        Ok(config.client_cert(certificate).build())
    }

    fn client_certificate(&self) -> Option<Result<ClientCert, TlsError>> {
        let cert_file = self.cert_file.as_deref()?;
        Some(match &self.key_file {
            Some(key_file) => client_certificate(cert_file, "--key-file", key_file),
            None => client_certificate(cert_file, "--cert-file (no --key-file)", cert_file),
        })
    }
}

/// Reads a token. An error does not contain it.
fn read_token(path: &Path) -> Result<Secret, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read the token: {error}");
    let mut text = std::fs::read(path).map_err(|error| unreadable(&error))?;
    byte_order_mark::strip(&mut text);
    let token = std::str::from_utf8(&text).map_err(|_| unreadable(&"the file is not UTF-8 text"))?.trim();
    if token.is_empty() {
        return Err("the file is empty: expected one bearer token".to_owned());
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("expected one bearer token, of ASCII characters without spaces".to_owned());
    }
    Ok(Secret::new(format!("Bearer {token}")))
}

fn trusted(ca_file: &Path) -> Result<RootCerts, TlsError> {
    let file = PemFile::read("--ca-file", ca_file)?;
    let certificates = file.certificates()?;
    // ureq ignores what it cannot parse, and would trust nothing.
    authorities(&file, &certificates)?;
    let certificates = certificates.iter().map(|der| Certificate::from_der(der).to_owned());
    Ok(RootCerts::Specific(Arc::new(certificates.collect())))
}

/// Reads a certificate and its key, and checks that they belong together: ureq would panic.
fn client_certificate(cert_file: &Path, key_option: &str, key_file: &Path) -> Result<ClientCert, TlsError> {
    let cert_file = PemFile::read("--cert-file", cert_file)?;
    let key_file = PemFile::read(key_option, key_file)?;
    let chain = certified_key(&cert_file, &key_file, &crypto_provider())?.cert;
    let chain: Vec<_> = chain.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let key = PrivateKey::from_pem(key_file.pem()).map_err(|_| key_file.damaged())?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_a_token_may_begin_with_a_byte_order_mark() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for (text, expected) in [("\u{feff}sesame\r\n", Ok("Bearer sesame")), ("\u{feff}\n", Err("is empty"))]
        {
            std::fs::write(&path, text).unwrap();
            match (read_token(&path), expected) {
                (Ok(secret), Ok(expected)) => assert_eq!(secret.expose(), expected),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (read, _) => panic!("{read:?}"),
            }
        }
    }
}
