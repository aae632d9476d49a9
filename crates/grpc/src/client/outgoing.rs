//! The messages of a client that streams, on their way to a connection, and to the next one if the first
//! server has not looked at them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use stubborn_core::service::{Answer, Code, Encoded, Metadata, Status};
use stubborn_rope::Rope;
use tokio_stream::Stream;

use crate::door::Ended;
use crate::outlet::{Next, Outlet};

/// Bytes that a message counts beside its own.
const OVERHEAD: u64 = 256;

/// What a client sends. Until a server answers, what was taken is kept, as long as it is no more than `most`
/// bytes (gRFC A6 calls the call committed after that).
pub(super) struct Outbox {
    outlet: Arc<Outlet>,
    most: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The attempt that takes messages now.
    attempt: u64,
    messages: Vec<Rope>,
    bytes: u64,
    /// The call stays where it is: what is taken is not kept any more.
    committed: bool,
    /// The client has said all, and that was taken, too.
    ended: bool,
    /// The connection of this attempt takes no more.
    closed: bool,
}

impl Outbox {
    pub(super) fn new(outlet: Arc<Outlet>, most: u64) -> Arc<Self> {
        Arc::new(Self { outlet, most, kept: Mutex::default() })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All messages from the first on, for another attempt; the one before gets no more.
    pub(super) fn begin(self: &Arc<Self>) -> Outgoing {
        let mut kept = self.kept();
        kept.attempt += 1;
        kept.closed = false;
        Outgoing { outbox: self.clone(), attempt: kept.attempt, next: 0 }
    }

    /// Whether all messages are still here for another attempt.
    pub(super) fn is_whole(&self) -> bool {
        !self.kept().committed
    }

    /// A server answers: there is no other attempt.
    pub(super) fn commit(&self) {
        let mut kept = self.kept();
        kept.committed = true;
        if kept.closed {
            self.outlet.end(cancelled());
        }
    }
}

/// The client has said all.
pub(super) fn no_more() -> Ended {
    Ended::of(Answer::Reply(Encoded::default(), Metadata::new()))
}

/// The client has not, and never will: the server must not take what was sent for the whole.
pub(super) fn cancelled() -> Ended {
    Ended::of(Answer::Status(Status::new(Code::Cancelled, "")))
}

/// The messages of one attempt.
pub(super) struct Outgoing {
    outbox: Arc<Outbox>,
    attempt: u64,
    /// Of the messages that are kept.
    next: usize,
}

impl Stream for Outgoing {
    type Item = Rope;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Rope>> {
        let this = &mut *self;
        let mut kept = this.outbox.kept();
        if kept.attempt != this.attempt {
            return Poll::Pending;
        }
        if let Some(message) = kept.messages.get(this.next) {
            this.next += 1;
            return Poll::Ready(Some(message.clone()));
        }
        if kept.committed {
            (kept.messages, this.next) = (Vec::new(), 0);
        }
        if kept.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = this.outbox.outlet.poll_next(cx) else { return Poll::Pending };
        match next {
            Next::Message(message) => {
                kept.bytes += message.len() as u64 + OVERHEAD;
                kept.committed |= kept.bytes > this.outbox.most;
                if !kept.committed {
                    kept.messages.push(message.clone());
                    this.next += 1;
                }
                Poll::Ready(Some(message))
            }
            Next::End(Ended { answer: Answer::Reply(..), .. }) => {
                kept.ended = true;
                Poll::Ready(None)
            }
            Next::End(_) => Poll::Pending,
        }
    }
}

impl Drop for Outgoing {
    /// The connection takes no more: whoever waits for room learns it, unless another one can still take
    /// all.
    fn drop(&mut self) {
        let mut kept = self.outbox.kept();
        if kept.attempt == self.attempt {
            kept.closed = true;
            if kept.committed {
                self.outbox.outlet.end(cancelled());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use stubborn_core::service::NotTaken;

    use super::*;
    use crate::door::Early;

    fn outbox(most: u64) -> Arc<Outbox> {
        Outbox::new(Arc::new(Outlet::new(1 << 20, 1 << 20)), most)
    }

    fn send(outbox: &Outbox, text: &'static str) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let mut message = Some(Rope::from(Bytes::from_static(text.as_bytes())));
        match outbox.outlet.poll_send(&mut cx, &mut message, Early::default) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(NotTaken::Over)) => false,
            other => panic!("{other:?}"),
        }
    }

    /// What can be taken now: how many messages, and whether the end came.
    fn take(outgoing: &mut Outgoing) -> (usize, bool) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        loop {
            match Pin::new(&mut *outgoing).poll_next(&mut cx) {
                Poll::Ready(Some(_)) => taken += 1,
                Poll::Ready(None) => return (taken, true),
                Poll::Pending => return (taken, false),
            }
        }
    }

    #[test]
    fn another_attempt_gets_all_messages_and_the_end_and_the_one_before_nothing_more() {
        let outbox = outbox(1 << 20);
        assert!(send(&outbox, "a") && send(&outbox, "b"));
        let mut first = outbox.begin();
        assert_eq!(take(&mut first), (2, false));
        let mut second = outbox.begin();
        assert!(send(&outbox, "c"));
        assert_eq!(take(&mut first), (0, false));
        outbox.outlet.end(no_more());
        assert_eq!(take(&mut second), (3, true));
        let mut third = outbox.begin();
        outbox.commit();
        assert_eq!(take(&mut third), (3, true), "what it has not had yet");
    }

    #[test]
    fn what_is_more_than_may_be_kept_stays_with_its_server() {
        let outbox = outbox(2 * (OVERHEAD + 1));
        let mut first = outbox.begin();
        assert!(send(&outbox, "a") && send(&outbox, "b"));
        assert_eq!(take(&mut first), (2, false));
        assert!(outbox.is_whole());
        assert!(send(&outbox, "c") && send(&outbox, "d"));
        assert_eq!(take(&mut first), (2, false));
        assert!(!outbox.is_whole());
    }

    #[test]
    fn a_client_learns_that_its_server_takes_no_more_once_there_is_no_other_attempt() {
        let outbox = outbox(1 << 20);
        drop(outbox.begin());
        assert!(send(&outbox, "a"), "there may be another attempt");
        let second = outbox.begin();
        outbox.commit();
        assert!(send(&outbox, "b"));
        drop(second);
        assert!(!send(&outbox, "c"));
        let outbox = self::outbox(1 << 20);
        drop(outbox.begin());
        outbox.commit();
        assert!(!send(&outbox, "a"), "the answer came after the end");
    }
}
