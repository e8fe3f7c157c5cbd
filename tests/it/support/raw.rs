//! HTTP as bytes on a connection, for requests that no client library sends.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::bridge::CONFIG;

/// How long the bridge may take. A bridge that works is much faster.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection to one of the listeners.
pub(crate) struct Raw(TcpStream);

impl Raw {
    pub(crate) async fn connect(address: &str) -> Self {
        Self(TcpStream::connect(address).await.expect("a connection"))
    }

    /// A connection whose client has room for only a few bytes that it has not read.
    pub(crate) async fn connect_with_small_buffer(address: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        Self(socket.connect(address.parse().expect("an address")).await.expect("a connection"))
    }

    /// Connects and sends these bytes.
    pub(crate) async fn request(address: &str, bytes: impl AsRef<[u8]>) -> Self {
        let mut connection = Self::connect(address).await;
        connection.send(bytes).await.expect("the request");
        connection
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.write_all(bytes.as_ref()).await
    }

    /// The next head of an answer, without its body.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        let read = async {
            while !head.ends_with(b"\r\n\r\n") {
                match self.0.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
        };
        tokio::time::timeout(WAIT_TIMEOUT, read).await.expect("an answer");
        String::from_utf8(head).expect("text")
    }

    /// The head of the next answer, after which its body is read too.
    pub(crate) async fn answer(&mut self) -> String {
        let head = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().expect("a number")];
        self.0.read_exact(&mut body).await.expect("a body");
        head
    }

    /// Everything until the bridge closes the connection, whether it does so in order or not.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(WAIT_TIMEOUT, self.0.read_to_end(&mut rest)).await;
        let _closed = read.expect("the end of the connection");
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// The status of an answer that starts with its status line; 0 if there is none.
pub(crate) fn status(answer: &str) -> u16 {
    let line = answer.strip_prefix("HTTP/1.1 ").or_else(|| answer.strip_prefix("HTTP/1.0 "));
    line.and_then(|line| line.get(..3)?.parse().ok()).unwrap_or_default()
}

/// [`CONFIG`] with more settings of `server`.
pub(crate) fn config_with_server(settings: &str) -> String {
    let server = "server: { listen: \"127.0.0.1:0\"";
    let config = CONFIG.replace(server, &format!("{server}, {settings}"));
    assert_ne!(config, CONFIG);
    config
}

/// A request that posts `body` to the source `prod-eu`.
pub(crate) fn post(body: &str) -> String {
    let length = body.len();
    format!("POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\ncontent-length: {length}\r\n\r\n{body}")
}

/// The beginning of a request that posts `length` bytes to the source `prod-eu`.
pub(crate) fn unfinished_post(length: usize, sent: usize) -> String {
    let head = format!("POST /webhook/prod-eu HTTP/1.1\r\nhost: bridge\r\ncontent-length: {length}\r\n\r\n");
    head + &" ".repeat(sent)
}
