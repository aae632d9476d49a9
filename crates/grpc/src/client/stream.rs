//! A stream as its client has it.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use stubborn_core::service::{
    Answer, CallError, Code, Encoded, IncomingReply, Metadata, Method, NotTaken, OutgoingCall,
    Port, Status,
};
use stubborn_core::session::NotExecutedReason as Reason;
use stubborn_rope::Rope;
use tokio::task::AbortHandle;
use tokio_stream::Stream;
use tonic::{Response, Streaming};

use super::caller::{GrpcCaller, Prepared, innermost, request, until};
use super::outcome::{Gate, failed, never_sent, unknown, was_unreachable};
use crate::codec::RawCodec;
use crate::door::{Early, Ended};
use crate::outlet::{Next, Outlet};
use crate::words;

/// A call that streams. Dropping it cancels the call.
pub(super) struct ClientPort {
    shared: Arc<Shared>,
    /// Opens the stream, and ends it at its deadline.
    task: AbortHandle,
}

struct Shared {
    method: Method,
    outlet: Arc<Outlet>,
    state: Mutex<State>,
}

struct State {
    stage: Stage,
    /// The one reply of a call that has one, until its end.
    reply: Option<Bytes>,
    take: Option<Waker>,
    end: Option<Waker>,
}

enum Stage {
    Opening,
    Open(Box<Streaming<Bytes>>, Metadata),
    /// The end, until it is told.
    Ended(Option<Result<IncomingReply, CallError>>),
}

impl ClientPort {
    pub(super) fn open(
        caller: GrpcCaller,
        call: OutgoingCall,
        prepared: Prepared,
    ) -> Arc<dyn Port> {
        let method = call.method.clone();
        let (window, largest) = (caller.config.stream_window, caller.config.message as u64);
        let outlet = Arc::new(Outlet::new(window, largest));
        let gate = Arc::new(Gate::default());
        if method.shape().client_streams() {
            // Its headers begin it.
            gate.pass();
        } else {
            let mut cx = Context::from_waker(Waker::noop());
            let mut message = Some(call.request.body.clone());
            let _ = outlet.poll_send(&mut cx, &mut message, Early::default);
            outlet.end(no_more());
        }
        let state = State { stage: Stage::Opening, reply: None, take: None, end: None };
        let shared = Arc::new(Shared { method, outlet, state: Mutex::new(state) });
        let task = tokio::spawn(open(caller, shared.clone(), gate, prepared));
        Arc::new(Self { shared, task: task.abort_handle() })
    }
}

/// Opens the stream; then waits for its deadline.
async fn open(caller: GrpcCaller, shared: Arc<Shared>, gate: Arc<Gate>, prepared: Prepared) {
    let Prepared { headers, path, deadline } = prepared;
    let messages = Outgoing { outlet: shared.outlet.clone(), gate: gate.clone() };
    let request = request(messages, &headers, deadline);
    let mut grpc = caller.grpc();
    let opening = async {
        let ready = grpc.ready().await;
        ready.map_err(|error| tonic::Status::from_error(Box::new(error)))?;
        grpc.streaming(request, path, RawCodec).await
    };
    let method = &shared.method;
    let stage = match until(deadline, opening).await {
        Some(Ok(response)) => {
            let (headers, stream) = split(response);
            Stage::Open(Box::new(stream), headers)
        }
        Some(Err(status)) => Stage::Ended(Some(Err(if gate.shut() || was_unreachable(&status) {
            never_sent(method, Reason::NeverSent, innermost(&status))
        } else {
            failed(method, &status)
        }))),
        None if gate.shut() => {
            let why = "no server was reached in time";
            Stage::Ended(Some(Err(never_sent(method, Reason::Deadline, why))))
        }
        None => Stage::Ended(Some(Err(unknown(method, "the deadline has passed")))),
    };
    let open = matches!(stage, Stage::Open(..));
    shared.change(|state| state.stage = stage);
    if let (true, Some(deadline)) = (open, deadline) {
        tokio::time::sleep_until(deadline).await;
        shared.change(|state| {
            if !matches!(state.stage, Stage::Ended(_)) {
                let passed = unknown(&shared.method, "the deadline has passed");
                state.stage = Stage::Ended(Some(Err(passed)));
            }
        });
    }
}

fn split(response: Response<Streaming<Bytes>>) -> (Metadata, Streaming<Bytes>) {
    let mut metadata = Metadata::new();
    // What does not fit is left out: the stream is worth more.
    let _ = words::add_metadata(&mut metadata, response.metadata());
    (metadata, response.into_inner())
}

/// The client has said all.
fn no_more() -> Ended {
    Ended::of(Answer::Reply(Encoded::default(), Metadata::new()))
}

/// The client has not, and never will: the server must not take what was sent for the whole.
fn cancelled() -> Ended {
    Ended::of(Answer::Status(Status::new(Code::Cancelled, "")))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes who waits.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let (take, end) = (state.take.take(), state.end.take());
        drop(state);
        take.into_iter().chain(end).for_each(Waker::wake);
    }

    /// The next message of the server; `None` when there is an end to be told, or it was.
    fn poll_next(&self, state: &mut State, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Stage::Open(stream, headers) = &mut state.stage else {
            let over = matches!(state.stage, Stage::Ended(_));
            return if over { Poll::Ready(None) } else { Poll::Pending };
        };
        let Poll::Ready(message) = Pin::new(&mut **stream).poll_next(cx) else {
            return Poll::Pending;
        };
        let end = match message {
            Some(Ok(message)) => return Poll::Ready(Some(message)),
            Some(Err(status)) => Err(failed(&self.method, &status)),
            None => {
                let mut metadata = std::mem::take(headers);
                // They have come with the end.
                if let Poll::Ready(Ok(Some(trailers))) = pin!(stream.trailers()).poll(cx) {
                    let _ = words::add_metadata(&mut metadata, &trailers);
                }
                Ok(IncomingReply { metadata, ..IncomingReply::default() })
            }
        };
        state.stage = Stage::Ended(Some(end));
        Poll::Ready(None)
    }
}

impl Port for ClientPort {
    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Option<Encoded>> {
        let mut state = self.shared.lock();
        let next = self.shared.poll_next(&mut state, cx);
        if next.is_pending() {
            state.take = Some(cx.waker().clone());
        }
        next.map(|body| body.map(|body| Encoded::from_body(self.shared.method.id(), body)))
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        message: &mut Option<Encoded>,
    ) -> Poll<Result<(), NotTaken>> {
        let mut body = message.take().map(|message| message.body);
        let sent = self.shared.outlet.poll_send(cx, &mut body, Early::default);
        if let (Poll::Pending, Some(body)) = (&sent, body) {
            *message = Some(Encoded::from_rope(self.shared.method.id(), body));
        }
        sent
    }

    fn end(&self) {
        self.shared.outlet.end(no_more());
    }

    /// Of a call with one reply the reply is the message before the end.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Result<IncomingReply, CallError>> {
        let mut state = self.shared.lock();
        let single = !self.shared.method.shape().server_streams();
        while let Stage::Opening | Stage::Open(..) = state.stage {
            if !single {
                state.end = Some(cx.waker().clone());
                return Poll::Pending;
            }
            match self.shared.poll_next(&mut state, cx) {
                Poll::Pending => {
                    state.end = Some(cx.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(Some(body)) => state.reply = Some(body),
                Poll::Ready(None) => {}
            }
        }
        let reply = state.reply.take();
        let Stage::Ended(end) = &mut state.stage else { return Poll::Pending };
        match (end.take(), reply) {
            (Some(Ok(end)), Some(body)) => Poll::Ready(Ok(self.reply(body, end.metadata))),
            (Some(Ok(_)), None) if single => {
                Poll::Ready(Err(unknown(&self.shared.method, "the server sent no reply")))
            }
            (Some(end), _) => Poll::Ready(end),
            (None, _) => Poll::Pending,
        }
    }

    fn cancel(&self) {
        self.task.abort();
        self.shared.outlet.end(cancelled());
        self.shared.change(|state| {
            if !matches!(state.stage, Stage::Ended(_)) {
                let cancelled =
                    unknown(&self.shared.method, "this client has cancelled the stream");
                state.stage = Stage::Ended(Some(Err(cancelled)));
            }
        });
    }
}

impl ClientPort {
    fn reply(&self, body: Bytes, metadata: Metadata) -> IncomingReply {
        let reply = Encoded::from_body(self.shared.method.id(), body);
        IncomingReply { reply, metadata, stream: None }
    }
}

impl Drop for ClientPort {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The messages of the client, on their way to the connection.
struct Outgoing {
    outlet: Arc<Outlet>,
    gate: Arc<Gate>,
}

impl Stream for Outgoing {
    type Item = Rope;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Rope>> {
        let Poll::Ready(next) = self.outlet.poll_next(cx) else { return Poll::Pending };
        match next {
            // Behind a shut gate nobody waits any more: whoever polls is about to be dropped.
            Next::Message(_) if !self.gate.pass() => Poll::Pending,
            Next::Message(message) => Poll::Ready(Some(message)),
            Next::End(Ended { answer: Answer::Reply(..), .. }) => Poll::Ready(None),
            Next::End(_) => Poll::Pending,
        }
    }
}

impl Drop for Outgoing {
    /// The connection takes no more: whoever waits for room learns it.
    fn drop(&mut self) {
        self.outlet.end(cancelled());
    }
}
