//! What happens in connections, told to whoever records it: for logs that people look at. Nothing comes
//! back from a recorder, so that a world with one goes as it goes without.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::net::{IpAddr, SocketAddr};

use super::connection::ConnectionError;
use super::{ConnectionId, Side, Space};
use crate::time::{Duration, Instant};
use crate::wire::PacketType;
use crate::wire::params::TransportParameters;

/// Records connections.
pub trait Recorder: Send + Sync {
    /// A connection begins. What records it; `None` if nothing does.
    fn begin(&self, at: Instant, beginning: &Beginning) -> Option<Box<dyn Record>>;
}

/// Records one connection. Dropped when that is forgotten.
pub trait Record: Send {
    /// Something has happened. Times never go back.
    fn take(&mut self, at: Instant, event: Event<'_>);
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Which side this is.
    pub side: Side,
    /// The version.
    pub version: u32,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our own, as far as it is known.
    pub local: Option<IpAddr>,
    /// The destination of the client's very first packet: the same at both sides.
    pub original: ConnectionId,
}

/// What happens in a connection.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A packet goes out.
    Sent(Packet<'a>),
    /// A packet came, for the first time, and is authentic.
    Received(Packet<'a>),
    /// A packet is taken for lost.
    Lost {
        /// Its space.
        space: Space,
        /// Its number.
        number: u64,
        /// It only tried whether the path carries its size, and is not counted as a loss.
        mtu_probe: bool,
    },
    /// Estimates have changed.
    Metrics(Metrics),
    /// The handshake is complete; these are the peer's parameters.
    Established(&'a TransportParameters),
    /// The connection is over.
    Closed(&'a ConnectionError),
}

/// A packet, without its protection.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// What kind of packet.
    pub packet_type: PacketType,
    /// Its number.
    pub number: u64,
    /// Its bytes on the wire.
    pub size: usize,
    /// Its frames, for [`Frames`](crate::wire::frame::Frames).
    pub frames: &'a [u8],
}

/// Estimates of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The smallest round-trip time.
    pub min_rtt: Duration,
    /// The smoothed one.
    pub smoothed_rtt: Duration,
    /// The latest one.
    pub latest_rtt: Duration,
    /// How they vary.
    pub rtt_variance: Duration,
    /// The congestion window, in bytes.
    pub window: u64,
    /// Bytes sent and neither acknowledged nor lost.
    pub in_flight: u64,
    /// Probe timeouts in a row without an answer.
    pub probe_timeouts: u32,
}

/// Who records the connections of an endpoint, if anybody does.
#[derive(Clone, Default)]
pub struct Recording(pub Option<Arc<dyn Recorder>>);

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Recording(on)" } else { "Recording(off)" })
    }
}
