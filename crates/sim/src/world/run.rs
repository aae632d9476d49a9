//! Runs a world from its seed until its scenario has ended.

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use stubborn_core::node::{IncomingRequest, RequestKey, RequestKind, StreamKey};
use stubborn_core::random::Random;
use stubborn_core::service::{Answer, Call};
use stubborn_core::time::Instant;
use stubborn_core::transport::endpoint::EndpointConfig;

use super::World;
use super::state::{Chore, Demands, State};
use super::stream::SimPort;
use super::tasks::{Home, ROOT, Task};
use super::trace::Trace;
use crate::crypto::entropy::Entropy;
use crate::oracle::{CallCounts, RaceCounts, Violation, WireCounts};

/// How a world is run.
pub struct Settings {
    /// Everything follows from it.
    pub seed: u64,
    /// What nodes are made with, unless the scenario says otherwise.
    pub endpoint: EndpointConfig,
    /// Where the trace is written, a line for each event.
    pub trace: Option<Box<dyn Write + Send>>,
    /// How long a scenario may take, in the world's time.
    pub limit: Duration,
    /// Nodes are handed one by one what has waited for them, instead of all of it together. Nothing else
    /// may change by that.
    pub one_by_one: bool,
}

impl Settings {
    /// A world of this seed, of at most a simulated day.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            endpoint: EndpointConfig::default(),
            trace: None,
            limit: Duration::from_secs(86_400),
            one_by_one: false,
        }
    }
}

/// What a run was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// The same for two runs of one seed.
    pub trace_hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// What kept the trace from being written whole, if anything did: the run went on without it.
    pub unwritten: Option<io::ErrorKind>,
    /// How long it took, in the world's time.
    pub simulated: Duration,
    /// What passed over the wire.
    pub wire: WireCounts,
    /// What became of the explorer's calls.
    pub calls: CallCounts,
    /// Which races it met.
    pub races: RaceCounts,
}

/// A run that broke a promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed that repeats it.
    pub seed: u64,
    /// What was broken.
    pub violation: Violation,
    /// The hash of the trace up to there.
    pub trace_hash: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.violation)
    }
}

impl std::error::Error for Failure {}

/// Steps that may pass without time going on: more means that a node asks for a timeout that it
/// then ignores.
const STEPS_AT_ONE_TIME: u32 = 200_000;

/// Runs a scenario in a world of its own.
///
/// # Errors
/// If an oracle saw a promise broken, or the scenario can never end.
///
/// # Panics
/// If the scenario or a handler panics.
pub fn run<F, Fut>(settings: Settings, scenario: F) -> Result<Report, Failure>
where
    F: FnOnce(World) -> Fut,
    Fut: Future<Output = ()>,
{
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&settings.seed.to_le_bytes());
    let mut random = Random::from_seed(seed);
    let _entropy = Entropy::install(random.fork());
    let mut state = State::new(random, settings.endpoint, Trace::new(settings.trace));
    state.one_by_one = settings.one_by_one;
    let world = World::new(settings.seed, state);
    let _cleared = ClearWhenDropped(world.clone());
    let root = pin!(scenario(world.clone()));
    let mut driver = Driver {
        root_waker: world.0.ready.waker(ROOT),
        world,
        root,
        limit: Instant::ZERO + settings.limit,
        steps: 0,
    };
    driver.root_waker.wake_by_ref();
    let outcome = driver.run();
    let mut state = driver.world.state();
    let trace_hash = state.trace.hash();
    let seed = settings.seed;
    match outcome {
        Err(violation) => {
            let _ = state.trace.finish(); // the violation matters more
            Err(Failure { seed, violation, trace_hash })
        }
        Ok(()) => {
            let now = state.now;
            let written = state.trace.finish();
            Ok(Report {
                seed,
                trace_hash,
                events: state.trace.events(),
                unwritten: written.err().map(|error| error.kind()),
                simulated: now.since(Instant::ZERO),
                wire: state.oracles.wire.clone(),
                calls: state.calls.counts,
                races: state.races(),
            })
        }
    }
}

/// Tasks hold the world and the world holds tasks: the circle is broken when the run ends.
struct ClearWhenDropped(World);

impl Drop for ClearWhenDropped {
    fn drop(&mut self) {
        let tasks = self.0.tasks().clear();
        drop(tasks);
        let (hosts, actions) = {
            let mut state = self.0.state();
            (
                std::mem::take(&mut state.hosts),
                std::mem::replace(&mut state.queue, super::queue::Queue::new()),
            )
        };
        drop((hosts, actions));
    }
}

struct Driver<'a, Fut> {
    world: World,
    root: Pin<&'a mut Fut>,
    root_waker: Waker,
    limit: Instant,
    /// Since time last went on.
    steps: u32,
}

/// Whether the scenario has ended.
#[derive(PartialEq, Eq)]
enum Scenario {
    Ended,
    GoesOn,
}

impl<Fut: Future<Output = ()>> Driver<'_, Fut> {
    #[cfg(not(feature = "tokio"))]
    fn run(&mut self) -> Result<(), Violation> {
        while self.settle()? == Scenario::GoesOn {
            self.next_at()?;
            self.happen();
        }
        Ok(())
    }

    /// Tokio's paused clock is led along, so that `tokio::time` works in handlers and scenarios.
    #[cfg(feature = "tokio")]
    fn run(&mut self) -> Result<(), Violation> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without I/O needs nothing from the system");
        runtime.block_on(async {
            let start = tokio::time::Instant::now();
            while self.settle()? == Scenario::GoesOn {
                let at = self.next_at_or_none()?;
                if lead_tokio(&self.world, start, at).await == Woken::ByTokio {
                    continue;
                }
                self.next_at()?;
                self.happen();
            }
            Ok(())
        })
    }

    /// Does all that is to be done now.
    fn settle(&mut self) -> Result<Scenario, Violation> {
        loop {
            while let Some(task) = self.world.0.ready.pop() {
                if task != ROOT {
                    self.world.poll_task(task);
                    continue;
                }
                let mut cx = Context::from_waker(&self.root_waker);
                if self.root.as_mut().poll(&mut cx).is_ready() {
                    self.check()?;
                    return Ok(Scenario::Ended);
                }
            }
            let demands = self.world.state().take_events();
            if self.world.meet(demands) || !self.world.0.ready.is_empty() {
                continue;
            }
            self.world.state().take_transmits();
            self.check()?;
            return Ok(Scenario::GoesOn);
        }
    }

    fn happen(&mut self) {
        let before = self.world.now();
        let chore = self.world.state().happen();
        match chore {
            Some(Chore::Wake(waker)) => waker.wake(),
            Some(Chore::Action(action)) => action(&self.world),
            None => {}
        }
        self.steps = if self.world.now() > before { 0 } else { self.steps + 1 };
    }

    /// When the next thing happens.
    fn next_at(&mut self) -> Result<Instant, Violation> {
        let now = self.world.now();
        self.next_at_or_none()?.ok_or_else(|| {
            let what = "nothing is left to happen, and the scenario has not ended";
            Violation::new("liveness", now, what)
        })
    }

    fn next_at_or_none(&mut self) -> Result<Option<Instant>, Violation> {
        let state = self.world.state();
        let at = state.queue.next_at();
        let broken = |what| Err(Violation::new("liveness", state.now, what));
        if at.is_some_and(|at| at > self.limit) {
            return broken("the scenario has not ended in the time that it was given");
        }
        if self.steps > STEPS_AT_ONE_TIME {
            return broken("time does not go on: a node asks for a timeout again and again");
        }
        Ok(at)
    }

    fn check(&self) -> Result<(), Violation> {
        let mut state = self.world.state();
        let violation = state.calls.violation().or_else(|| state.violation.take());
        violation.map_or(Ok(()), Err)
    }
}

impl World {
    fn poll_task(&self, id: usize) {
        let Some(home) = self.tasks().home(id) else { return };
        if let Some(home) = home {
            let (current, paused) = {
                let state = self.state();
                let host = state.host(home.host);
                (host.life == home.life && host.alive.is_some(), host.paused)
            };
            if !current {
                let dead = self.tasks().take(id);
                return drop(dead);
            }
            if paused {
                return self.tasks().rest(home.host, id);
            }
        }
        let Some(mut task) = self.tasks().take(id) else { return };
        if !poll_once(&mut task) {
            self.put_back(id, task);
        }
    }

    /// Keeps a task that is not finished, unless its host died while it ran.
    fn put_back(&self, id: usize, task: Task) {
        let lives = task.home.is_none_or(|home| {
            let state = self.state();
            let host = state.host(home.host);
            host.life == home.life && host.alive.is_some()
        });
        if lives {
            self.tasks().put_back(id, task);
        }
    }

    /// Starts and stops handlers; true if there was one.
    fn meet(&self, demands: Demands) -> bool {
        let any = !demands.requests.is_empty()
            || !demands.cancelled.is_empty()
            || !demands.for_keepers.is_empty();
        for task in demands.cancelled {
            let cancelled = self.tasks().take(task);
            drop(cancelled);
        }
        for (host, life, request) in demands.requests {
            self.start_handler(Home { host, life }, request);
        }
        for (host, life, said) in demands.for_keepers {
            self.ask_keeper(Home { host, life }, said);
        }
        any
    }

    fn start_handler(&self, home: Home, request: IncomingRequest) {
        let IncomingRequest { key, method, kind, call, .. } = request;
        let (message, mut context) = call.into_parts();
        let services = {
            let state = self.state();
            let host = state.host(home.host);
            let Some(alive) = host.alive.as_ref().filter(|_| host.life == home.life) else {
                return; // another handler killed the host
            };
            context.clock = alive.clock.clone();
            alive.services.clone()
        };
        let id = context.id;
        let call = Call::new(message, context);
        let dispatched = match kind {
            RequestKind::Stream(shape) => {
                let port = SimPort::new(self, home, StreamKey::Request(key));
                services.dispatch_stream(method, shape, call, Arc::new(port))
            }
            kind => services.dispatch(method, kind, call),
        };
        match dispatched {
            Err(answer) => self.answer(home, key, id, answer),
            Ok(handling) => {
                let (world, task) = (self.clone(), self.tasks().reserve());
                let future = Box::pin(async move {
                    let answer = handling.await;
                    world.answer(home, key, id, answer);
                });
                let waker = self.0.ready.waker(task);
                let mut running = Task { future, home: Some(home), waker };
                // Most handlers are ready at once, and need no task.
                if poll_once(&mut running) {
                    return;
                }
                if let Some(alive) = &mut self.state().host_mut(home.host).alive {
                    alive.handlers.insert(key, task);
                }
                self.put_back(task, running);
            }
        }
    }

    fn answer(
        &self,
        home: Home,
        key: RequestKey,
        id: Option<stubborn_core::session::CallId>,
        answer: Answer,
    ) {
        let mut state = self.state();
        let local = state.local_now(home.host);
        if let (Answer::NotExecuted(_), Some(id)) = (&answer, id) {
            state.oracles.starts.refused(id);
        }
        let host = state.host_mut(home.host);
        let Some(alive) = host.alive.as_mut().filter(|_| host.life == home.life) else { return };
        alive.handlers.remove(&key);
        alive.streams.remove(&StreamKey::Request(key));
        alive.node.answer(local, key, answer);
        state.touch(home.host);
    }
}

/// Polls a task; true if it has ended.
fn poll_once(task: &mut Task) -> bool {
    let mut cx = Context::from_waker(&task.waker);
    matches!(task.future.as_mut().poll(&mut cx), Poll::Ready(()))
}

#[cfg(feature = "tokio")]
#[derive(PartialEq, Eq)]
enum Woken {
    /// A task was woken by tokio's timers or tasks: time has not come to the next event yet.
    ByTokio,
    AtTheTime,
}

/// Brings tokio's clock to the time of the world's next event, or to tokio's own next timer if that
/// is due earlier. Tokio counts milliseconds, so its clock may be up to one ahead of the world's.
#[cfg(feature = "tokio")]
async fn lead_tokio(world: &World, start: tokio::time::Instant, at: Option<Instant>) -> Woken {
    let tokio_now = Instant::ZERO + start.elapsed();
    let spawned = tokio::runtime::Handle::current().metrics().num_alive_tasks() > 0;
    if !spawned && at.is_some_and(|at| at <= tokio_now) {
        return Woken::AtTheTime;
    }
    if spawned {
        tokio::task::yield_now().await;
    }
    // Without an event of its own the world waits for tokio, for at most a simulated day.
    let until = at.map_or(Duration::from_secs(86_400), |at| at.since(Instant::ZERO));
    let mut sleep = pin!(tokio::time::sleep_until(start + until));
    let woken = std::future::poll_fn(|cx| {
        if !world.0.ready.is_empty() {
            return Poll::Ready(Woken::ByTokio);
        }
        world.0.ready.set_sleeper(cx.waker().clone());
        sleep.as_mut().poll(cx).map(|()| Woken::AtTheTime)
    })
    .await;
    if woken == Woken::ByTokio {
        let mut state = world.state();
        let now = Instant::ZERO + start.elapsed();
        state.now = state.now.max(at.map_or(now, |at| now.min(at)));
    }
    woken
}
