//! TLS of Nomad's API, with the settings of the bridge's outgoing client. The cryptography library is passed to rustls,
//! so that nothing depends on a default of the process.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use scalebridge::config::access::HttpClient;

/// Reads the files of the settings. Without `has_tls` nothing is trusted. The error names the setting and the file, and
/// nothing of its content.
pub(super) fn client_config(settings: &HttpClient, has_tls: bool) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    if !has_tls {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    let mut verifier: Arc<dyn ServerCertVerifier> = match &settings.ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates("ca_file", path)? {
                roots.add(certificate).map_err(|error| of_file("ca_file", path, &error))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            verifier.map_err(|error| of_file("ca_file", path, &error))?
        }
        None => Arc::new(rustls_platform_verifier::Verifier::new(provider).map_err(|error| {
            format!("the CAs of the system cannot be read: {error}; set tls_config.ca_file")
        })?),
    };
    if let Some(name) = &settings.server_name {
        let name = ServerName::try_from(name.clone());
        let name = name.map_err(|_| "tls_config.server_name is not a DNS name or IP address".to_owned())?;
        verifier = Arc::new(OtherName { name, verifier });
    }
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some((cert_file, key_file)) = &settings.client_cert else { return Ok(builder.with_no_client_auth()) };
    let key =
        PrivateKeyDer::from_pem_file(key_file).map_err(|error| of_file("key_file", key_file, &error))?;
    let config = builder.with_client_auth_cert(certificates("cert_file", cert_file)?, key);
    config.map_err(|error| of_file("cert_file", cert_file, &error))
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| of_file(setting, path, &error))?;
    if found.is_empty() {
        return Err(of_file(setting, path, &"no certificate in PEM format"));
    }
    Ok(found)
}

fn of_file(setting: &str, path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("tls_config.{setting} {}: {error}", path.display())
}

/// Verifies that a certificate is for `server_name` instead of for the host of the URL.
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
