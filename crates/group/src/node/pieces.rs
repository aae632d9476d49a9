//! Packets that are too large for one message, snapshots above all, in pieces.

use std::collections::BTreeMap;

use bytes::Bytes;
use stubborn_core::wire::Reader;

/// Bytes of a piece.
pub(super) const PIECE: usize = 128 << 10;

/// Pieces under way at once.
const WINDOW: usize = 8;

/// Pieces of one packet that may be lost before it is given up.
const PATIENCE: usize = 64;

/// A piece on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which packet.
    pub(super) of: u64,
    /// Where in it.
    pub(super) at: u64,
    /// The packet's size.
    pub(super) total: u64,
    pub(super) bytes: Bytes,
}

impl Piece {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.of, self.at, self.total] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.extend_from_slice(&self.bytes);
    }

    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut number = || reader.array().map(u64::from_be_bytes).ok();
        let (of, at, total) = (number()?, number()?, number()?);
        let bytes = bytes.slice_ref(reader.rest());
        let end = at.checked_add(bytes.len() as u64)?;
        (!bytes.is_empty() && end <= total).then_some(Self { of, at, total, bytes })
    }
}

/// A packet on its way to a peer.
#[derive(Debug)]
pub(super) struct Departure {
    number: u64,
    packet: Bytes,
    /// What was not sent yet begins here.
    next: usize,
    /// Pieces that were lost.
    again: Vec<usize>,
    under_way: usize,
    lost: usize,
}

impl Departure {
    pub(super) fn new(number: u64, packet: Bytes) -> Self {
        Self { number, packet, next: 0, again: Vec::new(), under_way: 0, lost: 0 }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next piece, if one may be sent now.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if self.under_way >= WINDOW {
            return None;
        }
        let at = match self.again.pop() {
            Some(at) => at,
            None if self.next < self.packet.len() => {
                self.next += PIECE;
                self.next - PIECE
            }
            None => return None,
        };
        self.under_way += 1;
        let end = self.packet.len().min(at + PIECE);
        let (at64, total) = (at as u64, self.packet.len() as u64);
        Some(Piece { of: self.number, at: at64, total, bytes: self.packet.slice(at..end) })
    }

    /// A piece has arrived, or is lost.
    pub(super) fn ended(&mut self, at: u64, arrived: bool) {
        self.under_way -= 1;
        if !arrived {
            self.lost += 1;
            self.again.push(at as usize);
        }
    }

    /// Whether nothing is left to be done: all has arrived, or too much was lost.
    pub(super) fn is_over(&self) -> bool {
        let arrived = self.next >= self.packet.len() && self.again.is_empty();
        self.lost > PATIENCE || arrived && self.under_way == 0
    }
}

/// A packet that is being put together.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    of: u64,
    total: u64,
    whole: Vec<u8>,
    /// Pieces that came too early. Their number is bounded, as they are counted against the limit.
    early: BTreeMap<u64, Bytes>,
    early_bytes: u64,
}

impl Arrival {
    /// Takes a piece; returns the packet when it is whole. A packet of more than `limit` bytes is
    /// none. A peer puts one packet together at a time: the latest that it began.
    pub(super) fn take(&mut self, piece: Piece, limit: u64) -> Option<Bytes> {
        if piece.total > limit {
            return None;
        }
        if (piece.of, piece.total) != (self.of, self.total) {
            *self = Self { of: piece.of, total: piece.total, ..Self::default() };
        }
        let have = self.whole.len() as u64;
        if piece.at > have {
            if self.early_bytes + piece.bytes.len() as u64 <= (WINDOW * PIECE) as u64 * 2 {
                self.early_bytes += piece.bytes.len() as u64;
                if let Some(old) = self.early.insert(piece.at, piece.bytes) {
                    self.early_bytes -= old.len() as u64;
                }
            }
            return None;
        }
        self.append(piece.at, &piece.bytes);
        while let Some(first) = self.early.first_entry() {
            if *first.key() > self.whole.len() as u64 {
                break;
            }
            let (at, bytes) = first.remove_entry();
            self.early_bytes -= bytes.len() as u64;
            self.append(at, &bytes);
        }
        (self.whole.len() as u64 == self.total).then(|| std::mem::take(&mut self.whole).into())
    }

    fn append(&mut self, at: u64, bytes: &[u8]) {
        let known = (self.whole.len() as u64 - at) as usize;
        if let Some(new) = bytes.get(known..) {
            self.whole.extend_from_slice(new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(bytes: usize) -> Bytes {
        (0..bytes).map(|at| at as u8).collect()
    }

    #[test]
    fn a_packet_arrives_whole_though_pieces_are_lost_doubled_and_overtaken() {
        let sent = packet(PIECE * 11 + 5);
        let (mut departure, mut arrival) = (Departure::new(3, sent.clone()), Arrival::default());
        let mut whole = None;
        let mut turn = 0;
        while !departure.is_over() {
            let mut flight = Vec::new();
            while let Some(piece) = departure.next() {
                flight.push(piece);
            }
            flight.reverse();
            for piece in flight {
                turn += 1;
                let lost = turn % 3 == 0;
                departure.ended(piece.at, !lost);
                if !lost {
                    let mut bytes = Vec::new();
                    piece.encode(&mut bytes);
                    let piece = Piece::decode(&bytes.into()).unwrap();
                    arrival.take(piece.clone(), u64::MAX);
                    whole = whole.or(arrival.take(piece, u64::MAX));
                }
            }
        }
        assert!(departure.lost > 0);
        // Doubled pieces of a packet that was whole begin it anew, and end nowhere.
        assert!(whole.is_none_or(|whole| whole == sent));
    }

    #[test]
    fn a_packet_above_the_limit_is_none_and_one_that_is_lost_again_and_again_is_given_up() {
        let mut departure = Departure::new(1, packet(PIECE + 1));
        let piece = departure.next().unwrap();
        assert!(Arrival::default().take(piece, PIECE as u64).is_none());
        departure.ended(0, false);
        for _ in 0..PATIENCE {
            let piece = departure.next().unwrap();
            departure.ended(piece.at, false);
        }
        assert!(departure.is_over());
    }

    #[test]
    fn pieces_that_do_not_fit_their_packet_are_refused() {
        let good = Piece { of: 1, at: 0, total: 3, bytes: packet(3) };
        let bad = [
            Piece { at: 1, ..good.clone() },
            Piece { at: u64::MAX, ..good.clone() },
            Piece { bytes: Bytes::new(), ..good.clone() },
        ];
        for piece in bad {
            let mut bytes = Vec::new();
            piece.encode(&mut bytes);
            assert_eq!(Piece::decode(&bytes.into()), None);
        }
    }
}
