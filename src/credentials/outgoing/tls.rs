//! TLS settings of the outgoing client.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::OutgoingError;
use crate::config::access::HttpClient;
use crate::credentials::tls::{
    CheckedServer, PemFile, PresentedServer, ServerCheck, authorities, certified_key, crypto_provider,
};

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
        Some(path) => {
            let file = PemFile::read("tls_config.ca_file", path)?;
            let roots = Arc::new(authorities(&file, &file.certificates()?)?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone()).build();
            verifier.map_err(|error| OutgoingError::Settings(format!("tls_config.ca_file: {error}")))?
        }
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider.clone());
            Arc::new(verifier.map_err(|error| {
                OutgoingError::Settings(format!("the CAs of the system cannot be read: {error}; set ca_file"))
            })?)
        }
    };
    if let Some(name) = &settings.server_name {
        let name = ServerName::try_from(name.clone())
            .map_err(|_| OutgoingError::Settings("server_name is not a DNS name or IP address".to_owned()))?;
        verifier = CheckedServer::verifier(OtherName { name, verifier }, provider.clone());
    }
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some((cert_file, key_file)) = &settings.client_cert else { return Ok(builder.with_no_client_auth()) };
    let cert_file = PemFile::read("tls_config.cert_file", cert_file)?;
    let key_file = PemFile::read("tls_config.key_file", key_file)?;
    let certified_key = certified_key(&cert_file, &key_file, &provider)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key))))
}

/// Verifies that a certificate is for `server_name` instead of for the host of the URL. The TLS extension SNI still
/// contains the host of the URL.
#[derive(Debug)]
struct OtherName {
    name: ServerName<'static>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl ServerCheck for OtherName {
    fn check(&self, server: &PresentedServer<'_>) -> Result<(), rustls::Error> {
        let PresentedServer { certificate, intermediates, ocsp_response, now, .. } = *server;
        self.verifier.verify_server_cert(certificate, intermediates, &self.name, ocsp_response, now).map(drop)
    }
}
