//! Streams over a node: who waits for their messages, and for room.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use stubborn_core::node::{Node, RequestKey, StreamKey, StreamRead, StreamRefusal};
use stubborn_core::service::{CallError, Encoded, IncomingReply, NotTaken, Port};
use stubborn_core::time::Instant;

use super::shared::{Shared, State};

/// Who waits at which stream. An entry goes when the stream's handler has ended, or its client has left
/// it.
#[derive(Default)]
pub(crate) struct StreamWakers(HashMap<StreamKey, Wakers>);

#[derive(Default)]
struct Wakers {
    take: Option<Waker>,
    send: Option<Waker>,
}

impl StreamWakers {
    /// Whom to wake for a message.
    pub(super) fn readable(&mut self, key: StreamKey) -> Option<Waker> {
        self.0.get_mut(&key)?.take.take()
    }

    /// Whom to wake for room.
    pub(super) fn writable(&mut self, key: StreamKey) -> Option<Waker> {
        self.0.get_mut(&key)?.send.take()
    }

    /// Nobody waits at the stream any more.
    #[inline]
    pub(crate) fn forget(&mut self, key: StreamKey) {
        if !self.0.is_empty() {
            self.0.remove(&key);
        }
    }

    /// Nothing will happen any more. Returns whom to wake.
    pub(super) fn end(&mut self) -> impl Iterator<Item = Waker> {
        let all = std::mem::take(&mut self.0).into_values();
        all.flat_map(|wakers| wakers.take.into_iter().chain(wakers.send))
    }

    fn of(&mut self, key: StreamKey) -> &mut Wakers {
        self.0.entry(key).or_default()
    }
}

impl Shared {
    /// Takes a stream's next message.
    pub(crate) fn poll_take(&self, key: StreamKey, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let taken = self.change(|state, now| match state.node.take_message(now, key) {
            StreamRead::Message(message) => Poll::Ready(Some(message)),
            StreamRead::End => Poll::Ready(None),
            StreamRead::Blocked => {
                wait(&mut state.streams.of(key).take, cx);
                Poll::Pending
            }
        });
        taken.unwrap_or(Poll::Ready(None))
    }

    /// Sends a message on a stream.
    pub(crate) fn poll_send(
        &self,
        key: StreamKey,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        let Some(next) = message.take() else { return Poll::Ready(Ok(())) };
        let sent = self.change(|state, now| match state.node.send_message(now, key, next) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(StreamRefusal::TooLarge(limit)) => Poll::Ready(Err(NotTaken::TooLarge(limit))),
            Err(StreamRefusal::Over) => Poll::Ready(Err(NotTaken::Over)),
            Err(StreamRefusal::Full(back)) => {
                *message = Some(back);
                wait(&mut state.streams.of(key).send, cx);
                Poll::Pending
            }
        });
        sent.unwrap_or(Poll::Ready(Err(NotTaken::Over)))
    }
}

impl State {
    /// Does something with the node and a stream that is over for its user.
    pub(crate) fn leave_stream(
        &mut self,
        now: Instant,
        key: StreamKey,
        leave: impl FnOnce(&mut Node, Instant),
    ) {
        self.streams.forget(key);
        leave(&mut self.node, now);
    }
}

fn wait(waiting: &mut Option<Waker>, cx: &Context<'_>) {
    match waiting {
        Some(known) => known.clone_from(cx.waker()),
        none => *none = Some(cx.waker().clone()),
    }
}

/// A stream as its handler has it.
pub(crate) struct HandlerPort {
    shared: Arc<Shared>,
    key: StreamKey,
}

impl HandlerPort {
    pub(super) fn new(shared: &Arc<Shared>, key: RequestKey) -> Self {
        Self { shared: Arc::clone(shared), key: StreamKey::Request(key) }
    }
}

impl Port for HandlerPort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        self.shared.poll_take(self.key, cx)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        self.shared.poll_send(self.key, cx, message)
    }

    fn end(&self) {}

    /// A handler makes the end itself.
    fn poll_end(&self, _: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        Poll::Pending
    }

    fn cancel(&self) {}
}
