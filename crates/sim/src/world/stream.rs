//! Streams of simulated hosts, as stubs and handlers see them.

use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use stubborn_core::node::{CallKey, StreamKey, StreamRead, StreamRefusal};
use stubborn_core::service::{CallError, Encoded, IncomingReply, NotTaken, Outcome, Port};
use stubborn_core::time::Instant;

use super::World;
use super::host::{Alive, Ending, Waiting};
use super::tasks::Home;

/// Who waits at a stream.
#[derive(Default)]
pub(crate) struct Waiters {
    pub(crate) take: Option<Waker>,
    pub(crate) send: Option<Waker>,
}

/// One end of a stream. The client's end cancels the call when it is dropped.
pub(crate) struct SimPort {
    world: World,
    home: Home,
    key: StreamKey,
    end: Mutex<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Told,
    Cancelled,
}

impl SimPort {
    pub(crate) fn new(world: &World, home: Home, key: StreamKey) -> Self {
        Self { world: world.clone(), home, key, end: Mutex::new(End::Open) }
    }

    /// Does something at the node; `None` if that life of the host is over.
    fn at_node<T>(&self, act: impl FnOnce(&mut Alive, Instant) -> T) -> Option<T> {
        let mut state = self.world.state();
        let local = state.local_now(self.home.host);
        let host = state.host_mut(self.home.host);
        let alive = host.alive.as_mut().filter(|_| host.life == self.home.life)?;
        let result = act(alive, local);
        state.touch(self.home.host);
        Some(result)
    }

    fn call(&self) -> Option<CallKey> {
        match self.key {
            StreamKey::Call(call) => Some(call),
            StreamKey::Request(_) => None,
        }
    }

    fn leave(&self) {
        if let Some(call) = self.call() {
            self.at_node(|alive, now| {
                alive.waiting.remove(&call);
                alive.streams.remove(&self.key);
                alive.node.abandon(now, call);
            });
        }
    }
}

impl Port for SimPort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let taken = self.at_node(|alive, now| match alive.node.take_message(now, self.key) {
            StreamRead::Message(message) => Poll::Ready(Some(message)),
            StreamRead::End => Poll::Ready(None),
            StreamRead::Blocked => {
                let waiters = alive.streams.entry(self.key).or_default();
                waiters.take = Some(cx.waker().clone());
                Poll::Pending
            }
        });
        // The process that waited is gone with its host: nobody is left to be told.
        taken.unwrap_or(Poll::Pending)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        let Some(next) = message.take() else { return Poll::Ready(Ok(())) };
        let sent = self.at_node(|alive, now| match alive.node.send_message(now, self.key, next) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(StreamRefusal::TooLarge(limit)) => Poll::Ready(Err(NotTaken::TooLarge(limit))),
            Err(StreamRefusal::Over) => Poll::Ready(Err(NotTaken::Over)),
            Err(StreamRefusal::Full(back)) => {
                *message = Some(back);
                let waiters = alive.streams.entry(self.key).or_default();
                waiters.send = Some(cx.waker().clone());
                Poll::Pending
            }
        });
        sent.unwrap_or(Poll::Pending)
    }

    fn end(&self) {
        if let Some(call) = self.call() {
            self.at_node(|alive, now| alive.node.end_messages(now, call));
        }
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        let Some(call) = self.call() else { return Poll::Pending };
        let mut end = self.end.lock().expect("no panic while it is held");
        match *end {
            End::Open => {}
            End::Told => return Poll::Pending,
            End::Cancelled => {
                let error = CallError::new("", Outcome::Lost).because("it was cancelled");
                return Poll::Ready(Err(error));
            }
        }
        let ended = self.at_node(|alive, _| match alive.waiting.remove(&call) {
            Some(Waiting::Over(ending)) => Some(*ending),
            Some(Waiting::For(_)) | None => {
                alive.waiting.insert(call, Waiting::For(Some(cx.waker().clone())));
                None
            }
        });
        match ended.flatten() {
            Some(Ending::Call(result)) => {
                *end = End::Told;
                Poll::Ready(result)
            }
            Some(ending) => unreachable!("a stream ended as {ending:?}"),
            None => Poll::Pending,
        }
    }

    fn cancel(&self) {
        let mut end = self.end.lock().expect("no panic while it is held");
        if *end == End::Open {
            *end = End::Cancelled;
            self.leave();
        }
    }
}

impl Drop for SimPort {
    fn drop(&mut self) {
        self.leave();
    }
}
