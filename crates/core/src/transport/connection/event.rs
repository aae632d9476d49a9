//! What a connection tells its user.

use alloc::vec::Vec;

use bytes::Bytes;

use super::super::error::TransportError;
use super::super::send::MessageId;

/// What a connection tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The handshake has authenticated the peer: its identity and incarnation are known and
    /// messages flow. Comes at most once.
    Connected,
    /// A message has come, or one that was blocked can be read on:
    /// [`Connection::accept_message`](super::Connection::accept_message) and
    /// [`Connection::read`](super::Connection::read) until they have no more.
    MessagesReadable,
    /// An unreliable message came whole.
    Unreliable(Bytes),
    /// The peer holds every byte of this message of ours, and
    /// [`Connection::tell_acked`](super::Connection::tell_acked) asked to hear of it.
    MessageAcked(MessageId),
    /// The peer will not read this message on, for the reason that its code gives; what is left of
    /// it is not sent.
    MessageStopped(MessageId, u64),
    /// There is room again after [`SendError::Full`](super::SendError::Full).
    Writable,
    /// The connection is over. Always the last event, and always comes.
    Lost(ConnectionError),
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// This side found the peer to break the protocol, or TLS failed here.
    Transport(TransportError),
    /// The peer's transport closed: it found us to break the protocol, or TLS failed there.
    PeerTransport(TransportError),
    /// The peer's application closed.
    PeerClosed {
        /// The application's code.
        code: u64,
        /// The application's words, at most what fits a packet.
        reason: Bytes,
    },
    /// A stateless reset: the server has lost its state of this connection (RFC 9000 §10.3).
    Reset,
    /// Nothing came for the idle timeout (RFC 9000 §10.1).
    IdleTimeout,
    /// The server speaks none of our versions; these are the ones it names.
    VersionNegotiation(Vec<u32>),
    /// The server is too busy for another connection.
    Refused,
    /// [`Connection::close`](super::Connection::close) was called here.
    LocalClose,
}

impl core::fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Transport(error) => write!(f, "closed here: {error}"),
            Self::PeerTransport(error) => write!(f, "closed by the peer: {error}"),
            Self::PeerClosed { code, reason } => {
                write!(f, "closed by the peer's application with code {code}")?;
                match core::str::from_utf8(reason) {
                    Ok(text) if !text.is_empty() => write!(f, ": {text}"),
                    _ => Ok(()),
                }
            }
            Self::Reset => f.write_str("the peer has lost its state of the connection"),
            Self::IdleTimeout => f.write_str("nothing came from the peer for the idle timeout"),
            Self::VersionNegotiation(versions) => {
                write!(f, "no common protocol version; the peer speaks {versions:#010x?}")
            }
            Self::Refused => f.write_str("the server takes no more connections now"),
            Self::LocalClose => f.write_str("closed here"),
        }
    }
}

impl core::error::Error for ConnectionError {}

/// Why an unreliable message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreliableError {
    /// It does not fit one packet of this path; the value is what fits now, in bytes.
    TooLarge(usize),
    /// The peer does not take unreliable messages.
    Unsupported,
    /// The connection is not established yet, or is closing.
    NotConnected,
}

impl core::fmt::Display for UnreliableError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLarge(max) => write!(f, "at most {max} bytes fit one packet"),
            Self::Unsupported => f.write_str("the peer takes no unreliable messages"),
            Self::NotConnected => f.write_str("not connected"),
        }
    }
}

impl core::error::Error for UnreliableError {}
