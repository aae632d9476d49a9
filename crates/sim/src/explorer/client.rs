//! The explorer's clients: they make every kind of call in every way, and tell the oracles what they
//! are told.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::service::{
    CallError, CallState, Caller, Code, IncomingReply, Outcome, OutgoingCall,
};
use stubborn_core::session::CallId;

use super::probe::{Errand, Kind, REFUSAL, check_reply};
use super::watched::Watched;
use crate::oracle::calls::Verdict;
use crate::world::{SimCaller, World};

/// How the calls of one channel are made.
#[derive(Clone, Debug)]
pub(crate) struct Habits {
    /// Time between two calls of one worker, at most.
    pub(crate) pause: Duration,
    /// Share of calls with large bodies.
    pub(crate) large: f64,
    /// The largest body.
    pub(crate) largest: u64,
    /// Share of calls that state a deadline, and of those that are dropped unfinished.
    pub(crate) deadlines: f64,
    pub(crate) drops: f64,
    /// The largest reply that servers keep.
    pub(crate) kept_reply: usize,
}

/// One sequence of calls over a channel.
pub(crate) struct Worker {
    pub(crate) world: World,
    pub(crate) caller: SimCaller,
    pub(crate) habits: Habits,
    pub(crate) random: Random,
    pub(crate) stop: Arc<AtomicBool>,
}

/// A unary call whose end is watched.
struct Sent {
    watched: Watched,
    errand: Errand,
    kind: Kind,
}

impl Worker {
    /// Makes calls until it is told to stop.
    pub(crate) async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.habits.pause.as_nanos() as u64;
            let pause = Duration::from_nanos(self.random.below(pause + 1));
            self.world.sleep(pause).await;
            self.call().await;
        }
    }

    async fn call(&mut self) {
        let kind = match self.random.below(20) {
            0..13 => Kind::Once,
            13..15 => Kind::Idempotent,
            15..19 => Kind::Read,
            _ => Kind::Maybe,
        };
        let sent = self.begin(kind);
        let mut call = self.outgoing(kind, &sent.errand);
        if kind == Kind::Once && self.random.chance(0.2) {
            match self.reserve(&mut call).await {
                Some(id) => return self.reserved(sent, call, id).await,
                None => return, // no number, no call: what was watched is dropped
            }
        }
        let limit = self.patience();
        match within(&self.world, limit, self.caller.call(call)).await {
            Some(result) => self.judge(sent, result).await,
            None => drop(sent),
        }
    }

    fn begin(&mut self, kind: Kind) -> Sent {
        let watched = Watched::begin(&self.caller, &self.world);
        let takes = match self.random.below(10) {
            0..7 => 0,
            7..9 => self.random.below(20_000),
            _ => self.random.below(1_500_000),
        };
        let errand = Errand {
            token: watched.token(),
            takes: Duration::from_micros(takes),
            reply: self.size() as u32,
            // Made again by a policy, a long one would not end within the bound of liveness.
            refuse: self.random.chance(0.05) && takes < 100_000,
        };
        watched.note(|| {
            format!("begins: {kind:?}, takes {:?}, replies {}", errand.takes, errand.reply)
        });
        Sent { watched, errand, kind }
    }

    fn outgoing(&mut self, kind: Kind, errand: &Errand) -> OutgoingCall {
        // A `maybe` call has to fit a datagram.
        let size = if kind == Kind::Maybe { self.random.below(500) } else { self.size() };
        let deadline = self.random.chance(self.habits.deadlines);
        OutgoingCall {
            method: kind.method().clone(),
            request: errand.encode(kind, size as usize),
            metadata: super::overload::metadata(errand.token),
            deadline: deadline.then(|| Duration::from_micros(self.random.below(3_000_000))),
            wait_for_ready: Some(self.random.chance(0.8)),
            reserved: None,
            max_staleness: None,
        }
    }

    fn size(&mut self) -> u64 {
        if self.random.chance(self.habits.large) {
            self.random.below(self.habits.largest + 1)
        } else {
            self.random.below(200)
        }
    }

    /// How long until the call is dropped, if it is.
    fn patience(&mut self) -> Option<Duration> {
        let dropped = self.random.chance(self.habits.drops);
        dropped.then(|| Duration::from_micros(self.random.below(500_000)))
    }

    async fn reserve(&mut self, call: &mut OutgoingCall) -> Option<CallId> {
        let id = self.caller.reserve(&call.method).await.ok()?;
        call.reserved = Some(id);
        Some(id)
    }

    /// The id is known before anything is sent: whatever happens to the call, its outcome can be
    /// asked for.
    async fn reserved(&mut self, mut sent: Sent, call: OutgoingCall, id: CallId) {
        sent.watched.of(Some(id));
        if self.random.chance(0.1) {
            self.caller.abandon(id);
            return sent.watched.tell(Verdict::NotExecuted); // it was never sent
        }
        let patience = self.patience();
        match within(&self.world, patience, self.caller.call(call)).await {
            Some(result) => self.judge(sent, result).await,
            None => self.settle(sent, id).await,
        }
    }

    async fn judge(&mut self, mut sent: Sent, result: Result<IncomingReply, CallError>) {
        let error = match result {
            Ok(reply) => return sent.replied(&reply),
            Err(error) => error,
        };
        sent.watched.of(error.call_id());
        match error.outcome() {
            Outcome::Executed(status) => sent.refused(status.code(), self.habits.kept_reply),
            Outcome::NotExecuted(why) => sent.watched.not_executed(why.reason),
            Outcome::Pending(id) => {
                let id = *id;
                self.settle(sent, id).await;
            }
            Outcome::Lost => sent.watched.lost(),
            Outcome::Unanswered => sent.unanswered(),
        }
    }

    /// Asks until the outcome is known.
    async fn settle(&mut self, mut sent: Sent, id: CallId) {
        sent.watched.of(Some(id));
        loop {
            if self.world.state().lies.told(id) {
                return drop(sent); // a liar may have denied its session, and nobody else has it
            }
            match self.caller.outcome(id).await {
                Ok(CallState::Replied(reply)) => return sent.replied(&reply),
                Ok(CallState::Executed(status)) => {
                    return sent.refused(status.code(), self.habits.kept_reply);
                }
                Ok(CallState::ReplyNotKept) => {
                    return sent.refused(Code::DataLoss, self.habits.kept_reply);
                }
                Ok(CallState::NotExecuted(why)) => return sent.watched.not_executed(why.reason),
                Ok(CallState::Lost) => return sent.watched.lost(),
                // The channel settled it when its future was dropped, and has forgotten it since.
                Ok(CallState::AlreadySettled) => return drop(sent),
                Ok(CallState::Executing | CallState::NotArrived) | Err(_) => {}
            }
            let pause = Duration::from_millis(50 + self.random.below(200));
            self.world.sleep(pause).await;
        }
    }
}

impl Sent {
    fn replied(self, reply: &IncomingReply) {
        if self.kind == Kind::Maybe {
            return; // it was sent; nobody says more
        }
        if !self.watched.is_lied_to() {
            check_reply(&self.watched.world, self.kind, &self.errand, reply);
        }
        self.watched.executed();
    }

    /// The call ran, and there is a status instead of a reply.
    fn refused(self, code: Code, kept_reply: usize) {
        let small = (self.errand.reply as usize) + 1_024 < kept_reply;
        let wrong = match code {
            REFUSAL => !self.errand.refuse,
            // The reply is gone: right only where it was too large to be kept.
            Code::DataLoss => small,
            code => !self.watched.world.state().calls.has_failed(self.errand.token, code),
        };
        if wrong && !self.watched.is_lied_to() {
            let what = format!(
                "the call {} ({:?}, for {} bytes) ended with {code:?}, which its handler did not say",
                self.errand.token, self.kind, self.errand.reply
            );
            self.watched.accuse("outcomes", what);
        }
        self.watched.executed();
    }

    fn unanswered(self) {
        self.watched.unanswered(!matches!(self.kind, Kind::Read | Kind::Maybe));
    }
}

/// Awaits a future for at most a time; then drops it.
pub(crate) async fn within<T>(
    world: &World,
    limit: Option<Duration>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let Some(limit) = limit else { return Some(future.await) };
    let mut future = pin!(future);
    let mut timeout = pin!(world.sleep(limit));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        timeout.as_mut().poll(cx).map(|()| None)
    })
    .await
}
