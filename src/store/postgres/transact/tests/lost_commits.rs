//! Connections that are lost during a commit.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::store::postgres::{Connector, Settings};

/// What the proxy does with the next commit of a transaction about the target `cut`.
const FORWARD: u8 = 0;
/// The server gets it, and nobody hears the answer.
const LOSE_ANSWER: u8 = 1;
/// The server does not get it.
const LOSE_COMMIT: u8 = 2;

/// A way to the server that can be cut during a commit.
async fn proxy(database: &Database, cut: Arc<AtomicU8>) -> Settings {
    let config: tokio_postgres::Config = database.url().parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [tokio_postgres::config::Host::Tcp(host)] = config.get_hosts() else { panic!("not a TCP address") };
    let server = (host.clone(), config.get_ports()[0]);
    let direct = format!("{}:{}", server.0, server.1);
    let url = database.url().replace(&direct, &listener.local_addr().unwrap().to_string());
    assert_ne!(url, database.url());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(forward(client, TcpStream::connect(server.clone()).await.unwrap(), cut.clone()));
        }
    });
    Settings { connector: Connector::from_url(&url).unwrap(), ..database.settings() }
}

async fn forward(client: TcpStream, server: TcpStream, cut: Arc<AtomicU8>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let (mut buffer, mut is_about_target) = (vec![0; 1 << 16], false);
    let contains = |part: &[u8], text: &[u8]| part.windows(text.len()).any(|window| window == text);
    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
        let part = &buffer[..length];
        is_about_target |= contains(part, b"cut");
        let mode = cut.load(Ordering::Relaxed);
        if is_about_target && mode != FORWARD && contains(part, b"; COMMIT") {
            cut.store(FORWARD, Ordering::Relaxed);
            back.abort();
            drop(back.await);
            if mode == LOSE_ANSWER {
                to_server.write_all(part).await.unwrap();
                // The server reads it before it notices the end.
                to_server.shutdown().await.unwrap();
            }
            return;
        }
        if to_server.write_all(part).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn after_a_connection_was_lost_during_a_commit_it_is_known_whether_it_was_committed() {
    let database = Database::new();
    let cut = Arc::new(AtomicU8::new(FORWARD));
    let settings = proxy(&database, cut.clone()).await;
    let store = Store::Postgres(Postgres::open(settings, &[name("queue")]).await.unwrap());
    for (mode, expected_runs) in [(LOSE_ANSWER, 1), (LOSE_COMMIT, 2), (LOSE_ANSWER, 1)] {
        cut.store(mode, Ordering::Relaxed);
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        let result = store.transact(keys(&["cut"], &[]), move |view| {
            counted.fetch_add(1, Ordering::Relaxed);
            (count(view, &[key("cut")]), ())
        });
        result.await.unwrap();
        assert_eq!(cut.load(Ordering::Relaxed), FORWARD, "the connection was cut");
        assert_eq!(runs.load(Ordering::Relaxed), expected_runs, "mode {mode}");
    }
    assert_eq!(counts(&store).await["cut"], 3);
    assert_eq!(store.outage(), None);
}
