//! From a handler that streams to the body of its response: a window of messages, and the end.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use stubborn_core::service::{Metadata, NotTaken};
use stubborn_rope::Rope;

use crate::door::Ended;

/// Bytes that a message counts beside its own.
const OVERHEAD: u64 = 256;

/// What a handler has sent and the connection has not taken yet.
pub(crate) struct Outlet {
    window: u64,
    largest: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    early: Option<Early>,
    queue: VecDeque<Rope>,
    bytes: u64,
    end: Option<Ended>,
    /// The end was given: nothing is taken any more.
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What goes ahead of the first message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Early {
    /// Metadata.
    pub metadata: Metadata,
    /// Whether replies are to be compressed; `None` for as the request was.
    pub compress: Option<bool>,
}

/// What comes next.
pub(crate) enum Next {
    Message(Rope),
    End(Ended),
}

impl Outlet {
    pub(crate) fn new(window: u64, largest: u64) -> Self {
        Self { window, largest, state: Mutex::default() }
    }

    /// Takes a message if there is room. The first one goes with what `early` gives.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Rope>,
        early: impl FnOnce() -> Early,
    ) -> Poll<Result<(), NotTaken>> {
        let mut state = self.lock();
        let Some(length) = message.as_ref().map(|message| message.len() as u64) else {
            return Poll::Ready(Ok(()));
        };
        if state.over {
            return Poll::Ready(Err(NotTaken::Over));
        }
        if length > self.largest {
            return Poll::Ready(Err(NotTaken::TooLarge(self.largest)));
        }
        if state.bytes >= self.window {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if state.early.is_none() {
            state.early = Some(early());
        }
        state.bytes += length + OVERHEAD;
        state.queue.extend(message.take());
        wake(state.reader.take(), state);
        Poll::Ready(Ok(()))
    }

    /// The handler has ended so, or was ended. Only the first end counts.
    pub(crate) fn end(&self, ended: Ended) {
        let mut state = self.lock();
        if !state.over {
            state.over = true;
            state.end = Some(ended);
        }
        let (reader, writer) = (state.reader.take(), state.writer.take());
        wake(writer, state);
        wake(reader, self.lock());
    }

    /// Waits for the first thing to come, and says what goes ahead of it.
    pub(crate) fn poll_early(&self, cx: &mut Context<'_>) -> Poll<Early> {
        let mut state = self.lock();
        if let Some(early) = &state.early {
            return Poll::Ready(early.clone());
        }
        match &state.end {
            Some(ended) => Poll::Ready(ended.early.clone()),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next message, or after the last one the end.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut state = self.lock();
        if let Some(message) = state.queue.pop_front() {
            state.bytes -= message.len() as u64 + OVERHEAD;
            wake(state.writer.take(), state);
            return Poll::Ready(Next::Message(message));
        }
        match state.end.take() {
            Some(ended) => Poll::Ready(Next::End(ended)),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes without the lock: whoever wakes may come back at once.
fn wake(waker: Option<Waker>, state: MutexGuard<'_, State>) {
    drop(state);
    waker.into_iter().for_each(Waker::wake);
}

#[cfg(test)]
mod tests {
    use stubborn_core::service::{Answer, Status};

    use super::*;

    fn send(outlet: &Outlet, length: usize) -> Poll<Result<(), NotTaken>> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut message = Some(Rope::from(vec![0; length]));
        outlet.poll_send(&mut cx, &mut message, Early::default)
    }

    #[test]
    fn a_full_window_stalls_the_handler_until_a_message_is_taken() {
        let outlet = Outlet::new(1_000, 5_000);
        assert!(send(&outlet, 2_000).is_ready(), "one message may be over the window");
        assert!(send(&outlet, 1).is_pending());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(outlet.poll_next(&mut cx), Poll::Ready(Next::Message(_))));
        assert!(send(&outlet, 1).is_ready());
        assert_eq!(send(&outlet, 5_001), Poll::Ready(Err(NotTaken::TooLarge(5_000))));
    }

    #[test]
    fn the_end_comes_after_the_messages_and_once() {
        let outlet = Outlet::new(1_000, 5_000);
        assert!(send(&outlet, 3).is_ready());
        outlet.end(Ended::of(Answer::Status(Status::aborted("first"))));
        outlet.end(Ended::of(Answer::Status(Status::aborted("second"))));
        assert_eq!(send(&outlet, 3), Poll::Ready(Err(NotTaken::Over)));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(matches!(outlet.poll_next(&mut cx), Poll::Ready(Next::Message(_))));
        let Poll::Ready(Next::End(ended)) = outlet.poll_next(&mut cx) else { panic!("no end") };
        assert!(matches!(ended.answer, Answer::Status(status) if status.message() == "first"));
        assert!(outlet.poll_next(&mut cx).is_pending());
    }
}
