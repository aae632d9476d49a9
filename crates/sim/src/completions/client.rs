//! Clients: they make calls, give up some of them, ask what became of others, and tell the ledger what
//! they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::service::{
    CallError, CallState, Caller, Code, IncomingReply, Metadata, Outcome, OutgoingCall, Status,
};
use stubborn_core::session::CallId;

use super::ledger::{Told, Work};
use super::store::Shared;
use super::till::{Errand, REFUSAL, run_of};
use crate::explorer::client::within;
use crate::oracle::calls::Token;
use crate::world::{SimCaller, World};

/// How long a handler rests at most, before its transaction and in it.
pub(super) const LONGEST_REST: Duration = Duration::from_millis(1_200);

/// How the calls of one channel are made.
#[derive(Clone, Debug)]
pub(super) struct Habits {
    /// Time between two calls of one worker, at most.
    pub(super) pause: Duration,
    /// The part of calls that state a deadline, and of those that are dropped unfinished.
    pub(super) deadlines: f64,
    pub(super) drops: f64,
    /// The part of calls whose handlers take long.
    pub(super) long: f64,
    /// The largest reply that is kept.
    pub(super) kept_reply: usize,
}

/// One sequence of calls over a channel.
pub(super) struct Worker {
    pub(super) world: World,
    pub(super) shared: Shared,
    pub(super) name: String,
    pub(super) caller: SimCaller,
    /// Asks for outcomes from elsewhere, with this one's ticket.
    pub(super) asker: SimCaller,
    pub(super) habits: Habits,
    pub(super) random: Random,
    pub(super) stop: Arc<AtomicBool>,
}

/// A call that is waited for. Dropped, it is waited for no more.
pub(super) struct Sent {
    world: World,
    shared: Shared,
    errand: Errand,
}

impl Worker {
    /// Makes calls until it is told to stop.
    pub(super) async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.habits.pause.as_nanos() as u64;
            let pause = Duration::from_nanos(self.random.below(pause + 1));
            self.world.sleep(pause).await;
            self.call().await;
        }
    }

    async fn call(&mut self) {
        let errand = self.draw();
        let sent = Sent::begin(&self.world, &self.shared, &self.name, errand);
        let deadline = self.random.chance(self.habits.deadlines);
        let mut call = OutgoingCall {
            method: Errand::method().clone(),
            request: sent.errand.encode(),
            metadata: Metadata::new(),
            deadline: deadline.then(|| Duration::from_micros(self.random.below(3_000_000))),
            wait_for_ready: Some(self.random.chance(0.8)),
            reserved: None,
            max_staleness: None,
        };
        if self.random.chance(0.3) {
            let Ok(id) = self.caller.reserve(&call.method).await else { return };
            call.reserved = Some(id);
            if self.random.chance(0.1) {
                self.caller.abandon(id);
                return sent.told(Some(id), Told::NotExecuted); // it was never sent
            }
        }
        let id = call.reserved;
        let dropped = self.random.chance(self.habits.drops);
        let patience = dropped.then(|| Duration::from_micros(self.random.below(500_000)));
        match within(&self.world, patience, self.caller.call(call)).await {
            Some(result) => self.judge(sent, result).await,
            None => match id {
                Some(id) => self.settle(sent, id).await,
                None => drop(sent),
            },
        }
    }

    fn draw(&mut self) -> Errand {
        let work = match self.random.below(10) {
            0 => Work::Large,
            1 => Work::Twice,
            2 => Work::Charge,
            3 => Work::Refuse,
            4 => Work::Plain,
            _ => Work::Change,
        };
        let long = self.random.chance(self.habits.long);
        let long = if long { LONGEST_REST.as_micros() as u64 } else { 20_000 };
        let mut time = || match self.random.chance(0.5) {
            true => Duration::ZERO,
            false => Duration::from_micros(self.random.below(long)),
        };
        let (before, within) = (time(), time());
        let large = self.habits.kept_reply as u64;
        let size = if work == Work::Large { large } else { self.random.below(200) } as u32;
        Errand { token: Token(0), work, before, within, size }
    }

    pub(super) async fn judge(&mut self, sent: Sent, result: Result<IncomingReply, CallError>) {
        let error = match result {
            Ok(reply) => return sent.replied(None, &reply),
            Err(error) => error,
        };
        let id = error.call_id();
        match error.outcome() {
            Outcome::Executed(status) => sent.status(id, status),
            Outcome::NotExecuted(_) => {
                self.ask_elsewhere(id, &sent.errand).await;
                sent.told(id, Told::NotExecuted);
            }
            Outcome::Pending(id) => {
                let id = *id;
                self.settle(sent, id).await;
            }
            Outcome::Lost => sent.told(id, Told::Lost),
            Outcome::Unanswered => {
                sent.accuse("outcomes", "a call with a number ended unanswered".into());
            }
        }
    }

    /// Asks until the outcome is known.
    pub(super) async fn settle(&mut self, sent: Sent, id: CallId) {
        sent.shared.lock().database.ledger.counts.asked += 1;
        self.ask_elsewhere(Some(id), &sent.errand).await;
        loop {
            match self.caller.outcome(id).await {
                Ok(CallState::Executing | CallState::NotArrived) | Err(_) => {}
                // The channel settled it when its future was dropped, and has forgotten it since.
                Ok(CallState::AlreadySettled) => return drop(sent),
                Ok(state) => return sent.state(id, state),
            }
            let pause = Duration::from_millis(50 + self.random.below(200));
            self.world.sleep(pause).await;
        }
    }

    /// Another process asks any of the servers, with the session's ticket: what it is told is true, too.
    async fn ask_elsewhere(&mut self, id: Option<CallId>, errand: &Errand) {
        let (Some(id), Some(ticket)) = (id, self.caller.ticket()) else { return };
        if ticket.session != id.session || !self.random.chance(0.3) {
            return;
        }
        let asked = self.asker.outcome_of(id, Some(ticket));
        let patience = Duration::from_secs(2);
        let Some(Ok(state)) = within(&self.world, Some(patience), asked).await else { return };
        let told = match state {
            CallState::Replied(reply) => match run_of(&reply, errand) {
                Ok(run) => Told::Replied(run),
                Err(_) => return,
            },
            CallState::Executed(_) => Told::Status,
            CallState::ReplyNotKept => Told::ReplyNotKept,
            CallState::NotExecuted(_) => Told::NotExecuted,
            _ => return,
        };
        let now = self.world.now();
        let inside = &mut *self.shared.lock();
        inside.database.ledger.counts.asked_elsewhere += 1;
        inside.database.told((errand.token, Some(id)), told, now);
    }
}

impl Sent {
    fn begin(world: &World, shared: &Shared, client: &str, errand: Errand) -> Self {
        let token = {
            let mut state = world.state();
            let now = state.now;
            let token = state.calls.begin(now);
            state.note(token.0, || format!("{token} begins: {errand:?}"));
            token
        };
        shared.lock().database.ledger.begin(token, client, errand.work);
        let errand = Errand { token, ..errand };
        Self { world: world.clone(), shared: shared.clone(), errand }
    }

    /// A call that an earlier process of the client has begun.
    pub(super) fn again(world: &World, shared: &Shared, errand: Errand) -> Self {
        let mut state = world.state();
        let now = state.now;
        state.calls.liveness.began(errand.token, now);
        state.note(errand.token.0, || format!("{} is taken up", errand.token));
        drop(state);
        Self { world: world.clone(), shared: shared.clone(), errand }
    }

    fn replied(self, id: Option<CallId>, reply: &IncomingReply) {
        match run_of(reply, &self.errand) {
            Ok(run) => self.told(id, Told::Replied(run)),
            Err(what) => self.accuse("integrity", what),
        }
    }

    /// It ran, and there is a status instead of a reply.
    fn status(self, id: Option<CallId>, status: &Status) {
        match status.code() {
            REFUSAL => self.told(id, Told::Status),
            // The reply is gone.
            Code::DataLoss => self.told(id, Told::ReplyNotKept),
            code => {
                let token = self.errand.token;
                let what = format!("the call {token} ended with {code:?}: {status}");
                self.accuse("outcomes", what);
            }
        }
    }

    pub(super) fn state(self, id: CallId, state: CallState<IncomingReply>) {
        let id = Some(id);
        match state {
            CallState::Replied(reply) => self.replied(id, &reply),
            CallState::Executed(status) => self.status(id, &status),
            CallState::ReplyNotKept => self.told(id, Told::ReplyNotKept),
            CallState::NotExecuted(_) => self.told(id, Told::NotExecuted),
            CallState::Lost => self.told(id, Told::Lost),
            CallState::Executing | CallState::NotArrived | CallState::AlreadySettled => {}
        }
    }

    fn told(self, id: Option<CallId>, told: Told) {
        let token = self.errand.token;
        let now = self.world.now();
        self.shared.lock().database.told((token, id), told, now);
        self.world.state().note(token.0, || format!("{token} is told {told:?}"));
    }

    fn accuse(self, promise: &'static str, what: String) {
        let now = self.world.now();
        self.shared.lock().database.ledger.accuse(promise, now, what);
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.world.state().calls.gone(self.errand.token);
    }
}
