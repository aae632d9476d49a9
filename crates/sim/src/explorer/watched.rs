//! A call whose end is watched, of whatever kind: what its client is told, the oracles are told.

use std::sync::atomic::{AtomicBool, Ordering};

use stubborn_core::session::{CallId, NotExecutedReason};

use crate::oracle::calls::{Token, Verdict};
use crate::world::{Memories, SimCaller, World};

/// If it is dropped, nobody waits for the call's end any more.
pub(super) struct Watched {
    pub(super) world: World,
    token: Token,
    caller: SimCaller,
    /// What servers remembered when it began.
    memories: Memories,
    /// A liar may have spoken in its server's place at some time: what came then was not counted.
    lied_to: AtomicBool,
    /// The number that its end was told of, if that had one.
    id: Option<CallId>,
    told: bool,
}

impl Watched {
    pub(super) fn begin(caller: &SimCaller, world: &World) -> Self {
        let token = {
            let mut state = world.state();
            let now = state.now;
            state.calls.begin(now)
        };
        let (caller, memories) = (caller.clone(), caller.memories());
        let lied_to = AtomicBool::new(false);
        Self { world: world.clone(), token, caller, memories, lied_to, id: None, told: false }
    }

    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// Its end is about to be told, of this number if of any.
    pub(super) fn of(&mut self, id: Option<CallId>) {
        self.id = id.or(self.id);
    }

    /// Whether what its client was told of it may be a lie, which proves nothing. Of a number nobody can
    /// tell but the server that the session is with: the client must believe no other.
    pub(super) fn is_lied_to(&self) -> bool {
        match self.id {
            Some(id) => self.world.state().lies.told(id),
            None => {
                let lied_to =
                    self.lied_to.load(Ordering::Relaxed) || self.caller.was_lied_to(&self.memories);
                self.lied_to.store(lied_to, Ordering::Relaxed);
                lied_to
            }
        }
    }

    /// Says something of the call in the trace.
    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        let token = self.token;
        self.world.state().note(token.0, || format!("{token} {}", what()));
    }

    pub(super) fn accuse(&self, promise: &'static str, what: String) {
        let mut state = self.world.state();
        let now = state.now;
        state.calls.accuse(promise, now, Err(what));
    }

    pub(super) fn executed(self) {
        if self.is_lied_to() {
            return drop(self);
        }
        self.tell(Verdict::Executed);
    }

    pub(super) fn not_executed(self, reason: NotExecutedReason) {
        use NotExecutedReason::{Corrupted, FalseRetry, Malformed, UnknownMethod};
        let odd = matches!(reason, Corrupted | FalseRetry | Malformed | UnknownMethod);
        if odd && !self.is_lied_to() {
            let what = format!("the call {} arrived as another: {reason}", self.token);
            self.accuse("integrity", what);
        }
        self.tell(Verdict::NotExecuted);
    }

    pub(super) fn lost(mut self) {
        self.told = true;
        let lied_to = self.is_lied_to();
        let mut state = self.world.state();
        let now = state.now;
        let destroyed = lied_to || self.memories.destroyed(&state);
        state.calls.lost(self.token, destroyed, now);
    }

    /// Nobody says what became of it, which is right only if it has no number.
    pub(super) fn unanswered(self, numbered: bool) {
        self.world.state().calls.counts.unanswered += 1;
        if numbered {
            let what = format!("the call {} has a number and ended unanswered", self.token);
            self.accuse("outcomes", what);
        }
    }

    pub(super) fn tell(mut self, verdict: Verdict) {
        self.told = true;
        let token = self.token;
        let mut state = self.world.state();
        let now = state.now;
        state.calls.told(token, verdict, now);
        state.note(token.0, || format!("{token} {verdict}"));
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.told {
            let token = self.token;
            let mut state = self.world.state();
            state.calls.gone(token);
            state.note(token.0, || format!("{token} is waited for no more"));
        }
    }
}
