//! One packet number space (RFC 9000 §12.3).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut, Range};

use stubborn_rope::ahead::read_ahead;

use super::super::ack::{AckSent, ReceivedPackets};
use super::super::crypto::Keys;
use super::super::loss::SentPackets;
use super::super::message::SentFrame;
use super::Space;
use super::crypto_stream::{CryptoIn, CryptoOut};
use crate::time::Instant;

/// What a packet carried, kept until it is acknowledged or lost.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) ack: Option<AckSent>,
    pub(super) messages: Vec<SentFrame>,
    /// All of `messages` that is worth it has been sent a second time.
    pub(super) copied: bool,
    /// Empty in nearly every packet, and then takes no memory.
    pub(super) control: Vec<Control>,
}

impl Contents {
    /// True if something is to be sent again when the packet is lost.
    pub(super) fn must_arrive(&self) -> bool {
        !self.control.is_empty()
            || self.messages.iter().any(|frame| !matches!(frame, SentFrame::Copy { .. }))
    }
}

/// A frame that the connection itself has to send again when it is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Control {
    Crypto(Range<u64>),
    HandshakeDone,
    NewConnectionId(u64),
    RetireConnectionId(u64),
}

/// One packet number space: keys, handshake bytes, what came and what was sent.
pub(super) struct PacketSpace {
    /// Of Initial and Handshake; those of Data are in `DataKeys`.
    pub(super) keys: Option<Box<Keys>>,
    pub(super) crypto_out: CryptoOut,
    pub(super) crypto_in: CryptoIn,
    pub(super) received: ReceivedPackets,
    pub(super) sent: SentPackets<Contents>,
    /// A PING is to be sent.
    pub(super) ping: bool,
}

impl PacketSpace {
    pub(super) const fn new() -> Self {
        Self {
            keys: None,
            crypto_out: CryptoOut::new(),
            crypto_in: CryptoIn::new(),
            received: ReceivedPackets::new(),
            sent: SentPackets::new(),
            ping: false,
        }
    }

    /// Gives back room that nothing is in.
    pub(super) fn shrink(&mut self) {
        self.received.shrink();
        self.sent.shrink();
    }
}

/// The three packet number spaces, by [`Space::index`]. Those of the handshake take no memory once it
/// is over: from then on they look as if nothing had ever happened in them.
pub(super) struct Spaces {
    handshake: Option<Box<[PacketSpace; 2]>>,
    data: PacketSpace,
}

static UNUSED: PacketSpace = PacketSpace::new();

impl Spaces {
    pub(super) fn new() -> Self {
        Self { handshake: None, data: PacketSpace::new() }
    }

    #[cold]
    fn handshake_mut(&mut self, index: usize) -> &mut PacketSpace {
        let new = || Box::new([PacketSpace::new(), PacketSpace::new()]);
        &mut self.handshake.get_or_insert_with(new)[index]
    }

    /// True once the spaces of the handshake are forgotten, and only packets of Data matter.
    #[inline]
    pub(super) fn is_data_only(&self) -> bool {
        self.handshake.is_none()
    }

    /// Forgets the spaces of the handshake.
    pub(super) fn end_handshake(&mut self) {
        self.handshake = None;
    }

    /// Bytes that count against the congestion window.
    #[inline]
    pub(super) fn bytes_in_flight(&self) -> u64 {
        let handshake = self
            .handshake
            .as_ref()
            .map_or(0, |both| both.iter().map(|s| s.sent.bytes_in_flight()).sum());
        handshake + self.data.sent.bytes_in_flight()
    }

    /// When the first packet is lost because of time alone.
    #[inline]
    pub(super) fn loss_time(&self) -> Option<Instant> {
        match &self.handshake {
            None => self.data.sent.loss_time(),
            Some(_) => self.iter().filter_map(|s| s.sent.loss_time()).min(),
        }
    }

    /// True if the table of sent packets of one of them is full.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.data.sent.is_full()
            || self.handshake.as_ref().is_some_and(|both| both.iter().any(|s| s.sent.is_full()))
    }

    /// Begins to read what packets of Data point to.
    pub(super) fn read_ahead(&self) {
        self.data.sent.read_ahead();
        self.data.received.read_ahead();
    }

    /// Begins to read what lies behind that.
    pub(super) fn read_further_ahead(&self) {
        if let Some(contents) = self.data.sent.oldest_contents() {
            read_ahead(&contents.messages[..]);
        }
    }

    /// Those that take memory.
    pub(super) fn iter(&self) -> impl Iterator<Item = &PacketSpace> {
        self.handshake.iter().flat_map(|both| both.iter()).chain([&self.data])
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut PacketSpace> {
        self.handshake.iter_mut().flat_map(|both| both.iter_mut()).chain([&mut self.data])
    }
}

impl Index<usize> for Spaces {
    type Output = PacketSpace;

    #[inline]
    fn index(&self, index: usize) -> &PacketSpace {
        match &self.handshake {
            _ if index == Space::Data.index() => &self.data,
            Some(both) => &both[index],
            None => &UNUSED,
        }
    }
}

impl IndexMut<usize> for Spaces {
    #[inline]
    fn index_mut(&mut self, index: usize) -> &mut PacketSpace {
        if index == Space::Data.index() {
            return &mut self.data;
        }
        self.handshake_mut(index)
    }
}
