//! A UDP socket that receives and sends in batches: recvmmsg, GRO, GSO and ECN, by quinn-udp.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, EcnCodepoint, RecvMeta, UdpSocketState};
use stubborn_core::limits::MAX_DATAGRAM;
use stubborn_core::transport::endpoint::{Ecn, Transmit};

use super::buffers::{Lent, RECEIVE_SIZE, ReceiveBuffers};
use super::io::Io;

/// What is asked of the kernel for each direction, in bytes; it grants what its limits allow.
const WANTED_BUFFER: usize = 8 << 20;

/// Whether one receive takes all that there is, up to its batch: recvmmsg does.
const RECEIVES_ALL: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The largest payload of Ethernet, which is always worth taking.
const LEAST_PAYLOAD: usize = 1_472;

/// A UDP socket in a tokio runtime.
///
/// An IPv6 socket on the unspecified address also speaks IPv4. Whatever the socket is, IPv4
/// addresses go in and come out as such, never mapped into IPv6.
pub(crate) struct Socket {
    io: Io,
    state: UdpSocketState,
    local: SocketAddr,
}

/// Datagrams of one sender, all of them `stride` bytes long except perhaps the last.
pub(crate) struct Chunk<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) local: Option<IpAddr>,
    pub(crate) ecn: Ecn,
    stride: usize,
    size: usize,
    buffer: &'a mut BytesMut,
    lent: &'a mut Lent,
}

impl Chunk<'_> {
    /// Hands on the datagrams, one after another.
    pub(crate) fn for_each(self, mut take: impl FnMut(BytesMut)) {
        let mut rest = self.lent.take(self.buffer, self.size);
        while rest.len() > self.stride {
            take(rest.split_to(self.stride));
        }
        take(rest);
    }
}

impl Socket {
    /// Binds a socket. Must be called in a tokio runtime.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::from_std(bound(address, |_| Ok(()))?.into())
    }

    /// Lets this runtime drive a socket that [`bound`] has made.
    pub(crate) fn from_std(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let local = socket.local_addr()?;
        Ok(Self { io: Io::new(socket)?, state, local })
    }

    /// A socket that reaches both IPv4 and IPv6 addresses if the system has both.
    pub(crate) fn bind_any() -> io::Result<Self> {
        Self::bind((Ipv6Addr::UNSPECIFIED, 0).into())
            .or_else(|_| Self::bind((Ipv4Addr::UNSPECIFIED, 0).into()))
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Datagrams that one send may carry; 1 if the system has no GSO.
    pub(crate) fn max_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// The largest datagram that peers should send: a sixteenth of what the kernel granted to
    /// receive into, so that a burst of them is not lost for want of buffers.
    pub(crate) fn max_udp_payload(&self) -> usize {
        let granted = socket2::SockRef::from(self.io.socket()).recv_buffer_size().unwrap_or(0);
        (granted / 16).clamp(LEAST_PAYLOAD, MAX_DATAGRAM)
    }

    /// Receives what has come, at most one batch, and hands it on chunk by chunk.
    pub(crate) fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut ReceiveBuffers,
        sink: impl FnMut(Chunk<'_>),
    ) -> Poll<io::Result<usize>> {
        let ReceiveBuffers { buffers, metas, lent } = buffers;
        let count = loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let mut count = 0;
            let received = self.io.try_recv(|| {
                count = self.receive(buffers, metas)?;
                // A batch that is not full has emptied the queue. Saying so now saves the system
                // call that would find nothing; what comes from here on makes the socket readable
                // again.
                let emptied = RECEIVES_ALL && count < metas.len();
                if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match received {
                _ if count > 0 => break count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                // An ICMP message about an earlier send; other peers are not concerned.
                Err(e) if is_about_one_peer(&e) => continue,
                other => other?,
            }
        };
        Poll::Ready(Ok(hand_on(buffers, &metas[..count], lent, sink)))
    }

    /// The same without waiting, whether or not the socket is known to be readable. 0 if nothing has
    /// come, also where the socket fails.
    pub(crate) fn receive_now(
        &self,
        buffers: &mut ReceiveBuffers,
        sink: impl FnMut(Chunk<'_>),
    ) -> usize {
        let ReceiveBuffers { buffers, metas, lent } = buffers;
        let count = self.receive(buffers, metas).unwrap_or(0);
        hand_on(buffers, &metas[..count], lent, sink)
    }

    fn receive(&self, buffers: &mut [BytesMut], metas: &mut [RecvMeta]) -> io::Result<usize> {
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(&mut []));
        let batch = metas.len();
        for (slice, buffer) in slices.iter_mut().zip(buffers) {
            *slice = IoSliceMut::new(buffer);
        }
        self.state.recv(self.io.socket().into(), &mut slices[..batch], metas)
    }

    /// Sends without waiting.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if the socket is full: wait with
    /// [`poll_send_ready`](Self::poll_send_ready). Any other error means that these datagrams were
    /// not sent, which is like losing them.
    pub(crate) fn try_send(&self, transmit: &Transmit, contents: &[u8]) -> io::Result<()> {
        debug_assert_eq!(transmit.size, contents.len());
        let segment = transmit.segment.filter(|segment| *segment < contents.len());
        match self.send_one(transmit, contents, segment) {
            // The system or the device refuses GSO: quinn-udp has noted it, so that
            // `max_segments` is 1 from now on; these go out one by one.
            Err(e) if segment.is_some() && e.kind() != io::ErrorKind::WouldBlock => contents
                .chunks(segment.unwrap_or(contents.len()))
                .try_for_each(|datagram| self.send_one(transmit, datagram, None)),
            result => result,
        }
    }

    fn send_one(
        &self,
        transmit: &Transmit,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: self.to_family(transmit.to),
            ecn: to_codepoint(transmit.ecn),
            contents,
            segment_size,
            src_ip: transmit.from.map(|ip| self.ip_to_family(ip)),
        };
        self.io.try_send(|| self.state.try_send(self.io.socket().into(), &transmit))
    }

    pub(crate) fn poll_send_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_send_ready(cx)
    }

    fn to_family(&self, address: SocketAddr) -> SocketAddr {
        match address {
            SocketAddr::V4(v4) if self.local.is_ipv6() => {
                (v4.ip().to_ipv6_mapped(), v4.port()).into()
            }
            other => other,
        }
    }

    fn ip_to_family(&self, ip: IpAddr) -> IpAddr {
        match ip {
            IpAddr::V4(v4) if self.local.is_ipv6() => v4.to_ipv6_mapped().into(),
            other => other,
        }
    }
}

/// Hands on what was received; returns how many datagrams it is.
fn hand_on(
    buffers: &mut [BytesMut],
    metas: &[RecvMeta],
    lent: &mut Lent,
    mut sink: impl FnMut(Chunk<'_>),
) -> usize {
    let mut datagrams = 0;
    for (meta, buffer) in metas.iter().zip(buffers) {
        let stride = meta.stride.max(1);
        datagrams += meta.len.div_ceil(stride).max(1);
        sink(Chunk {
            from: canonical(meta.addr),
            local: meta.dst_ip.map(|ip| ip.to_canonical()),
            ecn: from_codepoint(meta.ecn),
            stride,
            size: meta.len,
            buffer,
            lent,
        });
    }
    datagrams
}

/// Binds a socket, after `prepare` has set what further options it needs.
pub(super) fn bound(
    address: SocketAddr,
    prepare: impl FnOnce(&socket2::Socket) -> io::Result<()>,
) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::DGRAM,
        Some(socket2::Protocol::UDP),
    )?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    enlarge(WANTED_BUFFER, |size| socket.set_recv_buffer_size(size));
    enlarge(WANTED_BUFFER, |size| socket.set_send_buffer_size(size));
    socket.set_nonblocking(true)?;
    prepare(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Halves the wish until the kernel grants it; Linux grants its limit at once without an error.
fn enlarge(mut size: usize, set: impl Fn(usize) -> io::Result<()>) {
    while size > RECEIVE_SIZE && set(size).is_err() {
        size /= 2;
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => (v4, address.port()).into(),
        IpAddr::V6(_) => address,
    }
}

fn is_about_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | NetworkUnreachable
    )
}

fn from_codepoint(ecn: Option<EcnCodepoint>) -> Ecn {
    match ecn {
        None => Ecn::NotEct,
        Some(EcnCodepoint::Ect0) => Ecn::Ect0,
        Some(EcnCodepoint::Ect1) => Ecn::Ect1,
        Some(EcnCodepoint::Ce) => Ecn::Ce,
    }
}

fn to_codepoint(ecn: Ecn) -> Option<EcnCodepoint> {
    match ecn {
        Ecn::NotEct => None,
        Ecn::Ect0 => Some(EcnCodepoint::Ect0),
        Ecn::Ect1 => Some(EcnCodepoint::Ect1),
        Ecn::Ce => Some(EcnCodepoint::Ce),
    }
}
