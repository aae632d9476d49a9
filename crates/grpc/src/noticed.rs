//! Streams of bytes whose owner is told what passes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Who is told.
pub(crate) trait Notice {
    fn received(&mut self, bytes: usize);

    fn sent(&mut self, _bytes: usize) {}
}

/// A stream that tells how many bytes pass.
pub(crate) struct Noticed<S, N> {
    stream: S,
    notice: N,
}

impl<S, N: Notice> Noticed<S, N> {
    pub(crate) fn new(stream: S, notice: N) -> Self {
        Self { stream, notice }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.stream
    }

    fn note_sent(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &polled {
            self.notice.sent(*bytes);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin, N: Notice + Unpin> AsyncRead for Noticed<S, N> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len() - before;
        if bytes > 0 {
            self.notice.received(bytes);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin, N: Notice + Unpin> AsyncWrite for Noticed<S, N> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_sent(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note_sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
