//! Three servers are drained, stopped and started again one after the other while hundreds of calls of
//! all kinds are in flight over real sockets: none fails, neither over datagrams nor over gRPC. Figures:
//!
//!   cargo test --release -p stubborn --test rolling -- --nocapture --test-threads 1

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stubborn::grpc::Grpc;
use stubborn::service_config::Balancing;
use stubborn::{
    Call, CallError, ChannelBuilder, Concurrency, DrainReport, Identity, Limits, ReplySender,
    Requests, Server, Status,
};
use tokio::sync::{oneshot, watch};
use tonic::transport::Endpoint;

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
    async fn start(address: SocketAddr, site: &Site) -> Self {
        let mut server = Server::bind(address)
            .identity(site.identity.clone())
            .service(KindsServer::new(site.handlers.clone()))
            // What a server refuses that has more than it can run is another matter.
            .limits(Limits { concurrency: Concurrency::Unlimited, ..Limits::default() })
            .drain_timeout(LIMIT);
        if site.grpc {
            server = server.grpc(Grpc::new().plain_too());
        }
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

/// What the servers have in common.
struct Site {
    identity: Identity,
    handlers: Handlers,
    /// Whether they have a door for gRPC.
    grpc: bool,
}

impl Site {
    fn new(grpc: bool) -> Self {
        let identity = Identity::self_signed(["localhost"]).unwrap();
        Self { identity, handlers: Handlers::default(), grpc }
    }

    async fn servers(&self) -> Vec<Running> {
        let mut servers = Vec::new();
        for _ in 0..3 {
            servers.push(Running::start("127.0.0.1:0".parse().unwrap(), self).await);
        }
        servers
    }
}

fn addresses(servers: &[Running]) -> Vec<String> {
    servers.iter().map(|server| server.address.to_string()).collect()
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
    async fn keep_calling(self: Arc<Self>, caller: impl Caller) {
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = caller.one(number).await {
                self.failures.lock().unwrap().push(error);
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

/// Makes calls of all kinds that it can.
trait Caller: Clone + Send + 'static {
    /// One call; which kind its number says.
    fn one(&self, number: u64) -> impl Future<Output = Result<(), String>> + Send;
}

async fn unary(client: &KindsClient, number: u64) -> Result<(), CallError> {
    match number % 10 {
        0..4 => client.plain(text(number)).await.map(drop),
        4 | 5 => client.again(text(number)).await.map(drop),
        _ => client.look(text(number)).await.map(drop),
    }
}

/// Over datagrams, or gRPC.
impl Caller for KindsClient {
    async fn one(&self, number: u64) -> Result<(), String> {
        let ended = match number % 10 {
            8 => down(self, number).await,
            9 => up(self).await,
            _ => unary(self, number).await,
        };
        ended.map_err(|error| error.to_string())
    }
}

async fn down(client: &KindsClient, number: u64) -> Result<(), CallError> {
    let mut replies = client.down(text(number)).await?;
    let mut count = 0;
    while replies.message().await?.is_some() {
        count += 1;
    }
    assert_eq!(count, MESSAGES);
    Ok(())
}

async fn up(client: &KindsClient) -> Result<(), CallError> {
    let mut stream = client.up().await?;
    for message in 0..MESSAGES {
        let _ = stream.send(&text(message)).await;
    }
    let finished = stream.finish().await?;
    assert_eq!(finished.reply.text, MESSAGES.to_string());
    Ok(())
}

/// A client of tonic for each server: what was never sent to one is sent to the next.
#[derive(Clone)]
struct OfTonic(Vec<tonic::transport::Channel>);

impl OfTonic {
    async fn unary(&self, server: usize, number: u64) -> Result<(), tonic::Status> {
        let mut client = tonic::client::Grpc::new(self.0[server].clone());
        let unready = |error| tonic::Status::unavailable(format!("not ready: {error}"));
        client.ready().await.map_err(unready)?;
        let method = KINDS_DESCRIPTOR.methods[0].name();
        let path = format!("/{method}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<Text, Text>::default();
        client.unary(tonic::Request::new(text(number)), path, codec).await.map(drop)
    }
}

impl Caller for OfTonic {
    async fn one(&self, number: u64) -> Result<(), String> {
        let mut server = number as usize;
        loop {
            match self.unary(server % self.0.len(), number).await {
                Err(status) if never_sent(&status) => {}
                ended => return ended.map_err(|status| format!("{status:?}")),
            }
            server += 1;
        }
    }
}

/// Whether there was no connection to send it on, or the server has said GOAWAY before it looked at it, as
/// tonic, hyper and h2 tell.
fn never_sent(status: &tonic::Status) -> bool {
    let left = |e: &h2::Error| e.is_remote() && e.is_go_away();
    let mut causes = std::iter::successors(std::error::Error::source(status), |e| (*e).source());
    causes.any(|e| {
        e.is::<tonic::ConnectError>()
            || e.to_string().contains("operation was canceled")
            || e.downcast_ref().is_some_and(left)
    }) || status.message().starts_with("not ready")
}

async fn roll(name: &str, site: &Site, servers: Vec<Running>, caller: impl Caller) {
    let tally = Arc::new(Tally::default());
    let callers: Vec<_> =
        (0..IN_FLIGHT).map(|_| tokio::spawn(tally.clone().keep_calling(caller.clone()))).collect();
    tally.more(2 * IN_FLIGHT).await;
    let (mut drains, mut again) = (Vec::new(), Vec::new());
    for server in servers {
        let (address, began) = (server.address, Instant::now());
        let report = server.leave().await;
        drains.push(began.elapsed());
        assert!(report.complete, "{name}: {report:?}");
        tally.more(IN_FLIGHT).await;
        again.push(Running::start(address, site).await);
        tally.more(2 * IN_FLIGHT).await;
    }
    tally.stop.store(true, Ordering::Relaxed);
    for caller in callers {
        tokio::time::timeout(LIMIT, caller).await.expect("every call ends").unwrap();
    }
    let failures = tally.failures.lock().unwrap();
    let (_, gap, longest) = *tally.last.lock().unwrap();
    println!(
        "{name}: {} calls, {} failed; drains {drains:.1?}, longest gap {gap:.1?}, longest call {longest:.1?}",
        *tally.done.borrow(),
        failures.len(),
    );
    assert!(failures.is_empty(), "{name}: {} failed: {:?}", failures.len(), failures.first());
    let twice = site.handlers.0.lock().unwrap().values().filter(|runs| **runs != 1).count();
    assert_eq!(twice, 0, "{name}: calls ran twice");
}

async fn roll_balanced(balancing: Balancing) {
    let site = Site::new(false);
    let servers = site.servers().await;
    let channel = ChannelBuilder::new(addresses(&servers).join(","))
        .trust(site.identity.trust().unwrap())
        .balancing(balancing.clone())
        .connect()
        .await
        .unwrap();
    roll(&format!("{balancing:?}"), &site, servers, KindsClient::new(channel)).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_one_server_after_the_other() {
    roll_balanced(Balancing::PickFirst).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_round_robin() {
    roll_balanced(Balancing::RoundRobin).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_least_outstanding() {
    roll_balanced(Balancing::least_outstanding()).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_ring_hash() {
    roll_balanced(Balancing::ring_hash()).await;
}

async fn roll_over_grpc(balancing: Balancing) {
    let site = Site::new(true);
    let servers = site.servers().await;
    let channel = ChannelBuilder::new(format!("grpc://{}", addresses(&servers).join(",")))
        // A call that fails and is made again has failed.
        .retry(None)
        .balancing(balancing.clone())
        .connect()
        .await
        .unwrap();
    roll(&format!("grpc, {balancing:?}"), &site, servers, KindsClient::new(channel)).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_of_a_client_of_grpc() {
    roll_over_grpc(Balancing::PickFirst).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_of_a_client_of_grpc_that_spreads()
 {
    roll_over_grpc(Balancing::RoundRobin).await;
}

#[tokio::test]
async fn a_rolling_restart_of_three_servers_under_load_fails_no_call_of_a_client_of_tonic() {
    let site = Site::new(true);
    let servers = site.servers().await;
    let lazy = |address: &String| {
        Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
    };
    let channels = addresses(&servers).iter().map(lazy).collect();
    roll("tonic", &site, servers, OfTonic(channels)).await;
}
