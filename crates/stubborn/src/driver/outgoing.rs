//! Datagrams on their way from a node, alone or of a group, to its socket.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll};

use stubborn_core::node::Node;
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::Transmit;

use super::shared::Shared;
use super::together;
use crate::datagram::Socket;

/// Bytes taken from the node under one lock; a transmit that was begun may go past it.
const FILL: usize = 128 << 10;

/// A caller sends at most so many bytes by itself; longer requests are left to the driver.
const ALONE: usize = 4 << 10;

/// A buffer of sealed datagrams; its memory is used again and again.
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    queue: VecDeque<Transmit>,
    /// How many bytes at the front of `bytes` are sent.
    sent: usize,
    /// Datagrams that one send may carry.
    max_segments: usize,
}

/// What a caller sends by itself instead of waking the driver.
#[derive(Default)]
pub(super) struct Alone {
    bytes: Vec<u8>,
    /// What it could not send: the driver does.
    left: Option<Transmit>,
}

impl Alone {
    /// Sends what the node has, if it is little. False if the driver has to do the rest.
    pub(super) fn send(&mut self, node: &mut Node, now: Instant, socket: &Socket) -> bool {
        while self.left.is_none() {
            self.bytes.clear();
            let Some(transmit) = node.poll_transmit(now, &mut self.bytes) else { return true };
            if transmit.size > ALONE || would_block(socket.try_send(&transmit, &self.bytes)) {
                self.left = Some(transmit);
            }
        }
        false
    }
}

/// Any other failure means that the datagrams are lost, like any others.
fn would_block(sent: io::Result<()>) -> bool {
    sent.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        let bytes = Vec::with_capacity(2 * FILL);
        Self { bytes, queue: VecDeque::new(), sent: 0, max_segments: 1 }
    }

    /// Sends all that `fill` takes out of its node, until that is nothing. Pending if the socket is
    /// full; the task is woken when there is room.
    pub(crate) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Socket,
        mut fill: impl FnMut(&mut Self),
    ) -> Poll<()> {
        loop {
            while let Some(transmit) = self.queue.front() {
                let contents = &self.bytes[self.sent..self.sent + transmit.size];
                match socket.try_send(transmit, contents) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        // Where it cannot be waited for, the next timer tries again.
                        if !matches!(socket.poll_send_ready(cx), Poll::Ready(Ok(()))) {
                            return Poll::Pending;
                        }
                    }
                    // Refused by the system (too large, no route): lost like any other datagram.
                    Ok(()) | Err(_) => {
                        self.sent += transmit.size;
                        self.queue.pop_front();
                    }
                }
            }
            self.bytes.clear();
            self.sent = 0;
            self.max_segments = socket.max_segments();
            fill(self);
            debug_assert_eq!(self.bytes.len(), self.queue.iter().map(|t| t.size).sum::<usize>());
            if self.queue.is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// Takes datagrams from `poll_transmit` until there are enough for a while, or none.
    pub(crate) fn take(&mut self, mut poll_transmit: impl FnMut(&mut Vec<u8>) -> Option<Transmit>) {
        while self.bytes.len() < FILL {
            let start = self.bytes.len();
            match poll_transmit(&mut self.bytes) {
                Some(transmit) => self.push(transmit, start),
                None => break,
            }
        }
    }

    /// Adds what begins at `start`.
    fn push(&mut self, transmit: Transmit, start: usize) {
        let next = &self.bytes[start..];
        if let Some(last) = self.queue.back_mut() {
            let before = &self.bytes[start - last.size..start];
            if together::join(last, before, &transmit, next, self.max_segments) {
                return;
            }
        }
        self.queue.push_back(transmit);
    }

    /// Takes the next datagrams out of a node, those first that a caller could not send by itself.
    pub(super) fn take_shared(&mut self, shared: &Shared) {
        let mut state = shared.lock();
        let now = shared.clock.now();
        if let Some(transmit) = state.alone.left.take() {
            self.bytes.extend_from_slice(&state.alone.bytes);
            self.queue.push_back(transmit);
        }
        self.take(|bytes| state.node.poll_transmit(now, bytes));
    }
}
