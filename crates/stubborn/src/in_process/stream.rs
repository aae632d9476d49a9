//! Streams in one process: two queues and the end of the call.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use stubborn_core::service::{
    Call, CallError, CallState, Encoded, IncomingReply, NotExecuted, NotTaken, Outcome,
    OutgoingCall, Port, Status, StreamEnd,
};
use stubborn_core::session::NotExecutedReason;
use tokio::task::AbortHandle;

use super::{Fate, Inner, state_of};

/// Messages that wait in one direction; then its sender does.
const WINDOW: usize = 16;

#[derive(Default)]
struct Pipe {
    messages: VecDeque<Encoded>,
    moved: u64,
    ended: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct Both {
    to_server: Pipe,
    to_client: Pipe,
    end: Option<Result<IncomingReply, CallError>>,
    /// Whether the end was told or nobody wants it.
    over: bool,
    waits: Option<Waker>,
    handler: Option<AbortHandle>,
}

struct Stream(Mutex<Both>);

struct ClientEnd(Arc<Stream>);

struct HandlerEnd(Arc<Stream>);

/// Begins a call of a method that streams.
pub(super) fn open(inner: &Arc<Inner>, mut call: OutgoingCall) -> Arc<dyn Port> {
    let (dice, id) = inner.state().begin(true, call.reserved);
    let stream = Arc::new(Stream(Mutex::default()));
    let name = call.method.name().to_owned();
    let failed = move |outcome| CallError::new(name.clone(), outcome).with_id(id);
    let context = inner.context(id, &mut call);
    let (ran, port) = (inner.clone(), Arc::new(HandlerEnd(stream.clone())));
    let run = async move {
        tokio::time::sleep(dice.request).await;
        let deadline = context.deadline;
        if matches!(dice.fate, Fate::NotExecuted | Fate::Lost(false)) {
            let why = NotExecuted::because(NotExecutedReason::Overloaded, "a fault of the test");
            return CallState::NotExecuted(why);
        }
        if let Some(ended) = id.and_then(|id| ran.state().start(id, false)) {
            return ended;
        }
        let registry = ran.state().registry.clone();
        let shape = call.method.shape();
        let request = Call::new(call.request, context);
        let handling = match registry.dispatch_stream(call.method.id(), shape, request, port) {
            Ok(handling) => handling,
            Err(answer) => return state_of(answer),
        };
        let left = deadline.map(|deadline| deadline.since(ran.now()));
        match left {
            Some(left) => match tokio::time::timeout(left, handling).await {
                Ok(answer) => state_of(answer),
                Err(_) => CallState::Executed(Status::new(
                    stubborn_core::service::Code::DeadlineExceeded,
                    "the deadline has passed",
                )),
            },
            None => state_of(handling.await),
        }
    };
    let (handler, told, held) = (tokio::spawn(run), stream.clone(), inner.clone());
    inner.state().watch(handler.abort_handle());
    stream.both().handler = Some(handler.abort_handle());
    tokio::spawn(async move {
        let state = match handler.await {
            Ok(state) => state,
            Err(error) if error.is_panic() => {
                CallState::Executed(Status::internal("the handler panicked"))
            }
            Err(_) => CallState::Lost,
        };
        tokio::time::sleep(dice.reply).await;
        let lost = matches!(dice.fate, Fate::Lost(_));
        let state = held.end(id, if lost { CallState::Lost } else { state });
        told.finish(match (state, dice.fate, id) {
            (_, Fate::Pending, Some(id)) => Err(failed(Outcome::Pending(id))),
            (CallState::Replied(reply), ..) => Ok(reply),
            (CallState::Executed(status), ..) => Err(failed(Outcome::Executed(status))),
            (CallState::NotExecuted(why), ..) => Err(failed(Outcome::NotExecuted(why))),
            _ => Err(failed(Outcome::Lost)),
        });
    });
    Arc::new(ClientEnd(stream))
}

impl Stream {
    fn both(&self) -> MutexGuard<'_, Both> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, end: Result<IncomingReply, CallError>) {
        let mut both = self.both();
        // A handler takes what it was given, and what it leaves nobody takes.
        let taken = both.to_server.moved - both.to_server.messages.len() as u64;
        let ended = StreamEnd { taken, sent: both.to_client.moved };
        both.end = Some(match end {
            Ok(reply) => Ok(IncomingReply { stream: Some(Box::new(ended)), ..reply }),
            Err(error) => Err(error.with_taken(Some(taken))),
        });
        both.to_server.end();
        both.to_client.end();
        wake(&mut both.waits);
    }
}

impl Pipe {
    fn end(&mut self) {
        self.ended = true;
        wake(&mut self.reader);
        wake(&mut self.writer);
    }

    fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        if let Some(message) = self.messages.pop_front() {
            wake(&mut self.writer);
            return Poll::Ready(Some(message));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        self.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        if self.ended {
            return Poll::Ready(Err(NotTaken::Over));
        }
        if self.messages.len() >= WINDOW {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        self.messages.extend(message.take());
        self.moved += 1;
        wake(&mut self.reader);
        Poll::Ready(Ok(()))
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

impl Port for ClientEnd {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        self.0.both().to_client.poll_take(cx)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        self.0.both().to_server.poll_send(cx, message)
    }

    fn end(&self) {
        self.0.both().to_server.end();
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        let mut both = self.0.both();
        match both.end.take() {
            Some(end) => {
                both.over = true;
                Poll::Ready(end)
            }
            None => {
                both.waits = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn cancel(&self) {
        let handler = self.0.both().handler.take();
        if let Some(handler) = handler {
            handler.abort();
        }
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        let over = self.0.both().over;
        if !over {
            self.cancel();
        }
    }
}

impl Port for HandlerEnd {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        self.0.both().to_server.poll_take(cx)
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        self.0.both().to_client.poll_send(cx, message)
    }

    fn end(&self) {}

    fn poll_end(&self, _: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        Poll::Pending
    }

    fn cancel(&self) {}
}
