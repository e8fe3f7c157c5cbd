//! The places of comparisons that wait or run: bounded in all, for each user, and for each address that they come from.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use super::table::{PairDigest, User};

/// Comparisons in all. This bounds the memory too: an address is known only while one of its comparisons has a place.
const MAX_WAITING: usize = 128;

/// Comparisons for one user: a stranger who knows the name and has many addresses must not take all places.
const MAX_WAITING_FOR_USER: usize = 32;

/// Comparisons for all unknown users.
const MAX_WAITING_FOR_UNKNOWN: usize = 4;

/// Comparisons for one address. Those of the same user and password count once, since one result answers them all: a
/// sender with many notifications waits for its one password.
const MAX_WAITING_FOR_PEER: usize = 2;

/// The address of a peer, or its network where a single host has a whole one: the first 64 bits of an IPv6 address.
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

/// The queue of comparisons.
#[derive(Default)]
pub(super) struct CompareQueue(Arc<Mutex<QueueState>>);

#[derive(Default)]
struct QueueState {
    peers: HashMap<PeerNetwork, Vec<Comparison>>,
    total: usize,
    for_unknown: usize,
}

/// The comparison of one password for one peer. It has one place, and any number of requests.
struct Comparison {
    user: Arc<User>,
    pair: PairDigest,
    requests: usize,
}

impl Comparison {
    fn is_of(&self, user: &Arc<User>, pair: &PairDigest) -> bool {
        Arc::ptr_eq(&self.user, user) && self.pair == *pair
    }
}

impl CompareQueue {
    /// Takes a place, or joins the comparison of the same password for the same peer. `None` if there are too many.
    pub(super) fn take(&self, peer: IpAddr, user: &Arc<User>, pair: &PairDigest) -> Option<QueuePlace> {
        let peer = PeerNetwork::of(peer);
        self.0.lock().take(peer, user, pair).then(|| QueuePlace {
            queue: self.0.clone(),
            peer,
            user: user.clone(),
            pair: *pair,
        })
    }
}

impl QueueState {
    fn take(&mut self, peer: PeerNetwork, user: &Arc<User>, pair: &PairDigest) -> bool {
        let own = self.peers.get_mut(&peer);
        let of_peer = own.as_ref().map_or(0, |own| own.len());
        if let Some(same) = own.and_then(|own| own.iter_mut().find(|known| known.is_of(user, pair))) {
            same.requests += 1;
            return true;
        }
        let (of_user, max_of_user) = if user.is_known() {
            let of_user =
                self.peers.values().flatten().filter(|known| Arc::ptr_eq(&known.user, user)).count();
            (of_user, MAX_WAITING_FOR_USER)
        } else {
            (self.for_unknown, MAX_WAITING_FOR_UNKNOWN)
        };
        if of_peer >= MAX_WAITING_FOR_PEER || of_user >= max_of_user || self.total >= MAX_WAITING {
            return false;
        }
        self.total += 1;
        self.for_unknown += usize::from(!user.is_known());
        let comparison = Comparison { user: user.clone(), pair: *pair, requests: 1 };
        self.peers.entry(peer).or_default().push(comparison);
        true
    }

    fn give_back(&mut self, peer: PeerNetwork, user: &Arc<User>, pair: &PairDigest) {
        let Some(own) = self.peers.get_mut(&peer) else { return };
        let Some(index) = own.iter().position(|known| known.is_of(user, pair)) else { return };
        let Some(known) = own.get_mut(index) else { return };
        known.requests -= 1;
        if known.requests > 0 {
            return;
        }
        own.swap_remove(index);
        if own.is_empty() {
            self.peers.remove(&peer);
        }
        self.total -= 1;
        self.for_unknown -= usize::from(!user.is_known());
    }
}

/// A request's part of a place.
pub(super) struct QueuePlace {
    queue: Arc<Mutex<QueueState>>,
    peer: PeerNetwork,
    user: Arc<User>,
    pair: PairDigest,
}

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.queue.lock().give_back(self.peer, &self.user, &self.pair);
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
