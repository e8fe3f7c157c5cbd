//! TLS settings of the outgoing client.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::{OutgoingError, crypto_provider};
use crate::config::access::HttpClient;

/// Reads the files of the settings. Without `has_tls` nothing is trusted.
pub(super) fn client_config(settings: &HttpClient, has_tls: bool) -> Result<ClientConfig, OutgoingError> {
    let provider = crypto_provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| OutgoingError::Settings(error.to_string()))?;
    if !has_tls {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let mut verifier: Arc<dyn ServerCertVerifier> = match &settings.ca_file {
        Some(file) => {
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots(file)?), provider).build();
            verifier.map_err(|error| file_error(file, error.to_string()))?
        }
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider);
            Arc::new(verifier.map_err(|error| {
                OutgoingError::Settings(format!("the CAs of the system cannot be read: {error}; set ca_file"))
            })?)
        }
    };
    if let Some(name) = &settings.server_name {
        let name = ServerName::try_from(name.clone())
            .map_err(|_| OutgoingError::Settings("server_name is not a DNS name or IP address".to_owned()))?;
        verifier = Arc::new(OtherName { name, verifier });
    }
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some((cert_file, key_file)) = &settings.client_cert else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_file(key_file)
        .map_err(|error| file_error(key_file, format!("no private key in PEM format: {error}")))?;
    builder
        .with_client_auth_cert(certificates(cert_file)?, key)
        .map_err(|error| file_error(cert_file, format!("{error}, with the key in {}", key_file.display())))
}

fn roots(file: &Path) -> Result<RootCertStore, OutgoingError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| file_error(file, error.to_string()))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, OutgoingError> {
    let certificates = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(file_error(file, "no certificate in PEM format".to_owned())),
        Err(error) => Err(file_error(file, error.to_string())),
    }
}

fn file_error(file: &Path, cause: String) -> OutgoingError {
    OutgoingError::File { file: file.display().to_string(), cause }
}

/// Verifies that a certificate is for `server_name` instead of for the host of the URL. The TLS extension SNI still
/// contains the host of the URL.
#[derive(Debug)]
struct OtherName {
    name: ServerName<'static>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl ServerCertVerifier for OtherName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.verifier.verify_server_cert(certificate, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}
