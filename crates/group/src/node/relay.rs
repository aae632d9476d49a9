//! Datagrams that other nodes pass on, for nodes that do not hear each other.
//!
//! Between two nodes that are cut from each other stands a second connection, at made-up addresses.
//! What it sends is not given to the socket: it travels, sealed as it is, inside messages to a
//! neighbour, who passes it on. So whoever relays can read and change nothing, both ends know their
//! path for what it is (with a size, a round trip and a window of its own), and the direct path is
//! tried all the while by the connection that has it.

use std::net::{Ipv6Addr, SocketAddr};

use bytes::Bytes;
use stubborn_core::limits::{RELAYED_BURST, RELAYED_BYTES_PER_SECOND};
use stubborn_core::time::Instant;
use stubborn_core::wire::{Reader, varint};

use crate::replication::NodeId;

/// The prefix of made-up addresses, whose datagrams are discarded everywhere (RFC 6666).
const NOWHERE: u64 = 0x0100 << 48;

/// The port of made-up addresses; any but 0.
const PORT: u16 = 1;

/// What is around a datagram that is relayed, at most: node numbers, frames and heads.
pub(super) const AROUND: usize = 96;

/// A datagram on its way through other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relayed {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    /// How many more nodes may pass it on.
    pub(super) hops: u8,
    pub(super) datagram: Bytes,
}

impl Relayed {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.hops);
        varint::encode(self.from.get(), out);
        varint::encode(self.to.get(), out);
        out.extend_from_slice(&self.datagram);
    }

    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let hops = reader.u8().ok()?;
        let from = NodeId::new(reader.varint().ok()?)?;
        let to = NodeId::new(reader.varint().ok()?)?;
        let datagram = bytes.slice_ref(reader.rest());
        (!datagram.is_empty()).then_some(Self { from, to, hops, datagram })
    }
}

/// The address at which a node is reached through others.
pub(super) fn made_up(id: NodeId) -> SocketAddr {
    let bits = u128::from(NOWHERE) << 64 | u128::from(id.get());
    SocketAddr::from((Ipv6Addr::from_bits(bits), PORT))
}

/// The node that has this made-up address.
pub(super) fn node_at(address: SocketAddr) -> Option<NodeId> {
    let SocketAddr::V6(address) = address else { return None };
    let bits = address.ip().to_bits();
    let id = (bits >> 64 == u128::from(NOWHERE)).then_some(bits as u64)?;
    NodeId::new(id)
}

/// How much a node may pass on for others.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: RELAYED_BURST, at: now }
    }

    /// Whether so many bytes may be passed on now.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) -> bool {
        let earned = now.since(self.at).as_nanos() * u128::from(RELAYED_BYTES_PER_SECOND);
        let earned = u64::try_from(earned / 1_000_000_000).unwrap_or(u64::MAX);
        if earned > 0 {
            self.at = now;
            self.left = self.left.saturating_add(earned).min(RELAYED_BURST);
        }
        let rest = self.left.checked_sub(bytes as u64);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stubborn_core::time::Duration;

    use super::*;

    #[test]
    fn a_made_up_address_names_its_node_and_no_other_address_names_one() {
        let id = NodeId::new(u64::MAX).unwrap();
        assert_eq!(node_at(made_up(id)), Some(id));
        for other in ["10.0.0.1:1", "[::1]:1", "[100:0:0:1::5]:1", "[100::]:1"] {
            assert_eq!(node_at(other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn a_node_passes_on_a_burst_and_then_so_many_bytes_a_second() {
        let mut allowance = Allowance::new(Instant::ZERO);
        let mut passed = 0_u64;
        for millis in 0..2_000 {
            let now = Instant::ZERO + Duration::from_millis(millis);
            while allowance.take(now, 1_400) {
                passed += 1_400;
            }
        }
        let most = RELAYED_BURST + 2 * RELAYED_BYTES_PER_SECOND;
        assert!(passed <= most && passed > most * 9 / 10, "{passed} of {most}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic_and_what_decodes_is_what_was_sent(
            bytes in prop::collection::vec(any::<u8>(), 0..60)
        ) {
            if let Some(relayed) = Relayed::decode(&bytes.into()) {
                let mut out = Vec::new();
                relayed.encode(&mut out);
                prop_assert_eq!(Relayed::decode(&out.into()), Some(relayed));
            }
        }
    }
}
