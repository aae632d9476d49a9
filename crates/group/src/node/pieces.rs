//! Packets that are too large for one message, and states of snapshots, in pieces. Of a state neither
//! side holds more than some of them.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use stubborn_core::service::{Image, Pieces};
use stubborn_core::wire::Reader;

/// Pieces at a sender that have not arrived, at most.
const WINDOW: usize = 8;

/// Pieces that are lost one after another before what they are of is given up.
const PATIENCE: usize = 64;

/// Bytes of the packet that begins a snapshot, at most.
const MAX_HEAD: usize = 64 << 10;

/// The largest packet that is put together from pieces: an entry has at most what a replica holds for
/// its clients.
pub(super) const MAX_PACKET: u64 = 256 << 20;

/// The largest state.
pub(super) const MAX_STATE: u64 = 64 << 30;

/// A piece on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Of what: a number that its sender gives to nothing else, not after a restart either.
    pub(super) of: u64,
    /// Where in it.
    pub(super) at: u64,
    pub(super) is_last: bool,
    /// Of a snapshot: a packet behind its length (4 bytes), then the state.
    pub(super) is_state: bool,
    pub(super) bytes: Bytes,
}

const LAST: u8 = 1;
const STATE: u8 = 2;

impl Piece {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.of, self.at] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        out.push(if self.is_last { LAST } else { 0 } | if self.is_state { STATE } else { 0 });
        out.extend_from_slice(&self.bytes);
    }

    pub(super) fn decode(bytes: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let mut number = || reader.array().map(u64::from_be_bytes).ok();
        let (of, at) = (number()?, number()?);
        let flags = reader.u8().ok().filter(|flags| *flags <= LAST | STATE)?;
        let (is_last, is_state) = (flags & LAST != 0, flags & STATE != 0);
        let bytes = bytes.slice_ref(reader.rest());
        let end = at.checked_add(bytes.len() as u64)?;
        let most = if is_state { MAX_STATE } else { MAX_PACKET };
        let sound = end <= most && (is_last || !bytes.is_empty());
        sound.then_some(Self { of, at, is_last, is_state, bytes })
    }
}

/// Something on its way to a peer.
pub(super) struct Departure {
    number: u64,
    is_state: bool,
    /// Bytes of a piece.
    size: usize,
    /// What was not cut into pieces yet.
    rest: Pieces,
    /// What was taken from it last.
    front: Bytes,
    /// Where the next piece begins.
    next: u64,
    ended: bool,
    /// Pieces that have not arrived.
    pieces: BTreeMap<u64, Piece>,
    /// Those of them that were lost.
    again: Vec<u64>,
    lost: usize,
    failed: bool,
}

impl Departure {
    /// A packet.
    pub(super) fn packet(number: u64, size: usize, packet: Bytes) -> Self {
        Self::new(number, size, false, Box::new(std::iter::once(Ok(packet))))
    }

    /// A packet that begins a snapshot, and its state.
    pub(super) fn state(number: u64, size: usize, packet: &Bytes, state: &Image) -> Self {
        let head = [&(packet.len() as u32).to_be_bytes(), &packet[..]].concat();
        let pieces = std::iter::once(Ok(head.into())).chain(state.pieces());
        Self::new(number, size, true, Box::new(pieces))
    }

    fn new(number: u64, size: usize, is_state: bool, rest: Pieces) -> Self {
        Self {
            number,
            is_state,
            size,
            rest,
            front: Bytes::new(),
            next: 0,
            ended: false,
            pieces: BTreeMap::new(),
            again: Vec::new(),
            lost: 0,
            failed: false,
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next piece, if one may be sent now.
    pub(super) fn next(&mut self) -> Option<Piece> {
        if let Some(at) = self.again.pop() {
            return self.pieces.get(&at).cloned();
        }
        if self.ended || self.failed || self.pieces.len() >= WINDOW {
            return None;
        }
        let bytes = self.cut()?;
        let (of, at, is_last, is_state) = (self.number, self.next, self.ended, self.is_state);
        let piece = Piece { of, at, is_last, is_state, bytes };
        self.next += piece.bytes.len() as u64;
        self.pieces.insert(piece.at, piece.clone());
        Some(piece)
    }

    /// As many bytes as a piece has, or those that are left.
    fn cut(&mut self) -> Option<Bytes> {
        let mut bytes = Vec::with_capacity(self.size);
        while bytes.len() < self.size {
            if self.front.is_empty() {
                match self.rest.next() {
                    Some(Ok(front)) => self.front = front,
                    Some(Err(_)) => {
                        self.failed = true;
                        return None;
                    }
                    None => {
                        self.ended = true;
                        break;
                    }
                }
            }
            let room = self.size - bytes.len();
            bytes.extend_from_slice(&self.front.split_to(room.min(self.front.len())));
        }
        Some(bytes.into())
    }

    /// A piece has arrived, or is lost.
    pub(super) fn ended(&mut self, at: u64, arrived: bool) {
        if arrived {
            self.pieces.remove(&at);
            self.lost = 0;
        } else {
            self.lost += 1;
            self.again.push(at);
        }
    }

    /// Whether nothing is left to be done: all has arrived, or it is given up.
    pub(super) fn is_over(&self) -> bool {
        self.failed || self.lost > PATIENCE || self.ended && self.pieces.is_empty()
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Departure({}, {} B)", self.number, self.next)
    }
}

/// What has come of what a peer sends in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// A whole packet.
    Packet(Bytes),
    /// A packet with which a snapshot begins.
    Begun(Bytes),
    /// The next bytes of its state.
    State(Bytes),
    /// The state has ended.
    Ended,
}

/// What comes from a peer in pieces: one thing at a time, the latest that it began.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    of: u64,
    /// Bytes that have come without a gap.
    have: u64,
    /// A packet as far as it is there; of a snapshot the one that begins it.
    packet: Vec<u8>,
    begun: bool,
    over: bool,
    /// Pieces that came too early, within a bound.
    early: BTreeMap<u64, Piece>,
}

impl Arrival {
    /// Takes a piece, and returns what has come by it.
    pub(super) fn take(&mut self, piece: Piece) -> Vec<Arrived> {
        if piece.of != self.of {
            *self = Self { of: piece.of, ..Self::default() };
        }
        let mut arrived = Vec::new();
        if piece.at > self.have {
            if self.early.len() < WINDOW * 2 {
                self.early.insert(piece.at, piece);
            }
            return arrived;
        }
        self.append(piece, &mut arrived);
        while let Some(first) = self.early.first_entry() {
            if *first.key() > self.have {
                break;
            }
            let piece = first.remove();
            self.append(piece, &mut arrived);
        }
        arrived
    }

    fn append(&mut self, piece: Piece, arrived: &mut Vec<Arrived>) {
        let known = (self.have - piece.at).min(piece.bytes.len() as u64) as usize;
        let ends_here = piece.at + piece.bytes.len() as u64 >= self.have;
        if self.over || !ends_here {
            return;
        }
        let new = piece.bytes.slice(known..);
        self.have += new.len() as u64;
        self.over = piece.is_last;
        if piece.is_state {
            self.state(new, arrived);
            if self.over && self.begun {
                arrived.push(Arrived::Ended);
            }
            return;
        }
        self.packet.extend_from_slice(&new);
        if self.over {
            arrived.push(Arrived::Packet(std::mem::take(&mut self.packet).into()));
        }
    }

    /// Bytes of a snapshot.
    fn state(&mut self, mut bytes: Bytes, arrived: &mut Vec<Arrived>) {
        if !self.begun {
            bytes = self.head(bytes, 4);
            let Some(length) = self.packet.first_chunk() else { return };
            let length = u32::from_be_bytes(*length) as usize;
            if length > MAX_HEAD {
                self.over = true;
                return;
            }
            bytes = self.head(bytes, 4 + length);
            if self.packet.len() < 4 + length {
                return;
            }
            self.begun = true;
            let packet = std::mem::take(&mut self.packet);
            arrived.push(Arrived::Begun(Bytes::from(packet).slice(4..)));
        }
        if !bytes.is_empty() {
            arrived.push(Arrived::State(bytes));
        }
    }

    /// Fills the head up to this size, and returns what is left.
    fn head(&mut self, mut bytes: Bytes, size: usize) -> Bytes {
        let missing = size.saturating_sub(self.packet.len()).min(bytes.len());
        self.packet.extend_from_slice(&bytes.split_to(missing));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::RestoreError;

    use super::*;

    const SIZE: usize = 1_000;

    fn bytes(count: usize) -> Bytes {
        (0..count).map(|at| (at * 7) as u8).collect()
    }

    /// Sends it over a line that loses, doubles and reorders; the most bytes that were under way.
    fn carry(departure: &mut Departure, arrival: &mut Arrival) -> (Vec<Arrived>, usize) {
        let (mut arrived, mut turn, mut most) = (Vec::new(), 0, 0);
        while !departure.is_over() {
            let mut flight: Vec<Piece> = std::iter::from_fn(|| departure.next()).collect();
            flight.reverse();
            most = most.max(departure.pieces.values().map(|piece| piece.bytes.len()).sum());
            for piece in flight {
                turn += 1;
                let lost = turn % 3 == 0;
                departure.ended(piece.at, !lost);
                if !lost {
                    let mut bytes = Vec::new();
                    piece.encode(&mut bytes);
                    let piece = Piece::decode(&bytes.into()).unwrap();
                    arrived.extend(arrival.take(piece.clone()));
                    arrived.extend(arrival.take(piece));
                }
            }
        }
        (arrived, most)
    }

    #[test]
    fn a_packet_arrives_whole_and_once_though_pieces_are_lost_doubled_and_overtaken() {
        let mut arrival = Arrival::default();
        for (number, size) in [(1, SIZE * 11 + 5), (2, SIZE * 3), (3, 1)] {
            let packet = bytes(size);
            let mut departure = Departure::packet(number, SIZE, packet.clone());
            let (arrived, _) = carry(&mut departure, &mut arrival);
            assert_eq!(arrived, [Arrived::Packet(packet)], "{size}");
        }
    }

    #[test]
    fn a_state_arrives_in_order_and_is_held_nowhere() {
        let parts: Vec<Bytes> = (1..400).map(|size| bytes(size * 3)).collect();
        let state = parts.concat();
        let mut departure =
            Departure::state(7, SIZE, &bytes(2_500), &Image::in_pieces(parts.into_iter()));
        let mut arrival = Arrival::default();
        let (arrived, most) = carry(&mut departure, &mut arrival);
        assert!(most <= WINDOW * SIZE, "{most}");
        assert_eq!(arrived[0], Arrived::Begun(bytes(2_500)));
        assert_eq!(arrived.last(), Some(&Arrived::Ended));
        let mut got = Vec::new();
        for part in &arrived[1..arrived.len() - 1] {
            let Arrived::State(part) = part else { panic!("{part:?}") };
            assert!(part.len() <= SIZE);
            got.extend_from_slice(part);
        }
        assert!(got == state);
    }

    #[test]
    fn a_state_that_cannot_be_read_or_is_lost_again_and_again_is_given_up() {
        let broken = Image::read_by(|| Box::new(std::iter::once(Err(RestoreError::new("torn")))));
        let mut departure = Departure::state(1, SIZE, &bytes(10), &broken);
        assert!(departure.next().is_none() && departure.is_over());
        let mut departure = Departure::packet(1, SIZE, bytes(SIZE + 1));
        for _ in 0..=PATIENCE {
            let piece = departure.next().unwrap();
            assert!(!departure.is_over());
            departure.ended(piece.at, false);
        }
        assert!(departure.is_over());
    }

    #[test]
    fn pieces_that_cannot_be_are_refused_and_a_long_head_is_not_waited_for() {
        let good = Piece { of: 1, at: 0, is_last: false, is_state: false, bytes: bytes(3) };
        let bad = [
            Piece { at: u64::MAX, ..good.clone() },
            Piece { at: MAX_PACKET, ..good.clone() },
            Piece { bytes: Bytes::new(), ..good.clone() },
        ];
        for piece in bad {
            let mut bytes = Vec::new();
            piece.encode(&mut bytes);
            assert_eq!(Piece::decode(&bytes.into()), None);
        }
        let bytes = Bytes::from_static(&[0xff; 8]);
        let mut arrival = Arrival::default();
        assert_eq!(arrival.take(Piece { is_state: true, bytes, ..good }), []);
        assert!(arrival.over);
    }

    #[test]
    fn what_comes_too_early_is_held_within_a_bound() {
        let mut arrival = Arrival::default();
        for at in 1..1_000 {
            let at = at * SIZE as u64;
            let piece = Piece { of: 1, at, is_last: false, is_state: true, bytes: bytes(SIZE) };
            assert_eq!(arrival.take(piece), []);
        }
        assert_eq!(arrival.early.len(), WINDOW * 2);
    }
}
