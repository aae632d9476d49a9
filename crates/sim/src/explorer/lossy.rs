//! Calls over a path that loses packets, in virtual time: latency and rate beside those of a bare
//! ping-pong that resends.
//!
//! Hosts cost no time here, so what is measured is recovery alone: which packets are sent again, and
//! when.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use stubborn_core::service::{
    Answer, Call, Channel, Encoded, Handling, Metadata, Method, Semantics, Service,
    ServiceDescriptor, Shape,
};
use stubborn_core::time::Instant;

use crate::network::Rule;
use crate::world::{Failure, Settings, World, millis, run};

static METHODS: [Method; 1] = [Method::new("lossy.Echo/Echo", Semantics::AtMostOnce, Shape::Unary)];

static DESCRIPTOR: ServiceDescriptor =
    ServiceDescriptor { name: "lossy.Echo", methods: &METHODS, file_descriptor_set: &[] };

/// Answers at once: small requests with themselves, large ones with nothing.
struct Echo;

impl Service for Echo {
    fn descriptor(&self) -> &'static ServiceDescriptor {
        &DESCRIPTOR
    }

    fn call(&self, _: usize, call: Call<Encoded>) -> Handling {
        let request = call.into_message();
        let reply = if request.body.len() > 2 * SMALL { message(0) } else { request };
        Box::pin(std::future::ready(Answer::Reply(reply, Metadata::new())))
    }
}

/// The size of a small call, in bytes.
const SMALL: usize = 64;

fn message(size: usize) -> Encoded {
    Encoded::new(METHODS[0].id(), &Bytes::from(vec![7; size]))
}

/// Work over a path that loses packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossyWork {
    /// Without loss.
    pub round_trip: Duration,
    /// The part of the datagrams that is lost, each way.
    pub loss: f64,
    /// Calls in flight, each followed by the next.
    pub in_flight: usize,
    /// The size of a request, in bytes; replies have at most 64.
    pub request: usize,
    /// Calls measured.
    pub calls: usize,
    /// Calls before them, which teach the connection its path.
    pub warm_up: usize,
    /// The rate of the path in bits per second, and its queue in bytes; `None` for no limit.
    pub bottleneck: Option<(u64, u64)>,
    /// What the timers of hosts are rounded up to; zero for exact timers.
    pub tick: Duration,
}

impl LossyWork {
    /// Calls of 64 bytes both ways.
    pub fn small(round_trip: Duration, loss: f64, in_flight: usize, calls: usize) -> Self {
        Self {
            round_trip,
            loss,
            in_flight,
            request: SMALL,
            calls,
            warm_up: 500,
            bottleneck: None,
            tick: Duration::ZERO,
        }
    }

    /// Requests of 1 MiB, one at a time.
    pub fn large(round_trip: Duration, loss: f64, calls: usize) -> Self {
        let small = Self::small(round_trip, loss, 1, calls);
        Self { request: 1 << 20, warm_up: 20, ..small }
    }
}

/// The floor: a bare ping-pong that sends again whenever its round trip and a millisecond have
/// passed, with no congestion control and one datagram per call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resender {
    round_trip: Duration,
    /// The probability that a try fails.
    failure: f64,
}

impl Resender {
    /// Over a path that loses this part each way.
    pub fn new(round_trip: Duration, loss: f64) -> Self {
        Self { round_trip, failure: 1.0 - (1.0 - loss) * (1.0 - loss) }
    }

    fn timeout(&self) -> Duration {
        self.round_trip + millis(1)
    }

    /// The latency that this part of the calls stays within.
    pub fn quantile(&self, part: f64) -> Duration {
        let mut failures = 0;
        let mut beyond = self.failure;
        while beyond > 1.0 - part {
            failures += 1;
            beyond *= self.failure;
        }
        self.round_trip + self.timeout() * failures
    }

    /// Calls per second, one at a time.
    pub fn rate(&self) -> f64 {
        let failures = self.failure / (1.0 - self.failure);
        1.0 / (self.round_trip.as_secs_f64() + failures * self.timeout().as_secs_f64())
    }
}

/// What calls took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossyFigures {
    /// The median latency.
    pub p50: Duration,
    /// The latency that one call in a hundred exceeds.
    pub p99: Duration,
    /// The longest latency.
    pub max: Duration,
    /// Calls completed per second.
    pub rate: f64,
    /// Datagrams sent, both ways, for each call.
    pub datagrams_per_call: f64,
}

impl LossyFigures {
    /// Requests' bits per second.
    pub fn bits_per_second(&self, request: usize) -> f64 {
        self.rate * request as f64 * 8.0
    }
}

/// Measures work of one client and one server.
///
/// # Errors
/// If a promise was broken.
///
/// # Panics
/// If a call fails: none may, for the path loses only a part.
pub fn measure_lossy(seed: u64, work: LossyWork) -> Result<LossyFigures, Failure> {
    let log = Arc::new(Mutex::new(Log::default()));
    let shared = Arc::clone(&log);
    let report = run(Settings::new(seed), move |world| scenario(world, work, shared))?;
    let mut log = lock(&log);
    log.latencies.sort_unstable();
    let at = |part: f64| log.latencies[((log.latencies.len() - 1) as f64 * part) as usize];
    let took = log.ended.since(log.begun);
    Ok(LossyFigures {
        p50: at(0.5),
        p99: at(0.99),
        max: at(1.0),
        rate: log.latencies.len() as f64 / took.as_secs_f64(),
        datagrams_per_call: report.wire.sent() as f64 / log.all as f64,
    })
}

#[derive(Default)]
struct Log {
    begun: Instant,
    ended: Instant,
    all: usize,
    latencies: Vec<Duration>,
}

async fn scenario(world: World, work: LossyWork, log: Arc<Mutex<Log>>) {
    world.tick(work.tick);
    world.host("server", || Echo);
    let network = world.network();
    network.add(Rule::Latency(work.round_trip / 2)).keep();
    let channel = world.channel("client", "server");
    call(&channel, SMALL).await;
    network.lose(work.loss).keep();
    if let Some((rate, queue)) = work.bottleneck {
        network.limit(rate / 8, queue).keep();
    }
    for _ in 0..work.in_flight {
        let caller = (world.clone(), channel.clone(), Arc::clone(&log));
        world.spawn(async move {
            let (world, channel, log) = caller;
            loop {
                let begun = world.now();
                call(&channel, work.request).await;
                lock(&log).note(begun, world.now(), work);
            }
        });
    }
    while lock(&log).latencies.len() < work.calls {
        world.sleep(millis(10)).await;
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    fn note(&mut self, begun: Instant, ended: Instant, work: LossyWork) {
        self.all += 1;
        if self.all <= work.warm_up {
            self.begun = ended;
        } else if self.latencies.len() < work.calls {
            self.latencies.push(ended.since(begun));
            self.ended = ended;
        }
    }
}

async fn call(channel: &Channel, size: usize) {
    let reply = channel.raw_unary::<()>(&METHODS[0], message(size)).wait_for_ready(true);
    reply.await.expect("a path that loses a part loses no call");
}
