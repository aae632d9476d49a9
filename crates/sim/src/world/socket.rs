//! Plain datagrams over the simulated network: the face that real sockets have too.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use stubborn_core::datagram::{Datagram, DatagramError, Datagrams};
use stubborn_core::limits::MAX_DATAGRAM;
use stubborn_core::time::Instant;
use stubborn_core::transport::crypto::{ClientTls, ServerTls};
use stubborn_core::transport::endpoint::{Ecn, EndpointConfig};

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

impl World {
    /// An address at a host, which is added if there is none of that name, for
    /// [`Self::socket_again`].
    pub(crate) fn address_at(&self, host: &str) -> SocketAddr {
        self.socket(host).address
    }

    /// Opens a socket at an address that the host has had before.
    pub(crate) fn socket_again(&self, host: &str, address: SocketAddr) -> SimSocket {
        let id = self.id(host);
        let fresh = super::host::RawSocket::default();
        self.state().host_mut(id).sockets.insert(address.port(), fresh);
        SimSocket { world: self.clone(), host: id, address }
    }

    /// Kills a host and opens a socket at the address of its node, for a process that pretends to be
    /// it under this incarnation. While the host runs, its node gets what is sent there.
    pub(crate) fn take_place_of(&self, host: &str, incarnation: u64) -> SimSocket {
        self.kill(host);
        let id = self.id(host);
        let address = self.state().host(id).address;
        self.state().lies.begin(id, incarnation);
        self.socket_again(host, address)
    }

    /// The time that a host's clock shows.
    pub(crate) fn local_time(&self, host: &str) -> Instant {
        let id = self.id(host);
        self.state().local_now(id)
    }

    /// How long it is, as things are, until a host's clock shows `local`.
    pub(crate) fn time_until(&self, host: &str, local: Instant) -> Duration {
        let id = self.id(host);
        let state = self.state();
        state.host(id).clock.when(local, state.now).since(state.now)
    }

    /// What a host brings to handshakes and connections: how its transport is set, and its TLS as a
    /// server and as a client with a certificate.
    pub(crate) fn identity_of(
        &self,
        host: &str,
    ) -> (EndpointConfig, Arc<dyn ServerTls>, Arc<dyn ClientTls>) {
        let id = self.id(host);
        let state = self.state();
        let host = state.host(id);
        let tls = &host.tls;
        (host.endpoint.clone(), Arc::clone(&tls.server), Arc::clone(&tls.certified))
    }

    /// The digest of the key of a host's certificate.
    pub(crate) fn key_of(&self, host: &str) -> [u8; 32] {
        let id = self.id(host);
        self.state().host(id).tls.key
    }

    /// The address behind HOST:PORT, of which HOST is that of an address or the name of a host.
    pub(crate) fn look_up(&self, address: &str) -> Option<SocketAddr> {
        self.state().look_up(address)
    }

    /// Whether there is a host of this name.
    pub(crate) fn knows(&self, host: &str) -> bool {
        self.state().names.contains_key(host)
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
