//! `stubborn bench overload`

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use stubborn::{
    Call, CallError, ChannelBuilder, Concurrency, Identity, Limits, Load, NotExecutedReason,
    Outcome, Priority, Server, Status, Trust,
};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::measure::histogram;
use super::run::seconds;
use crate::error::{Error, Exit};
use crate::output::Output;
use crate::stubs::bench::v1::{Echo, EchoClient, EchoServer, Payload, UsageReply};
use crate::task::block_on;

/// Of so many calls one is of high priority.
const HIGH_OF: u64 = 20;

/// How often calls are begun.
const TICK: Duration = Duration::from_millis(1);

/// Ask a server for ten times what it can do, and say how much it still does in time.
///
/// A server whose handlers wait for one of a few places, or take the processor, runs in a thread of this
/// process. Its peak is measured first, with a few calls in flight. Then calls with a deadline are begun
/// at a fixed rate, whatever became of those before; one in twenty is of high priority. Goodput is what
/// is answered within the deadline.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is offered, as a multiple of the peak.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    times: f64,

    /// Handlers that get on at once; the others wait inside for one of them.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    places: u32,

    /// How long each of them takes, in microseconds.
    #[arg(long, value_name = "US", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    takes: u32,

    /// Let a handler use the processor for that time, instead of waiting. The server then does one thing
    /// after the other, in its one thread.
    #[arg(long)]
    compute: bool,

    /// The deadline of each call, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    deadline: u32,

    /// How long to measure.
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,

    /// How long to overload it before that counts; 0 to see how it begins.
    #[arg(long, value_name = "S", default_value = "2", value_parser = seconds)]
    warmup: Duration,

    /// Connections, each with a session of its own.
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    connections: u32,

    /// Let the server begin whatever comes, to see the difference.
    #[arg(long)]
    unlimited: bool,
}

impl Args {
    fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline.into())
    }

    fn peak(&self) -> Duration {
        PEAK.min(self.seconds)
    }

    /// Calls in flight that keep it busy.
    fn busy(&self) -> u32 {
        if self.compute { 4 } else { self.places * 2 }
    }
}

/// What became of the calls of one phase.
#[derive(Debug)]
struct Counts {
    offered: u64,
    /// Replies within the deadline, and their latencies in nanoseconds.
    latency: Histogram<u64>,
    high_offered: u64,
    high_good: u64,
    high_refused: u64,
    high_waited: u64,
    /// Refused by the server as overloaded.
    refused: u64,
    /// Not sent, as no slot got free in time.
    waited: u64,
    /// Whatever else: begun and not ended in time, mostly.
    other: u64,
}

/// What the server says.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    begun: u64,
    load: Load,
}

pub(super) fn run(args: Args, out: &Output) -> Result<(), Error> {
    let begun = Arc::new(AtomicU64::new(0));
    let server = Serving::start(&args, Arc::clone(&begun))?;
    let result = block_on(LocalSet::new().run_until(measure(&args, &server, &begun, out)));
    server.stop();
    result
}

async fn measure(
    args: &Args,
    server: &Serving,
    begun: &AtomicU64,
    out: &Output,
) -> Result<(), Error> {
    let mut clients = Vec::new();
    for _ in 0..args.connections {
        let channel =
            ChannelBuilder::new(&server.address).trust(Trust::key(server.pin)).connect().await;
        let channel = channel.map_err(|error| Error::new(Exit::Connect, error.to_string()))?;
        clients.push(EchoClient::new(channel));
    }
    let clients = Rc::new(clients);
    let bar = progress(args, out);
    bar.set_message("its peak");
    let peak = peak(args, &clients).await?;
    let rate = peak * args.times;
    bar.set_message(format!("{rate:.0} calls a second"));
    let _ = offer(args, &clients, rate, args.warmup, &bar).await?;
    let before = seen(server, begun);
    let from = Instant::now();
    let counts = offer(args, &clients, rate, args.seconds, &bar).await?;
    let elapsed = from.elapsed();
    let after = seen(server, begun);
    bar.finish_and_clear();
    report(args, peak, &counts, elapsed, (&before, &after), out);
    Ok(())
}

fn progress(args: &Args, out: &Output) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let whole = args.peak() * 2 + args.warmup + args.seconds;
    let bar = ProgressBar::new(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX));
    if let Ok(style) = ProgressStyle::with_template("[{bar:20.green}] {elapsed}  {msg}") {
        bar.set_style(style.progress_chars("##-"));
    }
    bar
}

fn seen(server: &Serving, begun: &AtomicU64) -> Seen {
    Seen { begun: begun.load(Ordering::Relaxed), load: server.load() }
}

/// How long calls are made at the peak before they count, and then, at most.
const PEAK: Duration = Duration::from_secs(2);

/// Calls a second with a few in flight, each begun as another one ends.
async fn peak(args: &Args, clients: &Rc<Vec<EchoClient>>) -> Result<f64, Error> {
    let from = Instant::now() + args.peak();
    let to = from + args.peak();
    let callers = (0..args.busy()).map(|number| {
        let clients = Rc::clone(clients);
        tokio::task::spawn_local(async move {
            let client = &clients[number as usize % clients.len()];
            let mut count = 0_u64;
            loop {
                client.echo(Payload::default()).await?;
                let now = Instant::now();
                if now > to {
                    return Ok::<u64, CallError>(count);
                }
                count += u64::from(now >= from);
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut count = 0;
    for caller in callers {
        count += caller.await.map_err(|error| Error::internal(error.to_string()))??;
    }
    Ok(count as f64 / args.peak().as_secs_f64().max(1e-9))
}

/// Begins so many calls a second for so long, and waits for their ends.
async fn offer(
    args: &Args,
    clients: &Rc<Vec<EchoClient>>,
    rate: f64,
    time: Duration,
    bar: &ProgressBar,
) -> Result<Counts, Error> {
    let counts = Rc::new(std::cell::RefCell::new(Counts::new()?));
    let from = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    let mut number = 0_u64;
    let mut ticks = tokio::time::interval(TICK);
    while from.elapsed() < time {
        ticks.tick().await;
        // What a late tick has missed is made up for.
        let due = (from.elapsed().min(time).as_secs_f64() * rate) as u64;
        while number < due {
            let (clients, counts) = (Rc::clone(clients), Rc::clone(&counts));
            // Those of high priority come over all connections, too.
            let index = (number + number / HIGH_OF) as usize % clients.len();
            let deadline = args.deadline();
            let high = number.is_multiple_of(HIGH_OF);
            calls.spawn_local(async move {
                let began = Instant::now();
                let mut call = clients[index].echo(Payload::default()).deadline(deadline);
                if high {
                    call = call.priority(Priority::High);
                }
                let result = call.await;
                counts.borrow_mut().note(high, began.elapsed(), deadline, result);
            });
            number += 1;
        }
        while calls.try_join_next().is_some() {}
        bar.inc(1);
    }
    while calls.join_next().await.is_some() {}
    let counts = Rc::try_unwrap(counts).map_err(|_| Error::internal("a call has not ended"))?;
    Ok(counts.into_inner())
}

impl Counts {
    fn new() -> Result<Self, Error> {
        Ok(Self {
            offered: 0,
            latency: histogram()?,
            high_offered: 0,
            high_good: 0,
            high_refused: 0,
            high_waited: 0,
            refused: 0,
            waited: 0,
            other: 0,
        })
    }

    fn note<T>(
        &mut self,
        high: bool,
        took: Duration,
        deadline: Duration,
        result: Result<T, CallError>,
    ) {
        self.offered += 1;
        self.high_offered += u64::from(high);
        let error = match result {
            Ok(_) if took <= deadline => {
                self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                self.high_good += u64::from(high);
                return;
            }
            Ok(_) => return self.other += 1,
            Err(error) => error,
        };
        match error.outcome() {
            Outcome::NotExecuted(why) if why.reason == NotExecutedReason::Overloaded => {
                self.refused += 1;
                self.high_refused += u64::from(high);
            }
            Outcome::NotExecuted(_) => {
                self.waited += 1;
                self.high_waited += u64::from(high);
            }
            _ => self.other += 1,
        }
    }
}

fn report(
    args: &Args,
    peak: f64,
    counts: &Counts,
    elapsed: Duration,
    (before, after): (&Seen, &Seen),
    out: &Output,
) {
    let whole = args.seconds.as_secs_f64();
    let good = counts.latency.len();
    let goodput = good as f64 / whole;
    let millis = |quantile| counts.latency.value_at_quantile(quantile) as f64 / 1e6;
    let (p50, p99) = (millis(0.5), millis(0.99));
    let begun = after.begun - before.begun;
    let vain = begun.saturating_sub(good);
    let share = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
    let (shed, earlier) = (after.load.shed, before.load.shed);
    let work = if args.compute { "computes for" } else { "waits for" };
    out.line(format_args!(
        "a handler {work} {} µs, {} at once; deadline {} ms; {} connections",
        args.takes,
        if args.compute { 1 } else { args.places },
        args.deadline,
        args.connections
    ));
    out.line(format_args!("  peak       {peak:.0} calls a second"));
    let offered = counts.offered as f64 / whole;
    out.line(format_args!(
        "  offered    {offered:.0}, {:.1} times the peak, for {whole:.1} s",
        offered / peak
    ));
    out.line(format_args!(
        "  goodput    {goodput:.0}, {:.1} % of the peak",
        100.0 * goodput / peak
    ));
    out.line(format_args!("  in time    p50 {p50:.1}   p99 {p99:.1} ms"));
    out.line(format_args!(
        "  begun      {begun}, of which {vain} not answered in time ({:.2} %)",
        share(vain, begun)
    ));
    out.line(format_args!(
        "  high       {} offered, {:.1} % answered in time; {} refused, {} never sent",
        counts.high_offered,
        share(counts.high_good, counts.high_offered),
        counts.high_refused,
        counts.high_waited
    ));
    out.line(format_args!(
        "  not run    {} refused, {} never sent for want of a slot, {} others",
        counts.refused, counts.waited, counts.other
    ));
    let (full, hopeless) = (shed.full - earlier.full, shed.hopeless - earlier.hopeless);
    let standing = shed.standing - earlier.standing;
    out.line(format_args!(
        "  shed       queue full {full}, no chance {hopeless}, waited too long {standing}"
    ));
    out.line(format_args!(
        "  limits     {} handlers at once, {} slots for a session at the end",
        after.load.limit, after.load.slots
    ));
    out.json(&json!({
        "peak_per_s": peak,
        "offered_per_s": offered,
        "goodput_per_s": goodput,
        "goodput_of_peak": goodput / peak,
        "p50_ms": p50,
        "p99_ms": p99,
        "deadline_ms": args.deadline,
        "begun": begun,
        "begun_in_vain": vain,
        "high_offered": counts.high_offered,
        "high_in_time": counts.high_good,
        "high_refused": counts.high_refused,
        "high_never_sent": counts.high_waited,
        "refused": counts.refused,
        "never_sent": counts.waited,
        "others": counts.other,
        "shed": { "full": full, "hopeless": hopeless, "standing": standing },
        "limit": after.load.limit,
        "slots": after.load.slots,
        "seconds": elapsed.as_secs_f64(),
    }));
}

/// A server in a thread of its own.
struct Serving {
    address: String,
    pin: stubborn::Fingerprint,
    load: std::sync::mpsc::Receiver<Load>,
    ask: tokio::sync::mpsc::UnboundedSender<()>,
    thread: thread::JoinHandle<()>,
}

impl Serving {
    fn start(args: &Args, begun: Arc<AtomicU64>) -> Result<Self, Error> {
        let identity = Identity::self_signed(["localhost"])
            .map_err(|e| Error::internal(format!("cannot make a certificate: {e}")))?;
        let pin = identity.fingerprint().map_err(|e| Error::internal(e.to_string()))?;
        let work = Work {
            places: Arc::new(Semaphore::new(args.places as usize)),
            takes: Duration::from_micros(args.takes.into()),
            compute: args.compute,
            begun,
        };
        let concurrency =
            if args.unlimited { Concurrency::Unlimited } else { Concurrency::ADAPTIVE };
        let limits = Limits { concurrency, ..Limits::default() };
        let (started, address) = std::sync::mpsc::channel();
        let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel();
        let (tell, load) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let serving = block_on(async {
                let server = Server::bind("127.0.0.1:0").identity(identity).limits(limits);
                let server = server.service(EchoServer::new(work)).start().await;
                let server = server.map_err(|e| Error::internal(e.to_string()))?;
                let _ = started.send(server.local_addr());
                while asked.recv().await.is_some() {
                    let _ = tell.send(server.worker_stats()[0].load);
                }
                server.stop().await;
                Ok(())
            });
            drop(serving);
        });
        let address =
            address.recv().map_err(|_| Error::internal("the server could not be started"))?;
        let address = format!("stubborn://{address}");
        Ok(Self { address, pin, load, ask, thread })
    }

    fn load(&self) -> Load {
        let _ = self.ask.send(());
        self.load.recv().unwrap_or_default()
    }

    fn stop(self) {
        drop(self.ask);
        let _ = self.thread.join();
    }
}

/// What its handlers do.
struct Work {
    places: Arc<Semaphore>,
    takes: Duration,
    compute: bool,
    begun: Arc<AtomicU64>,
}

impl Echo for Work {
    fn echo(&self, call: Call<Payload>) -> impl Future<Output = Result<Payload, Status>> + Send {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let (places, takes, compute) = (Arc::clone(&self.places), self.takes, self.compute);
        async move {
            if compute {
                let end = Instant::now() + takes;
                while Instant::now() < end {
                    std::hint::spin_loop();
                }
            } else {
                let _place = places.acquire_owned().await;
                tokio::time::sleep(takes).await;
            }
            Ok(call.into_message())
        }
    }

    async fn usage(&self, _: Call<()>) -> Result<UsageReply, Status> {
        Err(Status::unimplemented("use bench serve"))
    }
}
