//! Waiting for a socket.

#[cfg(not(unix))]
pub(super) use elsewhere::Io;
#[cfg(unix)]
pub(super) use unix::Io;

#[cfg(unix)]
mod unix {
    use std::io;
    use std::net::UdpSocket;
    use std::sync::{Mutex, PoisonError};
    use std::task::{Context, Poll, ready};

    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::runtime::Handle;

    /// A socket that wakes for datagrams only. Each datagram that has left makes a socket writable
    /// anew: whoever waits for that as well is woken once for nothing for each of its sends, which
    /// doubles the wake-ups of a single call. So that is waited for only while the socket is full.
    pub(in crate::datagram) struct Io {
        reads: AsyncFd<UdpSocket>,
        writes: Mutex<Option<AsyncFd<UdpSocket>>>,
    }

    #[allow(unsafe_code, reason = "tokio has no safe way to wait for one direction only")]
    fn register(socket: UdpSocket, interest: Interest) -> io::Result<AsyncFd<UdpSocket>> {
        // SAFETY: the socket owns its descriptor, which is the same until it is dropped, and moves
        // into the `AsyncFd`, which lends it out by shared reference only.
        Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
    }

    impl Io {
        /// Must be called in a tokio runtime. The socket must not block.
        pub(in crate::datagram) fn new(socket: UdpSocket) -> io::Result<Self> {
            let reads = register(socket, Interest::READABLE)?;
            Ok(Self { reads, writes: Mutex::new(None) })
        }

        pub(in crate::datagram) fn socket(&self) -> &UdpSocket {
            self.reads.get_ref()
        }

        pub(in crate::datagram) fn poll_recv_ready(
            &self,
            cx: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            // Whether it is so still shows when it is received.
            self.reads.poll_read_ready(cx).map_ok(drop)
        }

        /// Receives; [`io::ErrorKind::WouldBlock`] means that it is not ready any more.
        pub(in crate::datagram) fn try_recv<R>(
            &self,
            receive: impl FnOnce() -> io::Result<R>,
        ) -> io::Result<R> {
            self.reads.try_io(Interest::READABLE, |_| receive())
        }

        pub(in crate::datagram) fn try_send<R>(
            &self,
            send: impl FnOnce() -> io::Result<R>,
        ) -> io::Result<R> {
            send()
        }

        /// To be asked after a send that would have blocked.
        ///
        /// # Errors
        /// If it cannot be waited for, for example since the runtime is ending.
        pub(in crate::datagram) fn poll_send_ready(
            &self,
            cx: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
            if writes.is_none() {
                Handle::try_current().map_err(io::Error::other)?;
                // A file descriptor of its own, as one cannot be waited for twice. It is told at
                // once if there is room by now.
                let socket = self.socket().try_clone()?;
                *writes = Some(register(socket, Interest::WRITABLE)?);
            }
            let polled = match writes.as_ref() {
                Some(waiting) => ready!(waiting.poll_write_ready(cx)).map(drop),
                None => Ok(()),
            };
            *writes = None;
            Poll::Ready(polled)
        }
    }
}

#[cfg(not(unix))]
mod elsewhere {
    use std::io;
    use std::task::{Context, Poll};

    use tokio::io::Interest;
    use tokio::net::UdpSocket;

    /// A socket as tokio has it.
    pub(in crate::datagram) struct Io(UdpSocket);

    impl Io {
        /// Must be called in a tokio runtime. The socket must not block.
        pub(in crate::datagram) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
            UdpSocket::from_std(socket).map(Self)
        }

        pub(in crate::datagram) fn socket(&self) -> &UdpSocket {
            &self.0
        }

        pub(in crate::datagram) fn poll_recv_ready(
            &self,
            cx: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            self.0.poll_recv_ready(cx)
        }

        /// Receives; [`io::ErrorKind::WouldBlock`] means that it is not ready any more.
        pub(in crate::datagram) fn try_recv<R>(
            &self,
            receive: impl FnOnce() -> io::Result<R>,
        ) -> io::Result<R> {
            self.0.try_io(Interest::READABLE, receive)
        }

        pub(in crate::datagram) fn try_send<R>(
            &self,
            send: impl FnOnce() -> io::Result<R>,
        ) -> io::Result<R> {
            self.0.try_io(Interest::WRITABLE, send)
        }

        /// To be asked after a send that would have blocked.
        pub(in crate::datagram) fn poll_send_ready(
            &self,
            cx: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            self.0.poll_send_ready(cx)
        }
    }
}
