//! All connections of one socket: finding the connection of a datagram, accepting new ones, and
//! answering what belongs to none.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use bytes::BytesMut;

use super::connection::{ClientTls, Connection, ConnectionEvent, ServerTls, TransportError};
use crate::limits::Limits;
use crate::random::Random;
use crate::time::{Duration, Instant};

/// Names one connection of an [`Endpoint`]. Never reused for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionHandle {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// The ECN field of an IP header (RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ecn {
    /// Not ECN-capable.
    #[default]
    NotEct,
    /// ECN-capable, codepoint 1.
    Ect1,
    /// ECN-capable, codepoint 0: what we send.
    Ect0,
    /// Congestion experienced.
    Ce,
}

/// A datagram that came in.
#[derive(Debug)]
pub struct Received {
    /// The sender's address.
    pub from: SocketAddr,
    /// The local address that it was sent to, if known.
    pub local: Option<IpAddr>,
    /// The ECN field.
    pub ecn: Ecn,
    /// The UDP payload.
    pub data: BytesMut,
}

/// What to do with the bytes that [`Endpoint::poll_transmit`] appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    /// Which local address from; `None`: as the system chooses.
    pub from: Option<IpAddr>,
    /// The ECN field to set.
    pub ecn: Ecn,
    /// Bytes appended in all.
    pub size: usize,
    /// If set, `size` is several datagrams of this size each, the last perhaps shorter (GSO).
    pub segment: Option<usize>,
}

/// What an [`Endpoint`] is made with.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Bounds.
    pub limits: Limits,
    /// The worker that owns this endpoint's connections: the first byte of its connection ids.
    pub worker: u8,
    /// A connection without a sign of life for this long is lost; the peer may ask for less. Zero:
    /// never. At least three probe timeouts.
    pub idle_timeout: Duration,
    /// Time of silence after which a connection that is asked to keep alive sends a probe
    /// (RFC 8085 §3.5: at least 15 s unless there is a reason).
    pub keepalive: Duration,
    /// The largest UDP payload that the receive path takes: what the peer may probe up to.
    pub max_udp_payload: usize,
    /// The largest UDP payload that we try to send.
    pub max_probe: usize,
    /// Versions spoken, the preferred one first. Not empty.
    pub versions: Vec<u32>,
    /// Datagrams in one [`Transmit`] at most (1 turns GSO off).
    pub max_segments: usize,
    /// How long a Retry token is good for.
    pub retry_token_lifetime: Duration,
    /// Answer every new client with Retry, whatever the load.
    pub always_retry: bool,
    /// Whether to mark packets as ECN-capable.
    pub ecn: bool,
    /// Packets sealed with one key before it is updated, at most; the AEAD's own limit still holds.
    pub key_update_after: u64,
}

/// Why a connection could not be begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectError {
    /// `limits.connections` is reached.
    TooMany,
    /// The address cannot be sent to (port 0, unspecified or multicast address).
    InvalidAddress,
    /// TLS refused to start, for example since the name is not a valid one.
    Tls(TransportError),
}

/// The connections of one socket.
///
/// # Driving contract
/// Mutate ([`handle`](Self::handle), [`handle_timeout`](Self::handle_timeout),
/// [`connect`](Self::connect), [`connection_mut`](Self::connection_mut)), then call
/// [`poll_transmit`](Self::poll_transmit) and [`poll_event`](Self::poll_event) until both give
/// `None`, then sleep until input comes or [`poll_timeout`](Self::poll_timeout) is due.
pub struct Endpoint {}

impl Endpoint {
    /// An endpoint; with `server` it also accepts connections, and `incarnation` goes into the
    /// server's transport parameters.
    pub fn new(
        _config: EndpointConfig,
        _server: Option<Arc<dyn ServerTls>>,
        _random: Random,
        _incarnation: Option<u64>,
    ) -> Self {
        todo!()
    }

    /// Begins a connection. `remembered` is the round-trip time that an earlier connection to this
    /// address saw; it seeds the estimator (RFC 9002 §6.2.2).
    pub fn connect(
        &mut self,
        _now: Instant,
        _remote: SocketAddr,
        _server_name: &str,
        _tls: &Arc<dyn ClientTls>,
        _remembered: Option<Duration>,
    ) -> Result<ConnectionHandle, ConnectError> {
        todo!()
    }

    /// Takes in a datagram.
    pub fn handle(&mut self, _now: Instant, _datagram: Received) {
        todo!()
    }

    /// Lets every timer that is due at `now` fire.
    pub fn handle_timeout(&mut self, _now: Instant) {
        todo!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn poll_timeout(&mut self) -> Option<Instant> {
        todo!()
    }

    /// Appends the next datagrams to `buf` and says where they go.
    pub fn poll_transmit(&mut self, _now: Instant, _buf: &mut Vec<u8>) -> Option<Transmit> {
        todo!()
    }

    /// The next thing that a connection has to tell.
    pub fn poll_event(&mut self) -> Option<(ConnectionHandle, ConnectionEvent)> {
        todo!()
    }

    /// Reads a connection; `None` once it is forgotten.
    pub fn connection(&self, _handle: ConnectionHandle) -> Option<&Connection> {
        todo!()
    }

    /// Changes a connection; what it then wants to send comes out of
    /// [`poll_transmit`](Self::poll_transmit).
    pub fn connection_mut(&mut self, _handle: ConnectionHandle) -> Option<&mut Connection> {
        todo!()
    }

    /// Every connection that is not forgotten, in a fixed order.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionHandle> + '_ {
        core::iter::empty()
    }

    /// Refuse new connections from now on (drain); those there are stay.
    pub fn stop_accepting(&mut self) {
        todo!()
    }
}
