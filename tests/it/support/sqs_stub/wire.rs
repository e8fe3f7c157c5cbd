//! HTTP/1.1 as far as the SDK speaks it, on a connection that can be reset at any point.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What the head of a request says.
pub(super) struct Head {
    pub operation: String,
    length: usize,
}

/// A connection, between two requests or in one.
pub(super) struct Connection {
    stream: TcpStream,
    /// What was read and not used.
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// The next request's head; an error if there is none.
    pub(super) async fn head(&mut self) -> io::Result<Head> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.read_more().await?;
        };
        let text: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&text).into_owned();
        let value = |wanted: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
        };
        Ok(Head {
            operation: value("x-amz-target").unwrap_or_default().to_owned(),
            length: value("content-length").and_then(|length| length.parse().ok()).unwrap_or(0),
        })
    }

    pub(super) async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        while self.buffer.len() < head.length {
            self.read_more().await?;
        }
        Ok(self.buffer.drain(..head.length).collect())
    }

    async fn read_more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn answer(&mut self, status: u16, error: Option<&str>, body: &str) -> io::Result<()> {
        self.stream.write_all(http(status, error, body).as_bytes()).await
    }

    /// An error with a code, as the service gives it.
    pub(super) async fn answer_error(&mut self, status: u16, code: &str) -> io::Result<()> {
        let body = format!("{{\"__type\":\"{code}\",\"message\":\"refused\"}}");
        self.answer(status, Some(code), &body).await
    }

    /// The head and the first half of the body.
    pub(super) async fn answer_half(&mut self, body: &str) -> io::Result<()> {
        let all = http(200, None, body);
        self.stream.write_all(&all.as_bytes()[..all.len() - body.len() / 2]).await
    }

    /// Returns when the other side hangs up.
    pub(super) async fn wait_closed(&mut self) {
        while self.read_more().await.is_ok() {}
    }

    /// Ends it with a reset.
    pub(super) fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }
}

fn http(status: u16, error: Option<&str>, body: &str) -> String {
    let error = error.map_or_else(String::new, |code| format!("x-amzn-errortype: {code}\r\n"));
    format!(
        "HTTP/1.1 {status} -\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n{error}\r\n{body}",
        body.len()
    )
}
