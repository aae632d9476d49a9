//! The measurement: workers that call one after another until the time is up.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use stubborn::client::{ClientEndpoint, ConnectErrorKind};
use stubborn::{CallError, ChannelBuilder, Connection, Limits, Outcome, Trust};
use tokio::task::LocalSet;

use super::live::{self, Live};
use crate::error::{Error, Exit};
use crate::pins;
use crate::stubs::bench::v1::{EchoClient, Payload};

/// The longest latency that is told apart, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// What one connection is to do.
#[derive(Clone)]
pub(super) struct Load {
    pub(super) payload: usize,
    /// Bytes of each reply; `None`: as many as the request has.
    pub(super) reply: Option<u32>,
    /// Calls in flight, over all connections of the thread.
    pub(super) concurrency: usize,
    /// From here to there, calls count if they begin and end in between.
    pub(super) from: Instant,
    pub(super) to: Instant,
    /// Where it says how it goes, if somebody looks.
    pub(super) live: Option<Live>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Measured {
    /// Latencies of the calls that count, in nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// Latencies since the last look, if somebody looks.
    interval: Histogram<u64>,
    /// Calls that the server refused or did not execute.
    pub(super) failed: u64,
    /// Calls of which it is not known whether they ran.
    pub(super) unresolved: u64,
    /// The first failure, in words.
    pub(super) first_failure: Option<String>,
}

/// An empty histogram of latencies in nanoseconds.
pub(super) fn histogram() -> Result<Histogram<u64>, Error> {
    Histogram::new_with_bounds(1, LONGEST, 3)
        .map_err(|e| Error::internal(format!("cannot make a histogram: {e}")))
}

impl Measured {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            latency: histogram()?,
            interval: histogram()?,
            failed: 0,
            unresolved: 0,
            first_failure: None,
        })
    }

    pub(super) fn add(&mut self, other: Self) -> Result<(), Error> {
        self.latency.add(&other.latency).map_err(|e| Error::internal(e.to_string()))?;
        self.failed += other.failed;
        self.unresolved += other.unresolved;
        self.first_failure = self.first_failure.take().or(other.first_failure);
        Ok(())
    }
}

impl Measured {
    /// Counts a call. False if it failed.
    pub(super) fn note<T>(
        &mut self,
        load: &Load,
        started: Instant,
        ended: Instant,
        result: Result<T, CallError>,
    ) -> bool {
        let error = match result {
            Ok(_) => {
                if load.live.is_some() {
                    self.interval.saturating_record(nanos(ended - started));
                }
                if started >= load.from && ended <= load.to {
                    self.latency.saturating_record(nanos(ended - started));
                }
                return true;
            }
            Err(error) => error,
        };
        match error.outcome() {
            Outcome::Executed(_) | Outcome::NotExecuted(_) => self.failed += 1,
            _ => self.unresolved += 1,
        }
        self.first_failure.get_or_insert_with(|| error.to_string());
        false
    }
}

/// Connects with a socket of its own.
pub(super) async fn connect(
    address: &str,
    busy_poll: Duration,
    journal: Option<PathBuf>,
) -> Result<(EchoClient, Connection), Error> {
    let endpoint = ClientEndpoint::with_qlog(Limits::default(), crate::qlog::from_env()?)
        .map_err(|e| Error::new(Exit::Connect, format!("no UDP socket: {e}")))?;
    endpoint.busy_poll(busy_poll);
    let mut builder =
        ChannelBuilder::new(address).endpoint(&endpoint).key_log(crate::key_log::from_env()?);
    if let Some(pin) = pins::find(address) {
        builder = builder.trust(Trust::key(pin));
    }
    if let Some(file) = journal {
        builder = builder.journal(file);
    }
    let connection = builder.open().await.map_err(|error| match error.kind() {
        ConnectErrorKind::Unreachable(_) => {
            Error::from(error).with_hint("start the other side with: stubborn bench serve")
        }
        ConnectErrorKind::Refused(_) => Error::from(error)
            .with_hint("use the whole address that `bench serve` printed, with its ?pin="),
        _ => error.into(),
    })?;
    Ok((EchoClient::new(connection.channel()), connection))
}

/// Keeps `load.concurrency` calls in flight until the time is up, spread over the connections, then
/// waits for the last ones. The live view shows the first of the connections.
pub(super) async fn measure(
    connections: Vec<(EchoClient, Connection)>,
    load: Load,
) -> Result<Measured, Error> {
    let measured = Rc::new(RefCell::new(Measured::new()?));
    let tasks = LocalSet::new();
    for (client, _) in connections.iter().cycle().take(load.concurrency) {
        tasks.spawn_local(work(client.clone(), load.clone(), Rc::clone(&measured)));
    }
    if let Some(live) = load.live.clone()
        && let Some((_, connection)) = connections.into_iter().next()
    {
        tasks.spawn_local(tell(live, connection, load.to, Rc::clone(&measured)));
    }
    tasks.await;
    Rc::try_unwrap(measured)
        .map(RefCell::into_inner)
        .map_err(|_| Error::internal("a worker of the benchmark failed"))
}

async fn work(client: EchoClient, load: Load, measured: Rc<RefCell<Measured>>) {
    let request = Payload { data: Bytes::from(vec![0x5a; load.payload]), reply: load.reply };
    let mut started = Instant::now();
    while started < load.to {
        let result = client.echo(request.clone()).await;
        let ended = Instant::now();
        if !measured.borrow_mut().note(&load, started, ended, result) {
            // Not one failure after another as fast as they come.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        started = Instant::now();
    }
}

/// Says how it goes, until the time is up.
async fn tell(live: Live, connection: Connection, until: Instant, measured: Rc<RefCell<Measured>>) {
    let stats = || connection.stats().map(|(_, stats)| stats).unwrap_or_default();
    let mut before = stats();
    while Instant::now() + live::INTERVAL < until {
        tokio::time::sleep(live::INTERVAL).await;
        let now = stats();
        let interval = &mut measured.borrow_mut().interval;
        live.add(interval, &before, &now);
        interval.reset();
        before = now;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
