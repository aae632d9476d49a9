//! Consistent hashing: each server has points on a ring, a key belongs to the next point.

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::rpc::policy::Balancing;

/// Points of servers in the order of their hashes.
#[derive(Debug, Default)]
pub(super) struct Ring(Vec<(u64, u64)>);

impl Ring {
    /// A ring of these links. Where a server's points are depends on its address alone, so that other
    /// clients, and this one after a change, have them in the same places.
    pub(super) fn new(links: &[(u64, SocketAddr)], points: u32) -> Self {
        let servers = u32::try_from(links.len()).unwrap_or(u32::MAX).max(1);
        // A power of two, so that a server more or less rarely changes how many points the others have.
        let each = points.min(Balancing::MAX_RING).div_ceil(servers).next_power_of_two();
        let of = |(link, address): &(u64, SocketAddr)| {
            let (link, address) = (*link, bytes_of(*address));
            (0..u64::from(each)).map(move |point| (xxh3_64_with_seed(&address, point), link))
        };
        let mut points: Vec<_> = links.iter().flat_map(of).collect();
        points.sort_unstable();
        Self(points)
    }

    /// The first link from the key's place on that is `fit`.
    pub(super) fn find(&self, key: u64, fit: impl Fn(u64) -> bool) -> Option<u64> {
        let from = self.0.partition_point(|(point, _)| *point < key);
        let (before, after) = self.0.split_at(from);
        after.iter().chain(before).map(|(_, link)| *link).find(|link| fit(*link))
    }
}

/// The place of a key.
pub(super) fn place(key: &[u8]) -> u64 {
    xxh3_64(key)
}

fn bytes_of(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend(address.port().to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(count: u8) -> Vec<(u64, SocketAddr)> {
        (0..count).map(|n| (u64::from(n), SocketAddr::from(([10, 0, 0, n], 7400)))).collect()
    }

    fn owners(ring: &Ring) -> Vec<u64> {
        (0..10_000_u32).map(|key| ring.find(place(&key.to_be_bytes()), |_| true).unwrap()).collect()
    }

    #[test]
    fn a_server_that_leaves_moves_only_its_own_keys() {
        let before = owners(&Ring::new(&links(5), 1_024));
        let after = owners(&Ring::new(&links(5)[..4], 1_024));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(before, _)| *before == 4));
        assert!((1_000..3_500).contains(&moved.count()), "about a fifth of the keys moves");
    }

    #[test]
    fn every_server_owns_about_its_share_of_the_keys() {
        let owners = owners(&Ring::new(&links(5), 1_024));
        for link in 0..5 {
            let share = owners.iter().filter(|owner| **owner == link).count();
            assert!((1_200..3_000).contains(&share), "link {link} owns {share} of 10,000");
        }
    }

    #[test]
    fn a_ring_without_a_fit_server_names_none_and_an_empty_one_does_not_panic() {
        assert_eq!(Ring::new(&links(3), 64).find(7, |_| false), None);
        assert_eq!(Ring::new(&[], 64).find(7, |_| true), None);
    }
}
