//! Three servers are drained, stopped and started again one after the other while hundreds of calls of
//! all kinds are in flight over real sockets: none fails. Figures:
//!
//!   cargo test --release -p stubborn --test rolling -- --nocapture --test-threads 1

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stubborn::service_config::Balancing;
use stubborn::{
    Call, CallError, ChannelBuilder, Concurrency, DrainReport, Identity, Limits, ReplySender,
    Requests, Server, Status,
};
use tokio::sync::{oneshot, watch};

/// The runtime by the name that the generator's own tests use.
mod runtime {
    pub(crate) use stubborn::*;
}

mod semantics {
    include!("../../build/tests/golden/semantics/mod.rs");
}

use semantics::semantics::v1::*;

/// The longest that anything here may take; nothing waits for it unless it fails.
const LIMIT: Duration = Duration::from_secs(60);

/// Calls in flight at any time.
const IN_FLIGHT: u64 = 300;

/// Messages of each stream.
const MESSAGES: u64 = 20;

/// How often each call ran that is to run once, on any of the servers.
#[derive(Clone, Default)]
struct Handlers(Arc<Mutex<HashMap<String, u64>>>);

impl Handlers {
    async fn run(&self, call: Call<Text>) -> Result<Text, Status> {
        *self.0.lock().unwrap().entry(call.text.clone()).or_default() += 1;
        // Some are done at once, most are under way for a moment.
        if !call.text.len().is_multiple_of(3) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(call.into_message())
    }
}

impl Kinds for Handlers {
    async fn plain(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn once(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn exactly(&self, call: Call<Text>) -> Result<Text, Status> {
        self.run(call).await
    }

    async fn perhaps(&self, _: Call<Text>) -> Result<(), Status> {
        Ok(())
    }

    async fn again(&self, call: Call<Text>) -> Result<Text, Status> {
        Ok(call.into_message())
    }

    async fn look(&self, call: Call<Text>) -> Result<Text, Status> {
        Ok(call.into_message())
    }

    async fn touch(&self, _: Call<()>) -> Result<(), Status> {
        Ok(())
    }

    async fn down(&self, call: Call<Text>, mut replies: ReplySender<Text>) -> Result<(), Status> {
        for _ in 0..MESSAGES {
            replies.send(call.message()).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn up(&self, _: Call<()>, mut requests: Requests<Text>) -> Result<Text, Status> {
        let mut count = 0;
        while requests.message().await?.is_some() {
            count += 1;
        }
        Ok(text(count))
    }

    async fn both(
        &self,
        _: Call<()>,
        mut requests: Requests<Text>,
        mut replies: ReplySender<Text>,
    ) -> Result<(), Status> {
        while let Some(message) = requests.message().await? {
            replies.send(&message).await?;
        }
        Ok(())
    }
}

fn text(text: impl ToString) -> Text {
    Text { text: text.to_string() }
}

/// A server with a thread and a runtime of its own.
struct Running {
    address: SocketAddr,
    leave: oneshot::Sender<()>,
    left: oneshot::Receiver<DrainReport>,
}

impl Running {
    async fn start(address: SocketAddr, identity: &Identity, handlers: &Handlers) -> Self {
        let server = Server::bind(address)
            .identity(identity.clone())
            .service(KindsServer::new(handlers.clone()))
            // What a server refuses that has more than it can run is another matter.
            .limits(Limits { concurrency: Concurrency::Unlimited, ..Limits::default() })
            .drain_timeout(LIMIT);
        let (bound, address) = oneshot::channel();
        let (leave, asked) = oneshot::channel();
        let (tell, left) = oneshot::channel();
        std::thread::spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(async {
                let server = server.start().await.unwrap();
                let _ = bound.send(server.local_addr());
                let _ = asked.await;
                let _ = tell.send(server.drain().await);
            });
        });
        Self { address: address.await.unwrap(), leave, left }
    }

    /// Drains, stops, and returns when the process could end.
    async fn leave(self) -> DrainReport {
        self.leave.send(()).unwrap();
        tokio::time::timeout(LIMIT, self.left).await.expect("it drains").unwrap()
    }
}

/// What the callers have seen.
#[derive(Default)]
struct Tally {
    next: AtomicU64,
    stop: AtomicBool,
    done: watch::Sender<u64>,
    failures: Mutex<Vec<String>>,
    /// When a call ended last, the longest time in which none did, and the longest call.
    last: Mutex<(Option<Instant>, Duration, Duration)>,
}

impl Tally {
    async fn keep_calling(self: Arc<Self>, client: KindsClient) {
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = one(&client, number).await {
                self.failures.lock().unwrap().push(error.to_string());
            }
            {
                let mut last = self.last.lock().unwrap();
                let gap = last.0.map_or(Duration::ZERO, |last| last.elapsed());
                *last = (Some(Instant::now()), last.1.max(gap), last.2.max(began.elapsed()));
            }
            self.done.send_modify(|done| *done += 1);
        }
    }

    /// Waits until so many more calls have ended.
    async fn more(&self, calls: u64) {
        let wanted = *self.done.borrow() + calls;
        let mut done = self.done.subscribe();
        let reached = done.wait_for(|done| *done >= wanted);
        tokio::time::timeout(LIMIT, reached).await.expect("calls go on").unwrap();
    }
}

/// One call; which kind its number says.
async fn one(client: &KindsClient, number: u64) -> Result<(), CallError> {
    match number % 10 {
        0..4 => client.plain(text(number)).await.map(drop),
        4 | 5 => client.again(text(number)).await.map(drop),
        6 | 7 => client.look(text(number)).await.map(drop),
        8 => {
            let mut replies = client.down(text(number)).await?;
            let mut count = 0;
            while replies.message().await?.is_some() {
                count += 1;
            }
            assert_eq!(count, MESSAGES);
            Ok(())
        }
        _ => {
            let mut stream = client.up().await?;
            for message in 0..MESSAGES {
                let _ = stream.send(&text(message)).await;
            }
            let finished = stream.finish().await?;
            assert_eq!(finished.reply.text, MESSAGES.to_string());
            Ok(())
        }
    }
}

async fn roll(balancing: Balancing) {
    let identity = Identity::self_signed(["localhost"]).unwrap();
    let handlers = Handlers::default();
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Running::start("127.0.0.1:0".parse().unwrap(), &identity, &handlers).await);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address.to_string()).collect();
    let channel = ChannelBuilder::new(addresses.join(","))
        .trust(identity.trust().unwrap())
        .balancing(balancing.clone())
        .connect()
        .await
        .unwrap();
    let tally = Arc::new(Tally::default());
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(tally.clone().keep_calling(KindsClient::new(channel.clone()))))
        .collect();
    tally.more(2 * IN_FLIGHT).await;
    let (mut drains, mut again) = (Vec::new(), Vec::new());
    for server in servers {
        let (address, began) = (server.address, Instant::now());
        let report = server.leave().await;
        drains.push(began.elapsed());
        assert!(report.complete, "{balancing:?}: {report:?}");
        tally.more(IN_FLIGHT).await;
        again.push(Running::start(address, &identity, &handlers).await);
        tally.more(2 * IN_FLIGHT).await;
    }
    tally.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        tokio::time::timeout(LIMIT, caller).await.expect("every call ends").unwrap();
    }
    let failures = tally.failures.lock().unwrap();
    let (_, gap, longest) = *tally.last.lock().unwrap();
    println!(
        "{balancing:?}: {} calls, {} failed; drains {drains:.1?}, longest gap {gap:.1?}, longest call {longest:.1?}",
        *tally.done.borrow(),
        failures.len(),
    );
    assert!(
        failures.is_empty(),
        "{balancing:?}: {} failed: {:?}",
        failures.len(),
        failures.first()
    );
    let twice = handlers.0.lock().unwrap().values().filter(|runs| **runs != 1).count();
    assert_eq!(twice, 0, "{balancing:?}: calls ran twice");
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_one_server_after_the_other() {
    roll(Balancing::PickFirst).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_round_robin() {
    roll(Balancing::RoundRobin).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_least_outstanding() {
    roll(Balancing::least_outstanding()).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_ring_hash() {
    roll(Balancing::ring_hash()).await;
}
