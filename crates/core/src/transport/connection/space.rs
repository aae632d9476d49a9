//! One packet number space (RFC 9000 §12.3).

use alloc::vec::Vec;
use core::ops::Range;

use super::super::ack::{AckSent, ReceivedPackets};
use super::super::crypto::Keys;
use super::super::loss::SentPackets;
use super::super::message::SentFrame;
use super::crypto_stream::{CryptoIn, CryptoOut};

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
    pub(super) keys: Option<Keys>,
    pub(super) crypto_out: CryptoOut,
    pub(super) crypto_in: CryptoIn,
    pub(super) received: ReceivedPackets,
    pub(super) sent: SentPackets<Contents>,
    /// A PING is to be sent.
    pub(super) ping: bool,
}

impl PacketSpace {
    pub(super) fn new() -> Self {
        Self {
            keys: None,
            crypto_out: CryptoOut::default(),
            crypto_in: CryptoIn::default(),
            received: ReceivedPackets::new(),
            sent: SentPackets::new(),
            ping: false,
        }
    }

    /// Gives back room that nothing is in.
    pub(super) fn shrink(&mut self) {
        self.crypto_out.shrink();
        self.crypto_in.shrink();
        self.received.shrink();
        self.sent.shrink();
    }
}
