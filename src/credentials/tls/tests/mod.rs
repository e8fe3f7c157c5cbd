//! Handshakes with a listener's TLS, by rustls as the client.

mod client_certificates;
mod exchange;
mod files;
mod handshakes;
mod identities;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client, server};

use super::{PeerCertificate, PeerStatus, ServerTls, TlsError, crypto_provider};
use crate::config::access::{ClientAuth, Tls, TlsVersion};
use crate::credentials::ClientCertificate;
use crate::credentials::certificates::{Authority, Issued, replace};

/// A listener's files in a folder, and the authorities.
struct ListenerFiles {
    folder: tempfile::TempDir,
    /// Issues the server's certificates.
    servers: Authority,
    /// Issues the clients' certificates.
    clients: Authority,
}

impl ListenerFiles {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (servers, clients) = (Authority::new("server CA"), Authority::new("client CA"));
        servers.server().write(folder.path(), "server");
        replace(&folder.path().join("clients.pem"), &clients.pem());
        Self { folder, servers, clients }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, client_auth: ClientAuth) -> Tls {
        Tls {
            cert_file: self.path("server.pem"),
            key_file: self.path("server.key"),
            client_auth,
            client_allowed_sans: Vec::new(),
            min_version: TlsVersion::Tls12,
            max_version: TlsVersion::Tls13,
        }
    }

    fn load(&self, client_auth: ClientAuth) -> ServerTls {
        load(&self.settings(client_auth))
    }

    /// A client that trusts the servers' authority.
    fn client(&self, certificate: Option<&Issued>) -> ClientConfig {
        self.client_of_versions(certificate, rustls::ALL_VERSIONS)
    }

    fn client_of_versions(
        &self,
        certificate: Option<&Issued>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from_pem_slice(self.servers.pem().as_bytes()).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(crypto_provider());
        let builder = builder.with_protocol_versions(versions).unwrap().with_root_certificates(trusted);
        match certificate {
            None => builder.with_no_client_auth(),
            Some(Issued { certificate, key }) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
            }
        }
    }
}

fn load(settings: &Tls) -> ServerTls {
    ServerTls::load(settings, "server.tls").unwrap_or_else(|error| panic!("{error}"))
}

fn error_of(settings: &Tls) -> TlsError {
    ServerTls::load(settings, "server.tls").err().unwrap()
}

/// The two ends of a connection after the handshake.
struct Established {
    server: server::TlsStream<TcpStream>,
    client: client::TlsStream<TcpStream>,
    certificate: Option<Arc<ClientCertificate>>,
    peer: Option<PeerCertificate>,
}

impl Established {
    /// Sends a byte in each direction.
    async fn ping(&mut self) -> std::io::Result<()> {
        self.client.write_all(b"?").await?;
        self.server.read_u8().await?;
        self.server.write_all(b"!").await?;
        self.client.read_u8().await.map(drop)
    }

    /// The certificate that the server presented.
    fn server_certificate(&self) -> CertificateDer<'static> {
        self.client.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Connects, and sends a byte in each direction. What the server says of a failure counts, since a client of TLS 1.3
/// knows only later that its certificate is refused. A side that fails closes its stream, which the other may wait for.
async fn connect(tls: &ServerTls, client: &Arc<ClientConfig>) -> Result<Established, String> {
    let (listener, address) = listen().await;
    let accept = async {
        let (mut server, peer) = tls.accept(listener.accept().await?.0).await?;
        server.read_u8().await?;
        server.write_all(b"!").await?;
        std::io::Result::Ok((server, peer))
    };
    let connect = async {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(address).await?;
        let mut client = TlsConnector::from(client.clone()).connect(name, stream).await?;
        client.write_all(b"?").await?;
        client.read_u8().await?;
        std::io::Result::Ok(client)
    };
    let (accepted, connected) = tokio::join!(accept, connect);
    let (server, peer) = accepted.map_err(|error| error.to_string())?;
    let client = connected.map_err(|error| error.to_string())?;
    let certificate = match peer.as_ref().map(|peer| peer.status(UnixTime::now())) {
        Some(PeerStatus::Accepted(certificate)) => certificate,
        Some(PeerStatus::NoLongerAccepted { .. }) => return Err("lapsed".to_owned()),
        None => None,
    };
    Ok(Established { server, client, certificate, peer })
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
