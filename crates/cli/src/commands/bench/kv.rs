//! `stubborn bench kv ADDR,ADDR,ADDR`

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use stubborn::kv::{KvClient, PutRequest};
use tokio::task::LocalSet;

use super::cpu;
use super::histogram::{self, Bucket};
use super::measure::{Load, Measured};
use super::run::seconds;
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::remote::{Access, Link};
use crate::task::block_on;

/// Keys that are put, one after another.
const KEYS: u64 = 10_000;

/// Calls in flight that one session has slots for.
const SLOTS: u32 = 1_024;

/// Put keys into a cluster for some time, and say how fast it was.
///
/// Each put is durable on a majority of the nodes when it counts, and runs exactly once. Start a
/// cluster with `stubborn up`. Processor time is that of this process alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The nodes: HOST:PORT[,HOST:PORT]
    #[arg(value_name = "ADDR,ADDR,...")]
    address: String,

    /// Bytes in each value.
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(..=262_144))]
    payload: u32,

    /// Puts in flight at once. A session has 1,024 slots: more have sessions of their own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    concurrency: u32,

    /// How long to measure.
    #[arg(long, value_name = "S", default_value = "5", value_parser = seconds)]
    seconds: Duration,

    /// How long to put before the measurement begins.
    #[arg(long, value_name = "S", default_value = "1", value_parser = seconds)]
    warmup: Duration,

    #[command(flatten)]
    access: Access,
}

/// What the workers share.
struct Run {
    load: Load,
    next: Cell<u64>,
    measured: RefCell<Measured>,
    /// When a put ended last, and the longest time in which none did.
    last_end: Cell<Instant>,
    longest_gap: Cell<Duration>,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let (run, cpu) = block_on(perform(&args))?;
    report(&args, &run, cpu, out);
    let Measured { failed, unresolved, first_failure, .. } = &*run.measured.borrow();
    let Some(failure) = first_failure else { return Ok(()) };
    let exit = if *unresolved > 0 { Exit::Unknown } else { Exit::Failed };
    let message = format!("{failed} puts failed, {unresolved} are unresolved; first: {failure}");
    Err(Error::new(exit, message).printed_if(out.is_json()))
}

async fn perform(args: &Args) -> Result<(Rc<Run>, Duration), Error> {
    let mut links: Vec<Link> = Vec::new();
    for _ in 0..args.concurrency.div_ceil(SLOTS) {
        links.push(args.access.connect_with(&args.address, |builder| builder).await?);
    }
    let from = Instant::now() + args.warmup;
    let to = from + args.seconds;
    let (payload, concurrency) = (args.payload as usize, args.concurrency as usize);
    let load = Load { payload, reply: None, concurrency, from, to, live: None };
    let run = Rc::new(Run {
        load,
        next: Cell::new(0),
        measured: RefCell::new(Measured::new()?),
        last_end: Cell::new(from),
        longest_gap: Cell::new(Duration::ZERO),
    });
    let tasks = LocalSet::new();
    for link in links.iter().cycle().take(concurrency) {
        let client = KvClient::new(link.channel());
        tasks.spawn_local(work(client, Rc::clone(&run)));
    }
    let used = tasks.spawn_local(async move {
        tokio::time::sleep_until(from.into()).await;
        let before = cpu::used();
        tokio::time::sleep_until(to.into()).await;
        cpu::used().saturating_sub(before)
    });
    tasks.await;
    let cpu = used.await.map_err(|_| Error::internal("a worker of the benchmark failed"))?;
    for link in links {
        link.close().await;
    }
    Ok((run, cpu))
}

async fn work(client: KvClient, run: Rc<Run>) {
    let value = Bytes::from(vec![0x5a; run.load.payload]);
    let mut started = Instant::now();
    while started < run.load.to {
        let number = run.next.replace(run.next.get() + 1) % KEYS;
        let request = PutRequest { key: format!("bench/{number}"), value: value.clone() };
        let result = client.put(request).await;
        let ended = Instant::now();
        if !run.measured.borrow_mut().note(&run.load, started, ended, result) {
            // Not one failure after another as fast as they come.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if ended >= run.load.from {
            let gap = ended - run.last_end.replace(ended);
            run.longest_gap.set(gap.max(run.longest_gap.get()));
        }
        started = Instant::now();
    }
}

fn report(args: &Args, run: &Run, cpu: Duration, out: &Output) {
    let measured = run.measured.borrow();
    let puts = measured.latency.len();
    let rate = puts as f64 / args.seconds.as_secs_f64().max(1e-9);
    let micros = |nanos: u64| nanos as f64 / 1_000.0;
    let at = |quantile| micros(measured.latency.value_at_quantile(quantile));
    let (p50, p90, p99, p999) = (at(0.5), at(0.9), at(0.99), at(0.999));
    let max = micros(measured.latency.max());
    let cpu = if puts == 0 { 0.0 } else { cpu.as_nanos() as f64 / 1_000.0 / puts as f64 };
    let gap = run.longest_gap.get().as_micros() as f64 / 1_000.0;
    let Args { payload, concurrency, .. } = args;
    out.line(format_args!(
        "{payload} bytes in each value, {concurrency} in flight, {:.1} s",
        args.seconds.as_secs_f64()
    ));
    out.line(format_args!("  puts       {rate:.0} per second, {puts} in all"));
    out.line(format_args!(
        "  latency    p50 {p50:.1}   p90 {p90:.1}   p99 {p99:.1}   p99.9 {p999:.1}   max {max:.1} µs"
    ));
    out.line(format_args!("  longest time without a put  {gap:.1} ms"));
    out.line(format_args!("  processor  {cpu:.2} µs per put, of this process"));
    let Measured { failed, unresolved, .. } = &*measured;
    out.line(format_args!("  not well   {failed} failed, {unresolved} unresolved"));
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
        "unresolved": unresolved,
        "failed": failed,
        "calls": puts,
        "client_cpu_us_per_call": cpu,
        "longest_gap_ms": gap,
        "payload": payload,
        "concurrency": concurrency,
        "seconds": args.seconds.as_secs_f64(),
        "histogram": buckets.iter().map(bucket).collect::<Vec<_>>(),
    }));
}
