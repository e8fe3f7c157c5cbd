//! A client of a listener of this configuration, which trusts exactly the certificate that the listener has.
//!
//! No CA and no name is needed, and an expired certificate is accepted: the question is whether this process answers, and
//! not whether others trust it. The listener must prove that it has the private key.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::{OutgoingError, causes, request_error};
use crate::config::access::Tls;
use crate::credentials::tls::{
    CheckedServer, PemFile, PresentedServer, ServerCheck, certified_key, crypto_provider,
};

/// A longer answer is cut.
const MAX_BODY_BYTES: usize = 64 << 10;

/// A listener of this configuration.
pub(crate) struct OwnListener {
    url: String,
    client: reqwest::Client,
    timeout: Duration,
}

impl OwnListener {
    /// Reads the certificates. `client_cert` has the PEM files of a certificate and its key, for a listener that asks for
    /// one.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn new(
        address: SocketAddr,
        tls: Option<&Tls>,
        client_cert: Option<(&Path, &Path)>,
        timeout: Duration,
    ) -> Result<Self, OutgoingError> {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(tls, client_cert)?)
            .redirect(Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| OutgoingError::Settings(causes(&error.without_url())))?;
        Ok(Self { url: format!("{scheme}://{address}"), client, timeout })
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// The status and the text of the answer to `GET path`.
    ///
    /// # Errors
    /// There is no answer in time.
    pub(crate) async fn get(&self, path: &str) -> Result<(u16, String), OutgoingError> {
        tokio::time::timeout(self.timeout, self.read(path))
            .await
            .unwrap_or(Err(OutgoingError::TimedOut(self.timeout)))
    }

    async fn read(&self, path: &str) -> Result<(u16, String), OutgoingError> {
        let mut response = self.client.get(self.url(path)).send().await.map_err(request_error)?;
        let mut body = Vec::new();
        while body.len() < MAX_BODY_BYTES
            && let Some(chunk) = response.chunk().await.map_err(request_error)?
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(MAX_BODY_BYTES);
        Ok((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
    }
}

fn client_config(
    tls: Option<&Tls>,
    client_cert: Option<(&Path, &Path)>,
) -> Result<ClientConfig, OutgoingError> {
    let provider = crypto_provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| OutgoingError::Settings(error.to_string()))?;
    let Some(tls) = tls else {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    };
    let mut chain = PemFile::read("cert_file", &tls.cert_file)?.certificates()?;
    let verifier = CheckedServer::verifier(Exactly(chain.swap_remove(0)), provider.clone());
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let Some((cert_file, key_file)) = client_cert else {
        return Ok(builder.with_no_client_auth());
    };
    let cert_file = PemFile::read("--cert-file", cert_file)?;
    let key_file = PemFile::read("--key-file", key_file)?;
    let certified_key = certified_key(&cert_file, &key_file, &provider)?;
    Ok(builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified_key))))
}

/// Accepts this certificate only.
#[derive(Debug)]
struct Exactly(CertificateDer<'static>);

impl ServerCheck for Exactly {
    fn check(&self, server: &PresentedServer<'_>) -> Result<(), rustls::Error> {
        if *server.certificate == self.0 {
            return Ok(());
        }
        Err(rustls::Error::General(
            "the listener presents another certificate than `cert_file` has: the file was replaced within the last seconds, \
             or another program listens at this address"
                .to_owned(),
        ))
    }
}
