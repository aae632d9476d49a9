//! Calls as futures over a node.

use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use stubborn_core::node::{CallKey, ChannelKey, Node, SessionTicket};
use stubborn_core::service::{
    Begun, BoxFuture, CallError, CallState, Caller, IncomingReply, Method, NotExecuted, Outcome,
    OutgoingCall, Port,
};
use stubborn_core::session::{CallId, NotExecutedReason};
use stubborn_core::time::Instant;

use super::connection::Open;
use super::stream::ClientPort;
use crate::driver::{Ended, Shared, Waiter, WaiterKey};
use crate::{deadline, trace};

/// A channel of a node as generated stubs see it. What each call needs of the channel lies here once more:
/// where there are many channels, each line of memory is waited for.
pub(crate) struct NodeCaller {
    open: Arc<Open>,
    shared: Arc<Shared>,
    key: ChannelKey,
    has_journal: bool,
    /// Of calls that state none.
    deadline: Option<Duration>,
}

impl NodeCaller {
    pub(crate) fn new(open: Arc<Open>) -> Self {
        let (shared, key) = (Arc::clone(open.shared()), open.key);
        let (has_journal, deadline) = (open.journal.is_some(), open.deadline);
        Self { open, shared, key, has_journal, deadline }
    }
}

impl Caller for NodeCaller {
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        Box::pin(Waiting::new(&self.open, Begin::Call(Box::new(call))))
    }

    fn begin(&self, call: &mut OutgoingCall, waker: &Waker) -> Begun {
        if self.has_journal {
            // Its end is told to the journal, too.
            return Begun::Future(self.call(call.take()));
        }
        call.deadline = deadline::shorten(call.deadline, self.deadline);
        trace::carry(&mut call.metadata);
        let channel = self.key;
        let key = self.shared.begin(|state, now| {
            let key = state.node.begin_call(now, channel, call);
            state.await_call(now, key, &call.method, waker.clone())
        });
        match key {
            Some(key) => Begun::Key(key.to_bits()),
            None => {
                let method = call.method.clone();
                Begun::Failed(Description { method, sent: false }.never_sent())
            }
        }
    }

    fn poll_begun(
        &self,
        key: u64,
        method: &Method,
        waker: &Waker,
    ) -> Poll<Result<IncomingReply, CallError>> {
        let key = WaiterKey::from_bits(key);
        let end = self.shared.poll_end(key, waker, |ended| match ended {
            // What is left there is of no size.
            Ended::Call(result) => mem::replace(result, Ok(IncomingReply::default())),
            _ => Err(Description { method: method.clone(), sent: true }.gone()),
        });
        end.map_or(Poll::Pending, Poll::Ready)
    }

    fn leave(&self, key: u64) {
        let (channel, key) = (self.key, WaiterKey::from_bits(key));
        self.shared.change(|state, now| abandon(state, now, channel, key));
    }

    fn reserve(&self, method: &Method) -> BoxFuture<Result<CallId, CallError>> {
        Box::pin(Waiting::new(&self.open, Begin::Reserve(method.clone())))
    }

    fn abandon(&self, id: CallId) {
        let key = self.key;
        self.shared.change(|state, now| state.node.abandon_reserved(now, key, id));
    }

    fn open(&self, mut call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        call.deadline = deadline::shorten(call.deadline, self.deadline);
        trace::carry(&mut call.metadata);
        Ok(Arc::new(ClientPort::begin(&self.open, call)?))
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        Box::pin(Waiting::new(&self.open, Begin::Ask(id, None)))
    }
}

/// Asks about a call of any session.
pub(crate) fn ask(
    open: &Arc<Open>,
    id: CallId,
    ticket: Option<SessionTicket>,
) -> impl Future<Output = Result<CallState<IncomingReply>, CallError>> + use<> {
    Waiting::new(open, Begin::Ask(id, ticket))
}

/// Something that was begun at a node, until it ends. Dropping it abandons it.
struct Waiting<T> {
    open: Arc<Open>,
    stage: Stage,
    result: PhantomData<fn() -> T>,
}

enum Stage {
    New(Begin),
    Begun(WaiterKey, CallKey, Description),
    Over,
}

enum Begin {
    Call(Box<OutgoingCall>),
    Reserve(Method),
    Ask(CallId, Option<SessionTicket>),
}

/// What is left to say of something begun if its node ends under it.
pub(super) struct Description {
    pub(super) method: Method,
    pub(super) sent: bool,
}

/// What a kind of waiting ends in.
trait EndOf: Sized {
    fn of(ended: Ended) -> Option<Self>;
    fn failed(error: CallError) -> Self;

    /// Whether it is the outcome of the call that was begun, and no better one can come.
    fn is_final(&self) -> bool {
        false
    }
}

impl<T: EndOf> Waiting<T> {
    fn new(open: &Arc<Open>, begin: Begin) -> Self {
        Self { open: Arc::clone(open), stage: Stage::New(begin), result: PhantomData }
    }

    fn begin(&mut self, mut begin: Begin, waker: &Waker) -> Option<T> {
        if let Begin::Call(call) = &mut begin {
            call.deadline = deadline::shorten(call.deadline, self.open.deadline);
            trace::carry(&mut call.metadata);
        }
        let description = begin.describe();
        let channel = self.open.key;
        let key = self.open.shared().change(|state, now| {
            let measured = matches!(begin, Begin::Call(_));
            let call = begin.start(&mut state.node, now, channel);
            let waker = waker.clone();
            let waiter = match measured {
                true => state.await_call(now, call, &description.method, waker),
                false => state.waiters.insert(call, waker, None),
            };
            (waiter, call)
        });
        match key {
            Some((key, call)) => {
                self.stage = Stage::Begun(key, call, description);
                None
            }
            None => Some(T::failed(description.never_sent())),
        }
    }
}

impl<T: EndOf> Future for Waiting<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::New(begin) => match self.begin(begin, cx.waker()) {
                Some(failed) => Poll::Ready(failed),
                None => Poll::Pending,
            },
            Stage::Begun(key, call, description) => {
                match self.open.shared().poll_waiter(key, cx.waker()) {
                    None => {
                        self.stage = Stage::Begun(key, call, description);
                        Poll::Pending
                    }
                    Some(ended) => {
                        let gone = || T::failed(description.gone());
                        // A node that ended says nothing of the call: its journal goes on.
                        let end = T::of(ended);
                        if let Some(journal) = &self.open.journal
                            && end.as_ref().is_some_and(EndOf::is_final)
                        {
                            journal.told(call);
                        }
                        Poll::Ready(end.unwrap_or_else(gone))
                    }
                }
            }
            Stage::Over => unreachable!("a call is not polled after it has ended"),
        }
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        let channel = self.open.key;
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Over => {}
            Stage::New(Begin::Call(call)) => {
                if let Some(id) = call.reserved {
                    let abandon = |node: &mut Node, now| node.abandon_reserved(now, channel, id);
                    self.open.shared().change(|state, now| abandon(&mut state.node, now));
                }
            }
            Stage::New(_) => {}
            Stage::Begun(key, call, _) => {
                if let Some(journal) = &self.open.journal {
                    journal.dropped(call);
                }
                self.open.shared().change(|state, now| abandon(state, now, channel, key));
            }
        }
    }
}

/// Nobody waits any more. What had ended unseen needs no fence, but a number that was reserved
/// unseen does.
fn abandon(state: &mut crate::driver::State, now: Instant, channel: ChannelKey, key: WaiterKey) {
    match state.forget_waiter(now, key) {
        None => {}
        Some((call, Waiter::Waiting(..))) => state.node.abandon(now, call),
        Some((_, Waiter::Ready(Ended::Reservation(Ok(id))))) => {
            state.node.abandon_reserved(now, channel, id);
        }
        Some((_, Waiter::Ready(_))) => {}
    }
}

impl Begin {
    fn start(self, node: &mut Node, now: Instant, channel: ChannelKey) -> CallKey {
        match self {
            Self::Call(call) => node.call(now, channel, *call),
            Self::Reserve(method) => node.reserve(now, channel, &method),
            Self::Ask(id, ticket) => node.outcome(now, channel, id, ticket),
        }
    }

    fn describe(&self) -> Description {
        match self {
            Self::Call(call) => Description { method: call.method.clone(), sent: true },
            Self::Reserve(method) => Description { method: method.clone(), sent: false },
            Self::Ask(id, _) => Description::question(*id),
        }
    }
}

impl Description {
    fn question(id: CallId) -> Self {
        use stubborn_core::service::{Semantics, Shape};
        // A question has no side effects, whatever it asks about.
        let method = Method::dynamic(format!("call {id}"), Semantics::Read, Shape::Unary);
        Self { method, sent: false }
    }

    /// The node had ended before this began.
    pub(super) fn never_sent(self) -> CallError {
        let why = NotExecuted::because(
            NotExecutedReason::NeverSent,
            "this client's endpoint was closed before the call was sent",
        );
        CallError::new(self.method.name().to_owned(), Outcome::NotExecuted(why))
    }

    /// The node ended while this was under way: its session's memory went with it.
    pub(super) fn gone(self) -> CallError {
        if !self.sent {
            return self.never_sent();
        }
        let takes_slot = self.method.semantics().takes_slot();
        let outcome = if takes_slot { Outcome::Lost } else { Outcome::Unanswered };
        CallError::new(self.method.name().to_owned(), outcome)
            .because("this client's endpoint was closed while the call was in flight")
    }
}

impl EndOf for Result<IncomingReply, CallError> {
    fn of(ended: Ended) -> Option<Self> {
        if let Ended::Call(result) = ended { Some(result) } else { None }
    }

    fn is_final(&self) -> bool {
        !matches!(self, Err(error) if matches!(error.outcome(), Outcome::Pending(_)))
    }

    fn failed(error: CallError) -> Self {
        Err(error)
    }
}

impl EndOf for Result<CallId, CallError> {
    fn of(ended: Ended) -> Option<Self> {
        if let Ended::Reservation(result) = ended { Some(result) } else { None }
    }

    fn failed(error: CallError) -> Self {
        Err(error)
    }
}

impl EndOf for Result<CallState<IncomingReply>, CallError> {
    fn of(ended: Ended) -> Option<Self> {
        if let Ended::Question(result) = ended { Some(result) } else { None }
    }

    fn failed(error: CallError) -> Self {
        Err(error)
    }
}
