//! Somebody hostile on the network, who sees every datagram, has no keys, and sends what he likes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use stubborn_core::random::Random;
use stubborn_core::transport::endpoint::Ecn;

use super::wire::{Datagram, corrupt};

/// What an attacker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Sends a datagram again that he saw, perhaps minutes ago.
    Replay,
    /// Sends a part of a datagram that he saw.
    Truncate,
    /// Sends a datagram that he saw with bits flipped.
    BitFlip,
    /// Sends a datagram that he saw from another address.
    Spoof,
    /// Sends many datagrams from addresses that nobody has: first ones of connections that he saw,
    /// and noise.
    Flood,
}

impl Attack {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Replay, Self::Truncate, Self::BitFlip, Self::Spoof, Self::Flood];
}

/// Datagrams that an attacker remembers.
const REMEMBERED: usize = 256;

/// Datagrams of one flood.
const FLOOD: usize = 16;

pub(crate) struct Attacker {
    pub(crate) every: Duration,
    kinds: Vec<Attack>,
    seen: Vec<Datagram>,
    random: Random,
    next_address: u32,
}

impl Attacker {
    pub(crate) fn new(every: Duration, kinds: &[Attack], random: Random) -> Self {
        let kinds = kinds.to_vec();
        Self { every, kinds, seen: Vec::new(), random, next_address: 0 }
    }

    /// Sees a datagram that is sent. Old ones are kept among new ones.
    pub(crate) fn see(&mut self, datagram: &Datagram) {
        if self.seen.len() < REMEMBERED {
            self.seen.push(datagram.clone());
        } else if self.random.chance(0.25) {
            let index = self.random.below(REMEMBERED as u64) as usize;
            self.seen[index] = datagram.clone();
        }
    }

    /// What the attacker sends now.
    pub(crate) fn strike(&mut self) -> Vec<Datagram> {
        if self.seen.is_empty() || self.kinds.is_empty() {
            return Vec::new();
        }
        match self.kinds[self.random.below(self.kinds.len() as u64) as usize] {
            Attack::Flood => (0..FLOOD).map(|_| self.flood()).collect(),
            kind => {
                let mut datagram = self.remembered();
                self.alter(kind, &mut datagram);
                vec![datagram]
            }
        }
    }

    fn remembered(&mut self) -> Datagram {
        let index = self.random.below(self.seen.len() as u64) as usize;
        self.seen[index].clone()
    }

    fn alter(&mut self, kind: Attack, datagram: &mut Datagram) {
        match kind {
            Attack::Truncate => {
                let keep = self.random.below(datagram.data.len() as u64 + 1) as usize;
                datagram.data.truncate(keep);
            }
            Attack::BitFlip => corrupt(&mut datagram.data, &mut self.random),
            Attack::Spoof => self.spoof(datagram),
            Attack::Replay | Attack::Flood => {}
        }
    }

    fn flood(&mut self) -> Datagram {
        let mut datagram = self.remembered();
        self.spoof(&mut datagram);
        // RFC 8999 §5.1: the high bit of the first byte says "long header".
        let long = datagram.data.first().is_some_and(|byte| byte & 0x80 != 0);
        if !long || self.random.chance(0.5) {
            let mut noise = BytesMut::zeroed(1_200);
            self.random.fill(&mut noise);
            let copied = datagram.data.len().min(7);
            noise[..copied].copy_from_slice(&datagram.data[..copied]);
            datagram.data = noise;
        } else if datagram.data.len() > 14 {
            // Another destination connection id: as the first datagram of another client.
            self.random.fill(&mut datagram.data[6..14]);
        }
        datagram.ecn = Ecn::NotEct;
        datagram
    }

    /// From an address that nobody has, it proves nothing. A datagram that is sent again unchanged
    /// proves what it proved when its owner sent it: nobody can tell the two apart.
    fn spoof(&mut self, datagram: &mut Datagram) {
        datagram.from = self.nobody();
        datagram.answers = false;
    }

    fn nobody(&mut self) -> SocketAddr {
        self.next_address = self.next_address.wrapping_add(1);
        let [_, a, b, c] = self.next_address.to_be_bytes();
        SocketAddr::from((Ipv4Addr::new(172, a, b, c), 9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_from_its_owners_address_proves_what_it_proved_and_from_another_nothing() {
        let owner = SocketAddr::from(([10, 0, 0, 1], 7_400));
        let answer = Datagram {
            from: owner,
            to: SocketAddr::from(([10, 0, 0, 2], 7_400)),
            ecn: Ecn::NotEct,
            data: BytesMut::from(&[0xC0; 100][..]),
            answers: true,
        };
        for kind in Attack::ALL {
            let mut attacker = Attacker::new(Duration::ZERO, &[kind], Random::from_seed([1; 32]));
            attacker.see(&answer);
            for datagram in attacker.strike() {
                assert_eq!(datagram.answers, datagram.from == owner, "{kind:?}");
            }
        }
    }
}
