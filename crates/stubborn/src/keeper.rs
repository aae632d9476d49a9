//! Sessions that are kept elsewhere than in a server's memory: in the database that the service keeps
//! its state in.
//!
//! A server with a [`SessionKeeper`] holds connections only. What a client asks of its session goes to
//! the keeper, which runs the call, keeps its end and says what to tell the client. All servers of one
//! keeper's database present the same incarnation, so that clients move their sessions between them, as
//! they do between replicas of a group.
//!
//! The crate `stubborn-completion` has keepers for several databases.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use stubborn_core::node::{
    CallName, CallStep, ClientMessage, Finding, QueryKey, RequestKind, SessionCommand, StepKind,
};
pub use stubborn_core::node::{Front, SessionKeeper};
use stubborn_core::service::{Answer, BoxFuture, Call, Clock, Encoded, MethodId};
use stubborn_core::session::{CallId, SessionId};
use stubborn_core::time::Instant;

use crate::driver::{Shared, State, start_handler};
use crate::metrics::{Begun, Ending};
use crate::server::Services;

/// Messages of clients that a worker of a server has given to its keeper at once; a further one is
/// pushed back: its client sends it again.
pub(crate) const COMMANDS: usize = 4_096;

/// A server as its keeper sees it.
#[derive(Clone)]
pub(crate) struct ServerFront {
    shared: Arc<Shared>,
    services: Arc<Services>,
    clock: Clock,
}

impl ServerFront {
    pub(crate) fn new(shared: Arc<Shared>, services: Arc<Services>, clock: Clock) -> Self {
        Self { shared, services, clock }
    }

    async fn run_handler(self, method: MethodId, call: Call<Encoded>) -> Answer {
        let (kind, shared) = (RequestKind::Numbered, &self.shared);
        let id = call.context().id;
        let measured = Measured::begin(shared, method);
        shared.change(|state, now| KeptCalls::runs(state, now, id));
        let (node_clock, clock) = (self.shared.clock, &self.clock);
        let started = start_handler(&self.services, node_clock, clock, None, method, kind, call);
        let answer = match started {
            Ok(handler) => handler.await,
            Err(answer) => answer,
        };
        measured.end(Ending::of_answer(&answer));
        if !matches!(answer, Answer::Reply(..)) {
            shared.change(|state, _| state.kept_calls.fails(id));
        }
        answer
    }

    pub(crate) fn answer(&self, query: QueryKey, finding: Finding) {
        self.shared.change(|state, now| state.node.answer_query(now, query, finding));
    }

    /// The server holds one message less with the keeper.
    pub(crate) fn ended(&self, call: Option<CallId>) {
        self.shared.change(|state, now| {
            state.commands -= 1;
            KeptCalls::end(state, now, call);
        });
    }
}

impl Front for ServerFront {
    fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    fn tell(&self, client: u64, message: ClientMessage) {
        self.shared.change(|state, now| state.node.tell(now, client, message));
    }

    fn run(&self, method: MethodId, call: Call<Encoded>) -> BoxFuture<Answer> {
        Box::pin(self.clone().run_handler(method, call))
    }

    fn attached(&self) -> Vec<SessionId> {
        self.shared.look(|state| state.node.attached_sessions()).unwrap_or_default()
    }
}

/// The calls that the keeper has, for those who ask what happened to one. Bound: [`COMMANDS`].
#[derive(Debug, Default)]
pub(crate) struct KeptCalls(BTreeMap<CallId, KeptCall>);

#[derive(Debug)]
struct KeptCall {
    came: Instant,
    failed: bool,
}

impl KeptCalls {
    /// A message came for the keeper; returns the call that it makes, if that is not with it already.
    pub(crate) fn begin(
        state: &mut State,
        now: Instant,
        command: &SessionCommand,
    ) -> Option<CallId> {
        let (call, fence) = command.call()?;
        let known = state.kept_calls.0.contains_key(&call);
        if fence || known {
            let kind = if fence { StepKind::FenceCame } else { StepKind::CameAgain };
            state.node.call_log()?.push(now, call, kind);
            return None;
        }
        state.kept_calls.0.insert(call, KeptCall { came: now, failed: false });
        Some(call)
    }

    fn runs(state: &mut State, now: Instant, call: Option<CallId>) {
        let Some(call) = call else { return };
        if let Some(log) = state.node.call_log() {
            log.push(now, call, StepKind::Executing);
        }
    }

    fn fails(&mut self, call: Option<CallId>) {
        if let Some(kept) = call.and_then(|call| self.0.get_mut(&call)) {
            kept.failed = true;
        }
    }

    /// The keeper has recorded the call's end, and told its client.
    fn end(state: &mut State, now: Instant, call: Option<CallId>) {
        let Some(call) = call else { return };
        let kept = state.kept_calls.0.remove(&call);
        if let (Some(kept), Some(log)) = (kept, state.node.call_log()) {
            if kept.failed {
                log.failed(now, call, kept.came);
            } else {
                log.done_as(now, call, kept.came);
            }
        }
    }

    /// What there is to tell of a call that the keeper has.
    pub(crate) fn steps(&self, name: CallName) -> Option<CallStep> {
        let CallName::Id(call) = name else { return None };
        Some(CallStep { at: self.0.get(&call)?.came, kind: StepKind::Came })
    }
}

/// A call that is measured, also if it is dropped.
struct Measured<'a>(&'a Shared, Option<Begun>);

impl<'a> Measured<'a> {
    fn begin(shared: &'a Shared, method: MethodId) -> Self {
        Self(shared, Some(shared.measure(|meters, now| meters.served.begin(method, now))))
    }

    fn end(mut self, ending: Ending) {
        self.close(ending);
    }

    fn close(&mut self, ending: Ending) {
        if let Some(begun) = self.1.take() {
            self.0.measure(|meters, now| meters.served.end(begun, now, ending));
        }
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        self.close(Ending::Abandoned);
    }
}

impl fmt::Debug for ServerFront {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerFront({})", self.shared.local)
    }
}
