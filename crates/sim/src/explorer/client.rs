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
    CallError, CallState, Caller, Code, IncomingReply, Metadata, Outcome, OutgoingCall,
};
use stubborn_core::session::{CallId, NotExecutedReason};

use super::probe::{Errand, Kind, REFUSAL, check_reply};
use crate::oracle::calls::{Token, Verdict};
use crate::world::{Memories, SimCaller, World};

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

/// A call whose end is watched. If it is dropped, nobody waits for the end any more.
struct Watched {
    world: World,
    errand: Errand,
    kind: Kind,
    /// What servers remembered when it began.
    memories: Memories,
    told: bool,
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
        let watched = self.begin(kind);
        let mut call = self.outgoing(kind, &watched.errand);
        if kind == Kind::Once && self.random.chance(0.2) {
            match self.reserve(&mut call).await {
                Some(id) => return self.reserved(watched, call, id).await,
                None => return, // no number, no call: what was watched is dropped
            }
        }
        let limit = self.patience();
        match within(&self.world, limit, self.caller.call(call)).await {
            Some(result) => self.judge(watched, result).await,
            None => drop(watched),
        }
    }

    fn begin(&mut self, kind: Kind) -> Watched {
        let token = {
            let mut state = self.world.state();
            let now = state.now;
            state.calls.begin(now)
        };
        let takes = match self.random.below(10) {
            0..7 => 0,
            7..9 => self.random.below(20_000),
            _ => self.random.below(1_500_000),
        };
        let errand = Errand {
            token,
            takes: Duration::from_micros(takes),
            reply: self.size() as u32,
            refuse: self.random.chance(0.05),
        };
        self.world.state().note(token.0, || {
            format!("{token} begins: {kind:?}, takes {:?}, replies {}", errand.takes, errand.reply)
        });
        let memories = self.caller.memories();
        Watched { world: self.world.clone(), errand, kind, memories, told: false }
    }

    fn outgoing(&mut self, kind: Kind, errand: &Errand) -> OutgoingCall {
        // A `maybe` call has to fit a datagram.
        let size = if kind == Kind::Maybe { self.random.below(500) } else { self.size() };
        let deadline = self.random.chance(self.habits.deadlines);
        OutgoingCall {
            method: kind.method().clone(),
            request: errand.encode(kind, size as usize),
            metadata: Metadata::new(),
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
    async fn reserved(&mut self, watched: Watched, call: OutgoingCall, id: CallId) {
        if self.random.chance(0.1) {
            self.caller.abandon(id);
            return watched.tell(Verdict::NotExecuted); // it was never sent
        }
        let patience = self.patience();
        match within(&self.world, patience, self.caller.call(call)).await {
            Some(result) => self.judge(watched, result).await,
            None => self.settle(watched, id).await,
        }
    }

    async fn judge(&mut self, watched: Watched, result: Result<IncomingReply, CallError>) {
        let error = match result {
            Ok(reply) => return watched.replied(&reply),
            Err(error) => error,
        };
        match error.outcome() {
            Outcome::Executed(status) => watched.refused(status.code(), self.habits.kept_reply),
            Outcome::NotExecuted(why) => watched.not_executed(why.reason),
            Outcome::Pending(id) => {
                let id = *id;
                self.settle(watched, id).await;
            }
            Outcome::Lost => watched.lost(),
            Outcome::Unanswered => watched.unanswered(),
        }
    }

    /// Asks until the outcome is known.
    async fn settle(&mut self, watched: Watched, id: CallId) {
        loop {
            match self.caller.outcome(id).await {
                Ok(CallState::Replied(reply)) => return watched.replied(&reply),
                Ok(CallState::Executed(status)) => {
                    return watched.refused(status.code(), self.habits.kept_reply);
                }
                Ok(CallState::ReplyNotKept) => {
                    return watched.refused(Code::DataLoss, self.habits.kept_reply);
                }
                Ok(CallState::NotExecuted(why)) => return watched.not_executed(why.reason),
                Ok(CallState::Lost) => return watched.lost(),
                // The channel settled it when its future was dropped, and has forgotten it since.
                Ok(CallState::AlreadySettled) => return drop(watched),
                Ok(CallState::Executing | CallState::NotArrived) | Err(_) => {}
            }
            let pause = Duration::from_millis(50 + self.random.below(200));
            self.world.sleep(pause).await;
        }
    }
}

impl Watched {
    fn replied(self, reply: &IncomingReply) {
        if self.kind == Kind::Maybe {
            return; // it was sent; nobody says more
        }
        check_reply(&self.world, self.kind, &self.errand, reply);
        self.tell(Verdict::Executed);
    }

    /// The call ran, and there is a status instead of a reply.
    fn refused(self, code: Code, kept_reply: usize) {
        let small = (self.errand.reply as usize) + 1_024 < kept_reply;
        let wrong = match code {
            REFUSAL => !self.errand.refuse,
            // The reply is gone: right only where it was too large to be kept.
            Code::DataLoss => small,
            _ => true,
        };
        if wrong {
            let what = format!(
                "the call {} ({:?}, for {} bytes) ended with {code:?}, which its handler did not say",
                self.errand.token, self.kind, self.errand.reply
            );
            let mut state = self.world.state();
            let now = state.now;
            state.calls.accuse("outcomes", now, Err(what));
        }
        self.tell(Verdict::Executed);
    }

    fn not_executed(self, reason: NotExecutedReason) {
        use NotExecutedReason::{Corrupted, FalseRetry, Malformed, UnknownMethod};
        if matches!(reason, Corrupted | FalseRetry | Malformed | UnknownMethod) {
            let what = format!("the call {} arrived as another: {reason}", self.token());
            let mut state = self.world.state();
            let now = state.now;
            state.calls.accuse("integrity", now, Err(what));
        }
        self.tell(Verdict::NotExecuted);
    }

    fn tell(mut self, verdict: Verdict) {
        self.told = true;
        let mut state = self.world.state();
        let now = state.now;
        state.calls.told(self.token(), verdict, now);
        let token = self.token();
        state.note(token.0, || format!("{token} {verdict}"));
    }

    fn lost(mut self) {
        self.told = true;
        let mut state = self.world.state();
        let now = state.now;
        let destroyed = self.memories.destroyed(&state);
        state.calls.lost(self.token(), destroyed, now);
    }

    fn unanswered(self) {
        let mut state = self.world.state();
        state.calls.counts.unanswered += 1;
        if !matches!(self.kind, Kind::Read | Kind::Maybe) {
            let now = state.now;
            let what = format!("the call {} has a number and ended unanswered", self.token());
            state.calls.accuse("outcomes", now, Err(what));
        }
    }

    fn token(&self) -> Token {
        self.errand.token
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.told {
            let token = self.token();
            let mut state = self.world.state();
            state.calls.gone(token);
            state.note(token.0, || format!("{token} is waited for no more"));
        }
    }
}

/// Awaits a future for at most a time; then drops it.
async fn within<T>(
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
