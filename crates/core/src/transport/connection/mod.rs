//! One secured association with a peer: handshake, packets, recovery, paths, closing.
//!
//! A connection is driven by its [`Endpoint`](super::endpoint::Endpoint); applications reach it
//! through [`Endpoint::connection`](super::endpoint::Endpoint::connection).

use alloc::vec::Vec;
use core::net::SocketAddr;

use bytes::Bytes;

use crate::time::{Duration, Instant};

pub use seams::{Chunk, ClientTls, MessageId, PeerIdentity, SendError, ServerTls, TransportError};
pub use stats::{EcnState, Stats};

mod seams;

mod stats;

/// What a connection tells its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The handshake has authenticated the peer: its identity and incarnation are known and
    /// messages flow. Comes at most once.
    Connected,
    /// A message has come, or one that was blocked can be read on:
    /// [`Connection::accept_message`] and [`Connection::read`] until they have no more.
    MessagesReadable,
    /// An unreliable message came whole.
    Unreliable(Bytes),
    /// The peer holds every byte of this message of ours.
    MessageAcked(MessageId),
    /// The peer will not read this message on; what is left of it is not sent.
    MessageStopped(MessageId, u64),
    /// There is room again after [`SendError::Full`].
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
    /// [`Connection::close`] was called here.
    LocalClose,
}

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

/// One connection: the public face.
pub struct Connection {}

impl Connection {
    /// True once the peer is authenticated, until the connection closes.
    pub fn is_established(&self) -> bool {
        todo!()
    }

    /// Queues a message made of `head` and then `body`; neither is copied. May be called before the
    /// handshake is done: it goes out as soon as keys and window allow.
    pub fn send(&mut self, _head: Bytes, _body: Bytes) -> Result<MessageId, SendError> {
        todo!()
    }

    /// Gives a message of ours up: what is not sent yet never will be.
    pub fn reset(&mut self, _id: MessageId, _code: u64) {
        todo!()
    }

    /// True if every byte of the message has been in a packet at least once. If not, the peer
    /// cannot have acted on it, and after [`Connection::reset`] or the end of the connection it
    /// never will.
    pub fn ever_fully_sent(&self, _id: MessageId) -> bool {
        todo!()
    }

    /// Queues a message for one packet without retransmission. The oldest is dropped when the queue
    /// is full (`limits.unreliable_queue`).
    pub fn send_unreliable(&mut self, _data: Bytes) -> Result<(), UnreliableError> {
        todo!()
    }

    /// The next message that the peer has begun and nobody has accepted.
    pub fn accept_message(&mut self) -> Option<MessageId> {
        todo!()
    }

    /// The next bytes of a message of the peer, in order; taking them grants the peer more window.
    pub fn read(&mut self, _id: MessageId) -> Chunk {
        todo!()
    }

    /// Tells the peer that the message will not be read on; its bytes are dropped from here on.
    pub fn stop(&mut self, _id: MessageId, _code: u64) {
        todo!()
    }

    /// Ends the connection: what is queued is dropped, the peer is told. Does nothing once closed.
    pub fn close(&mut self, _now: Instant, _code: u64, _reason: Bytes) {
        todo!()
    }

    /// Something new hangs on this connection (a call): if it waits in a backed-off probe timeout,
    /// probe now instead.
    pub fn probe(&mut self, _now: Instant) {
        todo!()
    }

    /// Whether to keep the connection alive while nothing is sent. Off at first.
    pub fn keep_alive(&mut self, _on: bool) {
        todo!()
    }

    /// Counters and estimates, for people and tests.
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// The estimate of the round-trip time of the present path.
    pub fn rtt(&self) -> Duration {
        todo!()
    }

    /// Who the peer proved to be; `None` before the handshake is done and for an anonymous client.
    pub fn peer_identity(&self) -> Option<&PeerIdentity> {
        todo!()
    }

    /// The server's incarnation as its authenticated transport parameters say; `None` before the
    /// handshake is done and on the server's side.
    pub fn peer_incarnation(&self) -> Option<u64> {
        todo!()
    }

    /// The peer's present address. It changes when the peer migrates.
    pub fn remote_address(&self) -> SocketAddr {
        todo!()
    }

    /// The largest unreliable message that fits now, in bytes; `None` if the peer takes none or is
    /// not known yet.
    pub fn max_unreliable(&self) -> Option<usize> {
        todo!()
    }
}
