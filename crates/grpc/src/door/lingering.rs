//! Connections that are closed without losing what their peer has not read yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long the peer may take to close its side.
const PATIENCE: Duration = Duration::from_secs(2);

/// A stream that, when it is shut down, hears its peer out.
///
/// A system answers what comes for a socket that is closed with a reset, and throws away what the peer has
/// not taken yet: the end of replies, when the peer happens to send a window update at that moment
/// (RFC 1122 §4.2.2.13, RFC 9112 §9.6).
pub(super) struct Lingering<S> {
    stream: S,
    /// Since it was shut down.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, until: None }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lingering<S> {
    /// Ready when the peer has closed its side, or broken it.
    fn poll_heard_out(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut waste = [0; 1024];
            let mut waste = ReadBuf::new(&mut waste);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut waste)) {
                Ok(()) if !waste.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.until.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let until = this.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        let no_longer = until.as_mut().poll(cx).is_ready();
        let heard_out = this.poll_heard_out(cx).is_ready();
        if no_longer || heard_out { Poll::Ready(Ok(())) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    #[tokio::test]
    async fn who_writes_while_the_other_side_closes_still_reads_everything() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let slow = TcpSocket::new_v4().unwrap();
        // Most of what is sent waits at the sender.
        slow.set_recv_buffer_size(4_096).unwrap();
        let mut peer = slow.connect(listener.local_addr().unwrap()).await.unwrap();
        let mut closing = Lingering::new(listener.accept().await.unwrap().0);
        let mut sent = 0;
        while let Ok(bytes) = closing.get_ref().try_write(&[7; 4_096]) {
            sent += bytes;
        }

        let pending =
            poll_fn(|cx| Poll::Ready(Pin::new(&mut closing).poll_shutdown(cx).is_pending()));
        assert!(pending.await, "the peer may still send");
        let closed = tokio::spawn(async move { closing.shutdown().await });
        peer.write_all(b"a window update").await.unwrap();
        let mut read = Vec::new();
        peer.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), sent);
        drop(peer);
        closed.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_never_closes_its_side_is_not_waited_for_for_ever() {
        let (_peer, stream) = tokio::io::duplex(64);
        Lingering::new(stream).shutdown().await.unwrap();
    }
}
