//! Bytes: how packets, frames and transport parameters look on the wire.
//!
//! Nothing here has state. Decoders take what came from the network: they never panic, never allocate
//! by a number that a peer wrote, and borrow instead of copying. Encoders take what this program
//! made: a value that cannot be encoded is a bug and panics.

pub mod connection_id;
pub mod fields;
pub mod frame;
pub mod packet;
pub mod params;
pub mod protection;
pub mod varint;

pub use connection_id::ConnectionId;

/// The protocol version in long headers: "STR", 1.
pub const VERSION: u32 = 0x5354_5201;

/// One of the two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The end that connects.
    Client,
    /// The end that accepts.
    Server,
}

impl Side {
    /// True for [`Side::Client`].
    pub const fn is_client(self) -> bool {
        matches!(self, Self::Client)
    }

    /// True for [`Side::Server`].
    pub const fn is_server(self) -> bool {
        matches!(self, Self::Server)
    }

    /// The other end.
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// A packet number space (RFC 9000 §12.3): packet numbers, acknowledgements and CRYPTO offsets count
/// separately in each. 0-RTT and 1-RTT packets share [`Space::Data`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Initial packets: keys that anybody can derive.
    Initial,
    /// Handshake packets.
    Handshake,
    /// 0-RTT and 1-RTT packets.
    Data,
}

impl Space {
    /// All spaces, in the order in which a connection uses them.
    pub const ALL: [Self; 3] = [Self::Initial, Self::Handshake, Self::Data];

    /// The position in [`Space::ALL`], for tables with one entry per space.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// What kind of protected packet frames stand in (RFC 9000 §17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PacketType {
    /// Starts a connection.
    Initial,
    /// Carries what a resuming client sends before the server has answered.
    ZeroRtt,
    /// Carries the rest of the handshake.
    Handshake,
    /// Carries everything after the handshake; the only one with a short header.
    OneRtt,
}

impl PacketType {
    /// The packet number space that the packet belongs to.
    pub const fn space(self) -> Space {
        match self {
            Self::Initial => Space::Initial,
            Self::Handshake => Space::Handshake,
            Self::ZeroRtt | Self::OneRtt => Space::Data,
        }
    }

    /// True for all but 1-RTT packets.
    pub const fn has_long_header(self) -> bool {
        !matches!(self, Self::OneRtt)
    }
}

/// The value ended too early, or is not a legal encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("malformed bytes")
    }
}

impl core::error::Error for Malformed {}

/// Takes values off the front of a byte slice.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A reader of all of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.0.len()
    }

    /// True when everything has been read.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte, which stays.
    pub fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Skips a byte, if there is one.
    pub fn skip_one(&mut self) {
        self.0 = self.0.get(1..).unwrap_or_default();
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    /// Four bytes, big-endian.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// A varint (RFC 9000 §16).
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let (value, rest) = varint::decode(self.0).ok_or(Malformed)?;
        self.0 = rest;
        Ok(value)
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A varint length, then so many bytes.
    pub fn length_prefixed(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.varint()?;
        self.bytes(length)
    }

    /// Skips the zero bytes that come next and returns how many they were.
    pub fn skip_zeros(&mut self) -> usize {
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        self.0 = &self.0[zeros..];
        zeros
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
}
