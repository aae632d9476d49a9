//! Streams of the explorer: clients send numbered messages, and handlers send each back, while
//! everything goes wrong that a seed says.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use stubborn_core::random::Random;
use stubborn_core::service::{
    Answer, Call, CallError, CallState, Caller, Code, Encoded, Handling, IncomingReply, Metadata,
    Method, NotTaken, Outcome, OutgoingCall, Port, Semantics, Service, ServiceDescriptor, Shape,
    Status,
};
use stubborn_core::session::CallId;

use super::client::{Habits, within};
use super::probe::REFUSAL;
use super::unwell::Ailments;
use super::watched::Watched;
use crate::oracle::calls::{Again, Token};
use crate::oracle::integrity::filler;
use crate::world::{SimCaller, World};

static METHODS: [Method; 1] =
    [Method::new("stubborn.sim.Mirror/Both", Semantics::AtMostOnce, Shape::BidiStreaming)];

static DESCRIPTOR: ServiceDescriptor =
    ServiceDescriptor { name: "stubborn.sim.Mirror", methods: &METHODS, file_descriptor_set: &[] };

/// Names the call in its metadata, since no message may ever come.
const TOKEN: &str = "token";

/// Bytes of a message before its filling: its index.
const HEAD: usize = 8;

/// Sends every message back.
pub(super) struct Mirror {
    world: World,
    server: String,
    ailments: Ailments,
}

/// One sequence of streams over a channel.
pub(super) struct Streamer {
    world: World,
    caller: SimCaller,
    habits: Habits,
    random: Random,
    stop: Arc<AtomicBool>,
}

/// Those of a client in this life. Drawn apart, so that what a seed does otherwise stays as it was.
pub(super) fn streamers(
    world: &World,
    client: &str,
    caller: &SimCaller,
    habits: &Habits,
    stop: &Arc<AtomicBool>,
) -> Vec<Streamer> {
    let mut bytes = [0x5e; 32];
    bytes[..8].copy_from_slice(&world.seed().to_le_bytes());
    bytes[8..16].copy_from_slice(&world.now().as_nanos().to_le_bytes());
    client.bytes().zip(&mut bytes[16..]).for_each(|(from, to)| *to ^= from);
    let mut random = Random::from_seed(bytes);
    let count = u64::from(random.chance(0.4));
    let streamer = |random: Random| Streamer {
        world: world.clone(),
        caller: caller.clone(),
        habits: habits.clone(),
        random,
        stop: Arc::clone(stop),
    };
    (0..count).map(|_| streamer(random.fork())).collect()
}

// --- at the server -------------------------------------------------------------------------------

/// What the handler of a call does, which its client knows too.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// It waits so long before it takes a message.
    pause: Duration,
    /// It refuses to take more than so many.
    enough: Option<u64>,
}

impl Manner {
    fn of(token: Token) -> Self {
        let pause = if token.0.is_multiple_of(4) { token.0 % 17 } else { 0 };
        let enough = token.0.is_multiple_of(5).then_some(token.0 / 5 % 30);
        Self { pause: Duration::from_millis(pause), enough }
    }
}

impl Mirror {
    pub(super) fn new(world: World, server: &str, ailments: Ailments) -> Self {
        Self { world, server: server.to_owned(), ailments }
    }
}

impl Service for Mirror {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, _: usize, _: Call<Encoded>) -> Handling {
        Box::pin(std::future::ready(Answer::Status(Status::unimplemented("a stream only"))))
    }

    fn stream(&self, _: usize, request: Call<Encoded>, port: Arc<dyn Port>) -> Handling {
        let world = self.world.clone();
        let token = request.context().metadata.get(TOKEN).and_then(|bytes| bytes.try_into().ok());
        let token = Token(u64::from_be_bytes(token.expect("a stream names its call")));
        {
            let mut state = world.state();
            let now = state.now;
            state.calls.ran(token, Again::Never, &self.server, now);
        }
        let (server, ailments) = (self.server.clone(), self.ailments.clone());
        Box::pin(async move {
            if let Some(code) = ailments.bear(&world, &server).await {
                world.state().calls.fails(token, code);
                return Answer::Status(Status::new(code, "not well"));
            }
            mirror(world, token, port).await
        })
    }
}

async fn mirror(world: World, token: Token, port: Arc<dyn Port>) -> Answer {
    let manner = Manner::of(token);
    let mut taken = 0;
    loop {
        if manner.enough == Some(taken) {
            return Answer::Status(Status::new(REFUSAL, token.to_string()));
        }
        if !manner.pause.is_zero() {
            world.sleep(manner.pause).await;
        }
        let Some(message) = poll_fn(|cx| port.poll_take(cx)).await else { break };
        {
            let mut state = world.state();
            let now = state.now;
            let index = read(&message, token);
            let index = index.map(|index| state.calls.took(token, index, now));
            state.calls.accuse("integrity", now, index);
        }
        taken += 1;
        let mut back = Some(message);
        if poll_fn(|cx| port.poll_send(cx, &mut back)).await.is_err() {
            break;
        }
    }
    Answer::Reply(Encoded::from_body(METHODS[0].id(), Bytes::new()), Metadata::new())
}

fn write(token: Token, index: u64, filling: usize) -> Encoded {
    let mut body = BytesMut::with_capacity(HEAD + filling);
    body.put_u64(index);
    body.extend(filler(token, index).take(filling));
    Encoded::from_body(METHODS[0].id(), body.freeze())
}

/// The index of a message, if it is one of this call as it was sent.
fn read(message: &Encoded, token: Token) -> Result<u64, String> {
    let body = message
        .verified(METHODS[0].id())
        .map_err(|error| format!("a message of the stream {token}: {error}"))?;
    let (index, filling) = body
        .split_first_chunk()
        .ok_or_else(|| format!("a message of the stream {token} has no index"))?;
    let index = u64::from_be_bytes(*index);
    if filling.iter().copied().eq(filler(token, index).take(filling.len())) {
        Ok(index)
    } else {
        Err(format!("message {index} of the stream {token} is not what was sent"))
    }
}

// --- at the client -------------------------------------------------------------------------------

impl Streamer {
    /// Makes streams until it is told to stop.
    pub(super) async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.pause(4.0).await;
            self.stream().await;
        }
    }

    /// Waits for so many times the usual pause, or less.
    async fn pause(&mut self, times: f64) {
        let most = self.habits.pause.mul_f64(times).as_nanos() as u64;
        let pause = Duration::from_nanos(self.random.below(most + 1));
        self.world.sleep(pause).await;
    }

    async fn stream(&mut self) {
        let watched = Watched::begin(&self.caller, &self.world);
        let count = self.random.below(60);
        watched.note(|| format!("begins a stream of {count}: {:?}", Manner::of(watched.token())));
        let mut metadata = Metadata::new();
        let name = watched.token().0.to_be_bytes().to_vec();
        metadata.insert(TOKEN, name).expect("a short pair");
        let deadline = self.random.chance(self.habits.deadlines / 2.0);
        let call = OutgoingCall {
            method: METHODS[0].clone(),
            request: Encoded::from_body(METHODS[0].id(), Bytes::new()),
            metadata,
            deadline: deadline.then(|| Duration::from_micros(self.random.below(5_000_000))),
            wait_for_ready: Some(self.random.chance(0.8)),
            reserved: None,
            max_staleness: None,
        };
        let port = match self.caller.open(call) {
            Ok(port) => port,
            Err(error) => return self.judge(watched, false, Err(error)).await,
        };
        let dropped = self.random.chance(self.habits.drops);
        let limit = dropped.then(|| Duration::from_micros(self.random.below(2_000_000)));
        let (world, token) = (self.world.clone(), watched.token());
        let carried = async {
            let sending = self.send_all(&*port, token, count);
            both(sending, take_all(&world, &*port, &watched)).await;
            poll_fn(|cx| port.poll_end(cx)).await
        };
        match within(&world, limit, carried).await {
            Some(end) => self.judge(watched, deadline, end).await,
            None => drop(watched), // and the port, which cancels it
        }
    }

    /// Sends so many messages, or fewer if the run is over or nobody takes more.
    async fn send_all(&mut self, port: &dyn Port, token: Token, count: u64) {
        for index in 0..count {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            if self.random.chance(0.5) {
                self.pause(0.125).await;
            }
            let large = self.random.chance(self.habits.large);
            let most = if large { self.habits.largest + 1 } else { 200 };
            let mut message = Some(write(token, index, self.random.below(most) as usize));
            match poll_fn(|cx| port.poll_send(cx, &mut message)).await {
                Ok(()) => {}
                Err(NotTaken::Over) => break,
                Err(why) => panic!("a small message is taken: {why}"),
            }
        }
        port.end();
    }

    async fn judge(
        &mut self,
        mut watched: Watched,
        deadline: bool,
        end: Result<IncomingReply, CallError>,
    ) {
        let error = match end {
            Ok(reply) => {
                let taken = reply.stream.map_or(0, |end| end.taken);
                return ended(watched, taken, None, deadline);
            }
            Err(error) => error,
        };
        watched.of(error.call_id());
        match error.outcome() {
            Outcome::Executed(status) => {
                ended(watched, error.taken().unwrap_or(0), Some(status.code()), deadline);
            }
            Outcome::NotExecuted(why) => watched.not_executed(why.reason),
            Outcome::Pending(id) => self.settle(watched, *id).await,
            Outcome::Lost => watched.lost(),
            Outcome::Unanswered => watched.unanswered(true),
        }
    }

    /// Asks until the outcome is known.
    async fn settle(&mut self, mut watched: Watched, id: CallId) {
        watched.of(Some(id));
        loop {
            if self.world.state().lies.told(id) {
                return drop(watched); // a liar may have denied its session, and nobody else has it
            }
            match self.caller.outcome(id).await {
                Ok(CallState::Replied(_) | CallState::Executed(_) | CallState::ReplyNotKept) => {
                    return watched.executed();
                }
                Ok(CallState::NotExecuted(why)) => return watched.not_executed(why.reason),
                Ok(CallState::Lost) => return watched.lost(),
                Ok(CallState::AlreadySettled) => return drop(watched),
                Ok(CallState::Executing | CallState::NotArrived) | Err(_) => {}
            }
            let pause = Duration::from_millis(50 + self.random.below(200));
            self.world.sleep(pause).await;
        }
    }
}

/// Takes what comes back until nothing more does.
async fn take_all(world: &World, port: &dyn Port, watched: &Watched) {
    let token = watched.token();
    while let Some(message) = poll_fn(|cx| port.poll_take(cx)).await {
        if watched.is_lied_to() {
            continue;
        }
        let mut state = world.state();
        let now = state.now;
        let came = read(&message, token).map(|index| state.calls.came(token, index, now));
        state.calls.accuse("integrity", now, came);
    }
}

/// The stream was executed: with this status, if it did not end well.
fn ended(watched: Watched, taken: u64, code: Option<Code>, deadline: bool) {
    let enough = Manner::of(watched.token()).enough;
    let right = match code {
        None => enough.is_none_or(|enough| taken < enough),
        Some(REFUSAL) => enough == Some(taken),
        Some(Code::DeadlineExceeded | Code::Cancelled) => deadline,
        Some(code) => watched.world.state().calls.has_failed(watched.token(), code),
    };
    if watched.is_lied_to() {
        return watched.executed();
    }
    if !right {
        let what = format!(
            "the stream {} ended with {code:?} after {taken} messages, which its handler did not say",
            watched.token()
        );
        watched.accuse("outcomes", what);
    }
    {
        let mut state = watched.world.state();
        let now = state.now;
        state.calls.stream_ended(watched.token(), taken, code.is_none(), now);
    }
    watched.executed();
}

/// Awaits two futures side by side.
async fn both(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (false, false);
    poll_fn(|cx| {
        first = first || one.as_mut().poll(cx).is_ready();
        second = second || other.as_mut().poll(cx).is_ready();
        if first && second { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
