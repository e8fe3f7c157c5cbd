//! A TCP relay: a plain balancer before several servers, or a bad network before one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How the relay treats connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// All bytes pass.
    Up,
    /// Connections stay open and new ones are accepted, but no byte passes until it is up again.
    Silent,
    /// All connections are closed, and so are new ones.
    Cut,
}

/// Relays each connection to the next server that accepts it. It lives as long as the test's runtime.
pub(crate) struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    /// `127.0.0.1:PORT` of each server; `None` while it does not run.
    servers: watch::Sender<Vec<Option<String>>>,
    network: watch::Sender<Network>,
    next: AtomicUsize,
}

impl Relay {
    /// A relay to this number of servers, of which none runs yet.
    pub(crate) async fn start(servers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            servers: watch::Sender::new(vec![None; servers]),
            network: watch::Sender::new(Network::Up),
            next: AtomicUsize::new(0),
        });
        tokio::spawn(accept(Arc::clone(&shared), listener));
        Self { shared, address }
    }

    /// The relay to one server.
    pub(crate) async fn to(server: String) -> Self {
        let relay = Self::start(1).await;
        relay.set_server(0, Some(server));
        relay
    }

    /// The server is at this address now, or does not run.
    pub(crate) fn set_server(&self, index: usize, server: Option<String>) {
        self.shared.servers.send_modify(|servers| servers[index] = server);
    }

    pub(crate) fn set(&self, network: Network) {
        self.shared.network.send_replace(network);
    }

    /// The port of 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        tokio::spawn(serve(Arc::clone(&shared), client));
    }
}

/// Serves a connection until one side closes it, or the network is cut.
async fn serve(shared: Arc<Shared>, client: TcpStream) {
    let network = shared.network.subscribe();
    let mut cut = network.clone();
    let relayed = async {
        let mut network = network;
        // The sender lives as long as this task.
        drop(network.wait_for(|network| *network != Network::Silent).await);
        let Some(server) = shared.connect().await else { return };
        drop((client.set_nodelay(true), server.set_nodelay(true)));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = pump(from_client, to_server, network.clone()) => {}
            () = pump(from_server, to_client, network) => {}
        }
    };
    tokio::select! {
        () = relayed => {}
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
    }
}

impl Shared {
    /// A connection to the next server that accepts it.
    async fn connect(&self) -> Option<TcpStream> {
        let servers = self.servers.borrow().clone();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        for step in 0..servers.len() {
            let Some(server) = &servers[(first + step) % servers.len()] else { continue };
            if let Ok(stream) = TcpStream::connect(server).await {
                return Some(stream);
            }
        }
        None
    }
}

/// Passes bytes in one direction.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut network: watch::Receiver<Network>) {
    let mut buffer = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        drop(network.wait_for(|network| *network == Network::Up).await);
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
