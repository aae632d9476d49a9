//! Packets on the way, in the order in which they are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::damage::Damage;

/// Most packets on the way at once: with 1,500 bytes each about 400 MB.
const MOST: usize = 1 << 18;

/// A packet on the way.
#[derive(Debug)]
pub(crate) struct Packet {
    /// When it is due, in nanoseconds.
    pub(crate) due: u64,
    /// Which of the two devices it goes to.
    pub(crate) to: usize,
    pub(crate) bytes: Vec<u8>,
}

/// Packets on the way.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Due times and places in the sequence, so that packets due at once stay in order.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    /// The packets, at the indexes that `order` names.
    packets: Vec<Option<Packet>>,
    free: Vec<usize>,
    buffers: Vec<Vec<u8>>,
    count: u64,
}

impl Held {
    /// Takes a copy of a packet. False if there are too many.
    pub(crate) fn push(
        &mut self,
        due: u64,
        to: usize,
        bytes: &[u8],
        damage: Option<Damage>,
    ) -> bool {
        if self.order.len() >= MOST {
            return false;
        }
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(bytes);
        if let Some(damage) = damage {
            damage.apply(&mut buffer);
        }
        let packet = Some(Packet { due, to, bytes: buffer });
        let index = match self.free.pop() {
            Some(index) => {
                self.packets[index] = packet;
                index
            }
            None => {
                self.packets.push(packet);
                self.packets.len() - 1
            }
        };
        self.order.push(Reverse((due, self.count, index)));
        self.count += 1;
        true
    }

    /// When the next packet is due.
    pub(crate) fn next_due(&self) -> Option<u64> {
        self.order.peek().map(|Reverse((due, ..))| *due)
    }

    /// The next packet that is due by now. Give its buffer back with [`recycle`](Self::recycle).
    pub(crate) fn pop(&mut self, now: u64) -> Option<Packet> {
        self.next_due().filter(|due| *due <= now)?;
        let Reverse((.., index)) = self.order.pop()?;
        self.free.push(index);
        self.packets[index].take()
    }

    pub(crate) fn recycle(&mut self, packet: Packet) {
        if self.buffers.len() < 4_096 {
            self.buffers.push(packet.bytes);
        }
    }

    /// Forgets all that is on the way.
    pub(crate) fn clear(&mut self) {
        *self = Self { count: self.count, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_when_due_and_in_order_where_due_at_once() {
        let mut held = Held::default();
        for (due, byte) in [(5, 1), (3, 2), (5, 3), (4, 4)] {
            assert!(held.push(due, 0, &[byte], None));
        }
        assert!(held.pop(2).is_none());
        let mut bytes = Vec::new();
        while let Some(packet) = held.pop(5) {
            bytes.push(packet.bytes[0]);
            held.recycle(packet);
        }
        assert_eq!(bytes, [2, 4, 1, 3]);
        assert_eq!(held.next_due(), None);
    }

    #[test]
    fn a_buffer_that_is_used_again_holds_nothing_of_the_packet_before() {
        let mut held = Held::default();
        held.push(1, 0, &[1; 100], None);
        let packet = held.pop(1).unwrap();
        held.recycle(packet);
        held.push(2, 1, &[2; 3], Some(Damage::Flip(0)));
        let packet = held.pop(2).unwrap();
        assert_eq!((packet.bytes.as_slice(), packet.to), ([3, 2, 2].as_slice(), 1));
    }
}
