//! `healthcheck`: asks a worker on this machine whether it is alive, or ready.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;

use super::{Exit, Io};
use crate::runtime::worker;

/// A longer answer is cut.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

#[derive(Args)]
pub(super) struct Arguments {
    /// The address that `worker` listens on. One such as 0.0.0.0 is asked at loopback.
    #[arg(long, value_name = "ADDRESS", default_value_t = worker::DEFAULT_LISTEN)]
    listen: SocketAddr,
    /// Ask whether events are received and the ledger can be used, and not only whether the process answers.
    #[arg(long)]
    ready: bool,
    /// How many seconds to wait for the answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

pub(super) fn run(arguments: &Arguments, io: &mut Io<'_>) -> Exit {
    let path = if arguments.ready { "/-/ready" } else { "/-/healthy" };
    let address = reachable(arguments.listen);
    match get(address, path, Duration::from_secs(arguments.timeout)) {
        Ok((200, text)) => {
            drop(writeln!(io.out, "http://{address}{path}: {text}"));
            Exit::Success
        }
        Ok((status, text)) => {
            drop(writeln!(io.err, "error: http://{address}{path} returned {status}: {text}"));
            Exit::Found
        }
        Err(error) => {
            drop(writeln!(
                io.err,
                "error: http://{address}{path}: {error}; is it --listen of a running worker?"
            ));
            Exit::Found
        }
    }
}

/// The address at which this machine reaches a listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// The status of the answer, and the first line of its text.
fn get(address: SocketAddr, path: &str, timeout: Duration) -> Result<(u16, String), String> {
    let answer = exchange(address, path, timeout).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => {
            format!("no answer within {} s", timeout.as_secs())
        }
        _ => error.to_string(),
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is not one of HTTP")?;
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
    let line = body.lines().next().unwrap_or_default();
    Ok((status.ok_or("the answer is not one of HTTP")?, line.to_owned()))
}

fn exchange(address: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
