//! Addresses that a destination must not lead to by mistake: link-local ones, and those of the metadata services of clouds,
//! which give credentials of the machine to anyone who asks.
//!
//! What counts is the address that is connected to: a name is checked when it is resolved, for each connection, so that
//! another answer of the DNS changes nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services that are not link-local: Alibaba Cloud, and the virtual address of Azure's host.
const METADATA_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];

/// The first segments of those in IPv6: AWS, Google Cloud, Oracle Cloud.
const METADATA_V6: [(u16, u16); 3] = [(0xfd00, 0x0ec2), (0xfd20, 0x00ce), (0xfd00, 0x00c1)];

/// The address in a URL, if it is one that [`is_link_local`]. The host is read as it will be called: `2852039166` is an
/// address too.
pub(crate) fn link_local_host(url: &str) -> Option<IpAddr> {
    host_address(url).filter(|address| is_link_local(*address))
}

/// Whether a URL leads to this machine, whatever the DNS says.
pub(crate) fn is_loopback_url(url: &str) -> bool {
    let is_localhost = || {
        let url = Url::parse(url).ok();
        url.is_some_and(|url| url.host_str().is_some_and(|host| host.eq_ignore_ascii_case("localhost")))
    };
    host_address(url).map_or_else(is_localhost, |address| address.to_canonical().is_loopback())
}

fn host_address(url: &str) -> Option<IpAddr> {
    Url::parse(url).ok()?.host_str()?.trim_matches(['[', ']']).parse().ok()
}

fn is_link_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_link_local() || METADATA_V4.contains(&address),
        IpAddr::V6(address) => {
            let segments = address.segments();
            address.is_unicast_link_local()
                || METADATA_V6.contains(&(segments[0], segments[1]))
                || translated(address).is_some_and(|address| is_link_local(address.into()))
        }
    }
}

/// The IPv4 address that a NAT64 gateway connects to for this one, or that an old form contains.
fn translated(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let [a, b, c, d] = address.octets()[12..] else { return None };
    let is_translated = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0] || segments[..6] == [0; 6];
    is_translated.then(|| Ipv4Addr::new(a, b, c, d))
}

/// Resolves names as the system does, to addresses that are not link-local.
pub(super) struct WithoutLinkLocal;

impl Resolve for WithoutLinkLocal {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let first = found.first().copied();
            let allowed: Vec<SocketAddr> =
                found.into_iter().filter(|address| !is_link_local(address.ip())).collect();
            match first.filter(|_| allowed.is_empty()) {
                Some(refused) => Err(LinkLocal(refused.ip()).into()),
                None => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// A host that has link-local addresses only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkLocal(pub IpAddr);

impl std::error::Error for LinkLocal {}

impl fmt::Display for LinkLocal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the host has the address {}, which is link-local or of a metadata service", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_link_and_of_metadata_services_are_known_in_each_spelling() {
        for url in [
            "http://169.254.169.254/latest/meta-data",
            "http://169.254.170.2:80",
            "http://2852039166/",
            "http://0xa9fea9fe/",
            "http://0251.0376.0251.0376/",
            "http://169.254.1/",
            "https://[fe80::1]/",
            "https://[febf::1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[::169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fd00:ec2::254]/",
            "http://[fd20:ce::254]/",
            "http://100.100.100.200/",
            "http://168.63.129.16/",
        ] {
            assert!(link_local_host(url).is_some(), "{url}");
        }
        for url in [
            "http://127.0.0.1/",
            "http://[::1]/",
            "http://10.0.0.1/",
            "http://169.253.255.255/",
            "http://[fec0::1]/",
            "http://[fd12:3456::1]/",
            "http://[64:ff9b::808:808]/",
            "http://metadata.google.internal/",
            "http://169.254.169.254.example/",
            "not a URL",
        ] {
            assert_eq!(link_local_host(url), None, "{url}");
        }
    }

    #[test]
    fn loopback_is_known_by_address_and_by_its_name() {
        for (url, expected) in [
            ("http://127.0.0.9:80/", true),
            ("http://[::1]/", true),
            ("http://LOCALHOST/", true),
            ("http://localhost.example/", false),
            ("http://10.0.0.1/", false),
        ] {
            assert_eq!(is_loopback_url(url), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_is_resolved_without_link_local_addresses() {
        let resolve = async |name: &str| WithoutLinkLocal.resolve(name.parse().unwrap()).await;
        let found: Vec<_> = resolve("localhost").await.unwrap().collect();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        // The resolver of the system reads addresses too.
        let refused = resolve("169.254.169.254").await.err().unwrap();
        assert!(refused.downcast_ref::<LinkLocal>().is_some(), "{refused}");
    }
}
