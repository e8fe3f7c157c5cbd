//! `scalebridge healthcheck`: asks the bridge of a configuration whether it is alive, or ready.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::check::render_diagnostics;
use super::escape::escape_lines;
use super::output::{ConfigArgs, EXIT_FAILED, EXIT_USAGE, environment, print, usage_error};
use crate::config;
use crate::config::access::{ClientAuth, Tls};
use crate::credentials::OwnListener;
use crate::domain::duration;
use crate::telemetry;

/// Ask the bridge of this configuration whether it is healthy
///
/// Asks for /-/healthy, with --ready for /-/ready, at `server.listen` of the configuration and with its TLS; an address such
/// as 0.0.0.0 is asked at loopback. The certificate must be the one of `cert_file`: no CA is needed. Errors in other sections
/// of the configuration do not count, since a running bridge keeps the configuration that it has.
///
/// Restart on /-/healthy only: a bridge that is not ready, for example because its database is away, is not repaired by a
/// restart.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  The health check of a container, in the form without a shell
    [\"/usr/local/bin/scalebridge\", \"healthcheck\"]
  Are notifications accepted?
    scalebridge healthcheck --ready --config /etc/scalebridge/scalebridge.yaml

Exit codes: 0 healthy or ready, 1 not, or no answer, 2 unusable configuration")]
pub(super) struct Healthcheck {
    #[command(flatten)]
    config: ConfigArgs,
    /// Ask whether notifications are accepted, and not only whether the process answers
    #[arg(long)]
    ready: bool,
    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    timeout: Duration,
    /// PEM file with a client certificate and its chain, for a listener that requires one
    #[arg(long, value_name = "FILE", env = "SCALEBRIDGE_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// PEM file with the private key of the client certificate. Default: the file of --cert-file
    #[arg(long, value_name = "FILE", env = "SCALEBRIDGE_KEY_FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

impl Healthcheck {
    pub(super) fn run(&self) -> ExitCode {
        let listener = config::read_webhook_listener(&self.config.config, environment());
        let (listen, access) = match listener {
            Ok(listener) => listener,
            Err(diagnostics) => {
                telemetry::print_to_stderr(render_diagnostics(&diagnostics).trim_end());
                return ExitCode::from(EXIT_USAGE);
            }
        };
        if listen.port() == 0 {
            return usage_error(format_args!(
                "`server.listen` is {listen}, a port that the system chooses: set a port, so that it can be asked"
            ));
        }
        if let Some(policy) = self.missing_certificate(access.tls.as_ref()) {
            return usage_error(format_args!(
                "the listener requires a client certificate (client_auth_type: {policy}), so it cannot be asked without: \
                 pass one with --cert-file and --key-file, or set VerifyClientCertIfGiven, and `auth.client_cert` on the \
                 sources"
            ));
        }
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return usage_error(format_args!("cannot start: {error}")),
        };
        runtime.block_on(self.ask(listen, access.tls.as_ref()))
    }

    /// The policy of a listener that requires a client certificate, if none is given.
    fn missing_certificate(&self, tls: Option<&Tls>) -> Option<&'static str> {
        match tls?.client_auth {
            _ if self.cert_file.is_some() => None,
            ClientAuth::RequireAnyClientCert => Some("RequireAnyClientCert"),
            ClientAuth::RequireAndVerifyClientCert(_) => Some("RequireAndVerifyClientCert"),
            ClientAuth::NoClientCert
            | ClientAuth::RequestClientCert
            | ClientAuth::VerifyClientCertIfGiven(_) => None,
        }
    }

    async fn ask(&self, listen: SocketAddr, tls: Option<&Tls>) -> ExitCode {
        let path = if self.ready { "/-/ready" } else { "/-/healthy" };
        let client_cert = self
            .cert_file
            .as_deref()
            .map(|cert_file| (cert_file, self.key_file.as_deref().unwrap_or(cert_file)));
        let own = match OwnListener::new(reachable(listen), tls, client_cert, self.timeout) {
            Ok(own) => own,
            Err(error) => return usage_error(error),
        };
        let url = own.url(path);
        let (status, text) = match own.get(path).await {
            Ok(answer) => answer,
            Err(error) => return failed(&format!("{url}: {error}")),
        };
        let first_line = text.lines().next().unwrap_or_default();
        if status != 200 {
            return failed(&format!("{url} returned {status}: {first_line}"));
        }
        print(format!("{url}: {}", escape_lines(first_line)));
        ExitCode::SUCCESS
    }
}

fn failed(why: &str) -> ExitCode {
    telemetry::print_to_stderr(format_args!("scalebridge: {}", escape_lines(why)));
    ExitCode::from(EXIT_FAILED)
}

/// The address at which this machine reaches a listener.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // It accepts IPv4, too: so it is reached on a machine without IPv6 addresses.
        IpAddr::V6(ip) if ip.is_unspecified() && !std::path::Path::new("/proc/net/if_inet6").exists() => {
            Ipv4Addr::LOCALHOST.into()
        }
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_at_every_address_is_asked_at_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9096", "127.0.0.1:9096"),
            ("127.0.0.1:9096", "127.0.0.1:9096"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[2001:db8::1]:9096", "[2001:db8::1]:9096"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
        assert!(reachable("[::]:9096".parse().unwrap()).ip().is_loopback());
    }
}
