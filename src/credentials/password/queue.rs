//! The places of comparisons that wait or run: bounded in all, for each user, and for each address that they come from.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use super::table::{PairDigest, User};

/// Comparisons in all. This bounds the memory too: an address is stored only while one of its comparisons has a place.
const MAX_WAITING: usize = 128;

/// Comparisons for one user: a stranger who knows the name and has many addresses must not take all places.
const MAX_WAITING_FOR_USER: usize = 32;

/// Comparisons for all unknown users.
const MAX_WAITING_FOR_UNKNOWN: usize = 4;

/// Comparisons for one address. Those of the same user and password count once, since one result answers them all: a
/// sender with many notifications waits for its one password.
const MAX_WAITING_FOR_PEER: usize = 2;

/// The IPv4 address of a peer, or the /64 network of its IPv6 address, since a host often has a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct PeerNetwork(IpAddr);

impl PeerNetwork {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// The comparisons that have a place: at most [`MAX_WAITING`], so all counts are made by looking at each.
#[derive(Default)]
pub(super) struct CompareQueue(Arc<Mutex<Vec<Comparison>>>);

/// The comparison of one password for one peer. It has one place, and any number of requests.
struct Comparison {
    peer: PeerNetwork,
    user: Arc<User>,
    pair: PairDigest,
    requests: usize,
}

impl Comparison {
    fn is_of(&self, peer: PeerNetwork, user: &Arc<User>, pair: &PairDigest) -> bool {
        self.peer == peer && Arc::ptr_eq(&self.user, user) && self.pair == *pair
    }
}

impl CompareQueue {
    /// Takes a place, or joins the comparison of the same password for the same peer. `None` if there are too many.
    pub(super) fn take(&self, peer: IpAddr, user: &Arc<User>, pair: &PairDigest) -> Option<QueuePlace> {
        let peer = PeerNetwork::of(peer);
        take(&mut self.0.lock(), peer, user, pair).then(|| QueuePlace {
            queue: self.0.clone(),
            peer,
            user: user.clone(),
            pair: *pair,
        })
    }
}

fn take(queue: &mut Vec<Comparison>, peer: PeerNetwork, user: &Arc<User>, pair: &PairDigest) -> bool {
    if let Some(same) = queue.iter_mut().find(|known| known.is_of(peer, user, pair)) {
        same.requests += 1;
        return true;
    }
    let of_peer = queue.iter().filter(|known| known.peer == peer).count();
    let (of_user, max_of_user) = if user.is_known() {
        (queue.iter().filter(|known| Arc::ptr_eq(&known.user, user)).count(), MAX_WAITING_FOR_USER)
    } else {
        (queue.iter().filter(|known| !known.user.is_known()).count(), MAX_WAITING_FOR_UNKNOWN)
    };
    if of_peer >= MAX_WAITING_FOR_PEER || of_user >= max_of_user || queue.len() >= MAX_WAITING {
        return false;
    }
    queue.push(Comparison { peer, user: user.clone(), pair: *pair, requests: 1 });
    true
}

/// A request's part of a place.
pub(super) struct QueuePlace {
    queue: Arc<Mutex<Vec<Comparison>>>,
    peer: PeerNetwork,
    user: Arc<User>,
    pair: PairDigest,
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        let found = queue.iter().position(|known| known.is_of(self.peer, &self.user, &self.pair));
        let Some(index) = found else { return };
        queue[index].requests -= 1;
        if queue[index].requests == 0 {
            queue.swap_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_peer_whatever_address_of_its_network_it_uses() {
        let network = |address: &str| PeerNetwork::of(address.parse().unwrap());
        assert_eq!(network("2001:db8:0:1::1"), network("2001:db8:0:1:ffff::2"));
        assert_ne!(network("2001:db8:0:1::1"), network("2001:db8:0:2::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
    }
}
