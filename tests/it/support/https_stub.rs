//! A server over http or https that gives every request the same response.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A server that gives every request the same response, and keeps the heads of requests.
pub(crate) struct Stub {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    pub(crate) fn start(tls: Option<ServerConfig>, status: &str, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (tls, kept) = (tls.map(Arc::new), heads.clone());
        let response =
            format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let head = match &tls {
                    None => respond(&mut &stream, &response),
                    Some(tls) => {
                        let connection = ServerConnection::new(tls.clone()).expect("a configuration");
                        let mut stream = StreamOwned::new(connection, &stream);
                        let head = respond(&mut stream, &response);
                        stream.conn.send_close_notify();
                        let _ = stream.conn.write_tls(&mut stream.sock);
                        head
                    }
                };
                kept.lock().expect("the heads").extend(head);
                close(&stream);
            }
        });
        Self { address, heads }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1:{}", self.port())
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("the heads").clone()
    }
}

/// Reads a request, and responds. `None` if there is none, for example if the handshake failed.
fn respond(stream: &mut (impl Read + Write), response: &str) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    let head = loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
        if request.first().is_some_and(|byte| !byte.is_ascii_uppercase()) {
            break "not HTTP".to_owned();
        }
        let text = String::from_utf8_lossy(&request);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                break head.to_owned();
            }
        }
    };
    stream.write_all(response.as_bytes()).ok()?;
    Some(head)
}

/// Closes when the client has, so that it reads the response or the alert.
fn close(mut stream: &TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}
