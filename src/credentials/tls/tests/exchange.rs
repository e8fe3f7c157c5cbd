//! Certificates and authorities that change while the listener runs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
}

async fn served(files: &ListenerFiles, tls: &ServerTls) -> CertificateDer<'static> {
    connect(tls, &Arc::new(files.client(None))).await.unwrap().server_certificate()
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections_and_established_ones_go_on() {
    let files = ListenerFiles::new();
    let tls = files.load(ClientAuth::NoClientCert);
    let mut established = connect(&tls, &Arc::new(files.client(None))).await.unwrap();
    assert_eq!(tls.refresh(), Ok(false));
    let renewed = files.servers.server();
    renewed.write(files.folder.path(), "server");
    assert_ne!(served(&files, &tls).await, der(&renewed));
    assert_eq!(tls.refresh(), Ok(true));
    assert_eq!(tls.refresh(), Ok(false));
    assert_eq!(served(&files, &tls).await, der(&renewed));
    established.ping().await.unwrap();
}

#[tokio::test]
async fn a_certificate_without_its_key_yet_changes_nothing_until_the_key_follows() {
    let files = ListenerFiles::new();
    let tls = files.load(ClientAuth::NoClientCert);
    let (old, renewed) = (served(&files, &tls).await, files.servers.server());
    // The certificate first, in two parts.
    let (cert_file, key_file) = (files.path("server.pem"), files.path("server.key"));
    write(&cert_file, &renewed.certificate[..200]);
    assert!(tls.refresh().unwrap_err().to_string().contains("being written"));
    assert_eq!(tls.refresh(), Ok(false), "an error is reported once");
    write(&cert_file, &renewed.certificate);
    let error = tls.refresh().unwrap_err().to_string();
    assert!(error.contains("does not belong to the first certificate"), "{error}");
    assert_eq!(tls.refresh(), Ok(false), "an error is reported once");
    assert_eq!(served(&files, &tls).await, old);
    write(&key_file, &renewed.key);
    assert_eq!(tls.refresh(), Ok(true));
    assert_eq!(served(&files, &tls).await, der(&renewed));
}

#[tokio::test]
async fn files_that_vanish_and_come_back_change_nothing() {
    let files = ListenerFiles::new();
    let tls = files.load(ClientAuth::NoClientCert);
    let (before, key_file) = (served(&files, &tls).await, files.path("server.key"));
    std::fs::rename(&key_file, files.path("away")).unwrap();
    assert!(tls.refresh().unwrap_err().to_string().contains("cannot read the file"));
    assert_eq!(served(&files, &tls).await, before);
    std::fs::rename(files.path("away"), &key_file).unwrap();
    assert_eq!(tls.refresh(), Ok(false));
    std::fs::remove_file(&key_file).unwrap();
    assert!(tls.refresh().is_err(), "the error is reported again after a recovery");
}

#[cfg(unix)]
#[tokio::test]
async fn a_symbolic_link_that_kubernetes_exchanges_is_followed() {
    use std::os::unix::fs::symlink;
    let files = ListenerFiles::new();
    let first = files.servers.server();
    let second = files.servers.server();
    for (folder, issued) in [("v1", &first), ("v2", &second)] {
        std::fs::create_dir(files.path(folder)).unwrap();
        issued.write(&files.path(folder), "tls");
    }
    symlink("v1", files.path("..data")).unwrap();
    for name in ["tls.pem", "tls.key"] {
        symlink(Path::new("..data").join(name), files.path(name)).unwrap();
    }
    let (cert_file, key_file) = (files.path("tls.pem"), files.path("tls.key"));
    let tls = load(&Tls { cert_file, key_file, ..files.settings(ClientAuth::NoClientCert) });
    assert_eq!(served(&files, &tls).await, der(&first));
    symlink("v2", files.path("..data_tmp")).unwrap();
    std::fs::rename(files.path("..data_tmp"), files.path("..data")).unwrap();
    assert_eq!(tls.refresh(), Ok(true));
    assert_eq!(served(&files, &tls).await, der(&second));
}

#[tokio::test]
async fn a_client_of_an_authority_that_was_removed_is_refused_and_a_new_one_is_admitted() {
    let files = ListenerFiles::new();
    let (old, successor) = (files.clients.client("client", &[]), Authority::new("next client CA"));
    let new = successor.client("client", &[]);
    let ca_file = files.path("clients.pem");
    let tls = files.load(ClientAuth::RequireAndVerifyClientCert(ca_file.clone()));
    for version in rustls::ALL_VERSIONS {
        replace(&ca_file, &files.clients.pem());
        tls.refresh().unwrap();
        // The same client each time: it may keep sessions.
        let old = Arc::new(files.client_of_versions(Some(&old), &[version]));
        let new = Arc::new(files.client_of_versions(Some(&new), &[version]));
        assert!(connect(&tls, &old).await.is_ok());
        assert!(connect(&tls, &new).await.is_err());
        replace(&ca_file, &(files.clients.pem() + &successor.pem()));
        assert_eq!(tls.refresh(), Ok(true));
        assert!(connect(&tls, &old).await.is_ok());
        assert!(connect(&tls, &new).await.is_ok());
        replace(&ca_file, &successor.pem());
        assert_eq!(tls.refresh(), Ok(true));
        assert!(connect(&tls, &old).await.is_err(), "{version:?}");
        assert!(connect(&tls, &new).await.is_ok());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connection_fails_while_certificates_are_exchanged() {
    const EXCHANGES: usize = 15;
    let files = ListenerFiles::new();
    let tls = Arc::new(files.load(ClientAuth::NoClientCert));
    let (stop, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = Arc::new(files.client(None));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (tls, client, stop, connections) =
                (tls.clone(), client.clone(), stop.clone(), connections.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    connect(&tls, &client).await.map(drop)?;
                    connections.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, String>(())
            })
        })
        .collect();
    let mut established = connect(&tls, &client).await.unwrap();
    for exchange in 0..EXCHANGES {
        let renewed = files.servers.server();
        replace(&files.path("server.pem"), &renewed.certificate);
        assert!(tls.refresh().is_err(), "the key is still the old one");
        replace(&files.path("server.key"), &renewed.key);
        assert_eq!(tls.refresh(), Ok(true));
        assert_eq!(served(&files, &tls).await, der(&renewed));
        established.ping().await.unwrap();
        // Some connections with each certificate.
        let seen = connections.load(Ordering::Relaxed);
        while connections.load(Ordering::Relaxed) < seen + 4 {
            assert!(!clients.iter().any(tokio::task::JoinHandle::is_finished), "exchange {exchange}");
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_open_connection_loses_its_certificate_with_the_authority_and_only_then() {
    let files = ListenerFiles::new();
    let successor = Authority::new("next client CA");
    let ca_file = files.path("clients.pem");
    for (client_auth, is_mandatory) in [
        (ClientAuth::VerifyClientCertIfGiven(ca_file.clone()), false),
        (ClientAuth::RequireAndVerifyClientCert(ca_file.clone()), true),
    ] {
        replace(&ca_file, &files.clients.pem());
        let tls = files.load(client_auth);
        let client = Arc::new(files.client(Some(&files.clients.client("client", &[]))));
        let peer = connect(&tls, &client).await.unwrap().peer.unwrap();
        let accepted = peer.status(UnixTime::now());
        assert!(matches!(&accepted, PeerStatus::Accepted(Some(_))));
        // A new certificate of the server, and one more authority, change nothing.
        files.servers.server().write(files.folder.path(), "server");
        assert_eq!(tls.refresh(), Ok(true));
        assert_eq!(peer.status(UnixTime::now()), accepted);
        replace(&ca_file, &(files.clients.pem() + &successor.pem()));
        assert_eq!(tls.refresh(), Ok(true));
        assert_eq!(peer.status(UnixTime::now()), accepted);
        // When only the successor is left, a connection that waits ends, and so does one that begins to wait later.
        let mut waiting = Box::pin(peer.lapsed());
        assert!(!is_over(&mut waiting).await);
        replace(&ca_file, &successor.pem());
        assert_eq!(tls.refresh(), Ok(true));
        assert!(is_over(&mut waiting).await);
        assert_eq!(peer.status(UnixTime::now()), PeerStatus::NoLongerAccepted { is_mandatory });
        assert!(is_over(&mut Box::pin(peer.lapsed())).await);
    }
}

/// Whether a future is over now.
async fn is_over(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
    tokio::select! {
        biased;
        () = future => true,
        () = std::future::ready(()) => false,
    }
}

#[tokio::test]
async fn an_open_connection_loses_its_certificate_when_that_expires() {
    let files = ListenerFiles::new();
    let tls = files.load(ClientAuth::RequireAndVerifyClientCert(files.path("clients.pem")));
    let client = Arc::new(files.client(Some(&files.clients.client("client", &[]))));
    let Established { certificate, peer, .. } = connect(&tls, &client).await.unwrap();
    let last = u64::try_from(certificate.clone().unwrap().not_after).unwrap();
    let at =
        |seconds| peer.as_ref().unwrap().status(UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
    assert_eq!(at(last), PeerStatus::Accepted(certificate));
    assert_eq!(at(last + 1), PeerStatus::NoLongerAccepted { is_mandatory: true });
}
