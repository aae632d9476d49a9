//! A service and its callers in one process, without a socket: for unit tests.
//!
//! [`InProcess`] runs handlers as tasks of the test's own runtime, so that databases and other real
//! things work in them, and tokio's paused time too. Its [faults](Faults) are those that callers have to
//! tell apart: calls that take long and overtake one another, that were not executed, whose outcome is
//! pending or lost. They follow from a seed: one seed, one thread and one order of calls give the same
//! faults.
//!
//! What happens below, to datagrams, connections and sessions, is the matter of worlds (the crate
//! `stubborn-sim`, whose `explore` runs the node that ships).
//!
//! ```
//! # mod stubs { // What the generator would have made of bank.proto.
//! #     use stubborn::*;
//! #     pub const PAY: Method = Method::new("bank.v1.Bank/Pay", Semantics::AtMostOnce, Shape::Unary);
//! #     static BANK: ServiceDescriptor =
//! #         ServiceDescriptor { name: "bank.v1.Bank", methods: &[PAY], file_descriptor_set: &[] };
//! #     pub struct Ledger;
//! #     pub struct BankServer(pub Ledger);
//! #     impl BankServer { pub fn new(ledger: Ledger) -> Self { Self(ledger) } }
//! #     impl Service for BankServer {
//! #         fn descriptor(&self) -> &'static ServiceDescriptor { &BANK }
//! #         fn call(&self, _: usize, _: Call<Encoded>) -> Handling {
//! #             Box::pin(async { Answer::Reply(Encoded::from_body(PAY.id(), Default::default()), Metadata::new()) })
//! #         }
//! #     }
//! #     pub struct BankClient(Channel);
//! #     impl BankClient {
//! #         pub fn new(channel: Channel) -> Self { Self(channel) }
//! #         pub fn pay(&self) -> UnaryCall<()> { self.0.unary(&PAY, &()) }
//! #     }
//! # }
//! # use stubs::*;
//! use stubborn::Outcome;
//! use stubborn::in_process::{Faults, InProcess};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! // In a #[tokio::test(start_paused = true)]:
//! let server = InProcess::new(BankServer::new(Ledger));
//! let server = server.faults(7, Faults { not_executed: 0.2, lost: 0.1, ..Faults::default() });
//! let bank = BankClient::new(server.channel());
//! for _ in 0..100 {
//!     match bank.pay().await {
//!         Ok(()) => { /* it ran */ }
//!         Err(error) => match error.outcome() {
//!             Outcome::NotExecuted(_) => { /* it never will */ }
//!             Outcome::Lost => { /* nobody knows */ }
//!             other => panic!("{other:?}"),
//!         },
//!     }
//! }
//! # });
//! ```

mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use stubborn_core::random::Random;
use stubborn_core::service::{
    Answer, BoxFuture, Call, CallContext, CallError, CallState, Caller, Channel, Clock, Encoded,
    IncomingReply, Method, NotExecuted, Outcome, OutgoingCall, Port, Registry, RequestKind,
    Semantics, Service, Status,
};
use stubborn_core::session::{CallId, NotExecutedReason, SessionId};
use stubborn_core::time::Instant;
use tokio::task::AbortHandle;

/// A server without a socket. Cheap to clone; clones are the same server.
#[derive(Clone)]
pub struct InProcess(Arc<Inner>);

/// What goes wrong, each a probability for a call, at most one of them at a time.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Request and reply take up to so long each.
    pub delay: Duration,
    /// The call is not executed, as where a server has no room.
    pub not_executed: f64,
    /// The call runs, and its caller is told that it is pending: asked for later, its outcome is known.
    /// Of a read: unanswered.
    pub pending: f64,
    /// The call runs, or does not, and its outcome is lost. Of a read: unanswered.
    pub lost: f64,
}

struct Inner {
    state: Mutex<State>,
    began: tokio::time::Instant,
}

struct State {
    registry: Registry,
    faults: Faults,
    random: Random,
    /// Counts the lives of the server: a session is of one of them.
    life: u64,
    last: u64,
    /// Every call with a number of this life.
    calls: BTreeMap<CallId, Stage>,
    running: Vec<AbortHandle>,
}

/// Where a numbered call is.
enum Stage {
    Waiting,
    Executing,
    Ended(CallState<IncomingReply>),
}

/// What becomes of one call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Normal,
    NotExecuted,
    Pending,
    /// Whether it runs first.
    Lost(bool),
}

/// The faults of one call, drawn before it begins.
#[derive(Clone, Copy)]
struct Dice {
    fate: Fate,
    request: Duration,
    reply: Duration,
}

impl InProcess {
    /// A server with this service. Calls are made within a tokio runtime whose time is enabled.
    pub fn new(service: impl Service) -> Self {
        let state = State {
            registry: Registry::new(),
            faults: Faults::default(),
            random: Random::from_seed([0; 32]),
            life: 1,
            last: 0,
            calls: BTreeMap::new(),
            running: Vec::new(),
        };
        let began = tokio::time::Instant::now();
        Self(Arc::new(Inner { state: Mutex::new(state), began })).service(service)
    }

    /// The same with one more service.
    ///
    /// # Panics
    /// If it cannot stand beside the others.
    pub fn service(self, service: impl Service) -> Self {
        let added = self.0.state().registry.add(Arc::new(service));
        added.expect("services of different names");
        self
    }

    /// The same with faults that follow from this seed. Can be changed at any time.
    pub fn faults(self, seed: u64, faults: Faults) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let mut state = self.0.state();
        state.random = Random::from_seed(bytes);
        state.faults = faults;
        drop(state);
        self
    }

    /// A channel to it, for generated clients.
    pub fn channel(&self) -> Channel {
        Channel::new(Direct(self.0.clone()))
    }

    /// The server dies with its memory and is there again at once: handlers are dropped where they wait,
    /// and what it knew of calls is lost.
    pub fn restart(&self) {
        let mut state = self.0.state();
        state.life += 1;
        state.calls.clear();
        let running = std::mem::take(&mut state.running);
        drop(state);
        running.iter().for_each(AbortHandle::abort);
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InProcess").field(&self.0.state().registry).finish()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.began.elapsed()
    }

    fn clock(self: &Arc<Self>) -> Clock {
        let inner = Arc::downgrade(self);
        Clock::new(move || inner.upgrade().map_or(Instant::ZERO, |inner| inner.now()))
    }

    fn context(self: &Arc<Self>, id: Option<CallId>, call: &mut OutgoingCall) -> CallContext {
        CallContext {
            id,
            metadata: std::mem::take(&mut call.metadata),
            deadline: call.deadline.map(|left| self.now() + left),
            clock: self.clock(),
            ..CallContext::default()
        }
    }

    /// Runs a unary handler once its request has arrived. Returns how it ended.
    async fn run(
        self: Arc<Self>,
        id: Option<CallId>,
        dice: Dice,
        mut call: OutgoingCall,
    ) -> CallState<IncomingReply> {
        let context = self.context(id, &mut call);
        tokio::time::sleep(dice.request).await;
        let late = context.deadline.is_some_and(|deadline| deadline <= self.now());
        if let Some(ended) = id.and_then(|id| self.state().start(id, late)) {
            return ended;
        }
        let kind = match call.method.semantics() {
            Semantics::Read => RequestKind::Read,
            Semantics::Maybe => RequestKind::Maybe,
            _ => RequestKind::Numbered,
        };
        let registry = self.state().registry.clone();
        let request = Call::new(call.request, context);
        let answer = match registry.dispatch(call.method.id(), kind, request) {
            Ok(handling) => handling.await,
            Err(answer) => answer,
        };
        self.end(id, state_of(answer))
    }

    fn end(&self, id: Option<CallId>, ended: CallState<IncomingReply>) -> CallState<IncomingReply> {
        if let Some(id) = id
            && let Some(stage) = self.state().calls.get_mut(&id)
        {
            *stage = Stage::Ended(ended.clone());
        }
        ended
    }

    /// Calls a method that does not stream.
    async fn call(self: Arc<Self>, call: OutgoingCall) -> Result<IncomingReply, CallError> {
        let (method, deadline) = (call.method.clone(), call.deadline);
        let numbered = method.semantics().takes_slot();
        let (dice, id) = self.state().begin(numbered, call.reserved);
        let failed =
            |outcome: Outcome| CallError::new(method.name().to_owned(), outcome).with_id(id);
        if id.is_some_and(|id| !self.state().calls.contains_key(&id)) {
            let why = "the server was restarted after the number was reserved";
            let why = NotExecuted::because(NotExecutedReason::NeverSent, why);
            return Err(failed(Outcome::NotExecuted(why)));
        }
        if method.semantics() == Semantics::Maybe {
            if dice.fate == Fate::Normal {
                let task = tokio::spawn(self.clone().run(None, dice, call));
                self.state().watch(task.abort_handle());
            }
            let reply = Encoded::from_body(method.id(), bytes::Bytes::new());
            return Ok(IncomingReply { reply, ..IncomingReply::default() });
        }
        let unknown = |outcome: fn(CallId) -> Outcome| id.map_or(Outcome::Unanswered, outcome);
        if let Fate::NotExecuted | Fate::Lost(false) = dice.fate {
            tokio::time::sleep(dice.request).await;
            let why = NotExecuted::because(NotExecutedReason::Overloaded, "a fault of the test");
            self.end(id, CallState::NotExecuted(why.clone()));
            return Err(match dice.fate {
                Fate::NotExecuted => failed(Outcome::NotExecuted(why)),
                _ => failed(self.lose(id)),
            });
        }
        let is_read = method.semantics() == Semantics::Read;
        let task = tokio::spawn(self.clone().run(id, dice, call));
        self.state().watch(task.abort_handle());
        let _stop = is_read.then(|| StopRead(task.abort_handle()));
        let waited = async {
            let ended = task.await;
            tokio::time::sleep(dice.reply).await;
            ended
        };
        let ended = match deadline {
            Some(deadline) => match tokio::time::timeout(deadline, waited).await {
                Ok(ended) => ended,
                Err(_) => return Err(failed(unknown(Outcome::Pending))),
            },
            None => waited.await,
        };
        let state = match ended {
            Ok(state) => state,
            Err(panic) if panic.is_panic() => {
                self.end(id, CallState::Executed(Status::internal("the handler panicked")))
            }
            Err(_) => CallState::Lost,
        };
        match dice.fate {
            Fate::Pending => return Err(failed(unknown(Outcome::Pending))),
            Fate::Lost(_) => return Err(failed(self.lose(id))),
            _ => {}
        }
        match state {
            CallState::Replied(reply) => Ok(reply),
            CallState::Executed(status) => Err(failed(Outcome::Executed(status))),
            CallState::NotExecuted(why) => Err(failed(Outcome::NotExecuted(why))),
            _ => Err(failed(unknown(|_| Outcome::Lost))),
        }
    }

    /// The memory of one call is gone.
    fn lose(&self, id: Option<CallId>) -> Outcome {
        let Some(id) = id else { return Outcome::Unanswered };
        self.end(Some(id), CallState::Lost);
        Outcome::Lost
    }
}

impl State {
    fn session(&self) -> SessionId {
        SessionId { incarnation: self.life << 8, number: 1 }
    }

    fn next_id(&mut self) -> CallId {
        self.last += 1;
        let id = CallId { session: self.session(), slot: 0, sequence: self.last };
        self.calls.insert(id, Stage::Waiting);
        id
    }

    /// Draws a call's faults, and gives it a number if it takes one.
    fn begin(&mut self, numbered: bool, reserved: Option<CallId>) -> (Dice, Option<CallId>) {
        let State { random, faults, .. } = self;
        let (share, ran) = (random.unit(), random.chance(0.5));
        let mut up_to = || faults.delay.mul_f64(random.unit());
        let (request, reply) = (up_to(), up_to());
        let Faults { not_executed, pending, lost, .. } = *faults;
        let fate = match share {
            share if share < not_executed => Fate::NotExecuted,
            share if share < not_executed + pending => Fate::Pending,
            share if share < not_executed + pending + lost => Fate::Lost(ran),
            _ => Fate::Normal,
        };
        let id = match numbered {
            true => Some(reserved.unwrap_or_else(|| self.next_id())),
            false => None,
        };
        (Dice { fate, request, reply }, id)
    }

    /// A call's request has arrived: how it ended, if it is not to run.
    fn start(&mut self, id: CallId, late: bool) -> Option<CallState<IncomingReply>> {
        match self.calls.get_mut(&id) {
            Some(stage @ Stage::Waiting) if late => {
                let why = NotExecuted::new(NotExecutedReason::Deadline);
                *stage = Stage::Ended(CallState::NotExecuted(why.clone()));
                Some(CallState::NotExecuted(why))
            }
            Some(stage @ Stage::Waiting) => {
                *stage = Stage::Executing;
                None
            }
            Some(Stage::Ended(state)) => Some(state.clone()),
            Some(Stage::Executing) | None => Some(CallState::Lost),
        }
    }

    fn watch(&mut self, task: AbortHandle) {
        self.running.retain(|task| !task.is_finished());
        self.running.push(task);
    }

    /// What became of a call; one that has not started never will.
    fn outcome(&mut self, id: CallId) -> CallState<IncomingReply> {
        if id.session != self.session() {
            return CallState::Lost;
        }
        match self.calls.get_mut(&id) {
            Some(stage @ Stage::Waiting) => {
                let never = CallState::NotExecuted(NotExecuted::new(NotExecutedReason::Fenced));
                *stage = Stage::Ended(never.clone());
                never
            }
            Some(Stage::Executing) => CallState::Executing,
            Some(Stage::Ended(state)) => state.clone(),
            None => CallState::NotArrived,
        }
    }
}

/// A read that nobody waits for stops.
struct StopRead(AbortHandle);

impl Drop for StopRead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The channel's side.
struct Direct(Arc<Inner>);

impl Caller for Direct {
    fn call(&self, call: OutgoingCall) -> BoxFuture<Result<IncomingReply, CallError>> {
        Box::pin(self.0.clone().call(call))
    }

    fn reserve(&self, _: &Method) -> BoxFuture<Result<CallId, CallError>> {
        let id = self.0.state().next_id();
        Box::pin(async move { Ok(id) })
    }

    fn abandon(&self, id: CallId) {
        self.0.state().outcome(id);
    }

    fn open(&self, call: OutgoingCall) -> Result<Arc<dyn Port>, CallError> {
        Ok(stream::open(&self.0, call))
    }

    fn outcome(&self, id: CallId) -> BoxFuture<Result<CallState<IncomingReply>, CallError>> {
        let state = self.0.state().outcome(id);
        Box::pin(async move { Ok(state) })
    }
}

fn state_of(answer: Answer) -> CallState<IncomingReply> {
    match answer {
        Answer::Reply(reply, metadata) => {
            CallState::Replied(IncomingReply { reply, metadata, stream: None })
        }
        Answer::Status(status) => CallState::Executed(status),
        Answer::NotExecuted(why) => CallState::NotExecuted(why),
    }
}
