//! TLS of the listeners, with rustls: certificates that are read again when they change, and client certificates.

mod client_auth;
mod error;
mod identity;
mod peer;
mod pem;
mod server_check;
mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::FileStamp;
use crate::config::access::Tls;
pub(crate) use error::TlsError;
pub(crate) use peer::{PeerCertificate, PeerStatus};
pub(crate) use pem::PemFile;
pub(crate) use server_check::{CheckedServer, PresentedServer, ServerCheck};
use settings::Loaded;
pub(crate) use settings::{authorities, certified_key};

/// How long a connection whose handshake failed is read until the client has closed it.
const LINGER: Duration = Duration::from_secs(1);

/// The response to plain HTTP, in the words of Go's server.
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n\
    Client sent an HTTP request to an HTTPS server.\n";

/// The crypto library of every TLS connection. It is passed to rustls each time; there is no default of the process.
pub(crate) fn crypto_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS of one listener.
pub(crate) struct ServerTls {
    settings: Tls,
    key: String,
    /// What new connections use.
    loaded: ArcSwap<Loaded>,
    /// What verifies client certificates, for open connections. Sent when the authorities are exchanged, after `loaded`.
    verifier: watch::Sender<Option<Arc<dyn ClientCertVerifier>>>,
    watched: Mutex<Watched>,
}

/// The files as they were loaded, and the error of a later version.
struct Watched {
    stamps: Vec<FileStamp>,
    error: Option<TlsError>,
}

impl ServerTls {
    /// Reads the files of the settings at `key`, such as `server.tls`.
    ///
    /// # Errors
    /// The setting, the file, what is wrong with it and the fix.
    pub(crate) fn load(settings: &Tls, key: &str) -> Result<Self, TlsError> {
        // Before the files are read, so that a change in between is noticed.
        let stamps = stamps(settings);
        let loaded = Loaded::read(settings, key)?;
        Ok(Self {
            settings: settings.clone(),
            key: key.to_owned(),
            verifier: watch::Sender::new(loaded.verifier.clone()),
            loaded: ArcSwap::from_pointee(loaded),
            watched: Mutex::new(Watched { stamps, error: None }),
        })
    }

    /// Reads the files again if one has changed. New connections use the new certificates; established ones go on,
    /// unless their client certificate is of an authority that was removed. Returns whether there is something new. Files that cannot be used change nothing and are tried again at each
    /// call, since certificate and key are often written one after the other.
    ///
    /// # Errors
    /// The files cannot be used. The same error is returned once, so that the caller can log each.
    pub(crate) fn refresh(&self) -> Result<bool, TlsError> {
        let mut watched = self.watched.lock();
        let found: Vec<_> = watched.stamps.iter().map(FileStamp::refresh).collect();
        if found == watched.stamps {
            watched.error = None;
            return Ok(false);
        }
        let result = Loaded::read(&self.settings, &self.key);
        // One was exchanged while they were read: what was read may not belong together.
        if found.iter().any(|stamp| stamp.refresh() != *stamp) {
            return Ok(false);
        }
        match result {
            Ok(loaded) => {
                let verifier = loaded.verifier.clone();
                let has_other_authorities = loaded.authorities != self.loaded.load().authorities;
                self.loaded.store(Arc::new(loaded));
                if has_other_authorities {
                    self.verifier.send_replace(verifier);
                }
                *watched = Watched { stamps: found, error: None };
                Ok(true)
            }
            Err(error) if watched.error.as_ref() == Some(&error) => Ok(false),
            Err(error) => {
                watched.error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// A warning for each certificate of the files that is not valid at `now`, for the log.
    pub(crate) fn warnings(&self, now: SystemTime) -> Vec<String> {
        self.loaded.load().warnings(now)
    }

    /// Performs the handshake. The client certificate is `None` if there is none, or none that was verified. The caller
    /// limits the time.
    ///
    /// # Errors
    /// The handshake failed, or the client speaks plain HTTP, which was answered.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<PeerCertificate>)> {
        // Before the settings are read: authorities that are exchanged meanwhile are noticed.
        let verifier = self.verifier.subscribe();
        let config: Arc<ServerConfig> = self.loaded.load().config.clone();
        let mut first = [0];
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            return Err(answer_plain_http(stream).await);
        }
        let stream = match TlsAcceptor::from(config).accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                linger(stream).await;
                return Err(describe(error));
            }
        };
        let certificate = if self.settings.client_auth.verifies() {
            let chain = stream.get_ref().1.peer_certificates();
            chain.and_then(|chain| PeerCertificate::new(chain, verifier))
        } else {
            None
        };
        Ok((stream, certificate))
    }
}

fn stamps(settings: &Tls) -> Vec<FileStamp> {
    let files = [&settings.cert_file, &settings.key_file].into_iter().chain(settings.client_auth.ca_file());
    files.cloned().map(FileStamp::read).collect()
}

/// Tells a client that uses `http://` what is wrong: an alert of TLS would be unreadable for it.
async fn answer_plain_http(mut stream: TcpStream) -> io::Error {
    if let Err(error) = stream.write_all(PLAIN_HTTP).await {
        return error;
    }
    linger(stream).await;
    io::Error::new(io::ErrorKind::InvalidData, "the client sent HTTP without TLS: use https:// in its URL")
}

/// Waits until the client has closed the connection, so that it reads the alert or response that was sent: to close
/// while bytes of the client are unread resets the connection, and the client would see nothing else.
async fn linger(mut stream: TcpStream) {
    let drain = async {
        stream.shutdown().await?;
        let (mut unread, mut buffer) = (64 * 1024_usize, [0; 1024]);
        while unread > 0 {
            match stream.read(&mut buffer).await? {
                0 => break,
                read => unread = unread.saturating_sub(read),
            }
        }
        io::Result::Ok(())
    };
    // Whatever happens here, the handshake has failed with an error of its own.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// Replaces what rustls cannot explain.
fn describe(error: io::Error) -> io::Error {
    let cause = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let explanation = match cause {
        Some(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)) => {
            "the client certificate has none of the names of client_allowed_sans"
        }
        Some(rustls::Error::NoApplicationProtocol) => "the client does not speak HTTP/1.1",
        _ => return error,
    };
    io::Error::new(error.kind(), explanation)
}
