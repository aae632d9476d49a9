//! Stand-ins for types of the parts beside this one, replaced as those land.

use alloc::borrow::Cow;

use bytes::Bytes;

/// Names a message of one direction of a connection; ids count up from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// As much as `limits.send_window` allows is queued.
    Full,
    /// Larger than a message may be.
    TooLarge,
    /// The connection is over.
    Closed,
}

/// What reading a message gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// The next bytes; `end` if they are the last ones.
    Data {
        /// The bytes.
        data: Bytes,
        /// Whether the message ends with them.
        end: bool,
    },
    /// Nothing more yet.
    Blocked,
    /// The sender gave the message up.
    Reset(u64),
}

/// The peer's proven identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity;

/// An error of the transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportError {
    /// RFC 9000 section 20.1.
    pub code: u64,
    /// The frame type that was at fault.
    pub frame: Option<u64>,
    /// For people.
    pub reason: Cow<'static, str>,
}

/// TLS for clients.
pub trait ClientTls: Send + Sync {}

/// TLS for servers.
pub trait ServerTls: Send + Sync {}
