//! A stream as its client has it.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use stubborn_core::service::{
    CallError, Encoded, IncomingReply, Metadata, Method, NotTaken, OutgoingCall, Port,
};
use stubborn_core::session::NotExecutedReason as Reason;
use tokio::task::AbortHandle;
use tokio_stream::Stream;
use tonic::{Response, Streaming};

use super::again::{UNSEEN, UNSENT};
use super::caller::{GrpcCaller, Once, Prepared, innermost, request, until};
use super::outcome::{Attempt, Gate, failed, never_sent, unknown, unseen};
use super::outgoing::{Outbox, cancelled, no_more};
use super::pool::Place;
use crate::codec::RawCodec;
use crate::door::Early;
use crate::outlet::Outlet;
use crate::words;

/// A call that streams. Dropping it cancels the call.
pub(super) struct ClientPort {
    shared: Arc<Shared>,
    /// Opens the stream, keeps its place, and ends it at its deadline.
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
    /// In flight at its server.
    Open {
        stream: Box<Streaming<Bytes>>,
        headers: Metadata,
        place: Place,
    },
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
        let config = &caller.pool.config;
        let (window, largest) = (config.stream_window, config.message as u64);
        let outlet = Arc::new(Outlet::new(window, largest));
        if !method.shape().client_streams() {
            outlet.end(no_more());
        }
        let state = State { stage: Stage::Opening, reply: None, take: None, end: None };
        let shared = Arc::new(Shared { method, outlet, state: Mutex::new(state) });
        let task = tokio::spawn(run(caller, shared.clone(), call, prepared));
        Arc::new(Self { shared, task: task.abort_handle() })
    }
}

/// Opens the stream; then waits for its deadline.
async fn run(caller: GrpcCaller, shared: Arc<Shared>, call: OutgoingCall, prepared: Prepared) {
    let deadline = prepared.deadline;
    match open(&caller, &shared, &call, prepared).await {
        Ok((response, place)) => {
            let (headers, stream) = split(response);
            let stage = Stage::Open { stream: Box::new(stream), headers, place };
            shared.change(|state| state.stage = stage);
        }
        Err(error) => {
            shared.outlet.end(cancelled());
            return shared.change(|state| state.stage = Stage::Ended(Some(Err(error))));
        }
    }
    drop(caller);
    let Some(deadline) = deadline else { return };
    tokio::time::sleep_until(deadline).await;
    shared.change(|state| {
        if !matches!(state.stage, Stage::Ended(_)) {
            let passed = unknown(&shared.method, "the deadline has passed");
            state.stage = Stage::Ended(Some(Err(passed)));
        }
    });
}

/// Opens the stream at a server. What no server has looked at is sent again at once, as long as all of the
/// client's messages are kept.
async fn open(
    caller: &GrpcCaller,
    shared: &Arc<Shared>,
    call: &OutgoingCall,
    prepared: Prepared,
) -> Result<(Response<Streaming<Bytes>>, Place), CallError> {
    let method = &shared.method;
    let streams = method.shape().client_streams();
    let outbox = Outbox::new(shared.outlet.clone(), caller.pool.config.stream_window);
    let (mut unsent, mut unseen_left) = (UNSENT, UNSEEN);
    loop {
        let place = caller.place(method, &prepared, None).await?;
        let gate = Arc::new(Gate::default());
        let mut grpc = caller.grpc(&place, &gate);
        let Prepared { headers, path, deadline, .. } = &prepared;
        let (path, deadline) = (path.clone(), *deadline);
        let opened = if streams {
            let request = request(outbox.begin(), headers, deadline);
            until(deadline, grpc.streaming(request, path, RawCodec)).await
        } else {
            let message = Once { message: Some(call.request.body.clone()), gate: gate.clone() };
            let request = request(message, headers, deadline);
            until(deadline, grpc.streaming(request, path, RawCodec)).await
        };
        let status = match opened {
            Some(Ok(response)) => {
                place.answered(false);
                if streams {
                    outbox.commit();
                }
                return Ok((response, place));
            }
            Some(Err(status)) => status,
            None if !streams && gate.shut() => {
                let why = "the connection had no room for it in time";
                return Err(never_sent(method, Reason::Deadline, why));
            }
            None => {
                place.unanswered();
                return Err(unknown(method, "the deadline has passed"));
            }
        };
        let attempt =
            if streams { Attempt::of_stream(&gate, &status) } else { Attempt::of(&gate, &status) };
        place.note(attempt);
        let whole = !streams || outbox.is_whole();
        match attempt {
            Attempt::Unsent if whole && unsent > 0 => unsent -= 1,
            Attempt::Unsent => {
                return Err(never_sent(method, Reason::NeverSent, innermost(&status)));
            }
            Attempt::Unseen { .. } if whole && unseen_left > 0 => unseen_left -= 1,
            Attempt::Unseen { leaving } => return Err(unseen(method, leaving)),
            Attempt::Seen => {
                let error = failed(method, &status);
                place.said(error.outcome());
                return Err(error);
            }
        }
    }
}

fn split(response: Response<Streaming<Bytes>>) -> (Metadata, Streaming<Bytes>) {
    let mut metadata = Metadata::new();
    // What does not fit is left out: the stream is worth more.
    let _ = words::add_metadata(&mut metadata, response.metadata());
    (metadata, response.into_inner())
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
        let Stage::Open { stream, headers, place } = &mut state.stage else {
            let over = matches!(state.stage, Stage::Ended(_));
            return if over { Poll::Ready(None) } else { Poll::Pending };
        };
        let Poll::Ready(message) = Pin::new(&mut **stream).poll_next(cx) else {
            return Poll::Pending;
        };
        let end = match message {
            Some(Ok(message)) => return Poll::Ready(Some(message)),
            Some(Err(status)) => {
                let error = failed(&self.method, &status);
                place.said(error.outcome());
                Err(error)
            }
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
        while let Stage::Opening | Stage::Open { .. } = state.stage {
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
