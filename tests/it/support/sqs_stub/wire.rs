//! The part of HTTP/1.1 that the SDK uses, on a connection that can be reset at any point.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The head of a request.
pub(super) struct Head {
    pub operation: String,
    length: usize,
}

/// A server connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes that were read but not consumed.
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads the head of the next request; returns an error at the end of the stream.
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

    /// Sends an error with a code in the format of the service.
    pub(super) async fn answer_error(&mut self, status: u16, code: &str) -> io::Result<()> {
        let body = format!("{{\"__type\":\"{code}\",\"message\":\"refused\"}}");
        self.answer(status, Some(code), &body).await
    }

    /// Sends the head and the first half of the body.
    pub(super) async fn answer_half(&mut self, body: &str) -> io::Result<()> {
        let all = http(200, None, body);
        self.stream.write_all(&all.as_bytes()[..all.len() - body.len() / 2]).await
    }

    /// Waits until the peer closes the connection.
    pub(super) async fn wait_closed(&mut self) {
        while self.read_more().await.is_ok() {}
    }

    /// Closes the connection with a TCP reset.
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
