//! Verification of a server's certificate in another way than webpki's.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// What a server has presented in the handshake.
pub(crate) struct PresentedServer<'a> {
    pub certificate: &'a CertificateDer<'a>,
    pub intermediates: &'a [CertificateDer<'a>],
    pub ocsp_response: &'a [u8],
    pub now: UnixTime,
}

/// Decides whether a server's certificate is accepted.
pub(crate) trait ServerCheck: Debug + Send + Sync + 'static {
    /// # Errors
    /// It is not.
    fn check(&self, server: &PresentedServer<'_>) -> Result<(), rustls::Error>;
}

/// Accepts the certificates that the check accepts, from servers that prove that they have the private key.
#[derive(Debug)]
pub(crate) struct CheckedServer<C> {
    check: C,
    provider: Arc<CryptoProvider>,
}

impl<C: ServerCheck> CheckedServer<C> {
    pub(crate) fn verifier(check: C, provider: Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(Self { check, provider })
    }
}

impl<C: ServerCheck> ServerCertVerifier for CheckedServer<C> {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let server = PresentedServer { certificate, intermediates, ocsp_response, now };
        self.check.check(&server).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
