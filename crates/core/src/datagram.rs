//! The unreliable layer's face: plain datagrams, over real sockets or a simulated network.
//!
//! A datagram that is sent may be lost, doubled, delayed or overtaken, and the sender is never
//! told. Whoever needs more uses the layers above.

use alloc::string::String;
use core::fmt;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::task::{Context, Poll};

use bytes::Bytes;

use crate::limits::MAX_DATAGRAM;

/// A datagram that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it, as far as the network says: anybody can write any address there.
    pub from: SocketAddr,
    /// What it carries; may be empty.
    pub data: Bytes,
}

/// Why a datagram was not sent, or none can be received. A datagram that was sent and then lost is
/// not an error: nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatagramError {
    /// It is larger than a datagram on this network can be, in bytes.
    TooLarge(usize),
    /// The network or the system refuses it; the text is the system's.
    Refused(String),
    /// The socket is closed.
    Closed,
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(size) => write!(
                f,
                "a datagram of {size} bytes is larger than this network carries (at most \
                 {MAX_DATAGRAM} anywhere)"
            ),
            Self::Refused(why) => write!(f, "the datagram was not sent: {why}"),
            Self::Closed => f.write_str("the socket is closed"),
        }
    }
}

impl core::error::Error for DatagramError {}

/// A place in a network that sends and receives plain datagrams.
///
/// Only one task may wait to receive, and one to send, at a time: a later one takes the earlier
/// one's place.
pub trait Datagrams: Send + Sync {
    /// Where datagrams for this socket are to be sent.
    fn local_addr(&self) -> SocketAddr;

    /// Hands a datagram to the network, or waits until it takes one.
    ///
    /// # Errors
    /// If it is too large or the system refuses it. That it was sent says nothing about arrival.
    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), DatagramError>>;

    /// The next datagram that came in.
    ///
    /// # Errors
    /// If no more will come.
    fn poll_recv_from(&self, cx: &mut Context<'_>) -> Poll<Result<Datagram, DatagramError>>;
}

/// The same as futures.
pub trait DatagramsExt: Datagrams {
    /// Sends a datagram: [`Datagrams::poll_send_to`] as a future. Dropping it sends nothing.
    fn send_to<'a>(
        &'a self,
        data: &'a [u8],
        to: SocketAddr,
    ) -> impl Future<Output = Result<(), DatagramError>> + Send + 'a {
        poll_fn(move |cx| self.poll_send_to(cx, data, to))
    }

    /// Receives a datagram: [`Datagrams::poll_recv_from`] as a future. Dropping it loses nothing.
    fn recv_from(&self) -> impl Future<Output = Result<Datagram, DatagramError>> + Send + '_ {
        poll_fn(move |cx| self.poll_recv_from(cx))
    }
}

impl<D: Datagrams + ?Sized> DatagramsExt for D {}
