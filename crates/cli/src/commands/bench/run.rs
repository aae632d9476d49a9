//! `stubborn bench run ADDR`

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::sync::oneshot;

use super::cpu;
use super::histogram::{self, Bucket};
use super::live::{self, Live};
use super::measure::{Load, Measured, connect, measure};
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::stubs::bench::v1::EchoClient;
use crate::task::block_on;

/// Call `bench serve` for some time, and say how fast it was.
///
/// Each call carries the payload there and back, or another reply, encrypted, at most once. Processor time is that of
/// both processes, in user mode and in the kernel, over the time that is measured; the server tells
/// its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The address that `bench serve` printed.
    #[arg(value_name = "ADDR")]
    address: String,

    /// Bytes in each request, and in each reply unless --reply says otherwise.
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    payload: usize,

    /// Bytes in each reply.
    #[arg(long, value_name = "BYTES")]
    reply: Option<u32>,

    /// Calls in flight at once, over all connections. A connection has 1,024 slots: more calls
    /// than that wait in the client.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: u32,

    /// How long to measure.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    seconds: Duration,

    /// Connections, each with a socket of its own.
    #[arg(long, value_name = "C", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,

    /// Threads that share the connections; by default as many as there are processors for them.
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,

    /// How long to call before the measurement begins.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    warmup: Duration,

    /// How long a connection looks for datagrams before it sleeps, in microseconds: faster answers
    /// for processor time.
    #[arg(long, value_name = "US", default_value_t = 0)]
    busy_poll: u32,

    /// Keep a journal in this file: each request is synced to it before it is sent. For one
    /// connection.
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

impl Args {
    fn busy_poll(&self) -> Duration {
        Duration::from_micros(self.busy_poll.into())
    }
}

/// What was measured over all connections.
struct Summary {
    measured: Measured,
    client_cpu: Duration,
    server_cpu: Duration,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), Error> {
    if args.connections > args.concurrency {
        return Err(Error::usage("there are more connections than calls in flight")
            .with_hint("raise --concurrency, or lower --connections"));
    }
    if args.journal.is_some() && args.connections > 1 {
        return Err(
            Error::usage("a journal is for one connection").with_hint("leave --connections out")
        );
    }
    let summary = block_on(perform(&args, out))?;
    report(&args, &summary, out);
    let Measured { failed, unresolved, first_failure, .. } = summary.measured;
    let Some(failure) = first_failure else { return Ok(()) };
    let exit = if unresolved > 0 { Exit::Unknown } else { Exit::Failed };
    let message = format!("{failed} calls failed, {unresolved} are unresolved; first: {failure}");
    Err(Error::new(exit, message).printed())
}

/// Lets each connection call on a thread of its own. This thread only looks at the processor time,
/// at the beginning and at the end of the measurement, over a connection of its own.
async fn perform(args: &Args, out: &Output) -> Result<Summary, Error> {
    let (observer, _) = connect(&args.address, Duration::ZERO, None).await?;
    let live = if out.shows_progress() { Some(Live::new()?) } else { None };
    let threads = args.threads.unwrap_or_else(processors).min(args.connections);
    let mut callers = Vec::new();
    for connections in shares(args.connections, threads) {
        let busy_poll = args.busy_poll();
        let (address, journal) = (args.address.clone(), args.journal.clone());
        callers.push(Caller::start(address, connections, busy_poll, journal).await?);
    }
    let from = Instant::now() + args.warmup;
    let to = from + args.seconds;
    let threads: Vec<_> = callers
        .into_iter()
        .zip(shares(args.concurrency, threads))
        .map(|(caller, concurrency)| {
            let live = live.clone();
            let Args { payload, reply, .. } = *args;
            caller.call(Load { payload, reply, concurrency, from, to, live })
        })
        .collect();
    let (client_cpu, server_cpu) = observe(&observer, from, to, live.as_ref()).await?;
    let mut measured = Measured::new()?;
    for thread in threads {
        let part = thread.join().map_err(|_| Error::internal("a thread has panicked"))?;
        measured.add(part?)?;
    }
    Ok(Summary { measured, client_cpu, server_cpu })
}

fn processors() -> u32 {
    let count = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// `count` things for each of so many: as even as they can be.
fn shares(count: u32, among: u32) -> impl Iterator<Item = usize> {
    let (each, rest) = (count / among, count % among);
    (0..among).map(move |index| (each + u32::from(index < rest)) as usize)
}

/// A thread with connections, before it calls.
struct Caller {
    start: oneshot::Sender<Load>,
    thread: JoinHandle<Result<Measured, Error>>,
}

impl Caller {
    /// Connects.
    async fn start(
        address: String,
        connections: usize,
        busy_poll: Duration,
        journal: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let (start, load) = oneshot::channel();
        let (connected, ready) = oneshot::channel();
        let thread = thread::spawn(move || {
            block_on(async {
                let mut opened = Vec::new();
                for _ in 0..connections {
                    opened.push(connect(&address, busy_poll, journal.clone()).await?);
                }
                let _ = connected.send(());
                match load.await {
                    Ok(load) => measure(opened, load).await,
                    Err(_) => Err(Error::internal("the benchmark was given up")),
                }
            })
        });
        if ready.await.is_err() {
            let failed = || Error::internal("a thread has panicked");
            return Err(thread.join().ok().and_then(Result::err).unwrap_or_else(failed));
        }
        Ok(Self { start, thread })
    }

    fn call(self, load: Load) -> JoinHandle<Result<Measured, Error>> {
        // If the thread is gone, joining it says why.
        let _ = self.start.send(load);
        self.thread
    }
}

/// Processor time between these instants, of this process and of the server. Shows progress.
async fn observe(
    client: &EchoClient,
    from: Instant,
    to: Instant,
    shown: Option<&Live>,
) -> Result<(Duration, Duration), Error> {
    let bar = if shown.is_some() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    bar.enable_steady_tick(Duration::from_millis(100));
    bar.set_message("warming up");
    tokio::time::sleep_until(from.into()).await;
    let (client_before, server_before) = (cpu::used(), client.usage(()).await?.cpu_nanos);
    // What came while it warmed up is not shown.
    let _ = shown.and_then(Live::take);
    bar.set_length(u64::try_from((to - from).as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("[{bar:20.green}] {elapsed}  {msg}") {
        bar.set_style(style.progress_chars("##-"));
    }
    while Instant::now() < to {
        let next = to.min(Instant::now() + live::INTERVAL);
        tokio::time::sleep_until(next.into()).await;
        bar.set_position(u64::try_from(from.elapsed().as_millis()).unwrap_or(u64::MAX));
        if let Some(interval) = shown.and_then(Live::take) {
            bar.set_message(interval.to_string());
        }
    }
    let (client_after, server_after) = (cpu::used(), client.usage(()).await?.cpu_nanos);
    bar.finish_and_clear();
    let server = Duration::from_nanos(server_after.saturating_sub(server_before));
    Ok((client_after.saturating_sub(client_before), server))
}

fn report(args: &Args, summary: &Summary, out: &Output) {
    let Summary { measured, client_cpu, server_cpu } = summary;
    let calls = measured.latency.len();
    let rate = calls as f64 / args.seconds.as_secs_f64().max(1e-9);
    let micros = |nanos: u64| nanos as f64 / 1_000.0;
    let at = |quantile| micros(measured.latency.value_at_quantile(quantile));
    let (p50, p90, p99, p999) = (at(0.5), at(0.9), at(0.99), at(0.999));
    let max = micros(measured.latency.max());
    let per_call = |time: &Duration| match calls {
        0 => 0.0,
        calls => time.as_nanos() as f64 / 1_000.0 / calls as f64,
    };
    let (client, server) = (per_call(client_cpu), per_call(server_cpu));
    let Args { payload, concurrency, connections, .. } = args;
    let reply = args.reply.map_or(*payload, |reply| reply as usize);
    out.line(format_args!(
        "{payload} bytes there, {reply} back, {concurrency} in flight, {connections} connections, {:.1} s",
        args.seconds.as_secs_f64()
    ));
    out.line(format_args!("  calls      {rate:.0} per second, {calls} in all"));
    let gigabits = |bytes: usize| rate * bytes as f64 * 8.0 / 1e9;
    let (there, back) = (gigabits(*payload), gigabits(reply));
    out.line(format_args!("  payload    {there:.2} Gbit/s there, {back:.2} back"));
    out.line(format_args!(
        "  latency    p50 {p50:.1}   p90 {p90:.1}   p99 {p99:.1}   p99.9 {p999:.1}   max {max:.1} µs"
    ));
    out.line(format_args!(
        "  processor  {:.2} µs per call: client {client:.2}, server {server:.2}",
        client + server
    ));
    out.line(format_args!(
        "  not well   {} failed, {} unresolved",
        measured.failed, measured.unresolved
    ));
    let buckets = histogram::buckets(&measured.latency);
    for line in histogram::lines(&buckets) {
        out.line(line);
    }
    let bucket = |b: &Bucket| json!({ "below_us": b.below_us, "calls": b.calls });
    out.json(&json!({
        "calls_per_s": rate,
        "p50_us": p50,
        "p90_us": p90,
        "p99_us": p99,
        "p999_us": p999,
        "max_us": max,
        "cpu_us_per_call": client + server,
        "unresolved": measured.unresolved,
        "failed": measured.failed,
        "calls": calls,
        "client_cpu_us_per_call": client,
        "server_cpu_us_per_call": server,
        "payload": payload,
        "reply": reply,
        "request_gbit_per_s": there,
        "reply_gbit_per_s": back,
        "concurrency": concurrency,
        "connections": connections,
        "seconds": args.seconds.as_secs_f64(),
        "histogram": buckets.iter().map(bucket).collect::<Vec<_>>(),
    }));
}

pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<f64> = text.parse().ok().filter(|s| (0.0..=86_400.0).contains(s));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, such as 5 or 0.5".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_connections_are_spread_evenly_and_none_is_forgotten() {
        assert_eq!(shares(10, 4).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!(shares(1, 1).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn a_time_is_a_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["", "-1", "NaN", "1e9", "5s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
