//! The client certificate of an open connection, which counts as long as a new handshake would accept it.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use super::identity;
use crate::credentials::ClientCertificate;

/// The current verifier of client certificates; `None` if the listener asks for none. Changes when the authorities are
/// exchanged.
pub(super) type CurrentVerifier = watch::Receiver<Option<Arc<dyn ClientCertVerifier>>>;

/// The verified certificate of a client, with its chain.
pub(crate) struct PeerCertificate {
    chain: Vec<CertificateDer<'static>>,
    /// `None` if its names cannot be read: then it authenticates no one.
    names: Option<Arc<ClientCertificate>>,
    checked: Mutex<Checked>,
}

/// The verifier that has checked the chain last, and its result.
struct Checked {
    verifier: CurrentVerifier,
    is_accepted: bool,
    is_mandatory: bool,
}

/// What the certificate of a connection is worth at the time of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PeerStatus {
    /// It is verified. `None` if it has no names that can be read.
    Accepted(Option<Arc<ClientCertificate>>),
    /// It has expired, or its authority was removed: the client should connect again. If the listener requires a
    /// certificate, the request must not be served.
    NoLongerAccepted { is_mandatory: bool },
}

impl PeerCertificate {
    /// The chain that a handshake has verified, if the client has sent one. `verifier` was subscribed to before the
    /// handshake.
    pub(super) fn new(chain: &[CertificateDer<'_>], verifier: CurrentVerifier) -> Option<Self> {
        let names = identity::client_certificate(chain.first()?).map(Arc::new);
        let is_mandatory = verifier.borrow().as_ref().is_some_and(|it| it.client_auth_mandatory());
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        Some(Self {
            chain,
            names,
            checked: Mutex::new(Checked { verifier, is_accepted: true, is_mandatory }),
        })
    }

    /// Whether it counts at `now`. The chain is verified again only if the authorities were exchanged since the last time.
    pub(crate) fn status(&self, now: UnixTime) -> PeerStatus {
        let mut checked = self.checked.lock();
        // An error means that the listener has ended.
        if checked.verifier.has_changed().unwrap_or(false) {
            let verifier = checked.verifier.borrow_and_update().clone();
            checked.is_accepted = verifier.is_some_and(|verifier| self.is_accepted_by(&*verifier, now));
        }
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let is_expired = self.names.as_ref().is_some_and(|names| seconds > names.not_after);
        if checked.is_accepted && !is_expired {
            PeerStatus::Accepted(self.names.clone())
        } else {
            PeerStatus::NoLongerAccepted { is_mandatory: checked.is_mandatory }
        }
    }

    /// Waits until the authorities were exchanged and the certificate is not accepted any more.
    pub(crate) async fn lapsed(&self) {
        let mut verifier = self.checked.lock().verifier.clone();
        // What was exchanged before it is waited for counts too.
        while self.checked.lock().is_accepted {
            if verifier.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.status(UnixTime::now());
        }
    }

    fn is_accepted_by(&self, verifier: &dyn ClientCertVerifier, now: UnixTime) -> bool {
        let leaf = self.chain.split_first();
        leaf.is_some_and(|(leaf, issuers)| verifier.verify_client_cert(leaf, issuers, now).is_ok())
    }
}
