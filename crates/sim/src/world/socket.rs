//! Plain datagrams over the simulated network: the face that real sockets have too.

use std::net::SocketAddr;
use std::task::{Context, Poll};

use bytes::BytesMut;
use stubborn_core::datagram::{Datagram, DatagramError, Datagrams};
use stubborn_core::limits::MAX_DATAGRAM;
use stubborn_core::transport::endpoint::Ecn;

use super::{HostId, World};

/// A socket of a simulated host. It stays open while it lives, also over a restart of the host.
pub struct SimSocket {
    world: World,
    host: HostId,
    address: SocketAddr,
}

impl World {
    /// Opens a socket for plain datagrams at a host, which is added if there is none of that name.
    pub fn socket(&self, host: &str) -> SimSocket {
        self.client(host);
        let id = self.id(host);
        let address = self.state().open_socket(id);
        SimSocket { world: self.clone(), host: id, address }
    }
}

impl Datagrams for SimSocket {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn poll_send_to(
        &self,
        _cx: &mut Context<'_>,
        data: &[u8],
        to: SocketAddr,
    ) -> Poll<Result<(), DatagramError>> {
        if data.len() > MAX_DATAGRAM {
            return Poll::Ready(Err(DatagramError::TooLarge(data.len())));
        }
        let datagram = crate::network::Datagram {
            from: self.address,
            to,
            ecn: Ecn::NotEct,
            data: BytesMut::from(data),
            answers: false,
        };
        self.world.state().send(self.host, datagram);
        Poll::Ready(Ok(()))
    }

    fn poll_recv_from(&self, cx: &mut Context<'_>) -> Poll<Result<Datagram, DatagramError>> {
        let mut state = self.world.state();
        let Some(socket) = state.host_mut(self.host).sockets.get_mut(&self.address.port()) else {
            return Poll::Ready(Err(DatagramError::Closed));
        };
        match socket.inbox.pop_front() {
            Some(datagram) => {
                socket.bytes -= datagram.data.len();
                let (from, data) = (datagram.from, datagram.data.freeze());
                Poll::Ready(Ok(Datagram { from, data }))
            }
            None => {
                socket.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let socket = self.world.state().host_mut(self.host).sockets.remove(&self.address.port());
        drop(socket);
    }
}
