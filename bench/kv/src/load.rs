//! The load on etcd: a closed loop of puts, on one thread, as `stubborn bench kv` makes it on ours.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::task::LocalSet;
use tonic::transport::{Channel, Endpoint};

use self::proto::PutRequest;
use self::proto::kv_client::KvClient;

pub(crate) mod proto {
    #![allow(unreachable_pub, missing_docs)]
    tonic::include_proto!("etcdserverpb");
}

/// Keys that are put, one after another: as many as `stubborn bench kv` has.
const KEYS: u64 = 10_000;

/// Puts in flight for which there is a connection more, and connections at most. More or fewer were
/// slower.
const SHARE: u32 = 32;
const CONNECTIONS: u32 = 16;

/// After a put that failed, so as not to fail as fast as can be.
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The members, the leader first: the others are asked when it fails.
    #[arg(value_delimiter = ',')]
    members: Vec<String>,
    #[arg(long)]
    concurrency: u32,
    #[arg(long)]
    payload: u32,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    warmup: f64,
    #[arg(long)]
    patience: f64,
}

/// What the workers share.
struct Run {
    /// For each member its connections.
    members: Vec<Vec<Channel>>,
    /// The member that is asked.
    asked: Cell<usize>,
    from: Instant,
    to: Instant,
    value: Bytes,
    next: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    failed: Cell<u64>,
    last_end: Cell<Instant>,
    longest_gap: Cell<Duration>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = runtime.map_err(|e| e.to_string())?.block_on(perform(arguments))?;
    println!("{told}");
    Ok(())
}

async fn perform(arguments: &Arguments) -> Result<serde_json::Value, String> {
    let Arguments { concurrency, payload, .. } = *arguments;
    let connections = concurrency.div_ceil(SHARE).clamp(1, CONNECTIONS);
    let patience = Duration::from_secs_f64(arguments.patience);
    let open = |url: &String| -> Result<Vec<Channel>, String> {
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|e| e.to_string())?;
        let endpoint = endpoint.tcp_nodelay(true).timeout(patience).connect_timeout(patience);
        Ok((0..connections).map(|_| endpoint.connect_lazy()).collect())
    };
    let members = arguments.members.iter().map(open).collect::<Result<_, _>>()?;
    let from = Instant::now() + Duration::from_secs_f64(arguments.warmup);
    let run = Rc::new(Run {
        members,
        asked: Cell::new(0),
        from,
        to: from + Duration::from_secs_f64(arguments.seconds),
        value: vec![0x5a; payload as usize].into(),
        next: Cell::new(0),
        latency: RefCell::new(Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("bounds")),
        failed: Cell::new(0),
        last_end: Cell::new(from),
        longest_gap: Cell::new(Duration::ZERO),
    });
    let tasks = LocalSet::new();
    for worker in 0..concurrency {
        tasks.spawn_local(work(Rc::clone(&run), (worker % connections) as usize));
    }
    tasks.await;
    let latency = run.latency.borrow();
    let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1_000.0;
    Ok(json!({
        "calls_per_s": latency.len() as f64 / arguments.seconds,
        "p50_us": micros(0.5),
        "p99_us": micros(0.99),
        "max_us": latency.max() as f64 / 1_000.0,
        "failed": run.failed.get(),
        "unresolved": 0,
        "calls": latency.len(),
        "longest_gap_ms": run.longest_gap.get().as_secs_f64() * 1_000.0,
        "connections": connections,
    }))
}

async fn work(run: Rc<Run>, connection: usize) {
    let clients: Vec<_> =
        run.members.iter().map(|channels| KvClient::new(channels[connection].clone())).collect();
    let mut started = Instant::now();
    while started < run.to {
        let number = run.next.replace(run.next.get() + 1) % KEYS;
        let key = format!("bench/{number}").into();
        let request = PutRequest { key, value: run.value.clone() };
        let asked = run.asked.get();
        let answer = clients[asked].clone().put(request).await;
        let ended = Instant::now();
        if answer.is_err() {
            run.failed.set(run.failed.get() + 1);
            if run.asked.get() == asked {
                run.asked.set((asked + 1) % clients.len());
            }
            tokio::time::sleep(PAUSE).await;
        } else {
            if started >= run.from && ended <= run.to {
                let nanos = (ended - started).as_nanos() as u64;
                run.latency.borrow_mut().saturating_record(nanos);
            }
            if ended >= run.from {
                let gap = ended - run.last_end.replace(ended);
                run.longest_gap.set(gap.max(run.longest_gap.get()));
            }
        }
        started = Instant::now();
    }
}
