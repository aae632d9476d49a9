//! Plain datagrams over a real socket.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use stubborn_core::datagram::{Datagram, DatagramError, Datagrams};
use stubborn_core::limits::MAX_DATAGRAM;
use stubborn_core::transport::endpoint::{Ecn, Transmit};

use super::buffers::ReceiveBuffers;
use super::socket::Socket;

/// Receives per system call: few, for a socket that is not the hot path.
const BATCH: usize = 4;

/// A UDP socket for plain datagrams.
pub struct UdpEndpoint {
    socket: Socket,
    incoming: Mutex<Incoming>,
}

struct Incoming {
    buffers: ReceiveBuffers,
    /// What one system call gave, at most a batch: more is not read before this is empty.
    queue: VecDeque<Datagram>,
}

impl UdpEndpoint {
    /// Binds a socket; port 0 lets the system choose one. Datagrams are never fragmented: one that
    /// does not fit the path is refused or lost.
    ///
    /// # Errors
    /// If the system refuses the address.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let incoming = Incoming { buffers: ReceiveBuffers::new(BATCH), queue: VecDeque::new() };
        Ok(Self { socket: Socket::bind(address)?, incoming: Mutex::new(incoming) })
    }

    /// Binds a socket from which both IPv4 and IPv6 addresses can be reached.
    ///
    /// # Errors
    /// If the system has no sockets left.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind_any() -> io::Result<Self> {
        let incoming = Incoming { buffers: ReceiveBuffers::new(BATCH), queue: VecDeque::new() };
        Ok(Self { socket: Socket::bind_any()?, incoming: Mutex::new(incoming) })
    }
}

impl Datagrams for UdpEndpoint {
    fn local_addr(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    fn poll_send_to(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), DatagramError>> {
        if data.len() > MAX_DATAGRAM {
            return Poll::Ready(Err(DatagramError::TooLarge(data.len())));
        }
        let transmit =
            Transmit { to, from: None, ecn: Ecn::NotEct, size: data.len(), segment: None };
        loop {
            match self.socket.try_send(&transmit, data) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_send_ready(cx)).map_err(|e| refused(&e))?;
                }
                Err(e) if is_too_large(&e) => {
                    return Poll::Ready(Err(DatagramError::TooLarge(data.len())));
                }
                Err(e) => return Poll::Ready(Err(refused(&e))),
            }
        }
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>) -> Poll<Result<Datagram, DatagramError>> {
        let incoming = &mut *self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(datagram) = incoming.queue.pop_front() {
                return Poll::Ready(Ok(datagram));
            }
            let Incoming { buffers, queue } = incoming;
            ready!(self.socket.poll_receive(cx, buffers, |chunk| {
                let from = chunk.from;
                chunk.for_each(|data| queue.push_back(Datagram { from, data: data.freeze() }));
            }))
            .map_err(|e| refused(&e))?;
        }
    }
}

impl fmt::Debug for UdpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UdpEndpoint({})", self.local_addr())
    }
}

/// EMSGSIZE, which the standard library has no kind for.
fn is_too_large(error: &io::Error) -> bool {
    const EMSGSIZE: i32 = if cfg!(any(target_os = "linux", target_os = "android")) {
        90
    } else if cfg!(windows) {
        10_040
    } else {
        40
    };
    error.raw_os_error() == Some(EMSGSIZE)
}

fn refused(error: &io::Error) -> DatagramError {
    DatagramError::Refused(error.to_string())
}
